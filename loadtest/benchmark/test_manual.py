"""Pages and blocks are made whatever was measured, and the manuals have the places for them."""
import os
import tempfile
import unittest

from . import manual, pictures, results
from .test_summary import SETTINGS, compared

EVERYTHING = {
    "date": "2020-01-02", "machine": {"model": "some processor", "cores": 2, "kernel": "6.1", "Rust": "1.95.0"},
    "taken_by_others": 0.01, "settings": SETTINGS, "not_measured": {"peer-gorilla-hub": "no Go"}, "runs": compared(),
}


class Manuals(unittest.TestCase):
    def test_each_manual_has_its_marks(self):
        places = [*((manual.README, mark) for mark in ("compare", "redis", "halls", "scrape")), (manual.LOADTEST, "goals"),
                  *((manual.SCALING, mark) for mark in ("costs", "checks", "plans"))]
        for where, mark in places:
            with open(where, encoding="utf-8") as file:
                results.replaced(file.read(), mark, "")

    def test_the_readme_shows_every_plot_that_is_written(self):
        block = manual.readme_block(EVERYTHING)
        with tempfile.TemporaryDirectory() as directory:
            manual.write_comparison(EVERYTHING, directory)
            drawn = {name for name in os.listdir(directory) if name.endswith(".svg")}
        self.assertEqual(drawn, {"deliveries.svg", "latency.svg", "memory.svg", "resume.svg"})
        for name in drawn:
            self.assertIn(f'src="loadtest/results/{name}"', block)

    def test_elsewhere_than_in_the_project_no_manual_is_touched(self):
        self.assertTrue(manual.is_the_projects(results.DIRECTORY + "/../results"))
        with tempfile.TemporaryDirectory() as directory:
            self.assertFalse(manual.is_the_projects(directory))

    def test_what_is_missing_is_said(self):
        page = "\n".join(manual.comparison_page(EVERYTHING))
        self.assertIn("not measured: peer-gorilla-hub: no Go", page)
        self.assertNotIn("None", page)

    def test_a_plot_is_told_in_words_too(self):
        words = {name: alt for name, alt, _ in pictures.of(EVERYTHING)}
        self.assertIn("townhall 8.5 M, bare epoll loop 10 M, fast 1 M, slow 40 k", words["deliveries"])
        self.assertNotIn("slow", words["latency"])  # one does not carry the load, and its run at half was void

    def test_of_the_commands_each_is_told_once(self):
        runs = {"half": {"townhall": [{"commands": ["hall", "load"]}]}}
        self.assertEqual(list(manual.commands(runs))[1:], ["    load"])


if __name__ == "__main__":
    unittest.main()
