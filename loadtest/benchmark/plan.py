"""What a load takes, in words: how many nodes, what Redis, and which of the costs it was computed from."""
import math

from . import scaling, table

# Of the files that a hall may open, those that it has for connections: the default of --max-connections.
CONNECTIONS = 0.9


def rows(costs, load, machine):
    """(what, how much), for a person who plans."""
    it, why = scaling.nodes_for(costs, load, machine)
    most = scaling.most_messages(costs, load, it.nodes, machine.share)
    masters = scaling.masters_for(costs, load, it.nodes, machine.share)
    yield "sockets, rooms, members a room", f"{load.sockets:,}, {load.rooms:,}, {table.three(load.members)}"
    yield "messages/s a room, and in all", f"{table.three(load.rate)}, {load.messages:,.0f}"
    yield "deliveries/s", f"{load.deliveries:,.0f}"
    yield f"**nodes** of {size_of(machine)}", f"**{it.nodes}**, by {why}"
    yield ("of each node: cores, memory, network",
           f"{it.node_cores:.2f}, {it.node_memory / 2**30:.2f} GiB, {it.node_bits / 1e9:.2f} Gbit/s")
    each = load.sockets / it.nodes
    yield "sockets a node, so open files of at least", f"{math.ceil(each):,}, {math.ceil(each / CONNECTIONS):,}"
    yield "nodes at which somebody of a room is", table.three(it.carrying)
    yield "Redis' work, in cores", f"{it.redis_cores:.2f}"
    yield f"messages/s that one Redis carries, used to {machine.share:.0%}", f"{most:,.0f}"
    yield "**Redis**", "**one server**" if masters == 1 else f"**a cluster of {masters} masters**"
    yield "what Redis hands to nodes", f"{it.redis_bits / 1e9:.2f} Gbit/s"
    yield f"what Redis keeps, with {load.history:,} messages a room", f"{table.three(it.redis_memory / 2**30)} GiB"


def size_of(machine):
    cores, memory, network = map(table.three, (machine.cores, machine.memory_gib, machine.network_gbit))
    return f"{cores} cores, {memory} GiB, {network} Gbit/s, used to {machine.share:.0%}"


def plans(costs, loads, machine):
    """A column a load, in Markdown."""
    columns = [list(rows(costs, load, machine)) for load in loads]
    body = [[row[0][0], *(value for _, value in row)] for row in zip(*columns)]
    return table.markdown(["", *("" for _ in loads)], body)


def costs_table(costs):
    micro = "{:.1f} µs".format
    whole = "{:.0f} bytes".format
    return table.markdown(["measured with one node", ""], [
        ["a delivery, in a write of its own, at a node", micro(costs.delivery_us)],
        ["a message at the node where it is said", micro(costs.say_us)],
        ["a message at each node that has somebody of its room", micro(costs.hear_us)],
        ["a node in a second of silence", micro(costs.node_us)],
        ["a silent connection in a second (a ping every 25 s)", micro(costs.connection_us)],
        ["memory of a silent connection, without the kernel's", whole(costs.connection_bytes)],
        ["Redis, a message, when it has little to do and wakes up for each", micro(costs.store_us)],
        ["Redis, a message, one a call, when it is busy", micro(costs.busy_store_us)],
        ["Redis, each node that it hands a message to", micro(costs.hand_us)],
        ["Redis, in a second of silence, by itself", micro(costs.redis_us)],
        ["Redis, in a second of silence, for each node", micro(costs.redis_node_us)],
        ["a delivery of 120 bytes of text, at the client", whole(costs.delivery_bytes)],
        ["the same as Redis hands it to a node", whole(costs.event_bytes)],
        ["what Redis keeps of it, with its id", whole(costs.stored_bytes)],
    ])


def checks_table(checks):
    def row(check):
        verdict = "" if check.holds else "**off**"
        return [check.what, f"{check.predicted:.2f} s", f"{check.measured:.2f} s", f"{check.error:+.0%}", verdict]

    return table.markdown(["processor time of", "predicted", "measured", "error", ""], list(map(row, checks)))
