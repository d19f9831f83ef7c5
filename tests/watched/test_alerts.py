"""Every alert fires when its reason is caused, with the rules that are shipped; see parts.py for what is done to time."""
import re
import time
import unittest

from parts import (
    FACTOR, Hall, Prometheus, Readers, Redis, cut, eventually, lines, load, read, scaled, unfinished_echo)

ALERTS = re.findall(r"^      - alert: (\w+)$", read("grafana", "rules.yaml"), re.MULTILINE)


class Alerts(unittest.TestCase):
    def hall(self, *options, count=1, **more):
        """Halls on one Redis, before a Prometheus."""
        self.redis = Redis(self)
        self.halls = [Hall(self, self.redis, *options, **more) for _ in range(count)]
        self.prometheus = Prometheus(self, self.halls)
        return self.halls[0]

    def fires(self, name, about=None):
        """It fires, about this hall alone if it is about one. It did not before; so call it once the reason is there."""
        wanted = (name, about and about.target())
        firing = eventually(f"{name} fires", lambda: wanted in (found := self.prometheus.firing()) and found)
        self.assertEqual([alert for alert in firing if alert[0] == name], [wanted])

    def quiet(self, name):
        """It does not fire, though everything that it looks at was scraped several times."""
        time.sleep(3)
        self.assertNotIn(name, {alert for alert, _ in self.prometheus.firing()})

    def test_node_down(self):
        self.hall(count=2)
        self.quiet("TownhallNodeDown")
        self.halls[1].kill()
        self.fires("TownhallNodeDown", self.halls[1])
        self.assertNotIn("TownhallAllDown", {alert for alert, _ in self.prometheus.firing()})

    def test_all_down(self):
        self.hall(count=2)
        self.quiet("TownhallAllDown")
        for hall in self.halls:
            hall.kill()
        self.fires("TownhallAllDown")

    def test_broker_down(self):
        hall = self.hall()
        self.quiet("TownhallBrokerDown")
        self.redis.kill()
        self.fires("TownhallBrokerDown", hall)

    def test_publish_slow(self):
        hall = self.hall()
        load(self, "fanout", f"ws://127.0.0.1:{hall.port}", "--connections", 20, "--publishers", 10, "--rate", 50,
             "--seconds", 600)
        self.redis.in_pulses(stopped=0.6, running=0.3)
        self.fires("TownhallPublishSlow")

    def test_delivery_slow(self):
        self.hall(count=2)
        # Of each room's two members the one who speaks is at the first hall, and the other at the second.
        load(self, "rooms", *(f"ws://127.0.0.1:{hall.port}" for hall in self.halls), "--rooms", 50, "--members", 2,
             "--rate", 50, "--seconds", 600)
        eventually("they talk", lambda: self.halls[1].metric("townhall_deliveries_total") > 50)
        self.halls[1].in_pulses(stopped=0.6, running=0.3)
        self.fires("TownhallDeliverySlow")

    def test_slow_readers(self):
        hall = self.hall()
        readers = Readers(self, hall, 8)
        load(self, "fanout", f"ws://127.0.0.1:{hall.port}", "--room", "lobby", "--connections", 12, "--publishers", 10,
             "--rate", 100, "--size", 3000, "--seconds", 600)
        eventually("they are spoken to", lambda: hall.metric("townhall_deliveries_total") > 1000)
        self.quiet("TownhallSlowReaders")
        readers.stop()
        self.fires("TownhallSlowReaders", hall)

    def test_files_short(self):
        hall = self.hall(files=200)
        lines(self, hall, 100)
        self.quiet("TownhallFilesShort")
        lines(self, hall, 60)
        self.fires("TownhallFilesShort", hall)

    def test_full(self):
        hall = self.hall("--max-connections", "20")
        lines(self, hall, 20)
        self.quiet("TownhallFull")
        lines(self, hall, 5)
        self.fires("TownhallFull", hall)

    def test_full_of_files(self):
        hall = self.hall(files=100)
        lines(self, hall, 80)
        self.quiet("TownhallFull")
        lines(self, hall, 40)
        self.fires("TownhallFull", hall)

    def test_imbalance(self):
        self.hall(count=2)
        lines(self, self.halls[0], 130)
        self.fires("TownhallImbalance")

    def test_reconnect_storm(self):
        hall = self.hall()
        here = lines(self, hall, 40)
        self.quiet("TownhallReconnectStorm")

        def again():
            nonlocal here
            cut(here)
            here = lines(self, hall, 40)
            return "TownhallReconnectStorm" in {alert for alert, _ in self.prometheus.firing()}

        eventually("the storm is noticed", again)
        self.fires("TownhallReconnectStorm")

    def test_messages_lost(self):
        hall = self.hall()
        listener, = lines(self, hall, 1)
        for number in range(5):
            listener.sendall(b"message %d\n" % number)
        eventually("they are heard", lambda: hall.metric("townhall_messages_received_total") == 5)
        self.quiet("TownhallMessagesLost")
        self.redis.kill()
        self.redis.start()
        self.fires("TownhallMessagesLost")

    def test_memory(self):
        hall = self.hall("--max-frame", "16MiB", "--window-budget", "16MiB")
        self.quiet("TownhallMemory")
        for _ in range(24):
            unfinished_echo(self, hall, 16 << 20)
        self.fires("TownhallMemory", hall)


class Rules(unittest.TestCase):
    def test_every_alert_is_caused(self):
        caused = {name.removeprefix("test_") for name in dir(Alerts) if name.startswith("test_")}
        snake = {re.sub(r"(?<=[a-z])(?=[A-Z])", "_", alert.removeprefix("Townhall")).lower() for alert in ALERTS}
        self.assertEqual(snake - caused, set())
        self.assertGreater(len(ALERTS), 8)

    def test_nothing_but_durations_is_scaled(self):
        rules = read("grafana", "rules.yaml")
        self.assertIn("for: 30m", rules)
        self.assertIn(f"for: {30 * 60_000 // FACTOR}ms", scaled(rules))
        changed = [(before, after) for before, after in zip(rules.splitlines(), scaled(rules).splitlines()) if before != after]
        self.assertTrue(changed)
        duration = r"\b\d+(ms|s|m|h|d)(?=\]|$)"
        for before, after in changed:
            self.assertEqual(re.sub(duration, "…", before), re.sub(duration, "…", after))


if __name__ == "__main__":
    unittest.main()
