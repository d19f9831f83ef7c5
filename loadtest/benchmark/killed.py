"""What a kill costs: two nodes on one Redis, everybody at the first, which is killed while some speak; all come to the other."""
import contextlib
import signal
import subprocess

from . import machine, measure, servers
from .redis_server import Redis, eventually

# Speaking goes on so long before the kill; what is said after it shows whether everybody is really back.
KILL_AFTER_S = 5
# What the generator says of it, and is kept.
VERDICT = ("all_back_s", "lost", "told", "doubled", "swapped", "resumes", "away", "connected")


def killed(server, connections, rate, seconds, size):
    """Nodes and Redis have one core, the generator the other. `lost`: what somebody missed and was not told of."""
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(Redis(cores=machine.SERVER))
        node = servers.joined(server, redis.url)
        nodes = first, spare = [stack.enter_context(servers.running(node, machine.SERVER)) for _ in range(2)]
        if node.has_metrics:
            eventually(lambda: all(it.counter("townhall_broker_up") == 1 for it in nodes), "the halls hear Redis")
        options = ["--spare", spare.url, "--connections", connections, "--connect-rate", measure.CONNECT_RATE,
                   "--rate", rate, "--seconds", seconds, "--size", size,
                   "--cut-after", f"{KILL_AFTER_S}s", "--instead", f"kill -9 {first.pid}"]
        command = measure.load_command("storm", [first], options)
        load = stack.enter_context(measure.begin(command))
        stack.callback(load.kill)
        reads = reads_before_death(first, load, redis)
        result = measure.verdict(load)
        came = result.get("connected")
        run = measure.run_of(nodes, command, result, history_reads=came and redis.stream_reads() - reads)
        run.update({name: result.get(name) for name in VERDICT})
        run.update({f"back_{name}": value for name, value in measure.milliseconds(result.get("back_ms")).items()})
        if came and first.process.poll() != -signal.SIGKILL:
            run.update({"pass": False, "reasons": [*run["reasons"], "the first node was not killed"]})
        return run


def reads_before_death(node, load, redis):
    """How often history had been read when the node died."""
    reads = 0
    while node.process.poll() is None and load.poll() is None:
        reads = max(reads, redis.stream_reads())  # a Redis that is too busy to say so has said less before
        with contextlib.suppress(subprocess.TimeoutExpired):
            node.process.wait(0.05)
    return reads
