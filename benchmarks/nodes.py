"""Benchmark of several nodes on one database: delivery from node to node, and appends to one, two and four of them."""

import contextlib
import itertools
import time
from collections.abc import Sequence

from benchmarks.durable import CONTENT_TYPE
from benchmarks.figures import Outcome
from benchmarks.generator import Generator, Option, Result
from benchmarks.servers import Server
from benchmarks.speed import BASE, Load, warm_up

#: The processes of one server that shares its port among them.
WORKERS = 4

_numbers = itertools.count()

_NOT_SHARED = "not measured: it has no database for several nodes"


def delivery(server: Server, generator: Generator, load: Load) -> Outcome:
    """
    Measure the time from sending an append to one node to its arrival at SSE tails of another, at a steady rate.

    :param server: the node that is appended to.
    :param generator: the generator.
    :param load: how much.
    :returns: quantiles over all tails and events; and for tails of the node that is appended to.
    """
    if server.database is None:
        return Outcome(remarks=[_NOT_SHARED])
    outcome = Outcome()
    with server.beside() as other:
        for node in (server, other):
            warm_up(node, generator, load)
        for figure, reader in (("node_tail", server), ("cross_tail", other)):
            path = f"{BASE}/{figure}"
            generator.run("create", server.port, path, 1)
            events = max(1, round(load.rate * load.seconds))
            counts = (load.tails, events, load.rate, load.size)
            result = generator.run("tails", reader.port, path, *counts, timeout=300, writer_port=server.port)
            outcome.note_speed(result)
            outcome.figures |= {f"{figure}_{name}": result[f"{name}_us"] for name in ("p50", "p99", "max")}
    return outcome


def _together(nodes: Sequence[Server], generator: Generator, load: Load, shared: bool, seconds: float) -> list[Result]:
    """Append through all nodes at the same time, each with its part of the connections."""
    connections = load.connections // len(nodes)
    with contextlib.ExitStack() as stack:
        running = []
        number = next(_numbers)
        for place, node in enumerate(nodes):
            streams = load.streams if shared else connections
            options: dict[str, Option] = {"type": CONTENT_TYPE, "streams": streams}
            path = f"{BASE}/nodes/{number}/{0 if shared else place}/{{n}}"
            if not shared or not place:
                generator.run("create", node.port, path, streams, type=CONTENT_TYPE)
            command, numbers = ("append", (load.size,)) if shared else ("writers", load.sizes)
            arguments = (connections, seconds, *numbers)
            running.append(stack.enter_context(generator.start(command, node.port, path, *arguments, **options)))
        return [each.finish(seconds + 60) for each in running]


def _appends(nodes: Sequence[Server], generator: Generator, load: Load, key: str, count: int, outcome: Outcome) -> None:
    database = nodes[0].database
    assert database is not None
    for shared, figure in ((False, f"{key}_own"), (True, f"{key}_shared")):
        if load.warmup:
            _together(nodes, generator, load, shared, load.warmup)
        spent = sum(node.processor_seconds() for node in nodes)
        database_spent = database.processor_seconds()
        results = _together(nodes, generator, load, shared, load.seconds)
        spent = sum(node.processor_seconds() for node in nodes) - spent
        database_spent = database.processor_seconds() - database_spent
        requests = max(sum(result["requests"] for result in results), 1)
        for result in results:
            outcome.note_speed(result)
        outcome.figures |= {
            f"{figure}:{count}": sum(result["per_second"] for result in results),
            f"{figure}_p50:{count}": max(result["p50_us"] for result in results),
            f"{figure}_p99:{count}": max(result["p99_us"] for result in results),
            f"{figure}_cpu:{count}": spent * 1e6 / requests,
            f"{figure}_database_cpu:{count}": database_spent * 1e6 / requests,
        }


def throughput(server: Server, generator: Generator, load: Load) -> Outcome:
    """
    Measure appends through one node, through two, and through one server with four workers.

    The streams are each written by one connection to one node, or all by all connections.

    :param server: the first node.
    :param generator: the generator, of which each node has its own process.
    :param load: how much, over all nodes.
    :returns: appends per second, their latency, and the processor time of nodes and database for one.
    """
    if server.database is None:
        return Outcome(remarks=[_NOT_SHARED])
    outcome = Outcome()
    _appends([server], generator, load, "nodes", 1, outcome)
    with server.beside() as other:
        _appends([server, other], generator, load, "nodes", 2, outcome)
    with server.beside(DS_SERVER__WORKERS=str(WORKERS)) as workers:
        time.sleep(1)  # until all of them listen
        _appends([workers], generator, load, "workers", WORKERS, outcome)
    return outcome
