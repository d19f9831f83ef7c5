"""What it costs to store a message in Redis: the hall's broker beside redis-benchmark, which calls the very same function as
fast as it can be called, and beside the broker of the centrifuge library.

Each run has a Redis of its own, without persistence, on one core; whoever publishes has the other one.
"""
import json
import os
import shutil
import statistics
import subprocess

from . import machine, servers, table
from .redis_server import Redis
from .servers import pinned, typed

SOURCE = os.path.join(servers.TOP, "src", "broker", "townhall.lua")
PEER = os.path.join(servers.TOP, "loadtest", "peers", "centrifuge-broker")
FUNCTION = "townhall_1_publish"

HALL, HALL_100 = "townhall, 1 room", "townhall, 100 rooms"
BARE, BARE_100, BARE_1 = "redis-benchmark, calls as above", "redis-benchmark, calls as with 100", "redis-benchmark, 1 a call"
CENTRIFUGE, CENTRIFUGE_100 = "centrifuge, 1 channel", "centrifuge, 100 channels"
ROOMS = 100
BYTES = 250
IN_FLIGHT = 1024
HISTORY, ROOM_TTL_MS, DEDUPE_MS = 10_000, 30 * 24 * 3600 * 1000, 600 * 1000  # the hall's defaults
# Messages whose ids are remembered when the memory for that is measured.
REMEMBERED = 200_000


class Missing(Exception):
    """A program that this section needs."""


def prepare(build_peer):
    """Builds the peer. Whatever is missing is named before anything is measured."""
    for program, package in (("redis-server", "redis-server"), ("redis-cli", "redis-tools"), ("redis-benchmark", "redis-tools")):
        if not shutil.which(program):
            raise Missing(f"{program} is not installed (Debian's package {package})")
    list(variants())  # they are made of the library's text, and say so when that has changed
    if not build_peer:
        return
    if not shutil.which("go"):
        raise Missing("Go is not installed, so the centrifuge library's broker cannot be built (https://go.dev/dl)")
    why = servers.build_go(PEER, "peer-centrifuge-broker")
    if why:
        raise Missing(f"the centrifuge library's broker cannot be built: {why}")


def running():
    return Redis(cores=machine.SERVER)


def library():
    with open(SOURCE, encoding="utf-8") as source:
        return source.read()


def without(source, *changes):
    """The library with some of its text changed; every change must find its place, once."""
    for old, new in changes:
        if source.count(old) != 1:
            raise RuntimeError(f"{SOURCE} has changed, and with it what the bench leaves out: {old!r}")
        source = source.replace(old, new)
    return source


def variants():
    """The function as it is, and without each of its parts."""
    source = library()
    yield "the whole function", source
    yield "without dedupe", without(
        source,
        ("if messages == 1 and not generation_is_over(room, dedupe, now) then", "if messages == 1 then"),
        ("offsets_seen(keys, args, FIRST + messages - 1), {}, {}", "{}, {}, {}"),
        ("  if all_seen(offsets, messages) then\n    return offsets, payloads\n  end\n", ""),
        ("local rotates = generation_is_over(room, dedupe, now)", "local rotates = false"),
        ("  remember(keys, room, field, dedupe, now, rotates)\n", ""),
        ("  local seen = redis.call('HGET', keys.old, id)\n", "  local seen\n"),
        ("if not seen and redis.call('HSETNX', keys.seen, id, offset) == 0 then", "if false then"))
    yield "without trimming", without(source, ("    trim(keys, before, room.offset, keep)\n", ""))
    yield "without the fork check", without(source, ("if room.replid ~= server_replid(now) then", "if false then"))
    yield "without PUBLISH and its lines", without(
        source,
        ("      redis.call(PUBLISH, channel, payload)\n", ""),
        ("        payloads[#payloads + 1] = table.concat(pieces, '', 2, piece)\n", ""),
        ("\n  payloads[#payloads + 1] = table.concat(pieces, '', 2, piece)\n", "\n"),
        ("{ FORMAT .. ' ' .. room.epoch .. ' ' .. offset .. ' ' .. at .. ' ' .. event }", "{}"))
    yield "nothing but XADD", without(
        source,
        (f"redis.register_function('{FUNCTION}', publish)", f"""redis.register_function('{FUNCTION}', function(keys, args)
  local messages = (#args - FIRST + 1) / 2
  for i = FIRST + messages, #args do
    redis.call('XADD', keys[1], '*', 'at', '1700000000000', 'e', args[i])
  end
  return {{ '', 1 }}
end)"""))


def call(messages):
    """The function's arguments, as the broker gives them, with random numbers where redis-benchmark puts fresh ones into each
    call. An id has 16 bytes; those at one place in a call differ in 31 bits, so that hardly any comes twice."""
    ids = [f"{n:04d}__rand_int__" for n in range(messages)]
    events = [event("00000000-0000-__rand_int____rand_int__", BYTES)] * messages
    return list(map(str, [*publish("bench"), *ids, *events]))


def stored(room, id_):
    """The same for one message with that id."""
    return [*publish(room), id_.bytes, event(str(id_), BYTES)]


