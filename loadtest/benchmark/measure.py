"""One measurement of one server: a load on it, and what both said afterwards."""
import json
import subprocess
import time

from . import machine
from .servers import pinned, running, typed

# They read and judge everything, and they are the publishers; all others only count. Few, since reading is what costs.
READERS = 10
# Messages that each has under way, flat out, until it has heard them itself: so nothing piles up in a server that accepts
# faster than it delivers, and no peer loses.
WINDOW = 32
CONNECT_RATE = 4000
# Connections that are being made at the same time where the rate is what is measured.
CONNECTING = 64


def load_command(scenario, nodes, options, cores=machine.GENERATOR):
    """The generator's, for nodes that run, which are of one kind."""
    urls, its_options = [node.url for node in nodes], nodes[0].server.load_options
    return pinned(cores, ["townhall-load", scenario, *urls, "--json", "--quiet", *its_options, *map(str, options)])


def begin(command):
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def verdict(load):
    """What the generator printed, or why it printed nothing."""
    output, errors = load.communicate()
    try:
        return json.loads(output)
    except ValueError:
        why = errors.strip().splitlines() or [f"the generator ended with {load.returncode}"]
        return {"pass": False, "reasons": why[:1]}


def flat_out(server, cores, connections, seconds, size):
    speakers = ["--publishers", READERS, "--rate", 0, "--window", WINDOW, "--until-heard", "--seconds", seconds]
    return deliveries(server, cores, connections, speakers, seconds, size)


def paced(server, cores, connections, rate, seconds, size):
    speakers = ["--publishers", READERS, "--rate", f"{rate:.6g}", "--seconds", seconds]
    run = deliveries(server, cores, connections, speakers, seconds, size)
    return {**run, "messages_per_s_due": rate}


def deliveries(server, cores, connections, speakers, seconds, size):
    if server.speaks:
        speakers = ["--publishers", 0, "--seconds", seconds + 3]  # it pauses a second before it begins
    with running(server, cores) as it:
        options = ["--connect-rate", CONNECT_RATE, "--connections", READERS, "--listeners", connections - READERS,
                   *speakers, "--size", size, "--watch", it.pid]
        command = load_command("fanout", [it], options)
        load = begin(command)
        try:
            result = verdict(load)
            writes, delivered = it.counter("townhall_writes_total"), it.counter("townhall_deliveries_total")
        finally:
            load.kill()
        return run_of([it], command, result, frames_per_write=delivered / writes if writes else None)


def run_of(nodes, command, result, **more):
    """What is kept of every run."""
    return {
        "commands": [*(typed(node.command) for node in nodes), typed(command)],
        "pass": result["pass"],
        "reasons": result["reasons"],
        "void": result.get("void_reason"),
        **more,
        **delivered(result),
    }


def delivered(result):
    if not result.get("deliveries"):
        return {}
    found = {
        "deliveries_per_s": result["deliveries_per_s"],
        "generator_cpu": result["cpu_share"],
        "generator_core": result["cores_busy"],
        **milliseconds(result["delivered_ms"]),
    }
    if result["watched_cpu_s"] is not None:  # None: nobody was watched, or the server died
        found["cpu_us"] = 1e6 * result["watched_cpu_s"] / result["deliveries"]
    if result["listeners"]:
        listened = result["deliveries"] * result["listeners"] / (result["listeners"] + result["connections"])
        found["bytes"] = result["listeners_bytes"] / listened
    return found


def milliseconds(latencies):
    """Of what was measured at all."""
    if not latencies or not latencies["count"]:
        return {}
    return {f"{name}_ms": latencies[name] for name in ("p50", "p99", "p999", "max")}


def connect(server, connections):
    """As fast as they are let in."""
    with running(server, machine.SERVER) as it:
        options = ["--connections", connections, "--connect-rate", 0, "--window", CONNECTING, "--watch", it.pid]
        command = load_command("connect", [it], options)
        result = verdict(begin(command))
        cpu, came = result.get("watched_entry_cpu_s"), result.get("connected")
        each = 1e6 * cpu / came if cpu and came else None
        return run_of([it], command, result, connects_per_s=result.get("connects_per_s"), connect_cpu_us=each,
                      **milliseconds(result.get("connect_ms")))


def idle(server, connections, seconds, size):
    """Memory and processor time of connections that are in a room in which one message was said. Another one follows at
    the end, and everybody has to get it."""
    apart = seconds + 8
    speakers = ["--publishers", 1, "--messages", 2, "--rate", 1 / apart]
    if server.speaks:
        speakers = ["--publishers", 0, "--seconds", apart + 4]
    with running(server, machine.SERVER) as it:
        before, files = machine.anonymous_bytes(it.pid), machine.open_files(it.pid)
        options = ["--connect-rate", CONNECT_RATE, "--connections", 1, "--listeners", connections - 1, *speakers,
                   "--size", size, "--watch", it.pid]
        command = load_command("fanout", [it], options)
        load = begin(command)
        try:
            seen = watch_idle(it, load, files + connections - 5, seconds)  # the first probe may still be among `files`
            result = verdict(load)
        finally:
            load.kill()
        run = run_of([it], command, result)
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
