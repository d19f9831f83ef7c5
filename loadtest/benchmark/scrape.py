"""What one scrape of /metrics takes of a hall's processor, with many connections in many rooms."""
import http.client
import statistics
import time

from . import machine, measure, servers, table

CONNECTIONS, ROOMS = 10_000, 5_000
# Messages a second in all rooms together: next to nothing, so that what scrapes take stands out.
RATE = 2
# A second. Prometheus asks once in fifteen; the kernel counts hundredths of a second, so it takes many to see one.
SCRAPES = 200
LIMIT_MS = 5


def scraped(connections, rooms, seconds):
    """The processor time of as much silence, before and after, taken off that of a time with scrapes."""
    with servers.running(servers.TOWNHALL, machine.ALL) as it:
        options = ["--rooms", rooms, "--members", connections // rooms, "--connect-rate", measure.CONNECT_RATE,
                   "--rate", RATE, "--seconds", 10 * seconds + 60]
        command = measure.load_command("rooms", [it], options, machine.ALL)
        load = measure.begin(command)
        try:
            run = {"commands": [servers.typed(it.command), servers.typed(command)], "void": None}
            if not everybody_is_in(it, connections, rooms, load):
                return {**run, "pass": False, "reasons": ["not everybody came in"]}
            before, (during, asked, size), after = busy(it, seconds), busy_scraped(it, seconds), busy(it, seconds)
        finally:
            load.kill()
            load.wait()
        each = (during - (before + after) / 2) / asked
        return {**run, "pass": True, "reasons": [], "scrapes": asked, "bytes": size, "scrape_ms": 1000 * each,
                "quiet_cpu": (before + after) / 2 / seconds}


def everybody_is_in(it, connections, rooms, load):
    for _ in range(600):
        if load.poll() is not None:
            return False
        if (it.counter("townhall_connections"), it.counter("townhall_rooms")) == (connections, rooms):
            time.sleep(8)  # every room has been looked at since
            return True
        time.sleep(0.1)
    return False


def busy(it, seconds):
    begun = machine.cpu_seconds(it.pid)
    time.sleep(seconds)
    return machine.cpu_seconds(it.pid) - begun


def busy_scraped(it, seconds):
    """The same with scrapes, on one connection as Prometheus has it; how many, and how long the page is."""
    connection = http.client.HTTPConnection("127.0.0.1", it.ops_port, timeout=10)
    begun, cpu, asked, size = time.monotonic(), machine.cpu_seconds(it.pid), 0, 0
    while time.monotonic() - begun < seconds:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        size = len(answer.read())
        if answer.status != 200:
            raise RuntimeError(f"/metrics answers {answer.status}")
        asked += 1
        time.sleep(max(0, begun + asked / SCRAPES - time.monotonic()))
    return machine.cpu_seconds(it.pid) - cpu, asked, size


class Bench:
    """The section."""

    def __init__(self, seconds):
        self.seconds, self.runs = seconds, {"scrape": []}

    def round(self, tell):
        tell(f"scrapes of a hall with {CONNECTIONS:,} connections in {ROOMS:,} rooms")
        self.runs["scrape"].append(scraped(CONNECTIONS, ROOMS, self.seconds))

    def passed(self):
        return all(run["pass"] for run in self.runs["scrape"])

    def everything(self):
        return {"settings": {"connections": CONNECTIONS, "rooms": ROOMS, "seconds": self.seconds}, "runs": self.runs}


def milliseconds(value):
    return f"{value:.2f} ms"


def conclusions(runs):
    yield (f"a scrape of `/metrics` at {CONNECTIONS:,} connections in {ROOMS:,} rooms: "
           f"{table.spread(table.of(runs['scrape'], 'scrape_ms'), milliseconds)} of the hall's processor "
           f"(limit {LIMIT_MS} ms)")


def page(everything):
    """In Markdown."""
    runs, settings = everything["runs"], everything["settings"]
    yield from (f"- {line}" for line in conclusions(runs))
    yield (f"\n{settings['seconds']} s with {SCRAPES} scrapes a second, less as long a time without; user and system time "
           "of the hall's process\n")
    row = [table.spread(table.of(runs["scrape"], "scrape_ms"), milliseconds),
           table.spread(table.of(runs["scrape"], "scrapes"), table.thousands),
           table.spread(table.of(runs["scrape"], "bytes"), table.thousands),
           table.spread(table.of(runs["scrape"], "quiet_cpu"), "{:.1%}".format), table.notes(runs["scrape"])]
    yield table.markdown(["CPU a scrape", "scrapes", "bytes of a page", "CPU without scrapes", ""], [row])


def goal(runs):
    """A row of the goals."""
    what, wanted, command = ("CPU of a scrape at 10,000 connections in 5,000 rooms", f"≤ {LIMIT_MS} ms",
                             "loadtest/bench scrape")
    values = [run["scrape_ms"] for run in runs if run.get("scrape_ms") is not None]
    if not values:
        return what, wanted, "not measured", None, command
    return what, wanted, table.spread(values, milliseconds), statistics.median(values) <= LIMIT_MS, command
