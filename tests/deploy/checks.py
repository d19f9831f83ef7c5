"""What must hold between manifests that each are valid. A check yields a line for everything that is wrong."""

import hall
from manifests import Cluster, Workload, host_and_port

MIB = 1024**2
CONNECTION_BYTES = 6.6 * 1024
"""Silent: 2.6 KiB of the hall's and, as docs/scaling.md has it, 4 KiB of the kernel's."""
OTHER_BYTES = 100 * MIB
"""What comes from Redis (32 MiB at most), pages of history (32 MiB at most), and the process."""


def selectors_choose_one_workload(cluster: Cluster):
    """A selector that chooses nothing does nothing; one that chooses Redis, too, does too much."""
    chosen = []
    for manifest in cluster.of("Service", "PodDisruptionBudget", "NetworkPolicy", "PodMonitor"):
        spec = manifest["spec"]
        selector = spec.get("podSelector") or spec["selector"]
        chosen.append((manifest, selector.get("matchLabels", selector)))
        peers = [peer for rule in spec.get("ingress", []) for peer in rule.get("from", [])]
        chosen += [(manifest, peer["podSelector"]["matchLabels"]) for peer in peers if "podSelector" in peer]
    for manifest, labels in chosen:
        names = [workload.name for workload in cluster.chosen(labels)]
        if len(names) != 1:
            yield f"{manifest['kind']} {manifest['metadata']['name']}: {labels} chooses {names or 'nothing'}"
    for workload in cluster.workloads():
        own = [workload.manifest["spec"]["selector"]]
        own += [spread["labelSelector"] for spread in workload.pod.get("topologySpreadConstraints", [])]
        for selector in own:
            if not workload.matches(selector["matchLabels"]):
                yield f"{workload.name}: {selector} does not choose its own pods, {workload.labels}"


def ports_are_there(cluster: Cluster):
    for workload in cluster.workloads():
        for kind, probe in workload.probes.items():
            for way in ("httpGet", "tcpSocket"):
                if way in probe and workload.port(probe[way]["port"]) is None:
                    yield f"{workload.name}: {kind} probes port {probe[way]['port']}, and there are {workload.ports}"
    for manifest, labels, references in referring_to_ports(cluster):
        for workload in cluster.chosen(labels):
            for reference in references:
                if workload.port(reference) is None:
                    name = f"{manifest['kind']} {manifest['metadata']['name']}"
                    yield f"{name}: port {reference}, and {workload.name} has {workload.ports}"


def referring_to_ports(cluster):
    for manifest in cluster.of("Service"):
        yield manifest, manifest["spec"]["selector"], [port["targetPort"] for port in manifest["spec"]["ports"]]
    for manifest in cluster.of("PodMonitor"):
        endpoints = manifest["spec"]["podMetricsEndpoints"]
        yield manifest, manifest["spec"]["selector"]["matchLabels"], [endpoint["port"] for endpoint in endpoints]
    for manifest in cluster.of("NetworkPolicy"):
        ports = [port["port"] for rule in manifest["spec"].get("ingress", []) for port in rule.get("ports", [])]
        yield manifest, manifest["spec"]["podSelector"]["matchLabels"], ports


def ports_are_those_that_the_hall_opens(cluster: Cluster):
    workload, env = cluster.hall(), cluster.env(cluster.hall())
    for name, variable in (("public", "TOWNHALL_LISTEN"), ("ops", "TOWNHALL_OPS")):
        address = env.get(variable, "nothing")
        if not address.startswith(("0.0.0.0:", "[::]:")) or workload.ports[name] != hall.port(address):
            yield f"{variable} is {address}, and the container's port {name} is {workload.ports[name]}"


def probes_ask_what_they_are_for(cluster: Cluster):
    """One that lives is not killed for what others lack, and one that is leaving, or never heard Redis, gets no new clients."""
    probes = cluster.hall().probes
    for kind, path in (("startup", "/healthz"), ("liveness", "/healthz"), ("readiness", "/readyz")):
        if kind not in probes:
            yield f"there is no {kind} probe"
        elif probes[kind]["httpGet"]["path"] != path:
            yield f"the {kind} probe asks {probes[kind]['httpGet']['path']}, and not {path}"


