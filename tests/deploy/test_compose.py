"""compose.yaml and the files that it mounts go together, and the hall runs with its variables."""

import collections
import copy
import re
import subprocess
import tempfile
import unittest

import yaml

import hall
from manifests import TOP, host_and_port

COMPOSE = yaml.safe_load((TOP / "compose.yaml").read_text())
DEPLOY = TOP / "deploy/compose"
NGINX = (DEPLOY / "nginx.conf").read_text()
PROMETHEUS = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())


def halls(compose):
    return {name: service for name, service in compose["services"].items() if service["image"].startswith("townhall:")}


def address(service):
    return service["networks"]["townhall"]["ipv4_address"]


def complaints(compose, nginx, prometheus):
    services = compose["services"]
    doors, scraped = set(), set()
    for name, service in halls(compose).items():
        env = service["environment"]
        doors.add(f"{address(service)}:{hall.port(env['TOWNHALL_LISTEN'])}")
        scraped.add(f"{name}:{hall.port(env['TOWNHALL_OPS'])}")
        yield from (f"{name}: {variable} is no variable of the hall" for variable in env.keys() - hall.variables())
        if host_and_port(env["TOWNHALL_REDIS"])[0] not in services:
            yield f"{name}: no service is called as in {env['TOWNHALL_REDIS']}"
        if env["TOWNHALL_TRUSTED_PROXY"] != address(services["nginx"]):
            yield f"{name}: {env['TOWNHALL_TRUSTED_PROXY']} is not nginx"
        if hall.seconds(env["TOWNHALL_DRAIN"]) + hall.GOODBYES_SECONDS >= hall.seconds(service["stop_grace_period"]):
            yield f"{name}: it is killed before everybody has left"
    built = collections.Counter(service["image"] for service in services.values() if "build" in service)
    for name, service in halls(compose).items():
        if built[service["image"]] != 1:
            yield f"{service['image']} is built by {built[service['image']]} services"
        if "build" not in service and service.get("pull_policy") != "never":
            yield f"{name}: a registry is asked for {service['image']}, which is built here"
    if doors != set(re.findall(r"^ +server (\S+) max_fails=0;$", nginx, re.M)):
        yield f"nginx does not pass on to {sorted(doors)}"
    if scraped != {target for job in prometheus["scrape_configs"] for one in job["static_configs"] for target in one["targets"]}:
        yield f"Prometheus does not scrape {sorted(scraped)}"
    for source in mounted(compose):
        if not (TOP / source).exists():
            yield f"{source} is mounted, and is not there"


def mounted(compose):
    """Files and directories of ours."""
    volumes = [volume for service in compose["services"].values() for volume in service.get("volumes", [])]
    return [volume.split(":")[0] for volume in volumes if volume.startswith("./")]


