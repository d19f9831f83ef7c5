"""Plots are drawings that a reader can parse, and their dots are where they belong."""
import re
import unittest
import xml.etree.ElementTree as xml

from . import plot


def dots(rows, **more):
    return xml.fromstring(plot.dots("Title", rows, "{:g}".format, **more))


def places(drawing):
    return [float(circle.get("cx")) for circle in drawing.iter("{http://www.w3.org/2000/svg}circle")]


class Plots(unittest.TestCase):
    def test_a_wide_range_is_logarithmic_so_equal_ratios_are_equally_far(self):
        rows = [(name, [(value, value, value)]) for name, value in (("a", 1), ("b", 10), ("c", 100))]
        low, middle, high = places(dots(rows))
        self.assertAlmostEqual(middle - low, high - middle, places=0)

    def test_a_narrow_one_begins_at_zero(self):
        one, two = places(dots([("a", [(1, 1, 1)]), ("b", [(2, 2, 2)])]))
        self.assertAlmostEqual(two - plot.LABELS, 2 * (one - plot.LABELS), delta=0.2)

    def test_everything_is_on_the_page(self):
        for values in ((3, 9.5), (0.011, 1400), (0, 0), (5, 5), (1e6, 9.99e6)):
            for value in values:
                scale, ticks = plot.axis(*values)
                self.assertTrue(plot.LABELS <= scale(value) <= plot.WIDTH - plot.RIGHT + 1e-6, values)
            self.assertTrue(2 <= len(ticks) <= 11, ticks)

    def test_what_was_not_measured_has_no_dot_and_no_row(self):
        drawing = dots([("a", [(1, 1, 1), None]), ("b", [None, None])], series=["x", "y"])
        self.assertEqual(len(places(drawing)), 1 + 2)  # one dot and the legend's two
        self.assertNotIn("b", [text.text for text in drawing.iter("{http://www.w3.org/2000/svg}text")])
        self.assertIsNone(plot.dots("Title", [("a", [None])], str))

    def test_names_are_text_whatever_is_in_them(self):
        drawing = dots([("<a> & b", [(1, 1, 1)])])
        self.assertIn("<a> & b", [text.text for text in drawing.iter("{http://www.w3.org/2000/svg}text")])

    def test_every_colour_has_another_one_for_the_dark(self):
        light, dark = plot.STYLE.split("@media")
        for style in re.findall(r"^([.a-z].*?) \{ (?:fill|stroke): #", light, re.MULTILINE):
            self.assertIn(style, dark)


if __name__ == "__main__":
    unittest.main()
