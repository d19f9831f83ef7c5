"""Dockerfile beside the manifests, and the hall with its variables. `make deploy` runs what it makes."""

import subprocess
import unittest

import hall
import manifests
from image import DOCKERFILE, Image
from manifests import TOP, Cluster


def complaints(image):
    workload = Cluster(manifests.overlay("production")).hall()
    yield from (f"{name} is no variable of the hall" for name in image.env.keys() - hall.variables())
    if image.entrypoint != [image.program] or image.health != [image.program, "health"]:
        yield f"{image.entrypoint} and {image.health} are not what is copied, {image.program}"
    if image.user != workload.pod["securityContext"]["runAsUser"]:
        yield f"its user is {image.user}, and not that of the manifests"
    if image.ports != sorted(workload.ports.values()):
        yield f"its ports are {image.ports}, and not those of the manifests"
    if image.made not in image.build or "deploy/dist" not in image.build:
        yield "what is copied was not built"


class Dockerfile(unittest.TestCase):
    def test_its_parts_go_together_and_with_the_manifests(self):
        self.assertEqual(list(complaints(Image())), [])

    def test_what_is_broken_is_seen(self):
        for text, changed, complaint in (
            ("ENV TOWNHALL_LISTEN", "ENV TOWNHALL_LISTENS", "TOWNHALL_LISTENS is no"),
            ('"health"', '"healthy"', "are not what is copied"),
            ("USER 65532", "USER 0", "its user is 0"),
            ("EXPOSE 8080", "EXPOSE 80", "its ports are"),
            ("--from=build /usr/local/bin", "--from=build /usr/bin", "was not built"),
        ):
            self.assertIn(text, DOCKERFILE)
            self.assertIn(complaint, "\n".join(complaints(Image(DOCKERFILE.replace(text, changed)))))

    def test_what_it_is_built_of_gets_into_the_build(self):
        let_in = (TOP / ".dockerignore").read_text().splitlines()
        for path in ("Cargo.toml", "Cargo.lock", "deploy/dist", "loadtest", "src", "web"):
            self.assertIn(f"!{path}", let_in)

    def test_the_hall_lives_with_its_variables_and_its_health_is_told(self):
        env = Image().env
        probe = f"http://127.0.0.1:{hall.port(env['TOWNHALL_OPS'])}/healthz"
        with hall.Process([hall.TOWNHALL], env, lambda: hall.status(probe) == 200):
            self.assertEqual(self.health(env), 0)
        self.assertEqual(self.health(env), 1)
        self.assertEqual(hall.life(env, [probe], 30), [])

    def health(self, env):
        return subprocess.run([hall.TOWNHALL, *Image().health[1:]], env=env, capture_output=True).returncode
