"""The arithmetic of many nodes, with numbers that can be checked by head."""
import dataclasses
import unittest

from . import plan, scaled, scaling

COSTS = scaling.Costs(
    delivery_us=10, say_us=50, hear_us=20, node_us=1000, redis_us=100, redis_node_us=400,
    store_us=100, busy_store_us=20, hand_us=4, delivery_bytes=300, event_bytes=350,
    stored_bytes=400, connection_bytes=3000, connection_us=1)
NODE = scaling.Machine(cores=4, memory_gib=8, network_gbit=10, share=0.5)
LOAD = scaling.Load(sockets=1000, rooms=100, joined=2, rate=1, history=1000)


def measured(nodes, messages, deliveries, seconds=10, says=True):
    """A run of which everything costs what COSTS say."""
    carried = nodes * messages
    spoken = messages if says else 0
    return {"cpu_s": scaling.nodes_us(COSTS, seconds, nodes, spoken, carried, deliveries) / 1e6,
            "redis_s": scaling.redis_us(COSTS, seconds, nodes, messages, carried) / 1e6,
            "watched_s": seconds, "messages": messages, "deliveries": deliveries}


def one_node():
    few = measured(1, 1000, 10_000)
    listened = {**few, "listeners": 5, "redis_s": few["redis_s"] + 5 * 1000 * COSTS.hand_us / 1e6,
                "event_bytes": 350, "stored_bytes": 400}
    return {"no node": [measured(0, 0, 0)], "quiet": [measured(1, 0, 0)],
            "few": [few], "many": [{**measured(1, 50, 15_000), "bytes": 300}],
            "heard": [measured(1, 1000, 10_000, says=False)], "listened": [listened],
            "busy Redis": [{"redis_cpu_us": 20}], "idle": [{"bytes_a_connection": 3000, "idle_cpu": 0.01}]}


class Arithmetic(unittest.TestCase):
    def test_a_room_is_at_no_more_nodes_than_it_has_members_or_there_are_nodes(self):
        self.assertEqual(scaling.carrying(1, 10), 1)
        self.assertAlmostEqual(scaling.carrying(2, 1), 1)
        self.assertAlmostEqual(scaling.carrying(2, 2), 1.5)
        self.assertAlmostEqual(scaling.carrying(3, 1000), 3)
        self.assertTrue(9.9 < scaling.carrying(10_000, 10) < 10)

    def test_what_a_load_takes_of_one_node(self):
        it = scaling.demand(COSTS, LOAD, 1)
        # 100 messages of 20 members: 1,000 µs of its own, 100 × (50 + 20), 2,000 deliveries × 10, 1,000 sockets × 1.
        self.assertAlmostEqual(it.node_cores, (1000 + 7000 + 20_000 + 1000) / 1e6)
        self.assertAlmostEqual(it.redis_cores, (500 + 100 * 24) / 1e6)
        self.assertAlmostEqual(it.redis_memory, 100 * 1000 * 400)

    def test_each_message_is_heard_at_every_node_and_said_at_one(self):
        one, two = (scaling.nodes_us(COSTS, 0, nodes, 100, 100 * nodes, 0) for nodes in (1, 2))
        self.assertEqual(two - one, 100 * COSTS.hear_us)

    def test_the_fewest_nodes_are_found_and_why_one_less_is_not_enough(self):
        silent = {"sockets": 5_000_000, "rooms": 5_000_000, "rate": 0}
        for more, why in (({"rate": 1000}, "processor"), (silent, "memory")):
            load = dataclasses.replace(LOAD, **more)
            it, decided = scaling.nodes_for(COSTS, load, NODE)
            self.assertEqual(decided, why)
            self.assertLessEqual(max(scaling.used(it, NODE).values()), NODE.share)
            self.assertGreater(max(scaling.used(scaling.demand(COSTS, load, it.nodes - 1), NODE).values()), NODE.share)

    def test_the_network_decides_where_it_is_thin(self):
        thin = dataclasses.replace(NODE, network_gbit=0.01)
        self.assertEqual(scaling.nodes_for(COSTS, dataclasses.replace(LOAD, rate=100), thin)[1], "network")

    def test_one_redis_ends_where_it_is_as_busy_as_it_may_be(self):
        most = scaling.most_messages(COSTS, LOAD, 1, 0.5)
        self.assertAlmostEqual(most, (500_000 - 500) / 24)
        load = dataclasses.replace(LOAD, rate=most / LOAD.rooms * 2.5)
        self.assertEqual(scaling.masters_for(COSTS, load, 1, 0.5), 3)

    def test_what_cannot_be_is_an_error(self):
        greedy = dataclasses.replace(COSTS, node_us=3e6)
        with self.assertRaises(ValueError):
            scaling.nodes_for(greedy, LOAD, NODE)
        with self.assertRaises(ValueError):
            scaling.masters_for(COSTS, LOAD, 2000, 0.5)

    def test_equations_are_solved_and_equal_ones_refused(self):
        self.assertEqual(scaling.solved([[0, 2], [1, 1]], [4, 5]), [3, 2])
        with self.assertRaises(ValueError):
            scaling.solved([[1, 2], [2, 4]], [1, 2])


class FromRuns(unittest.TestCase):
    def test_the_costs_of_one_node_are_found_again(self):
        found = dataclasses.asdict(scaled.costs_of(one_node(), 10_000))
        for name, value in dataclasses.asdict(COSTS).items():
            self.assertAlmostEqual(found[name], value, places=6, msg=name)

    def test_more_nodes_are_foretold_and_what_is_off_is_said(self):
        costs = scaled.costs_of(one_node(), 10_000)
        more = {"2 nodes, few": [measured(2, 1000, 10_000)], "3 nodes, many": [measured(3, 50, 15_000)]}
        checks = list(scaled.checks(costs, more))
        self.assertEqual([check.what for check in checks],
                         ["2 nodes, few: the nodes", "2 nodes, few: Redis", "3 nodes, many: the nodes"])
        self.assertTrue(all(check.holds and abs(check.error) < 1e-6 for check in checks))
        self.assertFalse(scaled.Check("", predicted=1.3, measured=1).holds)
        self.assertFalse(scaled.Check("", predicted=0.7, measured=1).holds)
        self.assertIn("**off**", plan.checks_table([scaled.Check("", 2, 1)]))

    def test_a_plan_says_whether_one_redis_is_enough(self):
        small, large = LOAD, dataclasses.replace(LOAD, rate=1000)
        text = plan.plans(COSTS, [small, large], NODE)
        self.assertIn("**one server**", text)
        self.assertIn("masters**", text)


if __name__ == "__main__":
    unittest.main()
