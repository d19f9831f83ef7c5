import unittest

from . import redis


class AtHalf(unittest.TestCase):
    def run_of(self, p99_ms, passed=True):
        return {"p99_ms": p99_ms, "pass": passed}

    def test_a_run_that_failed_says_so_and_has_no_latency(self):
        runs = [self.run_of(4.0), self.run_of(900.0, passed=False), self.run_of(6.0)]
        self.assertEqual(redis.at_half(runs),
                         "accepted at half of that within 5.00 ms (4.00 ms–6.00 ms) (p99), but 1 of 3 such runs failed")

    def test_where_all_passed_that_is_all(self):
        self.assertEqual(redis.at_half([self.run_of(4.0)]), "accepted at half of that within 4.00 ms (p99)")

    def test_where_none_passed_nothing_is_known(self):
        self.assertIn("within unknown (p99), but 1 of 1", redis.at_half([self.run_of(4.0, passed=False)]))


if __name__ == "__main__":
    unittest.main()