def operations_are_not_for_the_public(cluster: Cluster):
    workload = cluster.hall()
    for service in cluster.of("Service"):
        if workload.matches(service["spec"]["selector"]):
            for port in service["spec"]["ports"]:
                if workload.port(port["targetPort"]) == workload.ports["ops"]:
                    yield f"Service {service['metadata']['name']} leads to the operations port"
    for kind, probe in workload.probes.items():
        if workload.port(probe["httpGet"]["port"]) != workload.ports["ops"]:
            yield f"{kind} probes {probe['httpGet']}, which is not the operations port"


def routes_lead_to_a_service(cluster: Cluster):
    for manifest, name, port in backends(cluster):
        service = cluster.named("Service", name)
        ports = [{one["port"], one.get("name")} for one in service["spec"]["ports"]] if service else []
        if not any(port in one for one in ports):
            yield f"{manifest['kind']} {manifest['metadata']['name']}: there is no port {port} of a Service {name}"


def backends(cluster):
    for manifest in cluster.of("HTTPRoute"):
        for rule in manifest["spec"]["rules"]:
            yield from ((manifest, backend["name"], backend["port"]) for backend in rule["backendRefs"])
    for manifest in cluster.of("Ingress"):
        for path in (path for rule in manifest["spec"]["rules"] for path in rule["http"]["paths"]):
            service = path["backend"]["service"]
            yield manifest, service["name"], service["port"].get("name", service["port"].get("number"))


def clients_may_come_to_any_replica(cluster: Cluster):
    for service in cluster.of("Service"):
        if service["spec"].get("sessionAffinity", "None") != "None":
            yield f"Service {service['metadata']['name']} keeps clients at one replica"
        for port in service["spec"]["ports"]:
            if port["name"] == "public" and port.get("appProtocol") != "kubernetes.io/ws":
                yield f"Service {service['metadata']['name']} does not say that WebSockets come by port {port['port']}"


def variables_are_the_hall_s(cluster: Cluster):
    """The hall passes over a variable that it does not know: a misspelt one would be silent."""
    workload = cluster.hall()
    for name in cluster.env(workload).keys() - hall.variables():
        yield f"{name} is no variable of the hall"
    for source in workload.container.get("envFrom", []):
        if not cluster.named("ConfigMap", source["configMapRef"]["name"]):
            yield f"there is no ConfigMap {source['configMapRef']['name']}"
    for variable in workload.container.get("env", []):
        if variable["name"] not in cluster.env(workload):
            yield f"{variable['name']}: nobody makes {variable.get('valueFrom')}"


def leaving_seconds(cluster):
    """preStop, drain and the last goodbyes."""
    workload = cluster.hall()
    drain = hall.seconds(cluster.env(workload)["TOWNHALL_DRAIN"])
    return workload.pre_stop_seconds() + drain + hall.GOODBYES_SECONDS


def leaving_ends_before_the_grace(cluster: Cluster):
    takes, grace = leaving_seconds(cluster), cluster.hall().grace_seconds()
    if takes >= grace:
        yield f"preStop, drain and the last goodbyes take {takes} s, and the grace is {grace} s"


def one_has_left_before_the_next_leaves(cluster: Cluster):
    """A Deployment does not count pods that are leaving: only what it waits for a new one keeps them from leaving together."""
    takes, waits = leaving_seconds(cluster), cluster.hall().manifest["spec"].get("minReadySeconds", 0)
    if waits < takes:
        yield f"leaving takes {takes} s, and after {waits} s (minReadySeconds) an update lets the next one leave"


def several_replicas_have_a_redis(cluster: Cluster):
    workload = cluster.hall()
    _, most = cluster.replicas(workload)
    if most > 1 and "TOWNHALL_REDIS" not in cluster.env(workload):
        yield f"{most} replicas without TOWNHALL_REDIS do not hear one another"


