"""Benchmark of resident memory: idle tails, empty streams, and readers that stop reading."""

import time
from dataclasses import dataclass

from benchmarks.figures import Outcome
from benchmarks.generator import Generator, GeneratorFailed
from benchmarks.peers import MEBIBYTE
from benchmarks.servers import PeakWatch, Server
from benchmarks.speed import BASE, Load, warm_up

KIBIBYTE = 1024


@dataclass(frozen=True)
class Crowd:
    """
    The numbers of tails, streams and readers.

    :param idle_tails: SSE tails that wait on one stream.
    :param empty_streams: streams that hold nothing.
    :param stalled_tails: SSE tails that stop reading.
    :param stalled_data: bytes that are appended beside them.
    """

    idle_tails: int
    empty_streams: int
    stalled_tails: int
    stalled_data: int


#: Figure -> size of the appends beside stalled readers.
STALL_SIZES = {"stall_small": 10 * KIBIBYTE, "stall_large": MEBIBYTE}


def idle_tails(server: Server, generator: Generator, load: Load, crowd: Crowd) -> Outcome:
    """
    Measure the memory of an idle SSE tail, and of an empty server.

    :param server: a server just started.
    :param generator: the generator.
    :param load: how long it is warmed up.
    :param crowd: how many tails.
    :returns: the resident memory at the start, and for each tail.
    """
    started = server.resident()
    warm_up(server, generator, load)
    path = f"{BASE}/idle"
    generator.run("create", server.port, path, 1)
    before = server.settled()
    with generator.start("idle", server.port, path, crowd.idle_tails) as running:
        running.announcement()
        after = server.settled()
        result = running.finish(60)
    outcome = Outcome(
        figures={"baseline": started / MEBIBYTE, "idle_tail": (after - before) / KIBIBYTE / crowd.idle_tails}
    )
    outcome.note(result)
    return outcome


def empty_streams(server: Server, generator: Generator, load: Load, crowd: Crowd) -> Outcome:
    """
    Measure the memory of an empty stream.

    :param server: a server just started.
    :param generator: the generator.
    :param load: how long it is warmed up.
    :param crowd: how many streams.
    :returns: the resident memory for each.
    """
    warm_up(server, generator, load)
    generator.run("create", server.port, f"{BASE}/first/{{n}}", max(1, crowd.empty_streams // 10))
    before = server.settled()
    result = generator.run("create", server.port, f"{BASE}/empty/{{n}}", crowd.empty_streams)
    after = server.settled()
    outcome = Outcome(figures={"empty_stream": (after - before) / crowd.empty_streams})
    outcome.note(result)
    return outcome


def stalled_tails(server: Server, generator: Generator, load: Load, crowd: Crowd, figure: str) -> Outcome:
    """
    Measure the memory of stalled readers: they stop, data is appended, then they read to the end.

    :param server: a server just started.
    :param generator: the generator.
    :param load: how long it is warmed up.
    :param crowd: how many readers, how much data.
    :param figure: which of :data:`STALL_SIZES`.
    :returns: the peak of the resident memory over what was resident before and the data itself; once while
        they stood still, and once until they had caught up.
    """
    size = STALL_SIZES[figure]
    events = max(1, crowd.stalled_data // size)
    outcome = Outcome()
    warm_up(server, generator, load)
    path = f"{BASE}/stalled"
    generator.run("create", server.port, path, 1)
    with generator.start("stall", server.port, path, crowd.stalled_tails, drain=180) as running:
        running.announcement()
        expected = server.settled() + events * size
        with PeakWatch(server) as watch:
            try:
                outcome.note(generator.run("write", server.port, path, events, size, timeout=120))
                time.sleep(1)
                outcome.figures[figure] = (watch.peak() - expected) / MEBIBYTE
                running.tell(f"{events} {size}")
                result = running.finish(240)
                outcome.note(result)
                complete = f"{result['complete']:g} of {result['tails']:g} readers got all {events} events"
                course = f"in {result['seconds']:.1f} s, with {result['reconnects']:g} reconnects"
                outcome.remarks.append(f"{figure}: {complete} {course}")
            except GeneratorFailed as failure:
                outcome.faults.append(f"{figure}, stopped at the peak shown: {failure}; the server is {server.state}")
            outcome.figures[figure + "_end"] = (watch.peak() - expected) / MEBIBYTE
            outcome.figures.setdefault(figure, outcome.figures[figure + "_end"])
    return outcome
