"""The machine: its cores, and what a process takes of it."""
import os
import platform
import re
import resource
import socket
import subprocess
import time

TICKS = os.sysconf("SC_CLK_TCK")
CORES = sorted(os.sched_getaffinity(0))
# One core for the server, one for the generator; all for a server that shall use all.
SERVER, GENERATOR, ALL = CORES[:1], CORES[1:2], CORES[:2]


def describe():
    model = "unknown processor"
    with open("/proc/cpuinfo") as info:
        for line in info:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
    kernel = re.match(r"\d+\.\d+", platform.release()).group()
    return {"cores": len(CORES), "model": model, "kernel": kernel, **versions()}


# What is measured depends on these, too.
VERSIONS = {"Rust": ["rustc", "--version"], "Go": ["go", "version"], "Node": ["node", "--version"],
            "Redis": ["redis-server", "--version"]}


def versions():
    """Of the toolchains that are here, by name."""
    found = {}
    for name, command in VERSIONS.items():
        try:
            answer = subprocess.run(command, capture_output=True, text=True).stdout
        except FileNotFoundError:
            continue
        number = re.search(r"\d+\.\d+\.\d+", answer)
        if number:
            found[name] = number.group()
    return found


def busy(seconds=1):
    """What share of all cores is taken by others, while nothing of ours runs."""
    def ticks():
        with open("/proc/stat") as stat:
            fields = [int(field) for field in stat.readline().split()[1:9]]
        return sum(fields), fields[3] + fields[4]

    all_before, idle_before = ticks()
    time.sleep(seconds)
    all_after, idle_after = ticks()
    return 1 - (idle_after - idle_before) / max(1, all_after - all_before)


def raise_nofile():
    """To the hard limit, for all that is started from here; returns how many files that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def cpu_seconds(pid):
    """User and system time of a process so far."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def anonymous_bytes(pid):
    """Memory of its own: no pages of the program, none of the kernel's for sockets."""
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith("RssAnon:"):
                return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/{pid}/status has no RssAnon")


def open_files(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))
