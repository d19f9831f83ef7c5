"""What was measured, as tables for people (in Markdown) and as one JSON object."""
import statistics

LIMIT, HALL = "bare epoll loop", "townhall"


def spread(values, form):
    """The median, and in brackets from where to where."""
    values = [value for value in values if value is not None]
    if not values:
        return "–"
    median = form(statistics.median(values))
    low, high = form(min(values)), form(max(values))
    return median if low == high else f"{median} ({low}–{high})"


def millions(value):
    return f"{value / 1e6:.2f} M"


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
        found = ["**LOST: " + "; ".join(found) + "**"]
    void = [run for run in runs if run.get("void")]
    bound = [run for run in void if (run["generator_cpu"] or 0) > 0.9]
    if bound:
        found.append(f"generator-bound in {len(bound)} of {len(runs)}")
    if len(void) > len(bound):
        found.append(f"other work on the generator's core in {len(void) - len(bound)} of {len(runs)}")
    return "; ".join(found)


def ratios(scenario, field, ours, theirs):
    """Ours to theirs, round by round: what else the machine did in a round, it did to both."""
    pairs = zip(of(scenario.get(ours, []), field), of(scenario.get(theirs, []), field))
    return [a / b for a, b in pairs if a and b]


def fastest_peer(scenario, field, better):
    """Whichever is best by its median, of those that are no hall and no limit."""
    peers = {}
    for name, runs in scenario.items():
        values = [value for value in of(runs, field) if value is not None]
        if values and not name.startswith((HALL, LIMIT)):
            peers[name] = statistics.median(values)
    return better(peers, key=peers.get) if peers else None


def markdown(header, rows):
    """Padded, so that it can be read as it is."""
    table = [header, *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |" for row in table]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def flat_out(scenario):
    rows = [[
        name,
        spread(of(runs, "deliveries_per_s"), millions),
        spread(of(runs, "cpu_us"), microseconds),
        spread(of(runs, "frames_per_write"), "{:.0f}".format),
        spread(of(runs, "bytes"), "{:.0f}".format),
        spread(of(runs, "generator_cpu"), percent),
        notes(runs),
    ] for name, runs in scenario.items()]
    header = ["flat out", "deliveries/s", "CPU a delivery", "frames a write", "bytes", "generator's core", ""]
    return markdown(header, rows)


def paced(scenario):
    rows = [[
        name,
        spread(of(runs, "deliveries_per_s"), "{:,.0f}".format),
        spread(of(runs, "cpu_us"), microseconds),
        spread(of(runs, "frames_per_write"), "{:.2f}".format),
        spread(of(runs, "p99_ms"), "{:.1f} ms".format),
        spread(of(runs, "generator_cpu"), percent),
        notes(runs),
    ] for name, runs in scenario.items()]
    return markdown(["paced", "deliveries/s", "CPU a delivery", "frames a write", "p99", "generator's core", ""], rows)


def idle(scenario):
    rows = [[
        name,
        spread(of(runs, "bytes_a_connection"), lambda value: f"{value / 1024:.1f} KiB"),
        spread(of(runs, "idle_cpu"), "{:.2%}".format),
        notes([{**run, "void": None} for run in runs]),
    ] for name, runs in scenario.items()]
    return markdown(["idle", "memory a connection", "CPU of all, of one core", ""], rows)


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
    rows = [[
        name,
        *[spread(of(runs[size], field), microseconds)
          for size in sorted(runs, reverse=True) for field in ("function_us", "redis_cpu_us")],
        notes([run for size in runs for run in runs[size]]),
    ] for name, runs in scenario.items()]
    sizes = sorted({size for runs in scenario.values() for size in runs}, reverse=True)
    header = [f"{what}, {size} a call" for size in sizes for what in ("function, a message", "Redis' CPU")]
    return markdown(["redis-benchmark", *header, ""], rows)


def conclusions(results):
    """The ratios that the goals are about, as lines."""
    flat, slow = results["flat out"], results["paced"]
    lines = []

    def say(what, values):
        if values:
            lines.append(f"{what}: {spread(values, times)}")

    counted = all(of(flat[HALL], "frames_per_write"))
    alike = "with as many frames a write" if counted else "with 50 frames a write (the hall's were not counted)"
    say(f"flat out, the hall's deliveries/s to the limit's {alike}", ratios(flat, "deliveries_per_s", HALL, LIMIT))
    say("flat out, the hall's CPU a delivery to the limit's", ratios(flat, "cpu_us", HALL, LIMIT))
    peer = fastest_peer(flat, "deliveries_per_s", max)
    say(f"flat out, the hall's deliveries/s to the fastest peer's ({peer})",
        ratios(flat, "deliveries_per_s", HALL, peer))
    say("paced, the hall's CPU a delivery to the limit's", ratios(slow, "cpu_us", HALL, LIMIT))
    peer = fastest_peer(slow, "cpu_us", min)
    say(f"paced, the hall's CPU a delivery to the cheapest peer's ({peer})", ratios(slow, "cpu_us", HALL, peer))
    for name, scenario in (("flat out", flat), ("paced", slow)):
        # With two cores in all, the generator must have one of them, so what two would deliver cannot be seen. But a
        # core does one second of work a second: N cores deliver N / (CPU a delivery), if the work can be spread at all.
        worth = [2 * ratio for ratio in ratios(scenario, "cpu_us", HALL, HALL + ", two cores")]
        say(f"{name}, two cores are worth so many of one, by CPU a delivery", worth)
    return lines
