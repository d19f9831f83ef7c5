"""A network of our own: every port is free, and names are ours to give. `run` has made it; here it is furnished."""

import fcntl
import os
import socket
import struct
import subprocess
import tempfile

SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1

NAMES = ["localhost", "townhall-redis", "redis"]
"""What all of them call this machine: the Service of the manifests, and the service of compose.yaml."""


def enter():
    """Once; everything that starts later finds it so."""
    if os.readlink("/proc/self/ns/net") == os.environ.get("OUTSIDE", os.readlink("/proc/self/ns/net")):
        raise SystemExit("these tests take fixed ports: start them with tests/deploy/run")
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", IFF_UP))
    with tempfile.NamedTemporaryFile("w", suffix=".hosts") as hosts:
        hosts.write(f"127.0.0.1 {' '.join(NAMES)}\n")
        hosts.flush()
        subprocess.run(["mount", "--bind", hosts.name, "/etc/hosts"], check=True)


enter()