def replicas_are_replaced_one_by_one(cluster: Cluster):
    rolling = cluster.hall().manifest["spec"]["strategy"].get("rollingUpdate", {})
    if rolling.get("maxUnavailable") != 0 or rolling.get("maxSurge") != 1:
        yield f"an update takes pods away before others are there: {rolling}"


def something_can_be_evicted(cluster: Cluster):
    """A budget that allows no eviction keeps a machine from ever being emptied."""
    for budget in cluster.of("PodDisruptionBudget"):
        spec = budget["spec"]
        for workload in cluster.chosen(spec["selector"]["matchLabels"]):
            fewest, _ = cluster.replicas(workload)
            leaves = spec["maxUnavailable"] if "maxUnavailable" in spec else fewest - spec["minAvailable"]
            if leaves < 1:
                yield f"PodDisruptionBudget {budget['metadata']['name']} lets none of {fewest} pods go"


def scaling_has_what_it_needs(cluster: Cluster):
    for scaler in cluster.of("HorizontalPodAutoscaler"):
        spec = scaler["spec"]
        target = cluster.named(spec["scaleTargetRef"]["kind"], spec["scaleTargetRef"]["name"])
        if target is None:
            yield f"there is no {spec['scaleTargetRef']}"
            continue
        if "replicas" in target["spec"]:
            yield "a Deployment that is scaled says how many replicas it has, which undoes scaling when it is applied"
        if spec["behavior"]["scaleDown"]["stabilizationWindowSeconds"] < 300:
            yield "it scales down within minutes, and sends clients about"
        for metric in spec["metrics"]:
            yield from metric_is_there(cluster, Workload(target), metric)


def metric_is_there(cluster, workload, metric):
    if metric["type"] == "Resource" and metric["resource"]["name"] not in workload.container["resources"]["requests"]:
        yield f"it scales by {metric['resource']['name']}, which is not requested"
    if metric["type"] == "Pods":
        most = int(cluster.env(workload)["TOWNHALL_MAX_CONNECTIONS"])
        if int(metric["pods"]["target"]["averageValue"]) * 2 > most:
            yield f"a pod may have {most} connections, and less than half of that is left free for a lost pod's"


def the_network_lets_through_what_must_pass(cluster: Cluster):
    workload, env = cluster.hall(), cluster.env(cluster.hall())
    chosen = [one["spec"] for one in cluster.of("NetworkPolicy") if workload.matches(one["spec"]["podSelector"]["matchLabels"])]
    trusts = "TOWNHALL_TRUSTED_PROXY" in env
    if trusts and not chosen:
        yield "a proxy is believed, and anybody in the cluster can say to be one"
    if chosen:  # policies add up
        yield from lets_in(workload, [rule for policy in chosen for rule in policy.get("ingress", [])], trusts)
        yield from lets_out(env, [rule for policy in chosen for rule in policy.get("egress", [])])
    yield from redis_lets_in(cluster, workload, env)


def lets_in(workload, rules, trusts):
    for name in workload.ports:
        leading = [rule for rule in rules if leads_to(rule, workload, name)]
        everybody = not all(rule.get("from") for rule in leading)
        if not leading:
            yield f"the policy lets nobody to port {name}"
        if everybody and name == "ops":
            yield "the policy lets everybody to the operations port"
        if everybody and name == "public" and trusts:
            yield "a proxy is believed, and the policy lets in others, who can say to be one"


def leads_to(rule, workload, name):
    """A rule without ports leads to all of them."""
    ports = rule.get("ports")
    return not ports or workload.ports[name] in [workload.port(port["port"]) for port in ports]


def lets_out(env, rules):
    admitted = {(port["port"], port.get("protocol", "TCP")) for rule in rules for port in rule["ports"]}
    wanted = {(53, "UDP"), (53, "TCP")}
    if "TOWNHALL_REDIS" in env:
        wanted.add((host_and_port(env["TOWNHALL_REDIS"])[1], "TCP"))
    for number, protocol in wanted - admitted:
        yield f"the policy does not let the hall to {protocol} port {number}"


