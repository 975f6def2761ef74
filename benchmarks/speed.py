"""Benchmarks of speed: appends, reads, latency of tails, and fan-out."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.figures import Outcome
from benchmarks.generator import Generator, Option, Result
from benchmarks.servers import Server

BASE = "/v1/stream/bench"

#: How many appends a stream of ``reads`` has; each is an offset to read from.
APPENDS_BEHIND = 8


@dataclass(frozen=True)
class Load:
    """
    The parameters of the load.

    :param seconds: the length of a run.
    :param warmup: the length of a run before it that does not count, for what compiles itself.
    :param connections: keep-alive connections of the closed loops.
    :param streams: streams that the appends are spread over, in turn.
    :param size: bytes of a body, or of an event.
    :param sizes: the smallest and the largest number of bytes of a writer's body.
    :param headers: those of a writer: of a ``browser``, or of another ``client``.
    :param content_type: of the streams that are appended to and read; tails always read JSON.
    :param tails: SSE connections to one stream, while latency is measured.
    :param fanout_tails: the same, while throughput is.
    :param rate: events per second while their latency is measured.
    """

    seconds: float
    warmup: float
    connections: int
    streams: int
    size: int
    sizes: tuple[int, int]
    headers: str
    content_type: str
    tails: int
    fanout_tails: int
    rate: float


def warm_up(server: Server, generator: Generator, load: Load) -> None:
    """
    Warm a server up with appends and tails.

    :param server: the server.
    :param generator: the generator.
    :param load: how long.
    """
    if load.warmup:
        path = f"{BASE}/warmup"
        generator.run("create", server.port, path, 1)
        generator.run("fanout", server.port, path, 20, load.warmup, load.size, drain=10)


def measured(server: Server, load: Load, figure: str, run: Callable[[float], Result]) -> Outcome:
    """
    Run a closed loop twice, first for the warm-up, and return the result of the second run.

    :param server: the server.
    :param load: how long.
    :param figure: what the figures' keys begin with.
    :param run: runs the generator for so many seconds.
    :returns: requests per second, their latency, and the server's processor time for one.
    """
    if load.warmup:
        run(load.warmup)
    database = server.database
    before = server.processor_seconds()
    database_before = database.processor_seconds() if database is not None else 0.0
    result = run(load.seconds)
    spent = server.processor_seconds() - before
    outcome = Outcome()
    if database is not None:
        outcome.figures["database_cpu"] = (
            (database.processor_seconds() - database_before) * 1e6 / max(result["requests"], 1)
        )
    outcome.note_speed(result)
    outcome.figures |= {
        f"{figure}s": result["per_second"],
        f"{figure}_p50": result["p50_us"],
        f"{figure}_p99": result["p99_us"],
        f"{figure}_cpu": spent * 1e6 / max(result["requests"], 1),
    }
    return outcome


def closed_loop(
    server: Server, generator: Generator, load: Load, command: str, *numbers: float, figure: str = ""
) -> Outcome:
    """
    Measure ``append`` or ``read``: requests that are the same for each stream.

    :param server: the server.
    :param generator: the generator.
    :param load: how much.
    :param command: which of the two.
    :param numbers: what the command takes besides connections and seconds.
    :param figure: what the figures' keys begin with; the command's name unless given.
    :returns: requests per second, their latency, and the server's processor time for one.
    """
    path = f"{BASE}/{command}/{{n}}"
    generator.run("create", server.port, path, load.streams, type=load.content_type)
    if command == "read":
        path += "?offset=-1"
        for number in range(load.streams):
            stream = f"{BASE}/{command}/{number}"
            generator.run("write", server.port, stream, 1, load.size, type=load.content_type)

    def run(seconds: float) -> Result:
        counts = (load.connections, seconds, *numbers)
        options: dict[str, Option] = {"streams": load.streams, "type": load.content_type}
        return generator.run(command, server.port, path, *counts, timeout=seconds + 60, **options)

    return measured(server, load, figure or command, run)


def writers(server: Server, generator: Generator, load: Load, figure: str = "writer") -> Outcome:
    """
    Measure appends of idempotent producers, each with its connection, its stream and bodies of differing length.

    :param server: the server.
    :param generator: the generator.
    :param load: how much.
    :param figure: what the figures' keys begin with.
    :returns: appends per second, their latency, and the server's processor time for one.
    """
    count = load.connections
    runs = itertools.count()

    def run(seconds: float) -> Result:
        # Fresh streams: their producers begin at 0.
        path = f"{BASE}/writers/{next(runs)}/{{n}}"
        generator.run("create", server.port, path, count, type="application/json")
        options: dict[str, Option] = {"streams": count, "headers": load.headers}
        return generator.run("writers", server.port, path, count, seconds, *load.sizes, timeout=seconds + 60, **options)

    return measured(server, load, figure, run)


def reads(server: Server, generator: Generator, load: Load) -> Outcome:
    """
    Measure catch-up reads from differing offsets, one in eight with ``If-None-Match``.

    :param server: the server.
    :param generator: the generator.
    :param load: how much.
    :returns: reads per second, their latency, and the server's processor time for one.
    """
    runs = itertools.count()

    def run(seconds: float) -> Result:
        path = f"{BASE}/reads/{next(runs)}/{{n}}"
        generator.run("create", server.port, path, load.streams, type="application/json")
        counts = (load.connections, seconds, APPENDS_BEHIND, load.size)
        return generator.run("follow", server.port, path, *counts, timeout=seconds + 60, streams=load.streams)

    return measured(server, load, "read", run)


def appends(server: Server, generator: Generator, load: Load) -> Outcome:
    """
    Measure appends of one small message each, spread over some streams.

    :param server: the server.
    :param generator: the generator.
    :param load: how much.
    :returns: appends per second, their latency, and the server's processor time for one.
    """
    return closed_loop(server, generator, load, "append", load.size)


def repeats(server: Server, generator: Generator, load: Load) -> Outcome:
    """
    Measure catch-up reads of streams with one small message each, by requests that are the same for each stream.

    :param server: the server.
    :param generator: the generator.
    :param load: how much.
    :returns: reads per second, their latency, and the server's processor time for one.
    """
    return closed_loop(server, generator, load, "read", figure="repeat")


def tails(server: Server, generator: Generator, load: Load) -> Outcome:
    """
    Measure the time from sending an append to its arrival at SSE tails, at a steady rate.

    :param server: the server.
    :param generator: the generator.
    :param load: how much.
    :returns: quantiles over all tails and events.
    """
    warm_up(server, generator, load)
    path = f"{BASE}/tails"
    generator.run("create", server.port, path, 1)
    events = max(1, round(load.rate * load.seconds))
    result = generator.run("tails", server.port, path, load.tails, events, load.rate, load.size, timeout=300)
    outcome = Outcome()
    outcome.note_speed(result)
    outcome.figures = {
        "tail_p50": result["p50_us"],
        "tail_p99": result["p99_us"],
        "tail_max": result["max_us"],
    }
    if result["appends_per_second"] < 0.95 * load.rate:
        outcome.remarks.append(f"only {result['appends_per_second']:.0f} events per second were taken")
    return outcome


def fanout(server: Server, generator: Generator, load: Load) -> Outcome:
    """
    Measure events per second at SSE tails with one writer at full speed.

    :param server: the server.
    :param generator: the generator.
    :param load: how much.
    :returns: deliveries and appends per second, and the latency's p99.
    """
    warm_up(server, generator, load)
    path = f"{BASE}/fanout"
    generator.run("create", server.port, path, 1)
    result = generator.run("fanout", server.port, path, load.fanout_tails, load.seconds, load.size, timeout=300)
    outcome = Outcome()
    outcome.note_speed(result)
    outcome.figures = {
        "deliveries": result["deliveries_per_second"],
        "fanout_appends": result["appends_per_second"],
        "fanout_p99": result["p99_us"],
    }
    return outcome
