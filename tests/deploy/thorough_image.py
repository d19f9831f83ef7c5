"""The image's files, as Dockerfile says, run as Kubernetes runs them: not as root, read-only, without rights, and with nothing
beside the program. Only a container engine is missing."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import unittest

import hall
import manifests
from image import Image
from manifests import Cluster

BUNDLE = "etc/ssl/certs/ca-certificates.crt"

DEVICES = ("null", "zero", "random", "urandom")

RUN = f"""
mount --bind "$0" "$0" && mount -t proc proc "$0/proc" &&
    for device in {' '.join(DEVICES)}; do mount --bind /dev/$device "$0/dev/$device" || exit; done &&
    mount -o remount,bind,ro "$0" &&
    exec setpriv --no-new-privs unshare --user --map-user="$1" --map-group="$1" --root="$0" --wd=/ "${{@:2}}"
"""


def assemble(image, root):
    """What of distroless/static a static program can notice, places for what a runtime mounts, and what the last stage adds."""
    for directory in ("dev", "etc/ssl/certs", "proc", "tmp", "usr/local/bin"):
        (root / directory).mkdir(parents=True)
    for device in DEVICES:
        (root / "dev" / device).touch()
    (root / "etc/passwd").write_text("nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    for path in (BUNDLE, "etc/hosts"): # a runtime brings the latter
        shutil.copy(f"/{path}", root / path)
    shutil.copy(hall.TOWNHALL, root / image.program.lstrip("/"))


class Container(unittest.TestCase):
    def setUp(self):
        self.image = Image()
        self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
        assemble(self.image, self.root)

    @contextlib.contextmanager
    def run_in(self, command, env, up):
        apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "bash", "-c", RUN, self.root, str(self.image.user)]
        with hall.Process([*apart, *command], {"PATH": os.environ["PATH"], **env}, up) as process:
            yield process

    def program_of(self, process):
        """The process that is the container's first: the only child of `unshare --fork`."""
        (child,) = pathlib.Path(f"/proc/{process.child.pid}/task/{process.child.pid}/children").read_text().split()
        return child

    def inside(self, program, command, *namespaces):
        """Runs it there with the same rights."""
        enter = ["nsenter", "--target", program, "--user", "--preserve-credentials", *namespaces, "--"]
        env = {"PATH": os.environ["PATH"], **self.image.env}
        return subprocess.run([*enter, *command], env=env, capture_output=True, text=True)

    def test_it_runs_is_healthy_and_leaves(self):
        cluster = Cluster(manifests.overlay("dev"))
        workload = cluster.hall()
        ready = workload.probe_urls()[-1]
        server = manifests.Workload(cluster.named("StatefulSet", "townhall-redis"))
        directory = self.enterContext(tempfile.TemporaryDirectory())
        self.enterContext(hall.redis(server.container["args"], directory))
        env = {**self.image.env, **cluster.env(workload)}
        with self.run_in(self.image.entrypoint, env, lambda: hall.status(ready) == 200) as process:
            self.assertEqual([hall.status(url) for url in workload.probe_urls()], [200, 200, 200], process.said())
            program = self.program_of(process)
            self.is_confined(program)
            self.is_healthy(program)
            os.kill(int(program), signal.SIGTERM)
            self.assertEqual(process.child.wait(workload.grace_seconds() - workload.pre_stop_seconds()), 0, process.said())

    def is_confined(self, program):
        status = dict(line.split(":", 1) for line in self.inside(program, ["cat", f"/proc/{program}/status"]).stdout.splitlines())
        self.assertEqual(set(status["Uid"].split()), {str(self.image.user)})
        self.assertEqual({status[caps].strip() for caps in ("CapEff", "CapPrm", "CapInh", "CapAmb")}, {"0" * 16})
        self.assertEqual(status["NoNewPrivs"].strip(), "1")
        self.assertEqual(status["NSpid"].split()[-1], "1")
        with self.assertRaisesRegex(OSError, "Read-only"):
            pathlib.Path(f"/proc/{program}/root/tmp/note").write_text("")

    def is_healthy(self, program):
        told = self.inside(program, self.image.health, "--mount", "--pid", "--root", "--wd")
        self.assertEqual(told.returncode, 0, told.stderr)
        self.assertIn("/healthz: 200", told.stdout)

    def test_nothing_is_there_that_another_program_would_need(self):
        shutil.copy("/bin/sh", self.root / "usr/local/bin/sh")
        with self.run_in(["/usr/local/bin/sh", "-c", ":"], {}, lambda: False) as process:
            self.assertNotEqual(process.child.wait(), 0)
            self.assertIn("No such file", process.said())
