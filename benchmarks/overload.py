"""Benchmark of appends beside a flood of readers and many idle connections."""

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.durable import CONTENT_TYPE
from benchmarks.figures import Outcome
from benchmarks.generator import HOST, Generator, Option
from benchmarks.memory import KIBIBYTE
from benchmarks.peers import MEBIBYTE
from benchmarks.servers import PeakWatch, Server
from benchmarks.speed import BASE, Load

#: The number of bytes that one reader of each kind of flood reads: a whole stream.
FLOODS = {"small": KIBIBYTE, "replay": 4 * MEBIBYTE}

#: The size of one append, in bytes.
_PIECE = 64 * KIBIBYTE


@dataclass(frozen=True)
class Throng:
    """
    The readers and idle connections beside the appends.

    :param idle: connections that have asked for something once.
    :param waiting: connections that wait for news, half of them as tails, half in long-polls.
    :param readers: connections that read as fast as they can.
    """

    idle: int
    waiting: int
    readers: int


@contextlib.contextmanager
def _quiet(port: int, path: str, throng: Throng) -> Iterator[list[socket.socket]]:
    """Hold the idle connections; each has received, or waits for, an answer."""
    targets = [path] * throng.idle
    live = ("sse", "long-poll")
    targets += [f"{path}?offset=now&live={live[number % 2]}" for number in range(throng.waiting)]
    with contextlib.ExitStack() as held:
        connections = []
        for number, target in enumerate(targets):
            connection = held.enter_context(socket.create_connection((HOST, port), 30))
            connection.sendall(f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
            if number < throng.idle:
                connection.recv(65536)
            connections.append(connection)
        yield connections


def _still_open(connections: list[socket.socket]) -> int:
    """Return how many of the connections the server has not closed."""
    count = 0
    for connection in connections:
        connection.setblocking(False)
        try:
            while data := connection.recv(65536):
                pass
            count += bool(data)
        except BlockingIOError:
            count += 1
        except OSError:
            pass
    return count


def overload(server: Server, generator: Generator, load: Load, throng: Throng, flood: str) -> Outcome:
    """
    Measure steady appends: alone, then beside the idle connections and the flood of readers.

    :param server: a server just started.
    :param generator: the generator; the readers are a second process on the same core.
    :param load: the appends, and how long each part takes.
    :param throng: the others.
    :param flood: which of :data:`FLOODS`.
    :returns: appends per second and their latency in both parts, their ratio, what is read, and the memory taken.
    """
    outcome = Outcome()
    size = FLOODS[flood]
    path, read = f"{BASE}/steady/{{n}}", f"{BASE}/read"
    piece = min(size, _PIECE)
    generator.run("create", server.port, path, load.streams, type=CONTENT_TYPE)
    generator.run("create", server.port, read, 1, type=CONTENT_TYPE)
    generator.run("create", server.port, f"{BASE}/quiet", 1, type=CONTENT_TYPE)
    outcome.note(generator.run("write", server.port, read, size // piece, piece, type=CONTENT_TYPE))
    longest = load.warmup + 2 * load.seconds + 300
    options: dict[str, Option] = {"streams": load.streams, "type": CONTENT_TYPE, "phases": "warmup"}
    key = f"overload_{flood}"
    with (
        generator.start("append", server.port, path, load.connections, longest, load.size, **options) as appends,
        contextlib.ExitStack() as beside,
    ):
        time.sleep(load.warmup)
        appends.tell("alone")
        time.sleep(load.seconds)
        appends.tell("between")
        resident = server.resident()
        connections = beside.enter_context(_quiet(server.port, f"{BASE}/quiet", throng))
        watch = beside.enter_context(PeakWatch(server))
        numbers = (throng.readers, 2 * load.warmup + load.seconds, size)
        readers = beside.enter_context(generator.start("replay", server.port, read, *numbers))
        time.sleep(2 * load.warmup)  # all have connected, and what they read last is on its way
        appends.tell("flooded")
        time.sleep(load.seconds)
        appends.tell("after")
        reading = readers.finish(load.seconds + 120)
        outcome.figures[f"{key}_memory"] = (watch.peak() - resident) / MEBIBYTE
        if ended := len(connections) - _still_open(connections):
            outcome.remarks.append(f"{flood}: the server ended {ended} of the quiet connections")
        result = appends.finish(60)
    outcome.note(result)
    outcome.note(reading)
    alone, flooded = (result[f"{phase}_requests"] / load.seconds for phase in ("alone", "flooded"))
    outcome.figures |= {
        f"{key}_alone": alone,
        f"{key}_flooded": flooded,
        f"{key}_share": flooded / max(alone, 1),
        f"{key}_alone_p99": result["alone_p99_us"],
        f"{key}_flooded_p99": result["flooded_p99_us"],
        f"{key}_flooded_max": result["flooded_max_us"],
        f"{key}_reads": reading["streams"] / reading["seconds"],
    }
    busy = result["busy"] + reading["busy"]
    outcome.remarks.append(f"{flood}: the generators used {busy:.0%} of their core")
    return outcome
