"""One measurement: a server, a load on it, and what both said afterwards."""
import json
import subprocess
import time

from . import machine
from .servers import pinned, running

# They read and judge everything, and they are the publishers; all others only count. Few, since reading is what costs.
READERS = 10
# Messages that each has under way, flat out, until it has heard them itself: so nothing piles up in a server that accepts
# faster than it delivers, and no peer loses.
WINDOW = 32
CONNECT_RATE = 4000


def load_options():
    return ["--connect-rate", str(CONNECT_RATE), "--json", "--quiet"]


def load_command(port, options):
    return pinned(machine.GENERATOR, [
        "townhall-load", "fanout", f"ws://127.0.0.1:{port}", *load_options(), *map(str, options)])


def verdict(load):
    """What the generator printed, or why it printed nothing."""
    output, errors = load.communicate()
    try:
        return json.loads(output)
    except ValueError:
        return {"pass": False, "reasons": [errors.strip() or f"the generator ended with {load.returncode}"]}


def flat_out(server, cores, connections, seconds, size):
    speakers = ["--publishers", READERS, "--rate", 0, "--window", WINDOW, "--until-heard", "--seconds", seconds]
    return deliveries(server, cores, connections, speakers, seconds, size)


def paced(server, cores, connections, rate, seconds, size):
    speakers = ["--publishers", READERS, "--rate", rate, "--seconds", seconds]
    return deliveries(server, cores, connections, speakers, seconds, size)


def deliveries(server, cores, connections, speakers, seconds, size):
    if server.speaks:
        speakers = ["--publishers", 0, "--seconds", seconds + 3]  # it pauses a second before it begins
    with running(server, cores) as it:
        options = ["--connections", READERS, "--listeners", connections - READERS, *speakers, "--size", size,
                   "--watch", it.pid, *server.load_options]
        command = load_command(it.port, options)
        load = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            result = verdict(load)
            writes, delivered = it.counter("townhall_writes_total"), it.counter("townhall_deliveries_total")
        finally:
            load.kill()
        return run_of(it, command, result, frames_per_write=delivered / writes if writes else None)


def run_of(it, command, result, **more):
    run = {
        "commands": [" ".join(it.command), " ".join(command)],
        "pass": result["pass"],
        "reasons": result["reasons"],
        **more,
    }
    if result.get("deliveries") and result["watched_cpu_s"] is not None:  # None: the server died
        listened = result["deliveries"] * result["listeners"] / (result["listeners"] + result["connections"])
        run.update(
            deliveries_per_s=result["deliveries_per_s"],
            cpu_us=1e6 * result["watched_cpu_s"] / result["deliveries"],
            bytes=result["listeners_bytes"] / listened,
            p99_ms=result["delivered_ms"]["p99"] if result["delivered_ms"]["count"] else None,
            generator_cpu=result["cpu_share"],
            generator_core=result["cores_busy"],
            void=result["void_reason"],
        )
    return run


def idle(server, connections, seconds, size):
    """Memory and processor time of connections that are in a room in which one message was said. Another one follows at
    the end, and everybody has to get it."""
    apart = seconds + 8
    speakers = ["--publishers", 1, "--messages", 2, "--rate", 1 / apart]
    if server.speaks:
        speakers = ["--publishers", 0, "--seconds", apart + 4]
    with running(server, machine.SERVER) as it:
        before, files = machine.anonymous_bytes(it.pid), machine.open_files(it.pid)
        options = ["--connections", 1, "--listeners", connections - 1, *speakers, "--size", size, "--watch", it.pid,
                   *server.load_options]
        command = load_command(it.port, options)
        load = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            seen = watch_idle(it, load, files + connections - 5, seconds)  # the first probe may still be among `files`
            result = verdict(load)
        finally:
            load.kill()
        run = run_of(it, command, result)
        if seen:
            run["bytes_a_connection"] = (seen["memory"] - before) / connections
            run["idle_cpu"] = seen["cpu_s"] / seconds
        return run


def watch_idle(it, load, files, seconds):
    """Waits until all are in and the first message is delivered, and then watches. None: they never came in."""
    while machine.open_files(it.pid) < files:
        if load.poll() is not None:
            return None
        time.sleep(0.1)
    time.sleep(4)
    memory, cpu = machine.anonymous_bytes(it.pid), machine.cpu_seconds(it.pid)
    time.sleep(seconds)
    return {"memory": memory, "cpu_s": machine.cpu_seconds(it.pid) - cpu}
