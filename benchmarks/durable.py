"""Benchmark of durable appends: each is answered after its sync."""

from benchmarks.figures import Outcome
from benchmarks.generator import Generator
from benchmarks.servers import Server
from benchmarks.speed import Load, closed_loop, writers

#: The content type of the streams: bytes are stored as they are sent.
CONTENT_TYPE = "application/octet-stream"


def durable(server: Server, generator: Generator, load: Load) -> Outcome:
    """
    Measure appends of one small body each, spread over some streams, one under way on each connection.

    :param server: the server.
    :param generator: the generator.
    :param load: how much.
    :returns: appends per second, their latency, and the server's processor time for one.
    """
    return closed_loop(server, generator, load, "append", load.size, figure="durable")


def durable_writers(server: Server, generator: Generator, load: Load) -> Outcome:
    """
    Measure durable appends of idempotent producers, each with its connection, its stream and JSON of differing length.

    :param server: the server.
    :param generator: the generator.
    :param load: how much.
    :returns: appends per second, their latency, and the server's processor time for one.
    """
    return writers(server, generator, load, figure="durable_writer")
