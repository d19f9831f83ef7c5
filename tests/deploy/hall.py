"""A hall that runs with exactly the variables that a manifest gives it, and the Redis beside it."""

import contextlib
import functools
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request

import apart  # noqa: F401 (before anything listens)

TOWNHALL = os.environ["TOWNHALL"]

PATIENCE_SECONDS = 30
"""For what takes a fraction of a second, on a machine that does other things, too."""

GOODBYES_SECONDS = 5
"""What leaving may take beyond TOWNHALL_DRAIN (LAST_GOODBYES in src/server.rs)."""


@functools.cache
def variables():
    """Those that the binary knows."""
    told = subprocess.run([TOWNHALL, "serve", "--help"], env={}, capture_output=True, text=True, check=True)
    return {*re.findall(r"\[env:\s+(TOWNHALL_\w+)", told.stdout), "RUST_LOG"}


def seconds(duration):
    """Of what the hall, Compose and systemd write: `20s`, `500ms`, `1m`, `40`."""
    number, unit = re.fullmatch(r"(\d+)(ms|s|m|)", duration).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60, "": 1}[unit]


def size(text):
    """Of what the hall and Kubernetes write: `256MiB`, `512Mi`, in bytes."""
    number, unit = re.fullmatch(r"(\d+)(Ki|Mi|Gi)B?", text).groups()
    return int(number) * 1024 ** {"Ki": 1, "Mi": 2, "Gi": 3}[unit]


def port(address):
    return int(address.rsplit(":", 1)[1])


def status(url):
    """What a probe gets there; 0 for no answer."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


class Process:
    """A command that runs until it is left."""

    def __init__(self, command, env, up):
        self.command, self.env, self.up = command, env, up

    def __enter__(self):
        self.log = tempfile.TemporaryFile("w+")
        self.child = subprocess.Popen(self.command, env=self.env, stdout=self.log, stderr=self.log)
        until = time.monotonic() + PATIENCE_SECONDS
        while not self.up() and self.child.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        return self

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def __exit__(self, *_):
        self.child.kill()
        self.child.wait()
        self.log.close()


def redis(arguments, directory):
    """A Redis that is started as manifests start it; here it is Debian's."""
    assert arguments[0] == "redis-server", arguments
    ping = ["redis-cli", "-h", "127.0.0.1", "ping"]
    up = lambda: subprocess.run(ping, capture_output=True).stdout == b"PONG\n"
    return Process([*arguments, "--dir", directory], {"PATH": os.environ["PATH"]}, up)


def guest(to_port):
    """Somebody at the plain door who never answers a good-bye."""
    joined = socket.create_connection(("127.0.0.1", to_port))
    joined.sendall(
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )
    answer = joined.recv(4096)
    assert answer.startswith(b"HTTP/1.1 101 "), answer
    return joined


def one_guest(env):
    """Whom leaving has to wait for: a drain that is long takes its time, which `make deploy` alone has (EVERY_DRAIN)."""
    return 1 if "EVERY_DRAIN" in os.environ or seconds(env.get("TOWNHALL_DRAIN", "20s")) <= 5 else 0


def life(env, probes, within, guests=None, command=(TOWNHALL, "serve")):
    """What is wrong with a hall that gets these variables and no others. It starts, probes (URLs) are answered, its page is
    there, and SIGTERM ends it `within` so many seconds, though `guests` (without a number: `one_guest`) stay until they are
    thrown out. The last probe says when it has started."""
    guests = one_guest(env) if guests is None else guests
    with Process(command, env, lambda: status(probes[-1]) == 200) as hall:
        if hall.child.poll() is not None:
            return [f"it ended with {hall.child.returncode}: {hall.said().strip()}"]
        door = port(env["TOWNHALL_LISTEN"])
        urls = [*probes, f"http://127.0.0.1:{door}/"]
        wrong = [f"{url} is answered {code or 'by nobody'}" for url in urls if (code := status(url)) != 200]
        with contextlib.ExitStack() as staying:
            for _ in range(guests):
                staying.enter_context(guest(door))
            hall.child.send_signal(signal.SIGTERM)
            try:
                code = hall.child.wait(within)
            except subprocess.TimeoutExpired:
                return [*wrong, f"{within} s after SIGTERM it is still there"]
        return [*wrong, *([f"it ended with {code}: {hall.said().strip()}"] if code else [])]
