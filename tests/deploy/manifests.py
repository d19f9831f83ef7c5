"""Manifests as Kubernetes would get them, and questions that go from one of them to another."""

import base64
import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import yaml

TOP = pathlib.Path(__file__).resolve().parents[2]
K8S = TOP / "k8s"
BIN = pathlib.Path(sys.executable).parent
KUBECTL = shutil.which("kubectl") or str(BIN / "kubectl")

OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
COMPONENTS = sorted(path.name for path in (K8S / "components").iterdir())

MADE_BY_HAND = {("townhall-redis", "url"): "redis://townhall-redis:6379"}
"""Secrets that no manifest makes where Redis is somebody's own: k8s/README.md says how to make them. The value is a stand-in, and
none where the manifests bring a Redis, since they must bring its Secret, too."""


@functools.cache
def overlay(name):
    """What `kubectl apply -k` would apply, as text."""
    return build(K8S / "overlays" / name)


@functools.cache
def component(name):
    """The base with that component and no other."""
    with tempfile.TemporaryDirectory() as directory:
        here = lambda path: os.path.relpath(K8S / path, os.path.realpath(directory))
        alone = {"resources": [here("base")], "components": [here(f"components/{name}")]}
        pathlib.Path(directory, "kustomization.yaml").write_text(yaml.safe_dump(alone))
        return build(directory)


def build(directory):
    built = subprocess.run([KUBECTL, "kustomize", directory], capture_output=True, text=True)
    if built.returncode != 0 or built.stderr:
        raise AssertionError(f"kubectl kustomize {directory}: {built.stderr}")
    return built.stdout


def everything():
    """Name and text of each overlay, and of each component alone."""
    yield from ((f"overlays/{name}", overlay(name)) for name in OVERLAYS)
    yield from ((f"components/{name}", component(name)) for name in COMPONENTS)


class Workload:
    """A Deployment or a StatefulSet. Ours have one container each."""

    def __init__(self, manifest):
        self.manifest = manifest
        self.name = manifest["metadata"]["name"]
        self.labels = manifest["spec"]["template"]["metadata"]["labels"]
        self.pod = manifest["spec"]["template"]["spec"]
        (self.container,) = self.pod["containers"]
        self.ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        probes = {kind: self.container.get(f"{kind}Probe") for kind in ("startup", "liveness", "readiness")}
        self.probes = {kind: probe for kind, probe in probes.items() if probe}

    def matches(self, labels):
        return labels.items() <= self.labels.items()

    def port(self, reference):
        """The number behind a port's name or number; `None` if the container has no such port."""
        return self.ports.get(reference, reference if reference in self.ports.values() else None)

    def probe_urls(self):
        http = (probe["httpGet"] for probe in self.probes.values() if "httpGet" in probe)
        return [f"http://127.0.0.1:{self.port(get['port'])}{get['path']}" for get in http]

    def grace_seconds(self):
        return self.pod["terminationGracePeriodSeconds"]

    def pre_stop_seconds(self):
        return self.container["lifecycle"]["preStop"]["sleep"]["seconds"]

    def is_redis(self):
        return "redis" in self.ports


class Cluster:
    """Manifests that are applied together."""

    def __init__(self, text):
        self.manifests = [manifest for manifest in yaml.safe_load_all(text) if manifest]

    def of(self, *kinds):
        return [manifest for manifest in self.manifests if manifest["kind"] in kinds]

    def named(self, kind, name):
        return next((one for one in self.of(kind) if one["metadata"]["name"] == name), None)

    def workloads(self):
        return [Workload(manifest) for manifest in self.of("Deployment", "StatefulSet")]

    def chosen(self, labels):
        return [workload for workload in self.workloads() if workload.matches(labels)]

    def hall(self):
        return Workload(self.named("Deployment", "townhall"))

    def scaler(self):
        return next(iter(self.of("HorizontalPodAutoscaler")), None)

    def replicas(self, workload):
        """The fewest and the most that there may be."""
        for scaler in self.of("HorizontalPodAutoscaler"):
            target = scaler["spec"]["scaleTargetRef"]
            if (target["kind"], target["name"]) == (workload.manifest["kind"], workload.name):
                return scaler["spec"].get("minReplicas", 1), scaler["spec"]["maxReplicas"]
        replicas = workload.manifest["spec"].get("replicas", 1)
        return replicas, replicas

    def env(self, workload):
        """The variables of its container. What a missing ConfigMap or Secret would give is not among them."""
        env = {}
        for source in workload.container.get("envFrom", []):
            config = self.named("ConfigMap", source["configMapRef"]["name"])
            env.update(config["data"] if config else {})
        for variable in workload.container.get("env", []):
            value = variable.get("value") or self.secret(variable.get("valueFrom", {}).get("secretKeyRef"))
            env.update({variable["name"]: value} if value else {})
        return env

    def secret(self, reference):
        if not reference:
            return None
        secret = self.named("Secret", reference["name"])
        if secret and reference["key"] in secret.get("data", {}):
            return base64.b64decode(secret["data"][reference["key"]]).decode()
        if any(workload.is_redis() for workload in self.workloads()):
            return None
        return MADE_BY_HAND.get((reference["name"], reference["key"]))


def host_and_port(redis_url):
    host, port = re.fullmatch(r"rediss?://([^:/]+):(\d+)/?", redis_url).groups()
    return host, int(port)
