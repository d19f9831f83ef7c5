"""Several halls on one Redis: what more of them are worth, beside as many nodes of its peers, and what a failover costs."""
import contextlib
import os
import subprocess
import threading
import time

from . import machine, servers, table
from .measure import load_options, verdict
from .redis_server import Redis, ask, eventually

# Until the Sentinels hold a master for dead that does not answer.
DOWN_AFTER_MS = 1000
# Between two tries of the bare client.
TRY_EVERY_S = 0.01


@contextlib.contextmanager
def all_of(begin):
    """Servers that are stopped in the end, whatever happens; `begin` gets a way to add them."""
    with contextlib.ExitStack() as stack:
        yield begin(lambda *options, **more: stack.enter_context(Redis(*options, **more))), stack


def hall(url):
    return servers.joined(servers.TOWNHALL, url)


def load(nodes, options):
    addresses = [f"ws://127.0.0.1:{it.port}" for it in nodes]
    command = [os.path.join(servers.programs, "townhall-load"), "fanout", *addresses, *load_options(),
               *nodes[0].server.load_options, *map(str, options)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# --- one, two, three halls ----------------------------------------------------------------------------------------------


def with_nodes(count, clients, rate, seconds, server=servers.TOWNHALL):
    """The same room, served by so many nodes at once: what all of them and Redis take, and what is delivered."""
    with all_of(lambda add: add()) as (redis, stack):
        node = servers.joined(server, f"redis://127.0.0.1:{redis.port}")
        halls = [stack.enter_context(servers.running(node, machine.ALL)) for _ in range(count)]
        if node.has_metrics:
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
    master = add()
    replica = add("--replicaof", "127.0.0.1", master.port)
    config = (f"sentinel monitor hall 127.0.0.1 {master.port} 2\n"
              f"sentinel down-after-milliseconds hall {DOWN_AFTER_MS}\nsentinel failover-timeout hall 5000")
    sentinels = [add(sentinel=config) for _ in range(3)]

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


def nodes_table(what, paced, flat_out):
    """Both are runs by number of halls, or by server."""
    rows = []
    for name, runs in paced.items():
        flat = flat_out.get(name, [])
        rows.append([
            str(name),
            table.spread(table.of(runs, "deliveries_per_s"), "{:,.0f}".format),
            table.spread(table.of(runs, "cpu_us"), table.microseconds),
            table.spread(table.of(runs, "redis_us"), "{:.0f} µs".format),
            table.spread(table.of(runs, "p99_ms"), "{:.1f} ms".format),
            table.spread(table.of(flat, "deliveries_per_s"), table.millions),
            table.notes([{**run, "void": None} for run in [*runs, *flat]]),
        ])
    header = [what, "deliveries/s, paced", "CPU a delivery, all nodes", "Redis' CPU a message", "p99", "flat out", ""]
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


class Bench:
    """The section: rounds in which everything has its turn."""

    def __init__(self, clients, rate, seconds, peers):
        self.clients, self.rate, self.seconds, self.peers = clients, rate, seconds, peers
        self.paced, self.flat_out, self.failovers = {}, {}, []
        # Two nodes each, by name.
        self.peers_paced, self.peers_flat_out = {}, {}

    def round(self, tell):
        for count in (1, 2, 3):
            tell(f"{count} of 3 halls on one Redis")
            self.paced.setdefault(count, []).append(with_nodes(count, self.clients, self.rate, self.seconds))
            self.flat_out.setdefault(count, []).append(with_nodes(count, self.clients, None, self.seconds))
        for peer in self.peers:
            tell(f"2 nodes of {peer.name} on one Redis")
            self.peers_paced.setdefault(peer.name, []).append(with_nodes(2, self.clients, self.rate, self.seconds, peer))
            self.peers_flat_out.setdefault(peer.name, []).append(with_nodes(2, self.clients, None, self.seconds, peer))
        tell("a failover")
        self.failovers.append(failover(100, 200, 15))

    def runs(self):
        for scenario in (self.paced, self.flat_out, self.peers_paced, self.peers_flat_out):
            for runs in scenario.values():
                yield from runs
        yield from self.failovers

    def passed(self):
        return all(run["pass"] for run in self.runs())

    def conclusions(self):
        longer = [run["accepted_s"] - run["bare_s"] for run in self.failovers if run["accepted_s"] and run["bare_s"]]
        if longer:
            yield ("a failover: until the hall accepts again, longer than a bare client needs: "
                   + table.spread(longer, "{:.2f} s".format))
        dearer = table.ratios(self.paced, "cpu_us", 3, 1)
        if dearer:
            yield f"paced, CPU a delivery of three halls to that of one: {table.spread(dearer, table.times)}"

    def show(self):
        for line in self.conclusions():
            print(f"- {line}")
        print(f"\n{self.clients} clients of one room, spread over the halls, {self.rate} messages/s or flat out, {self.seconds} s a run; halls, "
              f"Redis and generator share {len(machine.ALL)} cores, which is what limits them\n")
        print(nodes_table("halls", self.paced, self.flat_out))
        print("\nTwo nodes of each, the same load; which of them promise what is in loadtest/README.md\n")
        print(nodes_table("two nodes", {"townhall": self.paced.get(2, []), **self.peers_paced},
                          {"townhall": self.flat_out.get(2, []), **self.peers_flat_out}))
        print("\n100 clients of two halls, 200 messages/s; a master, a replica, three Sentinels; nothing was lost unless a row says so\n")
        print(failover_table(self.failovers))

    def everything(self):
        return {"paced": self.paced, "flat out": self.flat_out, "peers paced": self.peers_paced,
                "peers flat out": self.peers_flat_out, "failovers": self.failovers, "conclusions": list(self.conclusions())}
