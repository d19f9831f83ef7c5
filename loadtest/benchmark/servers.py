"""The servers that are compared: how each is built, started, and stopped."""
import contextlib
import dataclasses
import os
import re
import shlex
import shutil
import socket
import subprocess
import time
import urllib.request

from . import machine

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
# Where the programs are that are measured.
programs = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(TOP, "target")), "release")
PEERS = os.path.join(TOP, "loadtest", "peers")
# Peers that are not written in Rust: the programs, and where they are in PEERS.
IN_GO = {"peer-gin-gorilla": "gin-gorilla", "peer-gorilla-hub": "gorilla-hub", "peer-centrifuge-server": "centrifuge-server"}
IN_NODE = {"peer-socketio": "socketio"}


@dataclasses.dataclass
class Server:
    name: str
    # Which program, and its arguments for an address.
    arguments: list
    # What the generator has to be told about it.
    load_options: list = dataclasses.field(default_factory=list)
    has_metrics: bool = False
    # It speaks by itself: the generator only listens.
    speaks: bool = False


# --rate 0: no limit for a publisher, since no peer has one.
TOWNHALL = Server("townhall", ["townhall", "--rate", "0", "--listen"], has_metrics=True)
AXUM = Server("axum + tokio broadcast", ["peer-axum-broadcast"])
GIN = Server("gin + gorilla", ["peer-gin-gorilla"])
CENTRIFUGE = Server("centrifuge", ["peer-centrifuge-server"], load_options=["--dialect", "centrifuge"])
SOCKETIO = Server("socket.io", ["peer-socketio"], load_options=["--dialect", "socketio"])


def gorilla(queue):
    """With the channel of each client so long. Its frames hold several messages, a line each."""
    return Server("gorilla hub", ["peer-gorilla-hub", "{}", str(queue)], load_options=["--lines"])


def bare_loop(clients, seconds, size, *pace):
    """The limit: it speaks for so long once so many clients are in."""
    arguments = ["peer-epoll-loop", "--clients", str(clients), "--seconds", str(seconds), "--size", str(size), *pace]
    return Server("bare epoll loop", arguments, speaks=True)


def peers(queue, missing):
    """All that are there. What is missing is known by its program."""
    return [peer for peer in (AXUM, gorilla(queue), GIN, CENTRIFUGE, SOCKETIO) if peer.arguments[0] not in missing]


def joined(server, url):
    """As one of several nodes, which that Redis joins."""
    program, *more = server.arguments
    return dataclasses.replace(server, arguments=[program, "--redis", url, *more])


def use(directory):
    """Takes what was built before. Returns which peers are not there, and why: by program."""
    global programs
    programs = directory
    wanted = ["peer-axum-broadcast", *IN_GO, *IN_NODE]
    return {program: "not built" for program in wanted if not os.path.exists(os.path.join(directory, program))}


def typed(command):
    """As a person would type it, wherever the programs are."""
    return shlex.join(command).replace(programs + os.sep, "")


def build():
    """Builds all of them. Returns which peers could not be, and why: by program."""
    build_rust()
    whys = {program: build_go(os.path.join(PEERS, directory), program) for program, directory in IN_GO.items()}
    whys.update({program: build_node(os.path.join(PEERS, directory), program) for program, directory in IN_NODE.items()})
    return {program: why for program, why in whys.items() if why}


def build_rust():
    packages = ["townhall", "townhall-load", "peer-axum-broadcast", "peer-epoll-loop"]
    chosen = [argument for package in packages for argument in ("-p", package)]
    subprocess.run(["cargo", "build", "--release", "--bins", "--quiet", *chosen], cwd=TOP, check=True)


def build_node(directory, program):
    """Returns why it cannot be, or None. The program is a link to where its packages are beside it."""
    for needed in ("node", "npm"):
        if not shutil.which(needed):
            return f"no {needed}"
    if not os.path.isdir(os.path.join(directory, "node_modules")):
        done = subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=directory, capture_output=True, text=True)
        if done.returncode != 0:
            return f"npm ci failed: {done.stderr.strip()}"
    link = os.path.join(programs, program)
    if os.path.lexists(link):
        os.remove(link)
    os.symlink(os.path.join(directory, "server.mjs"), link)
    return None


def build_go(directory, program):
    """Returns why it cannot be built, or None."""
    if not shutil.which("go"):
        return "no Go"
    badly_formatted = subprocess.run(["gofmt", "-l", "."], cwd=directory, capture_output=True, text=True).stdout
    if badly_formatted:
        return f"gofmt wants to change {badly_formatted.split()}"
    for step in (["go", "vet", "./..."], ["go", "build", "-o", os.path.join(programs, program), "."]):
        done = subprocess.run(step, cwd=directory, capture_output=True, text=True)
        if done.returncode != 0:
            return f"{' '.join(step[:2])} failed: {done.stderr.strip()}"
    return None


def pinned(cores, command):
    return ["taskset", "-c", ",".join(map(str, cores)), os.path.join(programs, command[0]), *command[1:]]


class Running:
    """A server that runs; `command` is what a person would type."""

    def __init__(self, server, cores):
        self.server = server
        self.port = machine.free_port()
        self.ops_port = machine.free_port() if server.has_metrics else None
        self.command = pinned(cores, self._arguments())
        # Go takes its number of threads from the cores that it is given; said all the same, for older ones.
        environment = {**os.environ, "GOMAXPROCS": str(len(cores))}
        self.process = subprocess.Popen(
            self.command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.pid = self.process.pid  # taskset becomes the server

    def _arguments(self):
        address = f"127.0.0.1:{self.port}"
        arguments = [argument.replace("{}", address) for argument in self.server.arguments]
        if address not in arguments:
            arguments.append(address)
        if self.ops_port:
            arguments += ["--ops", f"127.0.0.1:{self.ops_port}"]
        return arguments

    @property
    def url(self):
        return f"ws://127.0.0.1:{self.port}"

    def wait_until_it_listens(self):
        for _ in range(400):
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.server.name} ended early: {typed(self.command)}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.025)
        raise RuntimeError(f"{self.server.name} does not listen")

    def counter(self, name):
        """The sum of a counter over its labels; None where there is none."""
        if not self.ops_port:
            return None
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ops_port}/metrics", timeout=10) as page:
                lines = page.read().decode().splitlines()
        except OSError:
            return None  # it died: the generator has seen that, too, and says so
        values = [float(line.rsplit(" ", 1)[1]) for line in lines if re.match(rf"{name}(\{{|\s)", line)]
        return sum(values) if values else None


@contextlib.contextmanager
def running(server, cores):
    it = Running(server, cores)
    try:
        it.wait_until_it_listens()
        yield it
    finally:
        it.process.kill()
        it.process.wait()