def publish(room):
    """The call as far as the ids."""
    keys = [f"townhall:{{{room}}}:{key}" for key in ("log", "meta", "seen", "seen:old")]
    settings = [f"townhall:0:{{{room}}}", "0123456789abcdef0123456789abcdef", HISTORY, ROOM_TTL_MS, DEDUPE_MS]
    return ["FCALL", FUNCTION, len(keys), *keys, *settings]


def event(id_, size):
    text = f'{{"type":"message","id":"{id_}","from":{{"id":"guest-000000000000000000000000","name":"load"}},"text":"'
    return text + "x" * (size - len(text) - 2) + '"}'


def bare(messages, total, source=None):
    """redis-benchmark, with so many messages a call; about `total` of them."""
    with running() as redis:
        redis.load(source or library())
        # Enough of them wait in the server at any time that it never does. It sends whole pipelines, so calls come in their number.
        clients, pipelined = (4, 4) if messages > 4 else (4, 16)
        calls = max(2, round(total / messages / (clients * pipelined))) * clients * pipelined
        shape = ["-c", str(clients), "-P", str(pipelined)]
        command = ["taskset", "-c", str(machine.GENERATOR[0]), "redis-benchmark", "-p", str(redis.port), "-n", str(calls), *shape,
                   "-r", str(2**31 - 1), "--csv", *call(messages)]
        memory = redis.info("memory", r"used_memory:(\d+)")[0]
        cpu = machine.cpu_seconds(redis.pid)
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        cpu = machine.cpu_seconds(redis.pid) - cpu
        stored = int(redis.cli("XINFO", "STREAM", "townhall:{bench}:log").split("\nentries-added\n")[1].split()[0])
        rate = float(output.splitlines()[-1].rsplit(",", 7)[1].strip('"'))  # the first column is the command, commas and all
        _, function_us = redis.calls()
        good = 0.999 * calls * messages <= stored <= calls * messages
        return {
            "commands": [typed(command[:command.index("--csv") + 1]) + " FCALL …"],
            "pass": good,
            "reasons": [] if good else [f"{stored} of {calls * messages} messages were stored"],
            "messages_per_s": rate * messages,
            "redis_cpu_us": 1e6 * cpu / stored,
            "function_us": function_us / stored,
            "messages_a_call": messages,
            "memory": redis.info("memory", r"used_memory:(\d+)")[0] - memory,
        }


