"""The goals, one by one: what was to be reached, what was measured, and the command that prints it."""
import statistics

from . import halls, redis, scrape, summary, table
from .comparison import median

HALL = summary.HALL
UNKNOWN = "not measured"


def goals(compared, storing, several, scraped):
    """Rows of (what, goal, measured, whether it is reached or None, command), from four results of which any may be None."""
    results = compared["runs"] if compared else {}
    yield from fan_out(results.get("flat out", {}))
    yield from equal_load(results)
    yield half_of_maximum(results.get("half", {}))
    yield memory(results.get("idle", {}).get(HALL, []))
    yield after_a_kill(results.get("kill", {}).get(HALL, []))
    yield from publishing(storing["runs"]["flat out"] if storing else {})
    yield bystander(several["runs"]["bystander"] if several else [])
    yield scrape.goal(scraped["runs"]["scrape"] if scraped else [])


def ratio(what, goal, values, holds, command, against=""):
    """One that is about a ratio, by its median over the rounds."""
    if not values:
        return what, goal, UNKNOWN, None, command
    measured = table.spread(values, table.times) + (f" ({against})" if against else "")
    return what, goal, measured, holds(statistics.median(values)), command


def fan_out(flat_out):
    command = "loadtest/compare flat-out"
    yield ratio("deliveries/s flat out, against the limit with as many frames a write", "≥ 0.8×",
                summary.against_limit(flat_out, "deliveries_per_s"), lambda value: value >= 0.8, command)
    peer, values = summary.against_best_peer(flat_out, "deliveries_per_s", max)
    yield ratio("deliveries/s flat out, against the fastest peer", "≥ 8×", values,
                lambda value: value >= 8, command, peer)


def equal_load(results):
    command = "loadtest/compare flat-out equal"
    loads = summary.equal_loads(results)
    scenario = results[loads[0][0]] if loads else {}
    load = f"{loads[0][1]} messages/s" if loads else "an equal load"
    yield ratio(f"CPU a delivery at {load}, a frame a write, against the limit", "≤ 1.25×",
                summary.against_limit(scenario, "cpu_us"), lambda value: value <= 1.25, command)
    peer, values = summary.against_best_peer(scenario, "cpu_us", min)
    yield ratio(f"CPU a delivery at {load}, against the cheapest peer", "< 1×", values,
                lambda value: value < 1, command, peer)


def half_of_maximum(half):
    what, goal, command = "p99 at half of each one's own maximum", "below every peer", "loadtest/compare flat-out half"
    ours = median(summary.valid(half.get(HALL, [])), "p99_ms")
    peer = summary.best_peer(half, "p99_ms", min)
    if ours is None or peer is None:
        return what, goal, summary.VOID if half else UNKNOWN, None, command
    theirs = median(summary.valid(half[peer]), "p99_ms")
    return what, goal, f"{ours:.1f} ms; best peer {theirs:.1f} ms ({peer})", ours < theirs, command


def memory(runs):
    what, goal, command = "memory of an idle connection, all in one room", "≤ 3 KiB", "loadtest/compare idle"
    value = median(runs, "bytes_a_connection")
    if value is None:
        return what, goal, UNKNOWN, None, command
    return what, goal, summary.kib(value), value <= 3 * 1024, command


def after_a_kill(runs):
    """By the worst round, since it is a promise."""
    what, goal = "clients resume after a node is killed", "nothing lost, one history read a room and node, under 10 s"
    command = "loadtest/compare kill"
    if not runs or any(run.get("connected") is None for run in runs):
        return what, goal, UNKNOWN, None, command
    slowest = [run["all_back_s"] for run in runs]
    never = None in slowest
    lost, reads = (max(run[field] for run in runs) for field in ("lost", "history_reads"))
    clients = max(run["connected"] for run in runs)
    back = "not all came back" if never else f"all back in {max(slowest):.2f} s"
    measured = f"{clients:,} clients: {lost} lost, history read {reads} times, {back}"
    return what, goal, measured, lost == 0 and reads <= 1 and not never and max(slowest) < 10, command


def publishing(flat_out):
    command = "loadtest/bench redis"
    what = "messages/s stored through one Redis, one room, against"
    yield ratio(f"{what} `redis-benchmark` with the same function", "≥ 0.8×",
                table.ratios(flat_out, "messages_per_s", redis.HALL, redis.BARE), lambda value: value >= 0.8, command)
    yield ratio(f"{what} the centrifuge library", "≥ 2×",
                table.ratios(flat_out, "messages_per_s", redis.HALL, redis.CENTRIFUGE),
                lambda value: value >= 2, command)


def bystander(runs):
    """Less than a thousandth of a core, and not one message heard."""
    what, goal, command = "a replica with no member in a busy room", "costs nothing", "loadtest/bench halls"
    runs = [run for run in runs if run.get("bystander_cpu") is not None]
    if not runs:
        return what, goal, UNKNOWN, None, command
    heard = max(run["bystander_heard"] for run in runs)
    extra = statistics.median(run["bystander_cpu"] - run["quiet_cpu"] for run in runs)
    measured = f"{heard:.0f} messages heard, {max(0, extra):.2%} of a core more than without"
    return what, goal, measured, heard == 0 and extra < halls.NOTHING, command


def markdown(rows):
    """For a manual."""
    marks = {True: "yes", False: "**no**", None: ""}
    return table.markdown(
        ["what", "goal", "measured", "reached", "printed by"],
        [[what, goal, measured, marks[reached], f"`{command}`"] for what, goal, measured, reached, command in rows])
