"""Each check sees what it is there for: manifests are broken on purpose, one thing at a time."""

import unittest

import checks
import manifests
from manifests import Cluster

GONE = object()
DEPLOYMENT, CONTAINER = "Deployment townhall", "spec template spec containers 0"
EVERYBODY = {"ports": [{"port": "public"}]}
PROXY = {"from": [{"podSelector": {}}], "ports": [{"port": "public"}, {"port": "ops"}]}
HALLS = {"podSelector": {"matchLabels": {"app.kubernetes.io/component": "hall"}}, "policyTypes": ["Ingress"]}

# Which check; the overlay or component; the manifest, the place in it, and what is put there; what is complained of.
BREAKS = [
    ("selectors_choose_one_workload", "dev", "Service townhall", "spec selector app.kubernetes.io/component", "halls", "chooses nothing"),
    ("selectors_choose_one_workload", "dev", "PodDisruptionBudget townhall", "spec selector matchLabels app.kubernetes.io/component", GONE, "townhall-redis"),
    ("selectors_choose_one_workload", "dev", "NetworkPolicy townhall", "spec podSelector matchLabels app.kubernetes.io/name", "town", "chooses nothing"),
    ("selectors_choose_one_workload", "production", "PodMonitor townhall", "spec selector matchLabels app.kubernetes.io/name", "town", "chooses nothing"),
    ("selectors_choose_one_workload", "dev", DEPLOYMENT, "spec selector matchLabels app.kubernetes.io/name", "town", "does not choose its own"),
    ("selectors_choose_one_workload", "dev", DEPLOYMENT, "spec template spec topologySpreadConstraints 1 labelSelector matchLabels app.kubernetes.io/name", "town", "does not choose its own"),
    ("ports_are_there", "dev", "Service townhall", "spec ports 0 targetPort", "http", "port http"),
    ("ports_are_there", "production", "PodMonitor townhall", "spec podMetricsEndpoints 0 port", "metrics", "port metrics"),
    ("ports_are_there", "dev", "NetworkPolicy townhall", "spec ingress 0 ports 0 port", "web", "port web"),
    ("ports_are_there", "dev", DEPLOYMENT, f"{CONTAINER} readinessProbe httpGet port", "probes", "readiness probes port probes"),
    ("ports_are_there", "dev", "StatefulSet townhall-redis", f"{CONTAINER} livenessProbe tcpSocket port", "resp", "liveness probes port resp"),
    ("ports_are_those_that_the_hall_opens", "dev", "ConfigMap", "data TOWNHALL_LISTEN", "0.0.0.0:8088", "TOWNHALL_LISTEN is 0.0.0.0:8088"),
    ("ports_are_those_that_the_hall_opens", "dev", "ConfigMap", "data TOWNHALL_OPS", "127.0.0.1:8081", "TOWNHALL_OPS is 127.0.0.1:8081"),
    ("ports_are_those_that_the_hall_opens", "dev", DEPLOYMENT, f"{CONTAINER} ports 0 containerPort", 80, "public is 80"),
    ("operations_are_not_for_the_public", "dev", "Service townhall", "spec ports 0 targetPort", "ops", "leads to the operations port"),
    ("operations_are_not_for_the_public", "dev", DEPLOYMENT, f"{CONTAINER} livenessProbe httpGet port", "public", "liveness probes"),
    ("probes_ask_what_they_are_for", "dev", DEPLOYMENT, f"{CONTAINER} livenessProbe httpGet path", "/readyz", "the liveness probe asks /readyz"),
    ("probes_ask_what_they_are_for", "dev", DEPLOYMENT, f"{CONTAINER} readinessProbe httpGet path", "/healthz", "the readiness probe asks /healthz"),
    ("probes_ask_what_they_are_for", "dev", DEPLOYMENT, f"{CONTAINER} readinessProbe", GONE, "no readiness probe"),
    ("routes_lead_to_a_service", "production", "HTTPRoute townhall", "spec rules 0 backendRefs 0 port", 8080, "no port 8080"),
    ("routes_lead_to_a_service", "ingress", "Ingress townhall", "spec rules 0 http paths 0 backend service name", "hall", "of a Service hall"),
    ("clients_may_come_to_any_replica", "dev", "Service townhall", "spec sessionAffinity", "ClientIP", "keeps clients"),
    ("clients_may_come_to_any_replica", "dev", "Service townhall", "spec ports 0 appProtocol", GONE, "WebSockets"),
    ("variables_are_the_hall_s", "dev", "ConfigMap", "data TOWNHALL_DRIAN", "5s", "TOWNHALL_DRIAN is no variable"),
    ("variables_are_the_hall_s", "dev", DEPLOYMENT, f"{CONTAINER} envFrom 0 configMapRef name", "hall", "no ConfigMap hall"),
    ("variables_are_the_hall_s", "dev", DEPLOYMENT, f"{CONTAINER} env 0 valueFrom secretKeyRef key", "uri", "TOWNHALL_REDIS: nobody makes"),
    ("variables_are_the_hall_s", "dev", "Secret", "metadata name", "somebody-s", "TOWNHALL_REDIS: nobody makes"),
    ("leaving_ends_before_the_grace", "dev", "ConfigMap", "data TOWNHALL_DRAIN", "10s", "take 20 s, and the grace is 20 s"),
    ("leaving_ends_before_the_grace", "production", DEPLOYMENT, "spec template spec terminationGracePeriodSeconds", 30, "the grace is 30 s"),
    ("leaving_ends_before_the_grace", "production", DEPLOYMENT, f"{CONTAINER} lifecycle preStop sleep seconds", 40, "take 105"),
    ("one_has_left_before_the_next_leaves", "dev", DEPLOYMENT, "spec minReadySeconds", GONE, "after 0 s"),
    ("one_has_left_before_the_next_leaves", "production", DEPLOYMENT, "spec minReadySeconds", 69, "leaving takes 70 s, and after 69 s"),
    ("several_replicas_have_a_redis", "production", DEPLOYMENT, f"{CONTAINER} env", [], "20 replicas"),
    ("replicas_are_replaced_one_by_one", "dev", DEPLOYMENT, "spec strategy rollingUpdate maxUnavailable", 1, "takes pods away"),
    ("something_can_be_evicted", "dev", "PodDisruptionBudget townhall", "spec maxUnavailable", 0, "none of 2 pods"),
    ("something_can_be_evicted", "production", "PodDisruptionBudget townhall", "spec", {"minAvailable": 3, "selector": {"matchLabels": {}}}, "none of 3 pods"),
    ("scaling_has_what_it_needs", "dev", "HorizontalPodAutoscaler townhall", "spec scaleTargetRef name", "hall", "there is no"),
    ("scaling_has_what_it_needs", "dev", DEPLOYMENT, "spec replicas", 2, "says how many replicas"),
    ("scaling_has_what_it_needs", "dev", DEPLOYMENT, f"{CONTAINER} resources requests cpu", GONE, "cpu, which is not requested"),
    ("scaling_has_what_it_needs", "production", "ConfigMap", "data TOWNHALL_MAX_CONNECTIONS", "10000", "less than half"),
    ("scaling_has_what_it_needs", "dev", "HorizontalPodAutoscaler townhall", "spec behavior scaleDown stabilizationWindowSeconds", 60, "sends clients about"),
    ("the_network_lets_through_what_must_pass", "dev", "NetworkPolicy townhall", "spec ingress 0 ports 0 port", 9999, "nobody to port public"),
    ("the_network_lets_through_what_must_pass", "dev", "NetworkPolicy townhall", "spec ingress 1", GONE, "nobody to port ops"),
    ("the_network_lets_through_what_must_pass", "dev", "NetworkPolicy townhall", "spec ingress 1 from", GONE, "everybody to the operations port"),
    ("the_network_lets_through_what_must_pass", "dev", "NetworkPolicy townhall", "spec egress 0 ports 0 protocol", "TCP", "to UDP port 53"),
    ("the_network_lets_through_what_must_pass", "dev", "NetworkPolicy townhall", "spec egress 1 ports 0 port", 6380, "to TCP port 6379"),
    ("the_network_lets_through_what_must_pass", "production", "NetworkPolicy townhall", "spec ingress 0 from", GONE, "lets in others"),
    ("the_network_lets_through_what_must_pass", "production", "NetworkPolicy townhall", "spec ingress", [EVERYBODY, PROXY], "lets in others"),
    ("the_network_lets_through_what_must_pass", "dev", "NetworkPolicy townhall", "spec ingress", [{}], "everybody to the operations port"),
    ("the_network_lets_through_what_must_pass", "dev", "NetworkPolicy townhall-redis", "spec", {**HALLS, "ingress": [{"ports": [{"port": "ops"}]}]}, "everybody to the operations port"),
    ("the_network_lets_through_what_must_pass", "dev", "NetworkPolicy townhall-redis", "spec ingress 0 from 0 podSelector matchLabels app.kubernetes.io/component", "redis", "does not let the hall in"),
    ("the_network_lets_through_what_must_pass", "dev", "Service townhall-redis", "spec ports 0 port", 6380, "where no Service is"),
    ("pods_are_restricted", "dev", DEPLOYMENT, f"{CONTAINER} securityContext readOnlyRootFilesystem", GONE, "readOnlyRootFilesystem"),
    ("pods_are_restricted", "dev", DEPLOYMENT, f"{CONTAINER} securityContext capabilities", {"drop": ["NET_RAW"]}, "capabilities"),
    ("pods_are_restricted", "dev", DEPLOYMENT, "spec template spec securityContext runAsUser", 0, "runAsUser"),
    ("pods_are_restricted", "dev", DEPLOYMENT, "spec template spec automountServiceAccountToken", True, "automountServiceAccountToken"),
    ("pods_are_restricted", "dev", "StatefulSet townhall-redis", "spec template spec hostNetwork", True, "the host's own"),
    ("memory_and_threads_are_thought_through", "production", "ConfigMap", "data TOWNHALL_MAX_CONNECTIONS", "100000", "it may need 1001 MiB"),
    ("memory_and_threads_are_thought_through", "production", DEPLOYMENT, f"{CONTAINER} resources limits memory", "512Mi", "nothing is left"),
    ("memory_and_threads_are_thought_through", "production", DEPLOYMENT, f"{CONTAINER} resources limits cpu", "1500m", "1500m cores"),
    ("replicas_are_spread", "dev", DEPLOYMENT, "spec template spec topologySpreadConstraints 0", GONE, "topology.kubernetes.io/zone"),
]


def put(manifest, place, value):
    """Puts it there, or takes away what is there. Places are keys and numbers between spaces."""
    *way, last = (int(step) if step.isdecimal() else step for step in place.split())
    for step in way:
        manifest = manifest[step]
    if value is GONE:
        del manifest[last]
    else:
        manifest[last] = value


def rendered(name):
    return Cluster(manifests.overlay(name) if name in manifests.OVERLAYS else manifests.component(name))


class Breaks(unittest.TestCase):
    def test_every_check_is_broken_once_at_least(self):
        self.assertEqual({check.__name__ for check in checks.CHECKS}, {check for check, *_ in BREAKS})


def breaking(check, where, whose, place, value, complaint):
    def test(self):
        cluster = rendered(where)
        kind, _, name = whose.partition(" ")
        manifest = cluster.named(kind, name) if name else cluster.of(kind)[0]
        put(manifest, place, value)
        self.assertIn(complaint, "\n".join(getattr(checks, check)(cluster)))

    return test


for number, row in enumerate(BREAKS):
    setattr(Breaks, f"test_{row[0]}_{number:02}", breaking(*row))
