"""A real Redis, real halls, a real Prometheus, and clients that misbehave. Each ends when its test does.

Prometheus has the rules that are shipped, with every duration in them (ranges, `for`) and of its own (scraping, evaluating,
looking back) divided by FACTOR, so that half an hour is half a minute. Nothing else of them is changed.
"""
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAMS = os.path.join(TOP, os.environ.get("CARGO_TARGET_DIR", "target"), "debug")
FACTOR = 60
PATIENCE_S = 90
MILLISECONDS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def divided(duration):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|h|d)", duration).groups()
    return f"{int(number) * MILLISECONDS[unit] // FACTOR}ms"


def scaled(rules):
    """The rules with their ranges and `for` divided."""
    return re.sub(r"(?<=\[)\w+(?=\])|(?<=\bfor: )\w+", lambda found: divided(found.group()), rules)


def read(*path):
    with open(os.path.join(TOP, *path), encoding="utf-8") as file:
        return file.read()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def eventually(what, condition):
    """What the condition returned in the end. It is looked at again and again."""
    give_up = time.monotonic() + PATIENCE_S
    while time.monotonic() < give_up:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited in vain until {what}")


def page(url):
    with urllib.request.urlopen(url, timeout=10) as answer:
        return answer.read().decode()


def answers(url):
    try:
        return page(url)
    except OSError:
        return None


class Program:
    """A process and its directory; what it said is shown when it could not be started."""

    def __init__(self, test, *command):
        self.directory = tempfile.mkdtemp(prefix="watched-")
        self.test, self.command, self.process = test, [str(word) for word in command], None
        test.addCleanup(subprocess.run, ["rm", "-rf", self.directory], check=True)
        test.addCleanup(self.kill)

    def start(self, what, ready):
        with open(os.path.join(self.directory, "log"), "ab") as log:
            self.process = subprocess.Popen(self.command, cwd=self.directory, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

        def looked():
            if self.process.poll() is not None:
                with open(os.path.join(self.directory, "log"), encoding="utf-8") as log:
                    raise AssertionError(f"{self.command} ended: {log.read()}")
            return ready()

        eventually(f"{what} is ready", looked)
        return self

    def kill(self):
        if self.process:
            self.process.kill()
            self.process.wait()

    def in_pulses(self, stopped, running):
        """Until the test ends it is stopped again and again, for so long, as what is starved of its processor is."""
        over = threading.Event()

        def pulse():
            while not over.is_set():
                self.process.send_signal(signal.SIGSTOP)
                time.sleep(stopped)
                self.process.send_signal(signal.SIGCONT)
                over.wait(running)

        thread = threading.Thread(target=pulse)
        thread.start()
        self.test.addCleanup(thread.join)
        self.test.addCleanup(over.set)


class Redis(Program):
    """It keeps nothing: started again it is empty."""

    def __init__(self, test):
        self.port = free_port()
        super().__init__(test, "redis-server", "--port", self.port, "--bind", "127.0.0.1", "--save", "")
        self.start()

    def start(self):
        return super().start("Redis", self.ping)

    def ping(self):
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1) as line:
                line.sendall(b"PING\r\n")
                return line.recv(16) == b"+PONG\r\n"
        except OSError:
            return False


class Hall(Program):
    def __init__(self, test, redis, *options, files=None):
        self.port, self.ops, self.lines = free_port(), free_port(), free_port()
        limited = ["prlimit", f"--nofile={files}:{files}"] if files else []
        super().__init__(
            test, *limited, os.path.join(PROGRAMS, "townhall"), "serve", "--redis", f"redis://127.0.0.1:{redis.port}",
            "--listen", f"127.0.0.1:{self.port}", "--ops", f"127.0.0.1:{self.ops}", "--tcp", f"127.0.0.1:{self.lines}", *options)
        self.start("the hall", lambda: answers(f"http://127.0.0.1:{self.ops}/readyz"))

    def target(self):
        return f"127.0.0.1:{self.ops}"

    def metric(self, name):
        """The sum over its labels."""
        lines = page(f"http://{self.target()}/metrics").splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{name}[ {{]", line))


class Prometheus(Program):
    def __init__(self, test, halls):
        self.port = free_port()
        super().__init__(
            test, "prometheus", "--config.file=prometheus.yaml", "--storage.tsdb.path=data", "--log.level=warn",
            f"--web.listen-address=127.0.0.1:{self.port}", f"--query.lookback-delta={divided('5m')}")
        every = divided("15s")
        self._write("rules.yaml", scaled(read("grafana", "rules.yaml")))
        self._write("prometheus.yaml", json.dumps({
            "global": {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [
                {"job_name": "townhall", "static_configs": [{"targets": [hall.target() for hall in halls]}]}],
        }))
        self.start("Prometheus", lambda: answers(f"http://127.0.0.1:{self.port}/-/ready"))
        eventually("all halls were scraped", lambda: len(self.query("up == 1")) == len(halls))

    def _write(self, name, text):
        with open(os.path.join(self.directory, name), "w", encoding="utf-8") as file:
            file.write(text)

    def _ask(self, path, **parameters):
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        return json.loads(page(url))["data"]

    def query(self, expression):
        """Values by series, without those that are no numbers."""
        samples = [(str(it["metric"]), float(it["value"][1])) for it in self._ask("query", query=expression)["result"]]
        return {series: value for series, value in samples if value == value}

    def firing(self):
        """Names of alerts and whom they are about."""
        alerts = [alert for alert in self._ask("alerts")["alerts"] if alert["state"] == "firing"]
        return {(alert["labels"]["alertname"], alert["labels"].get("instance")) for alert in alerts}


def load(test, scenario, *arguments):
    """townhall-load in the background."""
    command = [os.path.join(PROGRAMS, "townhall-load"), scenario, *map(str, arguments), "--quiet"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    test.addCleanup(process.wait)
    test.addCleanup(process.terminate)
    return process


# --- clients that misbehave -----------------------------------------------------------------------------------------------


def lines(test, hall, count):
    """So many clients at the line door."""
    sockets = [socket.create_connection(("127.0.0.1", hall.lines), 10) for _ in range(count)]
    for line in sockets:
        test.addCleanup(line.close)
    return sockets


def cut(sockets):
    """As a network does it: without a goodbye."""
    for line in sockets:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        line.close()


READER = """
import selectors, socket, sys
port, count = map(int, sys.argv[1:])
all = selectors.DefaultSelector()
for _ in range(count):
    all.register(socket.create_connection(("127.0.0.1", port)), selectors.EVENT_READ)
while True:
    for key, _ in all.select():
        key.fileobj.recv(65536)
"""


class Readers:
    """A process with clients at the line door that read, until it is stopped."""

    def __init__(self, test, hall, count):
        self.process = subprocess.Popen([sys.executable, "-c", READER, str(hall.lines), str(count)])
        test.addCleanup(self.process.wait)
        test.addCleanup(self.process.kill)
        eventually("they are in", lambda: hall.metric("townhall_connections") == count)

    def stop(self):
        self.process.send_signal(signal.SIGSTOP)


def unfinished_echo(test, hall, size):
    """A client of /echo all but the last byte of whose message has come."""
    line = socket.create_connection(("127.0.0.1", hall.port), 10)
    test.addCleanup(line.close)
    line.sendall(b"GET /echo HTTP/1.1\r\nHost: hall\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                 b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
    answer = line.recv(4096)
    assert answer.startswith(b"HTTP/1.1 101"), answer
    line.sendall(struct.pack("!BBQ4s", 0x82, 0x80 | 127, size, bytes(4)))
    line.sendall(b"x" * (size - 1))
