"""What a comparison says: a row a server for the README, and every table."""
from . import servers, table
from .comparison import TWO_CORES, median

HALL, LIMIT = servers.TOWNHALL.name, table.LIMIT
# Who delivered less than that of what was due could not carry it.
CARRIED = 0.95
VOID = "void"


def valid(runs):
    """Those in which the generator was not what was measured: only their latencies say something."""
    return [run for run in runs if not run.get("void")]


def quantiles(runs, prefix=""):
    """p50, p99 and p99.9, each the median over the rounds."""
    judged = [run for run in runs if f"{prefix}p50_ms" in run]
    if judged and not valid(judged):
        return VOID
    values = [median(valid(runs), f"{prefix}{name}_ms") for name in ("p50", "p99", "p999")]
    return " / ".join(map(plain, values)) + " ms" if None not in values else "–"


def void_line(results):
    """What that word is, where it is said."""
    if any(not valid(runs) for scenario in results.values() for runs in scenario.values()):
        yield "*void*: nothing was left of the generator's core, so that latency would say nothing of the server.\n"


def plain(value):
    """With as many digits as say something."""
    return f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def seconds(value):
    return f"{value:.2f} s"


def kib(value):
    return f"{value / 1024:.1f} KiB" if value < 100 * 1024 else f"{value / 1024:.0f} KiB"


def hall_passed(results):
    """What others lose is told, and no failure of the comparison."""
    names = (HALL, TWO_CORES)
    return all(run["pass"] for by_name in results.values() for name in names for run in by_name.get(name, []))


def servers_of(results):
    """By name, in the order in which they were measured."""
    return list(dict.fromkeys(name for scenario in results.values() for name in scenario if name != TWO_CORES))


def equal_loads(results):
    """The names of those scenarios, the highest load first, and their messages a second."""
    names = [name for name in results if name.startswith("equal ")]
    return sorted(((name, int(name.split()[1])) for name in names), key=lambda found: -found[1])


def carried(runs, connections):
    """What a server carries of the load that was due; None: all of it."""
    rate, due = median(runs, "deliveries_per_s"), median(runs, "messages_per_s_due")
    if rate is None or due is None or rate >= CARRIED * due * connections:
        return None
    return f"carries only {rate:,.0f}/s"


# --- everything at a glance -----------------------------------------------------------------------------------------------


def overview(results, settings):
    """A column a server, for the README: medians; from where to where is in the tables."""
    names = servers_of(results)
    runs = [{scenario: by_name.get(name, []) for scenario, by_name in results.items()} for name in names]
    rows = [[what, *map(cell, runs)] for what, cell in measures(results, settings)]
    rows = [row for row in rows if set(row[1:]) != {"–"}]
    return table.markdown(["", *(f"**{name}**" if name == HALL else name for name in names)], rows)


def measures(results, settings):
    """What each row is of, and the cell for a server's runs by scenario."""
    connections, many = settings["connections"], settings["many"]
    yield "deliveries/s, flat out", figure("flat out", "deliveries_per_s", table.short)
    for scenario, pace in equal_loads(results):
        load = f"at {pace * connections:,} deliveries/s"
        yield f"CPU a delivery {load}", figure(scenario, "cpu_us", table.microseconds, connections)
        yield f"p50 / p99 / p99.9 {load}", latency(scenario)
    yield "p50 / p99 / p99.9 at half of its own maximum", latency("half")
    yield f"memory of each of {many:,} idle connections", figure("idle", "bytes_a_connection", kib)
    yield "connects/s", figure("connect", "connects_per_s", table.thousands)
    yield f"{many:,} clients are back after a kill in", figure("kill", "all_back_s", seconds)
    yield "messages lost by the kill, over all clients", figure("kill", "lost", table.thousands)


def figure(scenario, field, form, connections=None):
    """The median. With `connections` a load is due, and who does not carry it has no cost at it."""
    def cell(runs):
        its = runs.get(scenario, [])
        value = median(its, field)
        return (connections and carried(its, connections)) or ("–" if value is None else form(value))

    return cell


def latency(scenario):
    return lambda runs: quantiles(runs.get(scenario, []))


# --- every table ----------------------------------------------------------------------------------------------------------


def tables(results, settings):
    """Titles, and under each a table in Markdown."""
    connections, many = settings["connections"], settings["many"]
    if "flat out" in results:
        yield f"Flat out, {connections:,} connections", flat_out(results["flat out"])
    for name, pace in equal_loads(results):
        title = f"{pace * connections:,} deliveries/s: {pace} messages/s, each a write of its own"
        yield title, loaded(results[name], connections)
    if "half" in results:
        yield "Half of its own maximum", loaded(results["half"], connections)
    if "connect" in results:
        yield f"{many:,} clients connect, as fast as they are let in", connects(results["connect"])
    if "kill" in results:
        yield f"{many:,} clients come back after a kill", kills(results["kill"])
    if "idle" in results:
        yield f"{many:,} idle connections, watched for {settings['idle_seconds']} s", idle(results["idle"])


