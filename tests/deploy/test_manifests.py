"""Every overlay, and the base with each component, is what Kubernetes takes and holds what is checked between manifests."""

import pathlib
import subprocess
import tempfile
import unittest

import yaml

import checks
import hall
import manifests
from manifests import BIN, K8S, MADE_BY_HAND, Cluster


def validate(texts):
    """`kubernetes-validate --strict` on files of that name and content: whether all pass, and what it says."""
    with tempfile.TemporaryDirectory() as directory:
        for name, text in texts.items():
            pathlib.Path(directory, f"{name.replace('/', '-')}.yaml").write_text(text)
        files = sorted(pathlib.Path(directory).iterdir())
        told = subprocess.run([BIN / "kubernetes-validate", "--strict", *files], capture_output=True, text=True)
    return told.returncode == 0, told.stdout + told.stderr


class Manifests(unittest.TestCase):
    def test_all_of_them_are_valid_strictly(self):
        valid, said = validate(dict(manifests.everything()))
        self.assertTrue(valid, said)
        self.assertEqual(said.count("passed for resource deployment/townhall "), len(dict(manifests.everything())), said)

    def test_what_is_not_a_field_of_kubernetes_is_not_valid(self):
        valid, said = validate({"broken": manifests.overlay("dev").replace("maxUnavailable: 1", "maxUnavailables: 1")})
        self.assertFalse(valid, said)
        self.assertIn("maxUnavailables", said)

    def test_they_go_together(self):
        for name, text in manifests.everything():
            with self.subTest(name):
                self.assertEqual(checks.complaints(Cluster(text)), [])

    def test_every_component_is_explained(self):
        manual = (K8S / "README.md").read_text()
        for name in manifests.COMPONENTS:
            self.assertIn(f"`{name}`", manual)

    def test_secrets_that_are_made_by_hand_are_named_where_they_are_used(self):
        for secret, key in MADE_BY_HAND:
            for page in ("README.md", "overlays/production/kustomization.yaml"):
                self.assertIn(f"create secret generic {secret} --from-literal={key}=", (K8S / page).read_text())


class Lives(unittest.TestCase):
    """The hall is started with the variables of each overlay, beside the Redis of the manifests."""

    @classmethod
    def setUpClass(cls):
        directory = cls.enterClassContext(tempfile.TemporaryDirectory())
        server = Cluster(manifests.component("redis")).named("StatefulSet", "townhall-redis")
        cls.server = manifests.Workload(server)
        cls.redis = cls.enterClassContext(hall.redis(cls.server.container["args"], directory))

    def live(self, cluster, **changes):
        workload = cluster.hall()
        within = workload.grace_seconds() - workload.pre_stop_seconds()
        return hall.life({**cluster.env(workload), **changes}, workload.probe_urls(), within)

    def test_redis_takes_what_the_manifest_tells_it(self):
        self.assertIsNone(self.redis.child.poll(), self.redis.said())
        for name, value in (("appendonly", "yes"), ("save", ""), ("maxmemory-policy", "noeviction")):
            ask = ["redis-cli", "-h", "127.0.0.1", "config", "get", name]
            told = subprocess.run(ask, capture_output=True, text=True).stdout
            self.assertEqual(told, f"{name}\n{value}\n")

    def test_redis_probes_pass_and_fail_when_it_answers_with_an_error(self):
        for kind in ("startup", "readiness"):
            command = self.server.probes[kind]["exec"]["command"]
            self.assertEqual(subprocess.run(command, capture_output=True).returncode, 0, kind)
            wrong = subprocess.run([*command, "one", "too many"], capture_output=True, text=True)
            self.assertIn("ERR wrong number of arguments", wrong.stdout + wrong.stderr)
            self.assertNotEqual(wrong.returncode, 0, kind)

    def test_the_hall_starts_is_probed_and_leaves_with_the_variables_of_each_overlay_and_of_the_base(self):
        for text in (*map(manifests.overlay, manifests.OVERLAYS), manifests.component("redis")):
            cluster = Cluster(text)
            with self.subTest(cluster.env(cluster.hall())):
                self.assertEqual(self.live(cluster), [])

    def test_a_value_that_the_hall_refuses_is_seen(self):
        cluster = Cluster(manifests.overlay("dev"))
        (line,) = self.live(cluster, TOWNHALL_WINDOW_BUDGET="64 elephants")
        self.assertIn("TOWNHALL_WINDOW_BUDGET", line)

    def test_a_probe_that_nobody_answers_is_seen(self):
        cluster = Cluster(manifests.overlay("dev").replace("path: /healthz", "path: /health"))
        self.assertIn("http://127.0.0.1:8081/health is answered 404", self.live(cluster))

    def test_a_hall_that_leaves_too_late_is_seen(self):
        cluster = Cluster(manifests.overlay("dev"))
        workload = cluster.hall()
        wrong = hall.life({**cluster.env(workload), "TOWNHALL_DRAIN": "60s"}, workload.probe_urls(), 0.5, guests=20)
        self.assertEqual(wrong, ["0.5 s after SIGTERM it is still there"])


class Rules(unittest.TestCase):
    """What k8s/components/podmonitor/rules makes of alerts."""

    def print(self, text):
        with tempfile.NamedTemporaryFile("w") as page:
            page.write(text)
            page.flush()
            return subprocess.run([K8S / "components/podmonitor/rules", page.name], capture_output=True, text=True)

    def test_alerts_become_a_prometheus_rule_unchanged(self):
        text = "# Why\ngroups:\n  - name: hall\n    rules:\n      - alert: Away\n        expr: |\n          up\n\n          < 1\n"
        rule = yaml.safe_load(self.print(text).stdout)
        self.assertEqual((rule["kind"], rule["spec"]), ("PrometheusRule", yaml.safe_load(text)))

    def test_the_operator_finds_alerts_and_pods_by_the_same_label(self):
        rule = yaml.safe_load(self.print("groups: []\n").stdout)
        monitor = Cluster(manifests.overlay("production")).named("PodMonitor", "townhall")
        self.assertIn("release", rule["metadata"]["labels"])
        self.assertEqual(rule["metadata"]["labels"], monitor["metadata"]["labels"])

    def test_what_has_no_rules_is_refused(self):
        told = self.print("alerts: []\n")
        self.assertEqual((told.returncode, told.stdout), (1, ""))
        self.assertIn("no rules", told.stderr)


