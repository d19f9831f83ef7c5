"""What is said of runs: medians, ratios, what is void, what was not carried, and which goals are reached."""
import unittest

from . import comparison, goals, scrape, summary, table


def run(**fields):
    return {"pass": True, "reasons": [], "commands": ["hall", "load"], "void": None, **fields}


def ms(p50, p99, p999):
    return {"p50_ms": p50, "p99_ms": p99, "p999_ms": p999}


SETTINGS = {"connections": 1000, "many": 10000, "idle_seconds": 25, "size": 120, "rounds": 2}
LIMIT, HALL = table.LIMIT, summary.HALL


def compared():
    """Two rounds of the hall, the limit and two peers."""
    return {
        "flat out": {
            HALL: [run(deliveries_per_s=9e6, cpu_us=0.1), run(deliveries_per_s=8e6, cpu_us=0.12)],
            LIMIT: [run(deliveries_per_s=10e6, cpu_us=0.1), run(deliveries_per_s=10e6, cpu_us=0.1)],
            "fast": [run(deliveries_per_s=1e6, cpu_us=1), run(deliveries_per_s=1e6, cpu_us=1)],
            "slow": [run(deliveries_per_s=4e4, cpu_us=9), run(deliveries_per_s=4e4, cpu_us=9)],
        },
        "equal 50": {
            HALL: [run(deliveries_per_s=5e4, messages_per_s_due=50, cpu_us=5.0, **ms(1, 2, 3))],
            LIMIT: [run(deliveries_per_s=5e4, messages_per_s_due=50, cpu_us=4.0)],
            "fast": [run(deliveries_per_s=5e4, messages_per_s_due=50, cpu_us=10.0, **ms(2, 4, 6))],
            "slow": [run(deliveries_per_s=4e4, messages_per_s_due=50, cpu_us=20.0, **ms(900, 1900, 2900))],
        },
        "half": {
            HALL: [run(void="full", **ms(50, 90, 99)), run(**ms(2, 5, 7))],
            "fast": [run(**ms(3, 9, 12))],
            "slow": [run(void="full", **ms(1, 1, 1))],
        },
        "kill": {
            HALL: [run(all_back_s=2.5, lost=0, history_reads=1, connected=10000)],
            "fast": [run(all_back_s=None, lost=70000, history_reads=0, connected=10000)],
        },
        "idle": {HALL: [run(bytes_a_connection=2600)], "fast": [run(bytes_a_connection=30000)]},
    }


