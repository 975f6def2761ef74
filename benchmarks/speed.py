"""Benchmarks of speed: appends, reads, latency of tails, and fan-out."""

from dataclasses import dataclass

from benchmarks.figures import Outcome
from benchmarks.generator import Generator, Option, Result
from benchmarks.servers import Server

BASE = "/v1/stream/bench"


@dataclass(frozen=True)
class Load:
    """
    The parameters of the load.

    :param seconds: the length of a run.
    :param warmup: the length of a run before it that does not count, for what compiles itself.
    :param connections: keep-alive connections of the closed loops.
    :param streams: streams that the appends are spread over, in turn.
    :param size: bytes of a body, or of an event.
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


def closed_loop(
    server: Server, generator: Generator, load: Load, command: str, *numbers: float, figure: str = ""
) -> Outcome:
    """
    Run ``append`` or ``read`` twice on separate streams, and return the result of the second run.

    :param server: the server.
    :param generator: the generator.
    :param load: how much.
    :param command: which of the two.
    :param numbers: what the command takes besides connections and seconds.
    :param figure: what the figures' keys begin with; the command's name unless given.
    :returns: requests per second, their latency, and the server's processor time for one.
    """
    figure = figure or command
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

    if load.warmup:
        run(load.warmup)
    before = server.processor_seconds()
    result = run(load.seconds)
    spent = server.processor_seconds() - before
    outcome = Outcome()
    outcome.note_speed(result)
    outcome.figures = {
        f"{figure}s": result["per_second"],
        f"{figure}_p50": result["p50_us"],
        f"{figure}_p99": result["p99_us"],
        f"{figure}_cpu": spent * 1e6 / max(result["requests"], 1),
    }
    return outcome


def appends(server: Server, generator: Generator, load: Load) -> Outcome:
    """
    Measure appends of one small message each, spread over some streams.

    :param server: the server.
    :param generator: the generator.
    :param load: how much.
    :returns: appends per second, their latency, and the server's processor time for one.
    """
    return closed_loop(server, generator, load, "append", load.size)


def reads(server: Server, generator: Generator, load: Load) -> Outcome:
    """
    Measure catch-up reads of streams with one small message each.

    :param server: the server.
    :param generator: the generator.
    :param load: how much.
    :returns: reads per second, their latency, and the server's processor time for one.
    """
    return closed_loop(server, generator, load, "read")


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
