"""Measures durable appends: each is answered when it would survive a loss of power."""

from benchmarks.figures import Outcome
from benchmarks.generator import Generator
from benchmarks.servers import Server
from benchmarks.speed import Load, closed_loop

#: Of the streams that storage is measured with: what is stored is what was sent.
CONTENT_TYPE = "application/octet-stream"


def durable(server: Server, generator: Generator, load: Load) -> Outcome:
    """
    Appends of one small body each, spread over some streams, as many under way as there are connections.

    :param server: the server.
    :param generator: the generator.
    :param load: how much.
    :returns: appends per second, their latency, and the server's processor time for one.
    """
    return closed_loop(server, generator, load, "append", load.size, figure="durable")
