"""Several halls on one Redis: what more of them are worth, and what a failover costs.

The servers are real ones, in a directory of their own and on free ports, and stopped by their own pid.
"""
import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time

from . import machine, servers, table
from .measure import load_options, verdict

# Until the Sentinels hold a master for dead that does not answer.
DOWN_AFTER_MS = 1000
# Between two tries of the bare client.
TRY_EVERY_S = 0.01


class Redis:
    """A redis-server, or a Sentinel."""

    def __init__(self, directory, *options, config=None):
        if not shutil.which("redis-server"):
            raise SystemExit("bench: this needs redis-server (Debian's package redis-server)")
        self.port = machine.free_port()
        os.makedirs(directory)
        command = ["redis-server"]
        if config is not None:
            path = os.path.join(directory, "sentinel.conf")
            with open(path, "w", encoding="utf-8") as file:
                file.write(f"port {self.port}\nbind 127.0.0.1\ndir {directory}\n{config}\n")
            command += [path, "--sentinel"]
        else:
            command += ["--port", self.port, "--bind", "127.0.0.1", "--dir", directory, "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(
            [str(word) for word in (*command, *options)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.pid = self.process.pid
        eventually(lambda: self.ask("PING") == "PONG", "Redis answers")

    def ask(self, *words):
        """One command over a connection of its own; None where nothing comes back."""
        return ask(self.port, *words)

    def stop(self):
        self.process.kill()
        self.process.wait()


def ask(port, *words):
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5) as line:
            parts = [str(word).encode() for word in words]
            line.sendall(b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
            return answer(line.makefile("rb"))
    except OSError:
        return None


def answer(lines):
    line = lines.readline().rstrip(b"\r\n")
    kind, rest = line[:1], line[1:].decode()
    if kind == b"$":
        return None if rest == "-1" else lines.read(int(rest) + 2)[:-2].decode()
    if kind == b"*":
        return [answer(lines) for _ in range(int(rest))]
    if kind == b"-":
        return None
    return rest


def eventually(condition, what, seconds=30):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise SystemExit(f"bench: waited in vain until {what}")
        time.sleep(0.05)


@contextlib.contextmanager
def all_of(stack_of):
    """Servers that are stopped in the end, whatever happens; `stack_of` gets a way to add them."""
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as directory:
        def add(name, *options, **more):
            server = Redis(os.path.join(directory, name), *options, **more)
            stack.callback(server.stop)
            return server
        yield stack_of(add), stack


def hall(url):
    return servers.Server("townhall", ["townhall", "--rate", "0", "--redis", url, "--listen"], has_metrics=True)


def load(halls, options):
    addresses = [f"ws://127.0.0.1:{it.port}" for it in halls]
    command = [os.path.join(servers.programs, "townhall-load"), "fanout", *addresses, *load_options(), *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# --- one, two, three halls ----------------------------------------------------------------------------------------------


def with_nodes(count, clients, rate, seconds):
    """The same room, served by so many halls at once: what all of them and Redis take, and what is delivered."""
    with all_of(lambda add: add("redis")) as (redis, stack):
        halls = [stack.enter_context(servers.running(hall(f"redis://127.0.0.1:{redis.port}"), machine.ALL))
                 for _ in range(count)]
        eventually(lambda: all(it.counter("townhall_broker_up") == 1 for it in halls), "the halls hear Redis")
        pids = [it.pid for it in halls]
        before = [machine.cpu_seconds(pid) for pid in [*pids, redis.pid]]
        speakers = ["--rate", rate] if rate else ["--rate", 0, "--window", 32, "--until-heard"]
        result = verdict(load(halls, ["-c", 10 * count, "--listeners", clients - 10 * count, "-p", 10, *speakers,
                                      "--seconds", seconds]))
        after = [machine.cpu_seconds(pid) for pid in [*pids, redis.pid]]
        spent = [b - a for a, b in zip(before, after)]
        deliveries, messages = result.get("deliveries") or 0, result.get("accepted") or 0
        return {
            "pass": result["pass"], "reasons": result["reasons"],
            "deliveries_per_s": result.get("deliveries_per_s"),
            "cpu_us": 1e6 * sum(spent[:-1]) / deliveries if deliveries else None,
            "redis_us": 1e6 * spent[-1] / messages if messages else None,
            "p99_ms": (result.get("delivered_ms") or {}).get("p99"),
        }


# --- a failover ---------------------------------------------------------------------------------------------------------


def guarded(add):
    """A master with a replica, and three Sentinels that know all of them."""
    master = add("master")
    replica = add("replica", "--replicaof", "127.0.0.1", master.port)
    config = (f"sentinel monitor hall 127.0.0.1 {master.port} 2\n"
              f"sentinel down-after-milliseconds hall {DOWN_AFTER_MS}\nsentinel failover-timeout hall 5000")
    sentinels = [add(f"sentinel-{number}", config=config) for number in range(3)]

    def ready():
        facts = [dict(zip(*[iter(one.ask("SENTINEL", "MASTER", "hall") or [])] * 2)) for one in sentinels]
        return all(fact.get("num-slaves") == "1" and fact.get("num-other-sentinels") == "2" for fact in facts)

    eventually(ready, "the Sentinels know each other and the replica")
    eventually(lambda: "master_link_status:up" in (replica.ask("INFO", "replication") or ""), "the replica follows")
    return master, sentinels


class BareClient(threading.Thread):
    """Asks a Sentinel where the master is and writes there, again and again: whoever stores anything is back no sooner."""

    def __init__(self, sentinels, dead):
        super().__init__(daemon=True)
        self.sentinels, self.dead, self.back = sentinels, dead, None

    def run(self):
        begun = time.monotonic()
        while time.monotonic() - begun < 60:
            found = self.sentinels[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "hall")
            if found and int(found[1]) != self.dead and ask(int(found[1]), "SET", "bare", "1") == "OK":
                self.back = time.monotonic() - begun
                return
            time.sleep(TRY_EVERY_S)


def failover(clients, rate, seconds):
    """The master is killed under load. Latencies count from when a message was due, and its speaker says it again until it
    is accepted: so the worst one is how long nothing could be stored, or heard."""
    with all_of(guarded) as ((master, sentinels), stack):
        url = "redis-sentinel://" + ",".join(f"127.0.0.1:{one.port}" for one in sentinels) + "/hall"
        halls = [stack.enter_context(servers.running(hall(url), machine.ALL)) for _ in range(2)]
        eventually(lambda: all(it.counter("townhall_broker_up") == 1 for it in halls), "the halls hear Redis")
        generator = load(halls, ["-c", clients, "-p", 10, "--rate", rate, "--seconds", seconds])
        time.sleep(seconds / 3)
        bare = BareClient(sentinels, master.port)
        master.process.kill()
        bare.start()
        result = verdict(generator)
        bare.join(timeout=60)
        milliseconds = lambda name: (result.get(name) or {}).get("max")
        return {
            "pass": result["pass"] and bare.back is not None, "reasons": result["reasons"],
            "bare_s": bare.back,
            "accepted_s": milliseconds("accepted_ms") and milliseconds("accepted_ms") / 1000,
            "delivered_s": milliseconds("delivered_ms") and milliseconds("delivered_ms") / 1000,
            "told_lost": result.get("told_lost"),
        }


# --- as tables ----------------------------------------------------------------------------------------------------------


def nodes_table(paced, flat_out):
    """Both are runs by number of halls."""
    rows = []
    for count, runs in paced.items():
        flat = flat_out.get(count, [])
        rows.append([
            str(count),
            table.spread(table.of(runs, "deliveries_per_s"), "{:,.0f}".format),
            table.spread(table.of(runs, "cpu_us"), table.microseconds),
            table.spread(table.of(runs, "redis_us"), "{:.0f} µs".format),
            table.spread(table.of(runs, "p99_ms"), "{:.1f} ms".format),
            table.spread(table.of(flat, "deliveries_per_s"), table.millions),
            table.notes([{**run, "void": None} for run in [*runs, *flat]]),
        ])
    header = ["halls", "deliveries/s, paced", "CPU a delivery, all halls", "Redis' CPU a message", "p99", "flat out", ""]
    return table.markdown(header, rows)


def failover_table(runs):
    seconds = "{:.2f} s".format
    rows = [
        ["a bare client that asks a Sentinel and writes", table.spread(table.of(runs, "bare_s"), seconds), ""],
        ["the hall: until a message is accepted again", table.spread(table.of(runs, "accepted_s"), seconds), ""],
        ["the hall: until everybody has everything", table.spread(table.of(runs, "delivered_s"), seconds),
         table.notes([{**run, "void": None} for run in runs])],
    ]
    return table.markdown([f"the master is killed, down-after {DOWN_AFTER_MS} ms", "after the kill", ""], rows)