class WhatIsSaid(unittest.TestCase):
    def test_a_figure_is_the_median_with_the_least_and_the_greatest(self):
        self.assertEqual(table.spread([3, None, 1, 2], "{:g}".format), "2 (1–3)")
        self.assertEqual(table.spread([2, 2], "{:g}".format), "2")
        self.assertEqual(table.spread([None], "{:g}".format), "–")

    def test_ratios_are_taken_round_by_round(self):
        self.assertEqual(summary.against_limit(compared()["flat out"], "deliveries_per_s"), [0.9, 0.8])

    def test_the_best_peer_is_neither_the_hall_nor_the_limit(self):
        self.assertEqual(summary.best_peer(compared()["flat out"], "deliveries_per_s", max), "fast")
        self.assertEqual(summary.best_peer(compared()["flat out"], "cpu_us", min), "fast")
        self.assertIsNone(summary.best_peer({HALL: []}, "cpu_us", min))

    def test_latencies_of_void_runs_do_not_count(self):
        half = compared()["half"]
        self.assertEqual(summary.quantiles(half[HALL]), "2.0 / 5.0 / 7.0 ms")
        self.assertEqual(summary.quantiles(half["slow"]), summary.VOID)
        self.assertEqual(summary.quantiles([run(void="full")]), "–")
        self.assertEqual(summary.best_peer(half, "p99_ms", min), "fast")

    def test_who_does_not_carry_a_load_is_said_not_to(self):
        equal = compared()["equal 50"]
        self.assertEqual(summary.carried(equal["slow"], 1000), "carries only 40,000/s")
        self.assertIsNone(summary.carried(equal["fast"], 1000))
        row = next(line for line in summary.overview(compared(), SETTINGS).splitlines() if "CPU a delivery" in line)
        cells = [cell.strip() for cell in row.split("|")[2:-1]]
        self.assertEqual(cells, ["5.00 µs", "4.00 µs", "10.00 µs", "carries only 40,000/s"])

    def test_a_second_equal_load_comes_when_a_peer_does_not_carry_the_first(self):
        flat_out = {"fast": [run(deliveries_per_s=9)], "slow": [run(deliveries_per_s=4)], "dead": [run()]}
        self.assertEqual(comparison.slowest(flat_out), 4)
        loads = summary.equal_loads({"equal 10": {}, "half": {}, "equal 50": {}})
        self.assertEqual(loads, [("equal 50", 50), ("equal 10", 10)])

    def test_every_table_is_made_of_a_comparison_that_lacks_something(self):
        pages = dict(summary.tables(compared(), SETTINGS))
        self.assertEqual(len(pages), 5)
        self.assertIn("70,000", pages["10,000 clients come back after a kill"])

    def test_a_run_that_failed_says_so_in_its_row(self):
        failed = {**run(), "pass": False, "reasons": ["3 lost"]}
        self.assertEqual(table.notes([run(), failed]), "**failed: 3 lost**")


    def test_only_what_the_hall_loses_is_a_failure(self):
        failed = {**run(), "pass": False, "reasons": ["3 lost"]}
        self.assertTrue(summary.hall_passed({"kill": {HALL: [run()], "fast": [failed]}}))
        self.assertFalse(summary.hall_passed({"kill": {HALL: [run(), failed]}}))
        self.assertFalse(summary.hall_passed({"flat out": {comparison.TWO_CORES: [failed]}}))

    def test_a_server_that_does_not_start_is_a_run_that_failed(self):
        def measured(name):
            raise RuntimeError(f"{name} does not listen")

        self.assertEqual(comparison.attempt(measured, "hall")["reasons"], ["hall does not listen"])


class Goals(unittest.TestCase):
    def reached(self, compared_=None, storing=None, several=None, scraped=None):
        found = goals.goals(*(runs and {"runs": runs} for runs in (compared_, storing, several, scraped)))
        return {f"{what}, {goal}": (measured, reached) for what, goal, measured, reached, _ in found}

    def test_what_was_not_measured_is_said_not_to_be(self):
        rows = self.reached()
        self.assertEqual(len(rows), 11)
        self.assertEqual(set(rows.values()), {("not measured", None)})

    def test_each_is_reached_or_not(self):
        rows = list(self.reached(compared()).values())
        self.assertEqual([reached for _, reached in rows], [True, True, True, True, True, True, True, None, None, None, None])
        self.assertEqual(rows[4][0], "5.0 ms; best peer 9.0 ms (fast)")

    def test_a_promise_is_kept_in_every_round_or_not_at_all(self):
        kill = [run(all_back_s=back, lost=lost, history_reads=1, connected=10) for back, lost in ((2.5, 0), (3, 1))]
        self.assertFalse(goals.after_a_kill(kill)[3])
        kill[1].update(lost=0)
        self.assertTrue(goals.after_a_kill(kill)[3])
        kill[1].update(history_reads=2)
        self.assertFalse(goals.after_a_kill(kill)[3])
        kill[1].update(history_reads=1, all_back_s=None)
        self.assertFalse(goals.after_a_kill(kill)[3])

    def test_a_replica_that_hears_a_message_of_a_room_without_members_does_not_cost_nothing(self):
        quiet = run(bystander_heard=0, bystander_cpu=0.012, quiet_cpu=0.010)
        self.assertTrue(goals.bystander([quiet])[3])
        self.assertFalse(goals.bystander([{**quiet, "bystander_heard": 1}])[3])
        self.assertFalse(goals.bystander([{**quiet, "bystander_cpu": 0.02}])[3])

    def test_a_scrape_is_held_against_its_limit_by_the_middle_round(self):
        dear, cheap = run(scrape_ms=5.1), run(scrape_ms=4.9)
        self.assertTrue(scrape.goal([dear, cheap, cheap])[3])
        self.assertFalse(scrape.goal([dear, dear, cheap])[3])
        self.assertIsNone(scrape.goal([run()])[3])


if __name__ == "__main__":
    unittest.main()
