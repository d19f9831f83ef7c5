"""Nothing that the hall asks of the kernel is forbidden by the unit, which would kill it."""

import re
import subprocess
import tempfile
import unittest

import hall
from test_systemd import ENV, UNIT, settings, variables


def calls(group):
    """All calls of one of systemd's groups."""
    listed = subprocess.run(["systemd-analyze", "syscall-filter", group], capture_output=True, text=True, check=True)
    names = re.findall(r"^ +(@?[\w-]+)$", listed.stdout, re.M)
    return {call for name in names for call in (calls(name) if name.startswith("@") else [name])}


def allowed(unit):
    """Lists in their order: with `~` what is taken away. What systemd itself needs (@default) stays."""
    left = set()
    for line in settings(unit)["SystemCallFilter"]:
        named = {call for group in line.removeprefix("~").split() for call in calls(group)}
        left = left - named if line.startswith("~") else left | named
    return left | calls("@default")


class Calls(unittest.TestCase):
    def test_the_unit_allows_what_the_hall_does(self):
        asked = self.asked()
        self.assertIn("prlimit64", asked)  # nofile is raised
        self.assertEqual(asked - allowed(UNIT), set())

    def test_a_filter_that_is_too_narrow_is_seen(self):
        narrow = UNIT.replace("SystemCallFilter=~", "SystemCallFilter=~@network-io ")
        self.assertIn("accept4", self.asked() - allowed(narrow))

    def asked(self):
        env = variables(ENV)
        with tempfile.TemporaryDirectory() as directory, hall.redis(["redis-server", "--save", ""], directory):
            log = f"{directory}/calls"
            traced = ["strace", "-D", "-f", "-qq", "-o", log, hall.TOWNHALL, "serve"]
            probe = f"http://127.0.0.1:{hall.port(env['TOWNHALL_OPS'])}/readyz"
            self.assertEqual(hall.life({**env, "TOWNHALL_DRAIN": "1s"}, [probe], 30, 1, traced), [])
            with open(log) as lines:
                found = (re.match(r"\d+ +(?:<\.\.\. )?(\w+)[( ]", line) for line in lines)
                return {match[1] for match in found if match}
