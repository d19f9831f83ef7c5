"""Real redis-servers and Sentinels, each in a directory of its own and on a free port; they end by their own pid."""
import os
import re
import socket
import subprocess
import tempfile
import time

from . import machine


def eventually(condition, what, seconds=30):
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise RuntimeError(f"waited in vain until {what}")
        time.sleep(0.025)


class Redis:
    """A server that runs, without persistence. With `sentinel`, the text of a configuration, it is a Sentinel."""

    def __init__(self, *options, cores=machine.ALL, sentinel=None):
        self.port = machine.free_port()
        self.directory = tempfile.TemporaryDirectory()
        basics = ["--port", self.port, "--bind", "127.0.0.1", "--dir", self.directory.name]
        if sentinel is None:
            command = ["redis-server", *basics, "--save", "", "--appendonly", "no", *options]
        else:
            path = os.path.join(self.directory.name, "sentinel.conf")
            with open(path, "w", encoding="utf-8") as file:
                file.write(sentinel)
            command = ["redis-server", path, "--sentinel", *basics]
        pinned = ["taskset", "-c", ",".join(map(str, cores)), *map(str, command)]
        self.process = subprocess.Popen(pinned, stdout=subprocess.DEVNULL)
        self.pid = self.process.pid  # taskset becomes the server
        try:
            eventually(self._answers, "Redis answers")
        except RuntimeError:
            self.stop()
            raise

    def _answers(self):
        if self.process.poll() is not None:
            raise RuntimeError("redis-server ended early")
        return self.ask("PING") == "PONG"

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.directory.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}"

    def ask(self, *words):
        return ask(self.port, *words)

    def cli(self, *command, given=None):
        done = subprocess.run(["redis-cli", "-p", str(self.port), *map(str, command)], input=given, capture_output=True, text=True)
        return done.stdout.strip()

    def info(self, section, pattern):
        """The groups of the first line that fits, as numbers."""
        found = re.search(pattern, self.cli("INFO", section))
        return tuple(map(float, found.groups())) if found else None

    def calls(self):
        """How often our function was called, and how many microseconds that took."""
        return self.info("commandstats", r"cmdstat_fcall:calls=(\d+),usec=(\d+)") or (0, 0)

    def cpu_seconds(self):
        """Its own count, which is finer than the system's ticks."""
        return sum(self.info("cpu", rf"used_cpu_{kind}:([\d.]+)")[0] for kind in ("user", "sys"))

    def stream_reads(self):
        """How often anybody has read from a stream, in a script or not: that is how history is read."""
        found = re.findall(r"cmdstat_x(?:rev)?range:calls=(\d+)", self.ask("INFO", "commandstats") or "")
        return sum(map(int, found))

    def load(self, library):
        answer = self.cli("-x", "FUNCTION", "LOAD", "REPLACE", given=library)
        if answer != "townhall_1":
            raise RuntimeError(f"Redis does not take the library: {answer}")


def ask(port, *words):
    """One command over a connection of its own, quicker than redis-cli; None where it is refused or nothing comes back."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=0.5) as line:
            line.sendall(request(*words))
            return answer(line.makefile("rb"))
    except (OSError, ValueError):
        return None


def request(*words):
    parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def answer(lines):
    line = lines.readline().rstrip(b"\r\n")
    kind, rest = line[:1], line[1:].decode()
    if kind == b"$":
        return None if rest == "-1" else lines.read(int(rest) + 2)[:-2].decode()
    if kind == b"*":
        return [answer(lines) for _ in range(int(rest))]
    if kind == b":":
        return int(rest)
    return None if kind in (b"-", b"") else rest
