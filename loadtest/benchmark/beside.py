"""What uses a node's Redis beside it: connections that listen as more nodes would, and somebody who speaks without a node."""
import selectors
import socket
import threading
import time
import uuid

from . import halls, redis
from .redis_server import answer, ask, request

CHANNEL = f"townhall:0:{{{halls.ROOM}}}"
KEYS = [f"townhall:{{{halls.ROOM}}}:{key}" for key in ("log", "meta", "seen", "seen:old")]


class Listeners(threading.Thread):
    """Connections that listen to the room's channel, as many more nodes would; and, at the end, what the room takes in Redis."""

    def __init__(self, count, port):
        super().__init__(daemon=True)
        self.port, self.heard, self.stored = port, 0, 0
        self.lines = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
        self.over = threading.Event()

    def run(self):
        with selectors.DefaultSelector() as ready:
            for line in self.lines:
                line.sendall(request("SUBSCRIBE", CHANNEL))
                ready.register(line, selectors.EVENT_READ)
            while not self.over.is_set():
                for key, _ in ready.select(timeout=0.1):
                    self.heard += len(key.fileobj.recv(65536))

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()
        for line in self.lines:
            line.close()
        usage = (ask(self.port, "MEMORY", "USAGE", key, "SAMPLES", 0) for key in KEYS)
        self.stored = sum(int(size) for size in usage if size)


class Speaker(threading.Thread):
    """Stores messages as a node does, without one: what the node that hears them takes is then for hearing alone."""

    def __init__(self, rate, seconds, port):
        super().__init__(daemon=True)
        self.rate, self.seconds, self.port, self.said = rate, seconds, port, 0
        self.over = threading.Event()

    def run(self):
        while not self.over.is_set() and ask(self.port, "PUBSUB", "NUMSUB", CHANNEL) in (None, [CHANNEL, 0]):
            self.over.wait(0.05)
        self.over.wait(1)  # by then everybody is in
        with socket.create_connection(("127.0.0.1", self.port)) as line:
            answers, begun = line.makefile("rb"), time.monotonic()
            while time.monotonic() < begun + self.seconds:
                if self.over.wait(begun + self.said / self.rate - time.monotonic()):
                    break
                line.sendall(request(*redis.stored(halls.ROOM, uuid.uuid4())))
                answer(answers)
                self.said += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join()


def beside(begin):
    """A way to begin something when Redis is there, and a list of what was begun with it."""
    there = []

    def enter(port):
        there.append(begin(port))
        return there[0]

    return enter, there
