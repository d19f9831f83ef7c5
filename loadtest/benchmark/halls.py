"""Several halls on one Redis: what more of them are worth, beside as many nodes of its peers, and what a failover costs."""
import contextlib
import threading
import time

from . import machine, measure, servers, table
from .redis_server import Redis, ask, eventually

# Until the Sentinels hold a master for dead that does not answer.
DOWN_AFTER_MS = 1000
# Between two tries of the bare client.
TRY_EVERY_S = 0.01
ROOM = "busy"
# Messages a second of a run in which next to nothing is said.
QUIET = 0.5
# Of a core: what a hall may take more, and it still is nothing; the system counts ticks of a hundredth of a second.
NOTHING = 0.005


@contextlib.contextmanager
def all_of(begin):
    """Servers that are stopped in the end, whatever happens; `begin` gets a way to add them."""
    with contextlib.ExitStack() as stack:
        yield begin(lambda *options, **more: stack.enter_context(Redis(*options, **more))), stack


def hall(url):
    return servers.joined(servers.TOWNHALL, url)


def load(nodes, options):
    command = measure.load_command("fanout", nodes, ["--connect-rate", measure.CONNECT_RATE, *options], machine.ALL)
    return measure.begin(command), command


def hear_redis(nodes):
    counted = [node for node in nodes if node.server.has_metrics]
    eventually(lambda: all(node.counter("townhall_broker_up") == 1 for node in counted), "the halls hear Redis")


# --- one, two, three halls ----------------------------------------------------------------------------------------------


def with_nodes(count, clients, rate, seconds, server=servers.TOWNHALL, bystanders=0, beside=contextlib.nullcontext):
    """The same room, served by so many nodes at once: what all of them and Redis take, and what is delivered. Rate 0 is flat
    out, None: somebody else speaks. Bystanders are nodes at which nobody is. `beside` is entered with Redis' port once all
    nodes run, and may use that Redis, too."""
    with all_of(lambda add: add()) as (redis, stack):
        node = servers.joined(server, redis.url)
        nodes = [stack.enter_context(servers.running(node, machine.ALL)) for _ in range(count + bystanders)]
        hear_redis(nodes)
        stack.enter_context(beside(redis.port))
        readers = min(clients, 10 * count)
        process, command = load(nodes[:count], ["-c", readers, "--listeners", clients - readers, *speakers(rate),
                                                "--room", ROOM, "--seconds", seconds])
        stack.callback(process.kill)
        everybody = Meter(nodes, redis, clients, process)
        result = measure.verdict(process)
        spent, redis_s, watched_s = everybody.spent()
        run = measure.run_of(nodes, command, result)
        deliveries, messages = result.get("deliveries") or 0, result.get("accepted") or 0
        run.update(messages=messages, deliveries=deliveries)
        run.update(watched_s=watched_s, cpu_s=sum(spent[:count]), redis_s=redis_s)
        if messages:
            run.update(cpu_us=1e6 * run["cpu_s"] / deliveries, redis_us=1e6 * redis_s / messages)
        if bystanders:
            run["bystander_cpu"] = max(spent[count:]) / watched_s
            run["bystander_heard"] = sum(it.counter("townhall_messages_received_total") for it in nodes[count:])
        return run


def speakers(rate):
    if rate is None:
        return ["-p", 0]
    return ["-p", 10, "--rate", rate] if rate else ["-p", 10, "--rate", 0, "--window", measure.WINDOW, "--until-heard"]


class Meter:
    """Processor time of nodes and their Redis, from when everybody is in."""

    def __init__(self, nodes, redis, clients, load):
        self.nodes, self.redis = nodes, redis
        files = sum(machine.open_files(node.pid) for node in nodes)
        # Those are without the clients; some may have come in before they were counted, so a few are not waited for.
        while load.poll() is None and sum(machine.open_files(node.pid) for node in nodes) < files + 0.9 * clients:
            time.sleep(0.02)
        self.begun, self.before = time.monotonic(), self._now()

    def _now(self):
        return [machine.cpu_seconds(node.pid) for node in self.nodes], self.redis.cpu_seconds()

    def spent(self):
        """Of each node, of Redis, and in how much time."""
        (nodes, redis), (nodes_before, redis_before) = self._now(), self.before
        return [b - a for a, b in zip(nodes_before, nodes)], redis - redis_before, time.monotonic() - self.begun


