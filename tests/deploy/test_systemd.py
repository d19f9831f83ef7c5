"""The systemd unit: what systemd says of it, and the hall with the variables beside it."""

import collections
import subprocess
import tempfile
import unittest
from pathlib import Path

import hall
from manifests import TOP

UNIT = (TOP / "deploy/systemd/townhall.service").read_text()
ENV = (TOP / "deploy/systemd/townhall.env").read_text()
INSTALLED = "/usr/local/bin/townhall"

EXPOSURE = 12
"""Of 100, as `systemd-analyze security` counts it."""


def settings(text):
    """Each with all its values, in the order in which they stand."""
    found = collections.defaultdict(list)
    for line in text.splitlines():
        if line and line[0] not in "#[":
            name, value = line.split("=", 1)
            found[name].append(value)
    return found


def variables(text):
    return {name: values[-1] for name, values in settings(text).items()}


def complaints(unit, env):
    found, given = settings(unit), variables(env)
    yield from (f"{name} is no variable of the hall" for name in given.keys() - hall.variables())
    if hall.seconds(given["TOWNHALL_DRAIN"]) + hall.GOODBYES_SECONDS >= hall.seconds(found["TimeoutStopSec"][0]):
        yield "it is killed before everybody has left"
    if found["KillSignal"] != ["SIGTERM"]:
        yield "another signal than SIGTERM sends nobody on"
    if found["StartLimitIntervalSec"] != ["0"]:
        yield "after a few starts systemd gives up"
    if found["ExecStart"] != [f"{INSTALLED} serve"]:
        yield f"it does not start {INSTALLED}"
    if not any(path in env for path in found["EnvironmentFile"][0].split("-")[1:]):
        yield f"{found['EnvironmentFile']} is not the file of options"


class Unit(unittest.TestCase):
    def analyze(self, *how, unit=UNIT):
        with tempfile.TemporaryDirectory() as directory:
            page = Path(directory, "townhall.service")
            page.write_text(unit.replace(INSTALLED, hall.TOWNHALL)) # verify looks for the program
            told = subprocess.run(["systemd-analyze", *how, page], capture_output=True, text=True)
            return told.returncode, told.stdout + told.stderr

    def test_systemd_takes_it_and_says_nothing(self):
        self.assertEqual(self.analyze("verify", "--man=no", "--recursive-errors=no"), (0, ""))

    def test_systemd_says_what_it_does_not_know(self):
        code, said = self.analyze("verify", "--man=no", "--recursive-errors=no", unit=UNIT.replace("UMask", "UMaske"))
        self.assertIn("'UMaske'", said)

    def test_it_exposes_little(self):
        how = ("security", "--offline=true", f"--threshold={EXPOSURE}", "--no-pager")
        code, said = self.analyze(*how)
        self.assertEqual(code, 0, said)
        self.assertNotEqual(self.analyze(*how, unit=UNIT.replace("CapabilityBoundingSet=\n", ""))[0], 0)

    def test_its_parts_go_together(self):
        self.assertEqual(list(complaints(UNIT, ENV)), [])

    def test_what_is_broken_is_seen(self):
        for text, changed, complaint in (
            ("TOWNHALL_DRAIN=20s", "TOWNHALL_DRAIN=40s", "killed before"),
            ("TOWNHALL_REDIS=", "TOWNHALL_REDDIS=", "TOWNHALL_REDDIS is no variable"),
            ("TimeoutStopSec=40", "TimeoutStopSec=25", "killed before"),
            ("KillSignal=SIGTERM", "KillSignal=SIGQUIT", "another signal"),
            ("StartLimitIntervalSec=0", "StartLimitIntervalSec=10", "gives up"),
            ("townhall serve", "townhall --serve", "does not start"),
            ("EnvironmentFile=-/etc/townhall/townhall.env", "EnvironmentFile=-/etc/townhall.env", "file of options"),
        ):
            self.assertIn(text, UNIT + ENV)
            wrong = complaints(UNIT.replace(text, changed), ENV.replace(text, changed))
            self.assertIn(complaint, "\n".join(wrong))

    def test_the_hall_lives_with_its_variables(self):
        env = variables(ENV)
        with tempfile.TemporaryDirectory() as directory, hall.redis(["redis-server", "--save", ""], directory):
            probe = f"http://127.0.0.1:{hall.port(env['TOWNHALL_OPS'])}/readyz"
            within = hall.seconds(settings(UNIT)["TimeoutStopSec"][0])
            self.assertEqual(hall.life(env, [probe], within), [])
