"""What was measured, as tables for people, in Markdown."""
import statistics

LIMIT = "bare epoll loop"


def spread(values, form):
    """The median, and in brackets from where to where."""
    values = [value for value in values if value is not None]
    if not values:
        return "–"
    median = form(statistics.median(values))
    low, high = form(min(values)), form(max(values))
    return median if low == high else f"{median} ({low}–{high})"


def three(value):
    """Three digits that count, and no exponent."""
    return f"{float(f'{value:.3g}'):,g}"


def short(value):
    """A number of which only the beginning counts."""
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{three(value / size)} {unit}"
    return three(value)


def microseconds(value):
    return f"{value:.3f} µs" if value < 1 else f"{value:.2f} µs"


def percent(value):
    return f"{value:.0%}"


def times(value):
    return f"{value:.2f}×"


def of(runs, field):
    return [run.get(field) for run in runs]


def notes(runs):
    """What keeps a row from being taken at face value."""
    found = sorted({reason for run in runs if not run["pass"] for reason in run["reasons"]})
    if found:
        found = ["**failed: " + "; ".join(found) + "**"]
    void = [run for run in runs if run.get("void")]
    bound = [run for run in void if (run.get("generator_cpu") or 0) > 0.9]
    if bound:
        found.append(f"generator-bound in {len(bound)} of {len(runs)}")
    if len(void) > len(bound):
        found.append(f"other work on the generator's core in {len(void) - len(bound)} of {len(runs)}")
    return "; ".join(found)


def ratios(scenario, field, ours, theirs):
    """Ours to theirs, round by round: what else the machine did in a round, it did to both."""
    pairs = zip(of(scenario.get(ours, []), field), of(scenario.get(theirs, []), field))
    return [a / b for a, b in pairs if a and b]


def markdown(header, rows):
    """Padded, so that it can be read as it is."""
    table = [header, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in table]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def thousands(value):
    return f"{value:,.0f}"


def milliseconds(value):
    return f"{value:.2f} ms"


def stored(scenario):
    rows = [[
        name,
        spread(of(runs, "messages_per_s"), thousands),
        spread(of(runs, "messages_a_call"), "{:.0f}".format),
        spread(of(runs, "redis_cpu_us"), microseconds),
        spread(of(runs, "own_cpu_us"), microseconds),
        notes(runs),
    ] for name, runs in scenario.items()]
    return markdown(["flat out", "messages/s", "messages a call", "Redis' CPU a message", "own CPU a message", ""], rows)


def accepted(scenario):
    rows = [[
        name,
        spread(of(runs, "messages_per_s"), thousands),
        spread(of(runs, "p50_ms"), milliseconds),
        spread(of(runs, "p99_ms"), milliseconds),
        spread(of(runs, "redis_cpu_us"), microseconds),
        notes(runs),
    ] for name, runs in scenario.items()]
    return markdown(["at half of its own maximum", "messages/s", "accepted, p50", "p99", "Redis' CPU a message", ""], rows)


def parts(scenario):
    """Each part is what the function takes less without it."""
    sizes = sorted({size for runs in scenario.values() for size in runs}, key=int, reverse=True)
    rows = [[
        name,
        *[spread(of(runs[size], field), microseconds) for size in sizes for field in ("function_us", "redis_cpu_us")],
        notes([run for size in sizes for run in runs[size]]),
    ] for name, runs in scenario.items()]
    header = [f"{what}, {size} a call" for size in sizes for what in ("function, a message", "Redis' CPU")]
    return markdown(["redis-benchmark", *header, ""], rows)
