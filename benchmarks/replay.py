"""Benchmark of replay: whole reads of a long stream, after writing it and after a restart."""

from dataclasses import dataclass

from benchmarks.durable import CONTENT_TYPE
from benchmarks.figures import Outcome
from benchmarks.generator import Generator
from benchmarks.peers import MEBIBYTE
from benchmarks.servers import Server
from benchmarks.speed import BASE, Load


@dataclass(frozen=True)
class History:
    """
    The stream that is replayed.

    :param size: bytes of the stream.
    :param piece: bytes of each append that it is made of.
    :param connections: how many read at a time; one run for each number.
    :param written: whether it is read just after it was written.
    :param kept: whether it is read after a restart, of the servers that keep it.
    """

    size: int
    piece: int
    connections: tuple[int, ...]
    written: bool
    kept: bool


def _measure(server: Server, generator: Generator, seconds: float, history: History, figure: str) -> Outcome:
    outcome = Outcome()
    for count in history.connections:
        before = server.processor_seconds()
        numbers = (count, seconds, history.size)
        result = generator.run("replay", server.port, f"{BASE}/replay", *numbers, timeout=seconds + 60)
        spent = server.processor_seconds() - before
        outcome.note_speed(result)
        outcome.figures[f"{figure}:{count}"] = result["bytes_per_second"] / MEBIBYTE
        outcome.figures[f"{figure}_cpu:{count}"] = spent * 1e6 / max(result["all_bytes"] / MEBIBYTE, 1)
    return outcome


def replay(server: Server, generator: Generator, load: Load, history: History) -> Outcome:
    """
    Measure whole reads of one long stream, repeated on each connection.

    :param server: a server just started.
    :param generator: the generator.
    :param load: how long.
    :param history: of what.
    :returns: bytes per second, and the server's processor time for a mebibyte.
    """
    outcome = Outcome()
    path = f"{BASE}/replay"
    generator.run("create", server.port, path, 1, type=CONTENT_TYPE)
    pieces = history.size // history.piece
    outcome.note(generator.run("write", server.port, path, pieces, history.piece, type=CONTENT_TYPE))
    if history.written:
        outcome.add(_measure(server, generator, load.seconds, history, "replay"))
    if history.kept and server.peer.keeps:
        server.stop(patience=60)
        server.restart()
        outcome.add(_measure(server, generator, load.seconds, history, "replay_kept"))
    return outcome