def bystander(clients, rate, seconds):
    """A hall where nobody is, beside one that is busy; and what such a one takes while nobody says anything."""
    quiet = with_nodes(1, clients, QUIET, seconds, bystanders=1)
    busy = with_nodes(1, clients, rate, seconds, bystanders=1)
    return {**busy, "quiet_cpu": quiet.get("bystander_cpu")}


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
        hear_redis(halls)
        generator, command = load(halls, ["-c", clients, "-p", 10, "--rate", rate, "--seconds", seconds])
        time.sleep(seconds / 3)
        bare = BareClient(sentinels, master.port)
        master.process.kill()
        bare.start()
        result = measure.verdict(generator)
        bare.join(timeout=60)
        run = measure.run_of(halls, command, result)
        longest = {name: (result.get(f"{name}_ms") or {}).get("max") for name in ("accepted", "delivered")}
        return {
            **run, "pass": run["pass"] and bare.back is not None, "bare_s": bare.back,
            **{f"{name}_s": worst and worst / 1000 for name, worst in longest.items()},
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
            table.spread(table.of(flat, "deliveries_per_s"), table.short),
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
        # By number of halls; of peers by name, two nodes each.
        self.runs = {"paced": {}, "flat out": {}, "peers paced": {}, "peers flat out": {},
                     "failovers": [], "bystander": []}

    def round(self, tell):
        for count in (1, 2, 3):
            tell(f"{count} of 3 halls on one Redis")
            self.both("", str(count), count, servers.TOWNHALL)
        for peer in self.peers:
            tell(f"2 nodes of {peer.name} on one Redis")
            self.both("peers ", peer.name, 2, peer)
        tell("a hall where nobody is")
        self.runs["bystander"].append(bystander(self.clients, self.rate, self.seconds))
        tell("a failover")
        self.runs["failovers"].append(failover(100, 200, 15))

    def both(self, whose, name, count, server):
        """Paced and flat out."""
        for scenario, rate in (("paced", self.rate), ("flat out", 0)):
            run = with_nodes(count, self.clients, rate, self.seconds, server)
            self.runs[whose + scenario].setdefault(name, []).append(run)

    def passed(self):
        by_name = (runs for scenario in self.runs.values() if isinstance(scenario, dict) for runs in scenario.values())
        everything = [*by_name, self.runs["failovers"], self.runs["bystander"]]
        return all(run["pass"] for runs in everything for run in runs)

    def everything(self):
        return {"settings": {"clients": self.clients, "rate": self.rate, "seconds": self.seconds}, "runs": self.runs}


def conclusions(runs):
    """What it comes to, as lines."""
    def after(name):
        return table.spread(table.of(runs["failovers"], f"{name}_s"), "{:.2f} s".format)

    yield (f"a Sentinel set's master is killed under load: a bare client that asks a Sentinel and writes is back after "
           f"{after('bare')} ({DOWN_AFTER_MS / 1000:g} s of that is `down-after-milliseconds`), the hall accepts after "
           f"{after('accepted')}, and everybody has everything after {after('delivered')}")
    dearer = table.ratios(runs["paced"], "cpu_us", "3", "1")
    if dearer:
        yield f"paced, CPU a delivery of three halls to that of one: {table.spread(dearer, table.times)}"
    heard = [run["bystander_heard"] for run in runs["bystander"] if run.get("bystander_heard") is not None]
    if heard:
        yield f"a hall where nobody is hears {max(heard):.0f} messages of a busy room"


def page(everything):
    """In Markdown."""
    runs, settings = everything["runs"], everything["settings"]
    both = {"townhall": runs["paced"].get("2", [])}, {"townhall": runs["flat out"].get("2", [])}
    yield from (f"- {line}" for line in conclusions(runs))
    yield (f"\n{settings['clients']} clients of one room, spread over the halls, {settings['rate']} messages/s or flat "
           f"out, {settings['seconds']} s a run; halls, Redis and generator share two cores, which is what limits "
           "them\n")
    yield nodes_table("halls", runs["paced"], runs["flat out"])
    yield "\nTwo nodes of each, the same load; which of them promise what is in loadtest/README.md\n"
    yield nodes_table("two nodes", {**both[0], **runs["peers paced"]}, {**both[1], **runs["peers flat out"]})
    yield "\nA hall where nobody is, beside a busy one and beside a quiet one, of one core\n"
    yield bystander_table(runs["bystander"])
    yield "\n100 clients of two halls, 200 messages/s; a master, a replica, three Sentinels\n"
    yield failover_table(runs["failovers"])


def bystander_table(runs):
    share = "{:.2%}".format
    row = [table.spread(table.of(runs, "bystander_cpu"), share), table.spread(table.of(runs, "quiet_cpu"), share),
           table.spread(table.of(runs, "bystander_heard"), table.thousands),
           table.notes([{**run, "void": None} for run in runs])]
    return table.markdown(["CPU beside a busy hall", "beside a quiet one", "messages it heard", ""], [row])
