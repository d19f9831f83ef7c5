"""What was measured is kept, and gets into texts between marks."""
import tempfile
import unittest

from . import results


class Kept(unittest.TestCase):
    def test_what_is_saved_is_loaded(self):
        with tempfile.TemporaryDirectory() as directory:
            self.assertIsNone(results.load("it", directory))
            results.save("it", {"µs": [1.5, None]}, directory)
            self.assertEqual(results.load("it", directory), {"µs": [1.5, None]})

    def test_a_block_is_replaced_and_nothing_around_it(self):
        text = "before\n<!-- it:begin -->\nold\n<!-- it:end -->\nafter\n"
        self.assertEqual(results.replaced(text, "it", r"new \1"), text.replace("old", r"new \1"))

    def test_marks_that_are_not_there_once_are_an_error(self):
        for text in ("", "<!-- it:begin -->", 2 * "<!-- it:begin -->\n<!-- it:end -->\n"):
            with self.assertRaises(ValueError):
                results.replaced(text, "it", "new")


if __name__ == "__main__":
    unittest.main()
