"""The costs that the arithmetic of many nodes needs, measured with one node; and two and three, to check it."""
import dataclasses
import statistics
import time

from . import halls, measure, redis, scaling, servers
from .beside import Listeners, Speaker, beside
from .redis_server import Redis

# Shapes of a load: clients and messages a second. Few hear many messages, or many hear few.
FEW, MANY = (10, 1000), (300, 50)
# Who listens to Redis beside one node: what each more costs Redis.
LISTENERS = 16
# How far a prediction may be off.
TOLERANCE = 0.25


def redis_alone(seconds):
    """What it takes by itself."""
    with Redis() as it:
        before = it.cpu_seconds()
        time.sleep(seconds)
        return {"pass": True, "redis_s": it.cpu_seconds() - before, "watched_s": seconds}


def alone(shape, seconds):
    return halls.with_nodes(1, *shape, seconds)


def heard(shape, seconds):
    """One node, whose clients only hear."""
    clients, rate = shape
    enter, there = beside(lambda port: Speaker(rate, seconds, port))
    run = halls.with_nodes(1, clients, None, seconds + 3, beside=enter)
    return {**run, "messages": there[0].said}


def listened(shape, seconds):
    """One node, and others who hear what Redis hands on; and what the room took there."""
    enter, there = beside(lambda port: Listeners(LISTENERS, port))
    run = halls.with_nodes(1, *shape, seconds, beside=enter)
    messages = run["messages"] or 1
    return {**run, "listeners": LISTENERS, "stored_bytes": there[0].stored / messages,
            "event_bytes": there[0].heard / messages / LISTENERS}


class Measured:
    """Rounds in which everything has its turn."""

    def __init__(self, seconds, many, idle_seconds):
        self.seconds, self.many, self.idle_seconds = seconds, many, idle_seconds
        # Of one node, or none.
        self.runs = {name: [] for name in (
            "no node", "quiet", "few", "many", "heard", "listened", "busy Redis", "idle")}
        # By shape and number of nodes.
        self.more = {f"{nodes} nodes, {shape}": [] for shape in ("few", "many") for nodes in (2, 3)}

    def round(self, tell):
        turns = [("quiet", alone, (MANY[0], halls.QUIET)), ("few", alone, FEW), ("many", alone, MANY),
                 ("heard", heard, FEW), ("listened", listened, FEW)]
        for name, measured, shape in turns:
            tell(f"one node: {name}")
            self.runs[name].append(measured(shape, self.seconds))
        tell("a Redis alone, and a busy one")
        self.runs["no node"].append(redis_alone(self.seconds))
        self.runs["busy Redis"].append(redis.bare(1, 50_000 * self.seconds))
        for name, runs in self.more.items():
            tell(name)
            nodes, shape = int(name[0]), FEW if name.endswith("few") else MANY
            runs.append(halls.with_nodes(nodes, *shape, self.seconds))

    def idle(self, tell):
        tell(f"{self.many:,} idle")
        self.runs["idle"].append(measure.idle(servers.TOWNHALL, self.many, self.idle_seconds, 120))

    def failures(self):
        runs = [(name, run) for name, its in {**self.runs, **self.more}.items() for run in its]
        return [f"{name}: {reason}" for name, run in runs if not run["pass"] for reason in run["reasons"]]


def middle(runs, field):
    return statistics.median(run[field] for run in runs)


def middle_run(runs):
    """The sums that the arithmetic takes, each the median over the rounds."""
    fields = ("cpu_s", "redis_s", "watched_s", "messages", "deliveries")
    return {field: middle(runs, field) for field in fields}


def costs_of(runs, many):
    """From the runs of one node alone."""
    quiet, few, wide, hears = (middle_run(runs[name]) for name in ("quiet", "few", "many", "heard"))
    node_us = 1e6 * quiet["cpu_s"] / quiet["watched_s"]
    redis_us = 1e6 * middle(runs["no node"], "redis_s") / middle(runs["no node"], "watched_s")
    redis_idle_us = 1e6 * quiet["redis_s"] / quiet["watched_s"]
    say_us, hear_us, delivery_us = scaling.solved(
        [[few["messages"], few["messages"], few["deliveries"]],
         [wide["messages"], wide["messages"], wide["deliveries"]],
         [0, hears["messages"], hears["deliveries"]]],
        [1e6 * run["cpu_s"] - run["watched_s"] * node_us for run in (few, wide, hears)])
    stored_us = redis_message_us(few, redis_idle_us)
    listeners_us = redis_message_us(middle_run(runs["listened"]), redis_idle_us) - stored_us
    hand_us = max(0.0, listeners_us) / middle(runs["listened"], "listeners")
    return scaling.Costs(
        delivery_us=delivery_us, say_us=say_us, hear_us=hear_us, node_us=node_us,
        redis_us=redis_us, redis_node_us=max(0.0, redis_idle_us - redis_us),
        store_us=stored_us - hand_us, busy_store_us=middle(runs["busy Redis"], "redis_cpu_us"), hand_us=hand_us,
        delivery_bytes=middle(runs["many"], "bytes"), event_bytes=middle(runs["listened"], "event_bytes"),
        stored_bytes=middle(runs["listened"], "stored_bytes"),
        connection_bytes=middle(runs["idle"], "bytes_a_connection"),
        connection_us=1e6 * middle(runs["idle"], "idle_cpu") / many)


def redis_message_us(run, redis_idle_us):
    return (1e6 * run["redis_s"] - run["watched_s"] * redis_idle_us) / run["messages"]


@dataclasses.dataclass
class Check:
    what: str
    predicted: float
    measured: float

    @property
    def error(self):
        return self.predicted / self.measured - 1

    @property
    def holds(self):
        return abs(self.error) <= TOLERANCE


def checks(costs, more):
    """Seconds of processor time, predicted from one node and measured with more."""
    for name, runs in more.items():
        run, nodes = middle_run(runs), int(name[0])
        carried = nodes * run["messages"]  # everybody's room is at every node here
        nodes_us = scaling.nodes_us(costs, run["watched_s"], nodes, run["messages"], carried, run["deliveries"])
        redis_us = scaling.redis_us(costs, run["watched_s"], nodes, run["messages"], carried)
        yield Check(f"{name}: the nodes", nodes_us / 1e6, run["cpu_s"])
        if name.endswith("few"):  # where many hear few messages, Redis has too little to do to be predicted by
            yield Check(f"{name}: Redis", redis_us / 1e6, run["redis_s"])


def read(everything):
    """The costs, and how well they foretell what more nodes take."""
    costs = costs_of(everything["runs"], everything["settings"]["many"])
    return costs, list(checks(costs, everything["more"]))