class Compose(unittest.TestCase):
    def complaints(self, compose=COMPOSE, nginx=NGINX, prometheus=PROMETHEUS):
        return "\n".join(complaints(compose, nginx, prometheus))

    def broken(self, service, key, **changes):
        compose = copy.deepcopy(COMPOSE)
        place = compose["services"][service]
        place[key] = {**place[key], **changes} if isinstance(place.get(key), dict) else changes[key]
        return self.complaints(compose)

    def test_its_parts_go_together(self):
        self.assertEqual(self.complaints(), "")

    def test_a_wrong_variable_is_seen(self):
        self.assertIn("TOWNHALL_DRIAN is no", self.broken("hall-1", "environment", TOWNHALL_DRIAN="5s"))

    def test_a_redis_that_is_nowhere_is_seen(self):
        self.assertIn("no service is called", self.broken("hall-2", "environment", TOWNHALL_REDIS="redis://rediss:6379"))

    def test_a_proxy_that_is_not_ours_is_seen(self):
        self.assertIn("is not nginx", self.broken("hall-2", "environment", TOWNHALL_TRUSTED_PROXY="172.28.80.1"))

    def test_a_grace_that_is_too_short_is_seen(self):
        self.assertIn("killed before", self.broken("hall-1", "stop_grace_period", stop_grace_period="25s"))

    def test_an_image_that_two_build_or_nobody_is_seen(self):
        self.assertIn("townhall:dev is built by 2 services", self.broken("hall-2", "build", build="."))
        self.assertIn("townhall:new is built by 0 services", self.broken("hall-2", "image", image="townhall:new"))

    def test_an_image_that_a_registry_is_asked_for_is_seen(self):
        self.assertIn("hall-2: a registry", self.broken("hall-2", "pull_policy", pull_policy="missing"))

    def test_a_hall_that_nginx_and_prometheus_do_not_know_is_seen(self):
        wrong = self.broken("hall-1", "environment", TOWNHALL_LISTEN="0.0.0.0:8088", TOWNHALL_OPS="0.0.0.0:8089")
        self.assertIn("nginx does not pass on", wrong)
        self.assertIn("Prometheus does not scrape", wrong)

    def test_a_file_that_is_not_there_is_seen(self):
        self.assertIn("./deploy/nothing is mounted", self.broken("nginx", "volumes", volumes=["./deploy/nothing:/x:ro"]))

    def test_grafana_finds_prometheus_and_its_dashboards(self):
        provisioning = TOP / "grafana/provisioning"
        (source,) = yaml.safe_load((provisioning / "datasources/prometheus.yaml").read_text())["datasources"]
        (provider,) = yaml.safe_load((provisioning / "dashboards/townhall.yaml").read_text())["providers"]
        self.assertIn("prometheus", COMPOSE["services"])
        self.assertEqual(source["url"], "http://prometheus:9090")
        self.assertEqual(source["jsonData"]["timeInterval"], PROMETHEUS["global"]["scrape_interval"])
        volumes = COMPOSE["services"]["grafana"]["volumes"]
        self.assertIn(f"./grafana/dashboards:{provider['options']['path']}:ro", volumes)
        self.assertIn("./grafana/provisioning:/etc/grafana/provisioning:ro", volumes)

    def test_nginx_s_configuration_is_the_example_s_but_for_addresses_name_and_log(self):
        example = (TOP / "examples/nginx/townhall.conf").read_text()
        for theirs, ours in (
            ("127.0.0.1:8083", "172.28.80.11:8080"),
            ("127.0.0.1:8084", "172.28.80.12:8080"),
            ("server_name chat.example;", "server_name _;"),
            ("/var/log/nginx/townhall.log", "/dev/stdout"),
        ):
            self.assertIn(theirs, example)
            example = example.replace(theirs, ours)
        self.assertEqual(said(NGINX), said(example))

    def nginx(self, configuration):
        """What `nginx -t` says of it where nginx's image has it."""
        with tempfile.TemporaryDirectory() as directory:
            page = f"{directory}/nginx.conf"
            with open(page, "w") as file:
                file.write(f"user root; pid {directory}/pid; events {{}} http {{ access_log off;\n{configuration}\n}}")
            told = subprocess.run(["nginx", "-t", "-p", directory, "-c", page, "-e", "stderr"], capture_output=True, text=True)
            return told.returncode, told.stderr

    def test_nginx_takes_its_configuration(self):
        code, said = self.nginx(NGINX)
        self.assertEqual(code, 0, said)

    def test_nginx_refuses_a_broken_one(self):
        code, said = self.nginx(NGINX.replace("proxy_read_timeout", "proxy_read_timeouts"))
        self.assertEqual(code, 1, said)

    def test_the_hall_lives_with_these_variables_beside_this_redis(self):
        with tempfile.TemporaryDirectory() as directory, hall.redis(COMPOSE["services"]["redis"]["command"], directory) as redis:
            self.assertIsNone(redis.child.poll(), redis.said())
            for name, service in halls(COMPOSE).items():
                env = service["environment"]
                probe = f"http://127.0.0.1:{hall.port(env['TOWNHALL_OPS'])}/readyz"
                self.assertEqual(hall.life(env, [probe], hall.seconds(service["stop_grace_period"])), [], name)


def said(configuration):
    """Its lines without comments and indentation."""
    lines = (line.strip() for line in configuration.splitlines())
    return [line for line in lines if line and not line.startswith("#")]
