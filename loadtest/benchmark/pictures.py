"""The plots of a comparison, and each in words for whoever does not see it."""
import statistics

from . import plot, summary, table


def of(everything):
    """Their names, what they show in words, and themselves."""
    runs, settings = everything["runs"], everything["settings"]
    many, load = f"{settings['many']:,}", summary.equal_loads(runs)
    deliveries = f"{load[0][1] * settings['connections']:,} deliveries/s" if load else "the equal load"
    equal = runs.get(load[0][0], {}) if load else {}
    carried = {name: its for name, its in equal.items() if not summary.carried(its, settings["connections"])}
    wanted = [
        ("deliveries", "Deliveries a second, flat out, one core", table.short,
         [("", runs.get("flat out", {}), "deliveries_per_s")]),
        ("latency", "From due to delivered, p99", milliseconds,
         [(f"at {deliveries}", carried, "p99_ms"), ("at half of its own maximum", runs.get("half", {}), "p99_ms")]),
        ("memory", f"Memory of each of {many} idle connections", kib, [("", in_kib(runs.get("idle", {})), "kib")]),
        ("resume", f"{many} clients are back after a kill", summary.seconds,
         [("", runs.get("kill", {}), "all_back_s")]),
    ]
    for name, title, form, series in wanted:
        svg = plot.dots(title, points(runs, series), form, [words for words, _, _ in series], summary.HALL)
        if svg:
            yield name, alternative(title, form, series), svg


def points(runs, series):
    return [(name, [range_of(scenario.get(name, []), field) for _, scenario, field in series])
            for name in summary.servers_of(runs)]


def range_of(runs, field):
    """Least, median, greatest of the runs that count."""
    runs = summary.valid(runs) if field.endswith("_ms") else runs
    values = [run[field] for run in runs if run.get(field) is not None]
    return (min(values), statistics.median(values), max(values)) if values else None


def alternative(title, form, series):
    """The plot in words."""
    words = []
    for what, scenario, field in series:
        ranges = [(name, range_of(its, field)) for name, its in scenario.items() if name != summary.TWO_CORES]
        found = ", ".join(f"{name} {form(its[1])}" for name, its in ranges if its)
        if found:
            words.append(f"{what}: {found}" if what else found)
    return f"{title}: {'; '.join(words)}"


def in_kib(idle):
    """So that round numbers of KiB are on the axis."""
    return {name: [{"kib": run["bytes_a_connection"] / 1024} for run in its if "bytes_a_connection" in run]
            for name, its in idle.items()}


def kib(value):
    return f"{table.three(value)} KiB"


def milliseconds(value):
    return f"{summary.plain(value)} ms"
