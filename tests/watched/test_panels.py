"""Every panel of the dashboard shows something, when a real Prometheus scrapes two halls on one Redis under load."""
import json
import unittest

from parts import Hall, Prometheus, Redis, eventually, load, read

# As Grafana would fill them in. What happens every five seconds has to be in the range of a rate.
VARIABLES = {"$__rate_interval": "20s", "$__range": "60s", "$job": "townhall", "$instance": ".+"}


def filled(expression):
    for variable, value in VARIABLES.items():
        expression = expression.replace(variable, value)
    assert "$" not in expression, f"a variable that nobody knows: {expression}"
    return expression


class Panels(unittest.TestCase):
    def test_no_panel_is_empty(self):
        panels = [panel for panel in json.loads(read("grafana", "dashboards", "townhall.json"))["panels"]
                  if panel["type"] != "row"]
        self.assertGreater(len(panels), 30)
        redis = Redis(self)
        halls = [Hall(self, redis), Hall(self, redis)]
        prometheus = Prometheus(self, halls)
        doors = [door for it in halls
                 for door in (f"ws://127.0.0.1:{it.port}", f"plain+ws://127.0.0.1:{it.port}", f"tcp://127.0.0.1:{it.lines}")]
        load(self, "fanout", *doors, "--connections", 120, "--publishers", 12, "--rate", 60, "--seconds", 600)
        eventually("it is said and heard at both", lambda: all(
            hall.metric("townhall_messages_received_total") > 100 and hall.metric("townhall_broker_probe_seconds_count") > 1
            for hall in halls))
        for panel in panels:
            for target in panel["targets"]:
                query = filled(target["expr"])
                with self.subTest(panel=panel["title"], query=query):
                    eventually(f"there is something: {query}", lambda: prometheus.query(query))


if __name__ == "__main__":
    unittest.main()