def redis_lets_in(cluster, workload, env):
    """Where Redis is one of the manifests: its Service has the name and the port of the URL, and its policy admits the hall."""
    if "TOWNHALL_REDIS" not in env:
        return  # which another check complains of
    for server in (one for one in cluster.workloads() if one.is_redis()):
        host, port = host_and_port(env["TOWNHALL_REDIS"])
        service = cluster.named("Service", host)
        if not service or [one["port"] for one in service["spec"]["ports"]] != [port]:
            yield f"TOWNHALL_REDIS leads to {host}:{port}, where no Service is"
        for policy in cluster.of("NetworkPolicy"):
            if server.matches(policy["spec"]["podSelector"]["matchLabels"]):
                peers = [peer for rule in policy["spec"]["ingress"] for peer in rule["from"]]
                if not any(workload.matches(peer["podSelector"]["matchLabels"]) for peer in peers):
                    yield "Redis' policy does not let the hall in"


def pods_are_restricted(cluster: Cluster):
    """As the Pod Security Standard `restricted` has it, and a little more."""
    for workload in cluster.workloads():
        pod, container = workload.pod, workload.container
        security, own = pod.get("securityContext", {}), container.get("securityContext", {})
        wanted = {
            "runAsNonRoot": security.get("runAsNonRoot") is True,
            "runAsUser": security.get("runAsUser", 0) > 10000,
            "seccompProfile": security.get("seccompProfile") == {"type": "RuntimeDefault"},
            "allowPrivilegeEscalation": own.get("allowPrivilegeEscalation") is False,
            "readOnlyRootFilesystem": own.get("readOnlyRootFilesystem") is True,
            "capabilities": own.get("capabilities") == {"drop": ["ALL"]},
            "privileged": not own.get("privileged"),
            "automountServiceAccountToken": pod.get("automountServiceAccountToken") is False,
            "the host's own": not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys(),
            "volumes": all("hostPath" not in volume for volume in pod.get("volumes", [])),
        }
        yield from (f"{workload.name}: {name} is not as it should be" for name, holds in wanted.items() if not holds)


def memory_and_threads_are_thought_through(cluster: Cluster):
    """What k8s/base/deployment.yaml computes, from README's and docs/scaling.md's figures."""
    workload, env = cluster.hall(), cluster.env(cluster.hall())
    requests, limits = workload.container["resources"]["requests"], workload.container["resources"]["limits"]
    connections = int(env["TOWNHALL_MAX_CONNECTIONS"]) * CONNECTION_BYTES
    needs = connections + hall.size(env["TOWNHALL_WINDOW_BUDGET"]) + OTHER_BYTES
    if hall.size(requests["memory"]) < needs:
        yield f"it may need {needs / MIB:.0f} MiB, and {requests['memory']} are requested"
    if hall.size(limits["memory"]) <= hall.size(requests["memory"]):
        yield "nothing is left for what the kernel keeps for slow clients"
    if not str(limits["cpu"]).isdecimal():
        yield f"a limit of {limits['cpu']} cores has more threads run than it lets run, or leaves some of it unused"


def replicas_are_spread(cluster: Cluster):
    spread = {one["topologyKey"] for one in cluster.hall().pod.get("topologySpreadConstraints", [])}
    for key in {"topology.kubernetes.io/zone", "kubernetes.io/hostname"} - spread:
        yield f"pods are not spread by {key}"


CHECKS = [
    selectors_choose_one_workload,
    ports_are_there,
    ports_are_those_that_the_hall_opens,
    probes_ask_what_they_are_for,
    operations_are_not_for_the_public,
    routes_lead_to_a_service,
    clients_may_come_to_any_replica,
    variables_are_the_hall_s,
    leaving_ends_before_the_grace,
    one_has_left_before_the_next_leaves,
    several_replicas_have_a_redis,
    replicas_are_replaced_one_by_one,
    something_can_be_evicted,
    scaling_has_what_it_needs,
    the_network_lets_through_what_must_pass,
    pods_are_restricted,
    memory_and_threads_are_thought_through,
    replicas_are_spread,
]


def complaints(cluster):
    return [f"{check.__name__}: {line}" for check in CHECKS for line in check(cluster)]