def rows_of(scenario, *columns):
    """A row a server: its name, (field, form) as a spread or whatever a function says of its runs, and what is wrong."""
    def cell(runs, column):
        return column(runs) if callable(column) else table.spread(table.of(runs, column[0]), column[1])

    return [[name, *(cell(runs, column) for column in columns), table.notes(runs)] for name, runs in scenario.items()]


def flat_out(scenario):
    rows = rows_of(scenario, ("deliveries_per_s", table.short), ("cpu_us", table.microseconds),
                   ("frames_per_write", "{:.0f}".format), ("bytes", "{:.0f}".format), ("generator_cpu", table.percent))
    header = ["", "deliveries/s", "CPU a delivery", "frames a write", "bytes each", "generator's core", ""]
    return table.markdown(header, rows)


def loaded(scenario, connections):
    rows = rows_of(scenario, ("deliveries_per_s", table.thousands), ("cpu_us", table.microseconds),
                   ("frames_per_write", "{:.1f}".format), quantiles, ("generator_cpu", table.percent),
                   lambda runs: carried(runs, connections) or "")
    header = ["", "deliveries/s", "CPU a delivery", "frames a write", "p50 / p99 / p99.9", "generator's core", "", ""]
    return table.markdown(header, rows)


def connects(scenario):
    rows = rows_of(scenario, ("connects_per_s", table.thousands), ("connect_cpu_us", table.microseconds), quantiles)
    return table.markdown(["", "connects/s", "CPU a connect", "p50 / p99 / p99.9", ""], rows)


def kills(scenario):
    rows = rows_of(scenario, ("all_back_s", seconds), lambda runs: quantiles(runs, "back_"), ("lost", table.thousands),
                   ("told", table.thousands), ("resumes", table.thousands), ("history_reads", table.thousands))
    return table.markdown(["", "all are back after", "each, p50 / p99 / p99.9", "lost", "told lost", "resumes",
                           "history reads", ""], rows)


def idle(scenario):
    rows = rows_of({name: [{**run, "void": None} for run in runs] for name, runs in scenario.items()},
                   ("bytes_a_connection", kib), ("idle_cpu", "{:.2%}".format))
    return table.markdown(["", "memory a connection", "CPU of all, of one core", ""], rows)


# --- the ratios -----------------------------------------------------------------------------------------------------------


def conclusions(results):
    """The ratios that the goals are about, as lines."""
    def say(what, values, form=table.times):
        if values:
            yield f"{what}: {table.spread(values, form)}"

    flat = results.get("flat out", {})
    yield from say("flat out, deliveries/s against the limit's with as many frames a write",
                   against_limit(flat, "deliveries_per_s"))
    yield from say("flat out, CPU a delivery against the limit's", against_limit(flat, "cpu_us"))
    peer, values = against_best_peer(flat, "deliveries_per_s", max)
    yield from say(f"flat out, deliveries/s against the fastest peer's ({peer})", values)
    for name, pace in equal_loads(results):
        scenario = results[name]
        yield from say(f"{pace} messages/s, CPU a delivery against the limit's", against_limit(scenario, "cpu_us"))
        peer, values = against_best_peer(scenario, "cpu_us", min)
        yield from say(f"{pace} messages/s, CPU a delivery against the cheapest peer's ({peer})", values)
    for name in ("flat out", *(name for name, _ in equal_loads(results))):
        # With two cores in all, the generator must have one of them, so what two would deliver cannot be seen. But a
        # core does one second of work a second: N cores deliver N / (CPU a delivery), if the work can be spread at all.
        worth = [2 * ratio for ratio in table.ratios(results.get(name, {}), "cpu_us", HALL, TWO_CORES)]
        yield from say(f"{name}, two cores are worth so many of one, by CPU a delivery", worth, "{:.2f}".format)


def against_limit(scenario, field):
    return table.ratios(scenario, field, HALL, LIMIT)


def against_best_peer(scenario, field, better):
    """Whose it is, and the hall's to its, round by round."""
    peer = best_peer(scenario, field, better)
    return peer, table.ratios(scenario, field, HALL, peer) if peer else []


def best_peer(scenario, field, better):
    """Whichever is best by its median, of those that are no hall and no limit; latencies only of runs that count."""
    peers = {name: median(valid(runs) if field.endswith("_ms") else runs, field)
             for name, runs in scenario.items() if name not in (HALL, LIMIT, TWO_CORES)}
    peers = {name: value for name, value in peers.items() if value is not None}
    return better(peers, key=peers.get) if peers else None
