"""Benchmark of many streams with few descriptors: speed, memory, and data after a kill."""

import tempfile
from pathlib import Path

from benchmarks.durable import CONTENT_TYPE
from benchmarks.figures import Outcome
from benchmarks.generator import Generator, GeneratorFailed, Option, tally
from benchmarks.servers import Server, ServerFailed
from benchmarks.speed import BASE, Load

#: The server's limit of descriptors: the usual one of a login shell.
OPEN_FILES = 1024

#: The timeout of a phase that does something once for each stream, in seconds.
PATIENCE = 900

PATH = f"{BASE}/scale/{{n}}"


def steps(max_streams: int) -> list[int]:
    """
    Return the numbers of streams to measure.

    :param max_streams: the largest.
    :returns: 100, then ten times the number before while that is below ``max_streams``, and ``max_streams``.
    """
    numbers = [100]
    while numbers[-1] * 10 < max_streams:
        numbers.append(numbers[-1] * 10)
    return [*(number for number in numbers if number < max_streams), max_streams]


def compare(appended: list[list[tuple[int, int]]], found: list[tuple[int, int]]) -> list[str]:
    """
    Compare streams with the acknowledged appends. An append that was not acknowledged may exist.

    :param appended: the tallies of all that was appended.
    :param found: the tally of what was read afterwards.
    :returns: what is wrong, in words.
    """
    damaged = lost = doubled = 0
    for (good, bad), *appends in zip(found, *appended, strict=True):
        acknowledged = sum(each for each, _ in appends)
        damaged += bad
        lost += not bad and good < acknowledged
        doubled += good > acknowledged + sum(each for _, each in appends)
    counts = {"are unreadable or damaged": damaged, "lack what was acknowledged": lost, "have too much": doubled}
    return [f"after a kill {count:,} of {len(found):,} streams {fault}" for fault, count in counts.items() if count]


def scale(server: Server, generator: Generator, load: Load, count: int) -> Outcome:
    """
    Measure so many streams: create each, append once to each, read all in turn, append again.

    Then a server that keeps its data is killed and started again, and each stream is compared with what was
    acknowledged.

    :param server: a server just started, with few descriptors.
    :param generator: the generator.
    :param load: how long, and over how many connections.
    :param count: how many streams.
    :returns: what is done per second, the resident memory for a stream, and the seconds until it is ready again.
    """
    outcome = Outcome()
    with tempfile.TemporaryDirectory(prefix="durable-streams-tally-") as folder:
        try:
            _scale(server, generator, load, count, Path(folder), outcome)
        except (GeneratorFailed, ServerFailed) as failure:
            outcome.faults.append(f"{failure}; the server is {server.state}")
    outcome.figures = {f"{key}:{count}": value for key, value in outcome.figures.items()}
    outcome.faults = [f"{count:,} streams: {fault}" for fault in outcome.faults]
    outcome.remarks = [f"{count:,} streams: {remark}" for remark in outcome.remarks]
    return outcome


def _scale(server: Server, generator: Generator, load: Load, count: int, folder: Path, outcome: Outcome) -> None:
    """Run the measurement and add to the outcome, so that a failure keeps earlier figures."""
    first, later, after = (folder / name for name in ("first", "later", "after"))
    many: dict[str, Option] = {"streams": count, "type": CONTENT_TYPE}
    each_once = (load.connections, load.size)
    if load.warmup:
        path = f"{BASE}/warmup"
        generator.run("create", server.port, path, 1, type=CONTENT_TYPE)
        generator.run("append", server.port, path, load.connections, load.warmup, load.size, type=CONTENT_TYPE)

    before = server.settled()
    options: dict[str, Option] = {"connections": load.connections, "type": CONTENT_TYPE}
    created = generator.run("create", server.port, PATH, count, timeout=PATIENCE, **options)
    if created["errors"]:
        outcome.faults.append(f"{created['errors']:,.0f} of them could not be created")
        return  # what else such a server does says nothing
    outcome.figures["scale_creates"] = created["per_second"]
    filled = generator.run("fill", server.port, PATH, *each_once, timeout=PATIENCE, tally=first, **many)
    outcome.figures["scale_fills"] = filled["per_second"]
    outcome.note(filled)
    outcome.figures["scale_resident"] = (server.settled() - before) / count

    timed = (load.connections, load.seconds)
    read = generator.run("read", server.port, f"{PATH}?offset=-1", *timed, timeout=PATIENCE, **many)
    outcome.figures["scale_reads"] = read["per_second"]
    outcome.note_speed(read)
    appended = generator.run("append", server.port, PATH, *timed, load.size, timeout=PATIENCE, tally=later, **many)
    outcome.figures["scale_appends"] = appended["per_second"]
    outcome.figures["scale_p99"] = appended["p99_us"]
    outcome.note_speed(appended)

    if server.peer.keeps:
        server.kill()
        outcome.figures["scale_restart"] = server.restart()
        generator.run("check", server.port, PATH, *each_once, timeout=PATIENCE, tally=after, **many)
        outcome.faults += compare([tally(first), tally(later)], tally(after))
