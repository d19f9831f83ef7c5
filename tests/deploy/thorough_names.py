"""The static binary finds a Redis by its name in DNS, however the machine is told to look names up. A static glibc has files and
DNS in itself and would load the rest."""

import contextlib
import pathlib
import socket
import subprocess
import tempfile
import threading
import unittest

import hall

NAME = "redis.in-dns.example"

LOOKED_UP = (
    "hosts: files dns",
    "hosts: files mdns4_minimal [NOTFOUND=return] dns",  # Debian's desktop
    "hosts: mymachines resolve [!UNAVAIL=return] files myhostname dns",  # systemd's
    "",  # Alpine has no such file
)


def answer(question):
    """127.0.0.1 for an A of NAME, and nothing else."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in NAME.split("."))
    body = question[12:]
    known = body.startswith(labels + b"\0\0\1\0\1")
    flags = b"\x81\x80" if body.startswith(labels) else b"\x81\x83"
    record = b"\xc0\x0c\0\1\0\1\0\0\0\0\0\4\x7f\0\0\1" if known else b""
    end = body.index(b"\0") + 5
    return question[:2] + flags + b"\0\1" + bytes([0, known]) + b"\0\0\0\0" + body[:end] + record


@contextlib.contextmanager
def name_server(asked):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 53))

        def serve():
            while (packet := server.recvfrom(4096))[0] != b"stop":
                asked.append(packet[0])
                server.sendto(answer(packet[0]), packet[1])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as us:
                us.sendto(b"stop", ("127.0.0.1", 53))
            thread.join()


@contextlib.contextmanager
def in_place_of(path, text):
    """As long as this lasts, that file says this to whom we start."""
    with tempfile.NamedTemporaryFile("w") as page:
        page.write(text + "\n")
        page.flush()
        subprocess.run(["mount", "--bind", page.name, path], check=True)
        try:
            yield
        finally:
            subprocess.run(["umount", path], check=True)


class Names(unittest.TestCase):
    def test_redis_is_found_by_its_name_in_dns(self):
        asked = []
        env = {"TOWNHALL_LISTEN": "0.0.0.0:8080", "TOWNHALL_OPS": "0.0.0.0:8081", "TOWNHALL_REDIS": f"redis://{NAME}:6379"}
        with contextlib.ExitStack() as around:
            around.enter_context(hall.redis(["redis-server", "--save", ""], around.enter_context(tempfile.TemporaryDirectory())))
            around.enter_context(name_server(asked))
            around.enter_context(in_place_of(pathlib.Path("/etc/resolv.conf").resolve(), "nameserver 127.0.0.1"))
            for line in LOOKED_UP:
                with self.subTest(line), in_place_of("/etc/nsswitch.conf", line):
                    asked.clear()
                    self.assertEqual(hall.life(env, ["http://127.0.0.1:8081/readyz"], 30, 0), [])
                    self.assertNotEqual(asked, [])
