"""What is compared: every server, in rounds in which each has its turn, so that what else the machine does it does to all."""
import statistics

from . import killed, machine, measure, servers

QUEUE = 4096  # for the gorilla hub: above what the publishers have under way, so that it need not drop anybody
# In the order of a round; idle connections are watched once, after all rounds, since that is long and hardly varies.
SECTIONS = ["flat-out", "equal", "half", "connect", "kill", "idle"]
TWO_CORES = "townhall, two cores"
# A load is carried by whoever has that much to spare; for one that not everybody carries there is a second, lower one.
SPARE = 1.1
LOWER = 5


def slowest(flat_out):
    """Deliveries/s of the peer that has the fewest; None: nothing was delivered."""
    medians = [median(runs, "deliveries_per_s") for runs in flat_out.values()]
    return min((value for value in medians if value), default=None)


def median(runs, field):
    values = [run[field] for run in runs if run.get(field) is not None]
    return statistics.median(values) if values else None


def attempt(measured, *arguments):
    """A run; one that cannot be is one that failed, so that the others still are."""
    try:
        return measured(*arguments)
    except (OSError, RuntimeError) as error:
        return {"pass": False, "reasons": [str(error)], "commands": [], "void": None}


class Comparison:
    def __init__(self, chosen, peers, tell):
        self.chosen, self.peers, self.tell = chosen, peers, tell
        # The peers' channels are counted as memory, so there they are as long as in gorilla's example.
        self.idle_peers = [servers.gorilla(256) if peer.arguments[0] == "peer-gorilla-hub" else peer for peer in peers]
        self.everybody = [servers.TOWNHALL, *peers]
        self.paces = [chosen.pace]
        self.results = {}

    def measure(self):
        """Every section that was chosen."""
        sections = self.chosen.sections
        steps = [step for name, step in (
            ("flat-out", self.flat_out), ("equal", self.equal), ("half", self.half), ("connect", self.connect),
            ("kill", self.kill)) if name in sections]
        for number in range(self.chosen.rounds):
            self.tell(f"round {number + 1} of {self.chosen.rounds}")
            for step in steps:
                step()
        if "idle" in sections:
            self.idle()

    def keep(self, scenario, name, measured, *arguments):
        run = attempt(measured, *arguments)
        self.results.setdefault(scenario, {}).setdefault(name, []).append(run)
        for reason in [] if run["pass"] else run["reasons"]:
            self.tell(f"  {name}: {reason}")
        return run

    def flat_out(self):
        frames = self.one_flat_out(servers.TOWNHALL).get("frames_per_write")
        self.limit_flat_out(max(1, round(frames or 1)))
        for peer in self.peers:
            self.one_flat_out(peer)
        self.one_flat_out(servers.TOWNHALL, machine.ALL, TWO_CORES)
        carried = slowest({peer.name: self.results["flat out"][peer.name] for peer in self.peers})
        if carried and carried < SPARE * self.chosen.pace * self.chosen.connections and len(self.paces) == 1:
            self.paces.append(max(1, self.chosen.pace // LOWER))

    def one_flat_out(self, server, cores=machine.SERVER, name=None):
        c, name = self.chosen, name or server.name
        self.tell(f"flat out: {name}")
        return self.keep("flat out", name, measure.flat_out, server, cores, c.connections, c.seconds, c.size)

    def limit_flat_out(self, frames):
        """With as many frames a write as the hall just had."""
        c = self.chosen
        run = self.one_flat_out(servers.bare_loop(c.connections, c.seconds, c.size, "--frames-per-write", str(frames)))
        run["frames_per_write"] = frames

    def equal(self):
        for pace in self.paces:
            self.equal_at(pace)

    def equal_at(self, pace):
        c = self.chosen
        limit = servers.bare_loop(c.connections, c.seconds, c.size, "--rate", str(pace))
        turns = [(server, machine.SERVER, server.name) for server in (servers.TOWNHALL, limit, *self.peers)]
        for server, cores, name in [*turns, (servers.TOWNHALL, machine.ALL, TWO_CORES)]:
            self.tell(f"{pace} messages/s: {name}")
            run = self.keep(f"equal {pace}", name, measure.paced, server, cores, c.connections, pace, c.seconds, c.size)
            if server.speaks:
                run["frames_per_write"] = 1

    def half(self):
        """Each at half of what it had flat out, by the median of the rounds so far."""
        c = self.chosen
        for server in self.everybody:
            most = median(self.results["flat out"][server.name], "deliveries_per_s")
            if not most:
                continue
            rate = most / c.connections / 2
            self.tell(f"half of its maximum, {rate:,.0f} messages/s: {server.name}")
            load = (server, machine.SERVER, c.connections, rate, c.seconds, c.size)
            self.keep("half", server.name, measure.paced, *load)

    def connect(self):
        for server in self.everybody:
            self.tell(f"{self.chosen.many:,} connect: {server.name}")
            self.keep("connect", server.name, measure.connect, server, self.chosen.many)

    def kill(self):
        c = self.chosen
        for server in self.everybody:
            self.tell(f"{c.many:,} resume: {server.name}")
            self.keep("kill", server.name, killed.killed, server, c.many, c.kill_rate, c.kill_seconds, c.size)

    def idle(self):
        c = self.chosen
        limit = servers.bare_loop(c.many, c.idle_seconds + 9, c.size, "--rate", str(1 / (c.idle_seconds + 8)))
        for server in [servers.TOWNHALL, limit, *self.idle_peers]:
            self.tell(f"{c.many:,} idle: {server.name}")
            self.keep("idle", server.name, measure.idle, server, c.many, c.idle_seconds, c.size)
