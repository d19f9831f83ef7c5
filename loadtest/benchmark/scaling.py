"""The arithmetic of many nodes: from what one of them was measured to take, what a load takes of any number.

A message is published at one node, stored by Redis, and handed by Redis to every node that has members of its room; each of
these hands it to its own members. So there is a cost a message and node, a cost a delivery, and what a node and a
connection take even in silence. Nothing here grows with the number of nodes but that, and that is what is checked.
"""
import dataclasses
import math


@dataclasses.dataclass
class Costs:
    """Processor time in µs, memory and what goes over the wire in bytes."""
    # Of a node: each delivery, in a write of its own; each message that is said there; each of a room that has members there.
    delivery_us: float
    say_us: float
    hear_us: float
    # Of a node, in a second in which nothing happens; of Redis then, by itself and for each node.
    node_us: float
    redis_us: float
    redis_node_us: float
    # Of Redis: each message that it stores, at leisure and when it is busy (waking up is what costs then), and each node
    # that it hands it to.
    store_us: float
    busy_store_us: float
    hand_us: float
    # A delivery as it was counted at the clients; a message as Redis hands it to a node.
    delivery_bytes: float
    event_bytes: float
    # What Redis keeps: of a message, its id and all.
    stored_bytes: float
    # Of a connection that is silent: memory, and processor time in a second (it is pinged every beat).
    connection_bytes: float
    connection_us: float


@dataclasses.dataclass
class Load:
    sockets: int
    rooms: int
    # Rooms that each is in.
    joined: float
    # Messages a second in each room.
    rate: float
    # Messages kept a room, at least.
    history: int

    @property
    def members(self):
        return self.sockets * self.joined / self.rooms

    @property
    def messages(self):
        return self.rooms * self.rate

    @property
    def deliveries(self):
        return self.messages * self.members


@dataclasses.dataclass
class Machine:
    """A node's, and Redis'. Shares are what is used of it, so that something is left for a bad minute and for a lost node."""
    cores: float
    memory_gib: float
    network_gbit: float
    share: float


# Bytes that TCP and IP add to a write of its own: 20 + 20, and 12 for time stamps. Ethernet's are not in it.
PACKET = 52
# Of the kernel, for a socket that is silent. Not measured: what is not swapped out of its slabs depends on its version.
KERNEL = 4 * 2**10
# Of the hall's own memory, whatever its clients do: the default of --window-budget.
WINDOWS = 256 * 2**20
MOST_NODES = 10_000


def carrying(nodes, members):
    """At how many of the nodes somebody of a room is, on average, if everybody is somewhere by chance."""
    return nodes * (1 - (1 - 1 / nodes) ** members)


def nodes_us(costs, seconds, nodes, messages, carried, deliveries):
    """Processor time of all nodes; a message that n nodes carry is n in `carried`."""
    return (seconds * nodes * costs.node_us + messages * costs.say_us + carried * costs.hear_us
            + deliveries * costs.delivery_us)


def redis_us(costs, seconds, nodes, messages, carried):
    """Of a Redis at leisure."""
    return redis_idle_us(costs, seconds, nodes) + messages * costs.store_us + carried * costs.hand_us


def redis_idle_us(costs, seconds, nodes):
    return seconds * (costs.redis_us + nodes * costs.redis_node_us)


@dataclasses.dataclass
class Demand:
    """What a load takes of so many nodes and one Redis, a second."""
    nodes: int
    carrying: float
    # All nodes', in cores.
    node_cores: float
    node_memory: float
    node_bits: float
    redis_cores: float
    redis_bits: float
    redis_memory: float


def demand(costs, load, nodes):
    carried = load.messages * carrying(nodes, load.members)
    cpu = nodes_us(costs, 1, nodes, load.messages, carried, load.deliveries) + load.sockets * costs.connection_us
    handed = carried * (costs.event_bytes + PACKET)
    redis = redis_idle_us(costs, 1, nodes) + load.messages * costs.busy_store_us + carried * costs.hand_us
    return Demand(
        nodes=nodes,
        carrying=carrying(nodes, load.members),
        node_cores=cpu / 1e6 / nodes,
        node_memory=load.sockets * (costs.connection_bytes + KERNEL) / nodes + WINDOWS,
        node_bits=8 * (load.deliveries * (costs.delivery_bytes + PACKET) + handed) / nodes,
        redis_cores=redis / 1e6,
        redis_bits=8 * handed,
        redis_memory=load.rooms * load.history * costs.stored_bytes,
    )


def nodes_for(costs, load, machine):
    """The fewest nodes on which the load fits, and what decided: what one node less would lack."""
    for nodes in range(1, MOST_NODES + 1):
        shares = used(demand(costs, load, nodes), machine)
        if max(shares.values()) <= machine.share:
            before = used(demand(costs, load, max(1, nodes - 1)), machine)
            return demand(costs, load, nodes), max(before, key=before.get)
    shares = used(demand(costs, load, MOST_NODES), machine)
    raise ValueError(f"{MOST_NODES:,} such nodes do not carry that; what each lacks is {max(shares, key=shares.get)}")


def used(it, machine):
    """Of what a node has, 0 to 1."""
    return {"processor": it.node_cores / machine.cores,
            "memory": it.node_memory / (machine.memory_gib * 2**30),
            "network": it.node_bits / (machine.network_gbit * 1e9)}


def most_messages(costs, load, nodes, share):
    """Messages a second at which one Redis is as busy as it may be; it has one thread for them."""
    each = costs.busy_store_us + carrying(nodes, load.members) * costs.hand_us
    return max(0.0, share * 1e6 - redis_idle_us(costs, 1, nodes)) / each


def masters_for(costs, load, nodes, share):
    """Of a cluster: rooms, and so messages, are spread over them, but every node is connected with each."""
    most = most_messages(costs, load, nodes, share)
    if not most:
        raise ValueError(f"{nodes} nodes keep a Redis busy by themselves")
    return max(1, math.ceil(load.messages / most))


def solved(rows, right):
    """The unknowns of as many linear equations, by elimination."""
    rows = [[*row, value] for row, value in zip(rows, right)]
    for column in range(len(rows)):
        pivot = max(range(column, len(rows)), key=lambda number: abs(rows[number][column]))
        if abs(rows[pivot][column]) < 1e-9:
            raise ValueError("the runs are too much alike to tell their costs apart")
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for number, row in enumerate(rows):
            if number != column:
                factor = row[column] / rows[column][column]
                rows[number] = [a - factor * b for a, b in zip(row, rows[column])]
    return [row[-1] / row[column] for column, row in enumerate(rows)]
