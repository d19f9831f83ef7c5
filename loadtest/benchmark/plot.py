"""Plots as SVG: a line a server, a dot where its median is, and a bar from the least to the greatest.

They stand on a page that may be light or dark, so colours follow the reader's own setting, and nothing has a background.
"""
import math
from html import escape

WIDTH, LABELS, RIGHT = 720, 180, 130
TOP, LINE, BOTTOM = 56, 30, 30
# Where the greatest value is more than so many times the least one, the axis is logarithmic.
WIDE = 20
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.title { font-weight: 600; font-size: 15px }
.faint { fill: #59636e; font-size: 12px }
.grid { stroke: #d1d9e0; stroke-width: 1 }
.s0 { fill: #6e7781; stroke: #6e7781 } .s1 { fill: none; stroke: #6e7781 }
.hall.s0 { fill: #0969da; stroke: #0969da } .hall.s1 { stroke: #0969da }
text.hall { fill: #0969da; font-weight: 600 }
circle { stroke-width: 2 } .range { stroke-width: 2; opacity: .5 }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .faint { fill: #9198a1 } .grid { stroke: #3d444d }
.s0 { fill: #9198a1; stroke: #9198a1 } .s1 { stroke: #9198a1 }
.hall.s0 { fill: #4493f8; stroke: #4493f8 } .hall.s1 { stroke: #4493f8 } text.hall { fill: #4493f8 }
}
"""


def dots(title, rows, form, series=("",), ours=None):
    """`rows`: names, and for each series (least, median, greatest) or None. `form` writes a value. `ours` stands out."""
    rows = [(name, points) for name, points in rows if any(points)]
    values = [value for _, points in rows for point in points if point for value in point]
    if not values:
        return None
    scale, ticks = axis(min(values), max(values))
    height = TOP + LINE * len(rows) + BOTTOM
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
             f"<title>{escape(title)}</title><style>{STYLE}</style>", text(0, 18, title, "title")]
    parts += legend(series)
    for tick in ticks:
        x = scale(tick)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 8}" y2="{height - BOTTOM}"/>')
        parts.append(text(x, height - BOTTOM + 18, form(tick), "faint", "middle"))
    for number, (name, points) in enumerate(rows):
        parts += row(TOP + LINE * number + LINE / 2 - 4, name, points, scale, form, "hall" if name == ours else "")
    return "\n".join([*parts, "</svg>", ""])


def axis(low, high):
    """Where a value is on the page, and which values are marked."""
    if low > 0 and high / low > WIDE:
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        place = lambda value: (math.log10(value) - first) / (last - first)
        ticks = [10.0 ** power for power in range(first, last + 1)]
    else:
        step = step_of(high)
        top = step * max(1, math.ceil(high / step))
        place = lambda value: value / top
        ticks = [step * number for number in range(round(top / step) + 1)]
    return lambda value: LABELS + place(value) * (WIDTH - LABELS - RIGHT), ticks


def step_of(high):
    """A round number of which four or more, but no more than ten, make up the axis."""
    if high <= 0:
        return 1
    power = 10.0 ** math.floor(math.log10(high))
    return next(power * part for part in (2, 1, 0.5, 0.2) if high / (power * part) >= 4 or part == 0.2)


def row(y, name, points, scale, form, kind):
    parts = [text(LABELS - 14, y + 4, name, kind, "end")]
    known = [(number, point) for number, point in enumerate(points) if point]
    for number, (low, median, high) in known:
        style = f"{kind} s{number}".strip()
        if scale(high) - scale(low) > 1:
            ends = f'x1="{scale(low):.1f}" x2="{scale(high):.1f}"'
            parts.append(f'<line class="range {style}" {ends} y1="{y}" y2="{y}"/>')
        parts.append(f'<circle class="{style}" cx="{scale(median):.1f}" cy="{y}" r="5"/>')
    words = " · ".join(form(median) for _, (_, median, _) in known)
    furthest = max(scale(high) for _, (_, _, high) in known)
    return [*parts, text(furthest + 12, y + 4, words, kind)]


def legend(series):
    if len(series) < 2:
        return []
    parts, x = [], LABELS
    for number, name in enumerate(series):
        parts += [f'<circle class="s{number}" cx="{x}" cy="34" r="5"/>', text(x + 12, 38, name, "faint")]
        x += 30 + 7 * len(name)
    return parts


def text(x, y, words, kind="", anchor="start"):
    style = f' class="{kind}"' if kind else ""
    return f'<text{style} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(words)}</text>'