def publisher(program, seconds, rooms, rate=None):
    """The hall's broker, or the peer: both take the same options and answer alike."""
    with running() as redis:
        dashes, begin = ("--", ["townhall-load", "publish"]) if program == "townhall-load" else ("-", [program])
        options = {"redis": f"redis://127.0.0.1:{redis.port}", "rooms": rooms, "in-flight": IN_FLIGHT, "bytes": BYTES,
                   "seconds": seconds, "history": HISTORY, "watch": redis.pid}
        if rate:
            options["rate"] = round(rate)
        command = pinned(machine.GENERATOR, begin + [word for name, value in options.items() for word in (dashes + name, str(value))])
        if program == "townhall-load":
            command += ["--json", "--quiet"]
        environment = {**os.environ, "GOMAXPROCS": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        try:
            result = json.loads(done.stdout)
        except ValueError:
            reason = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[0]
            return {"commands": [typed(command)], "pass": False, "reasons": [reason]}
        calls, function_us = redis.calls()
        reason = f"{result['accepted']} accepted, {result['refused']} refused, {result['stored']} stored"
        return {
            "commands": [typed(command)],
            "pass": result["pass"],
            "reasons": [] if result["pass"] else [reason],
            "messages_per_s": result["accepted_per_s"],
            "redis_cpu_us": result["watched_cpu_us"],
            "own_cpu_us": result["own_cpu_us"],
            "function_us": function_us / result["stored"] if calls else None,
            "messages_a_call": result["stored"] / calls if calls else 1,
            "p50_ms": result["accepted_ms"]["p50"],
            "p99_ms": result["accepted_ms"]["p99"],
        }


def hall(seconds, rooms, rate=None):
    return publisher("townhall-load", seconds, rooms, rate)


def centrifuge(seconds, rooms, rate=None):
    return publisher("peer-centrifuge-broker", seconds, rooms, rate)


def remembered():
    """Bytes a message that is remembered: what the same messages take with dedupe and without."""
    kept = dict(variants())
    runs = [bare(64, REMEMBERED, kept[name]) for name in ("the whole function", "without dedupe")]
    return {"bytes": (runs[0]["memory"] - runs[1]["memory"]) / REMEMBERED, "pass": all(run["pass"] for run in runs),
            "reasons": [reason for run in runs for reason in run["reasons"]], "commands": runs[0]["commands"]}


class Bench:
    """The section: rounds in which everything has its turn, so that what else the machine does it does to all."""

    def __init__(self, seconds):
        self.seconds = seconds
        # By name; of the function's parts then by how many messages a call.
        self.runs = {"flat out": {}, "paced": {}, "parts": {}, "memory": None}

    def round(self, tell):
        for name, runner, rooms, alike in ((HALL, hall, 1, BARE), (HALL_100, hall, ROOMS, BARE_100)):
            tell(f"Redis: {name}")
            run = self.keep("flat out", name, runner(self.seconds, rooms))
            self.bare(tell, alike, round(run.get("messages_a_call", 1)))
        self.bare(tell, BARE_1, 1)
        for name, rooms in ((CENTRIFUGE, 1), (CENTRIFUGE_100, ROOMS)):
            tell(f"Redis: {name}")
            self.keep("flat out", name, centrifuge(self.seconds, rooms))
        for name, runner, rooms in ((HALL, hall, 1), (HALL_100, hall, ROOMS), (CENTRIFUGE, centrifuge, 1)):
            half = self.half(name)
            if half:
                tell(f"Redis: {name}, {half:,.0f} messages/s")
                self.keep("paced", name, runner(self.seconds, rooms, half))
        for name, source in variants():
            tell(f"Redis: {name}")
            for messages, total in ((64, 100_000 * self.seconds), (1, 25_000 * self.seconds)):
                by_size = self.runs["parts"].setdefault(name, {})
                by_size.setdefault(str(messages), []).append(bare(messages, total, source))

    def bare(self, tell, name, messages):
        tell(f"Redis: {name}")
        self.keep("flat out", name, bare(messages, self.seconds * (150_000 if messages > 4 else 50_000)))

    def half(self, name):
        rates = [run["messages_per_s"] for run in self.runs["flat out"][name] if "messages_per_s" in run]
        return statistics.median(rates) / 2 if rates else None

    def keep(self, scenario, name, run):
        self.runs[scenario].setdefault(name, []).append(run)
        return run

    def each(self):
        for scenario in (self.runs["flat out"], self.runs["paced"], *self.runs["parts"].values()):
            for runs in scenario.values():
                yield from runs
        if self.runs["memory"]:
            yield self.runs["memory"]

    def passed(self):
        return all(run["pass"] for run in self.each())

    def everything(self):
        return {"settings": {"seconds": self.seconds}, "runs": self.runs}


def at_half(runs):
    """How long storing takes at half of the maximum, by the runs in which all was stored."""
    passed = [run for run in runs if run["pass"]]
    within = table.spread(table.of(passed, "p99_ms"), table.milliseconds) if passed else "unknown"
    refused = "" if len(passed) == len(runs) else f", but {len(runs) - len(passed)} of {len(runs)} such runs failed"
    return f"accepted at half of that within {within} (p99){refused}"


def conclusions(runs):
    """What it comes to, as lines; ratios are taken round by round."""
    def figure(scenario, name, field, form):
        return table.spread(table.of(runs[scenario].get(name, []), field), form)

    for what, name in (("one room", HALL), ("100 rooms", HALL_100)):
        rate = figure("flat out", name, "messages_per_s", table.thousands)
        cpu = figure("flat out", name, "redis_cpu_us", table.microseconds)
        yield f"{what}: {rate} messages/s, each {cpu} of Redis' CPU; {at_half(runs['paced'].get(name, []))}"

    def say(what, ours, theirs, field="messages_per_s"):
        found = table.ratios(runs["flat out"], field, ours, theirs)
        if found:
            yield f"{what}: {table.spread(found, table.times)}"

    calls = "to redis-benchmark with as many messages a call"
    yield from say(f"messages/s, the hall's broker in one room {calls}", HALL, BARE)
    yield from say("messages/s, in 100 rooms likewise", HALL_100, BARE_100)
    yield from say("messages/s, the hall's broker in one room to redis-benchmark with one message a call", HALL, BARE_1)
    yield from say("messages/s, the hall's broker to centrifuge's, one room", HALL, CENTRIFUGE)
    yield from say("messages/s, the hall's broker to centrifuge's, 100 rooms", HALL_100, CENTRIFUGE_100)
    cpu = "Redis' CPU a message, the hall's broker to centrifuge's"
    yield from say(f"{cpu}, one room", HALL, CENTRIFUGE, "redis_cpu_us")
    yield from say(f"{cpu}, 100 rooms", HALL_100, CENTRIFUGE_100, "redis_cpu_us")
    if runs["memory"]:
        yield f"memory a message that is remembered: {runs['memory']['bytes']:.0f} bytes"


def page(everything):
    """In Markdown."""
    runs = everything["runs"]
    yield from (f"- {line}" for line in conclusions(runs))
    yield (f"\nRedis without persistence on one core, who publishes on another; events of {BYTES} bytes, "
           f"{IN_FLIGHT:,} under way, {HISTORY:,} kept a room, ids remembered for {DEDUPE_MS // 60_000} minutes; nobody "
           f"subscribed; {everything['settings']['seconds']} s a run\n")
    yield table.stored(runs["flat out"])
    yield ""
    yield table.accepted(runs["paced"])
    yield ""
    yield table.parts(runs["parts"])
    yield "\nThe commands:\n"
    yield from (f"    {its[-1]['commands'][0]}" for its in runs["flat out"].values())
