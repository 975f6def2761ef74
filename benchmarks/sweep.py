"""Benchmark of appends while many expired streams are removed."""

import time
from dataclasses import dataclass

from benchmarks.durable import CONTENT_TYPE
from benchmarks.figures import Outcome
from benchmarks.generator import Generator, Option
from benchmarks.peers import MEBIBYTE
from benchmarks.servers import Server
from benchmarks.speed import BASE, Load

#: The phases that have figures.
PHASES = ("before", "create", "expire")


@dataclass(frozen=True)
class Mortals:
    """
    The streams that expire.

    :param streams: how many.
    :param lifetime: in seconds, a whole number.
    :param removal: seconds in which they are expected to be removed.
    """

    streams: int
    lifetime: int
    removal: float


def sweep(server: Server, generator: Generator, load: Load, mortals: Mortals) -> Outcome:
    """
    Measure steady appends to some streams while others are created, expire and are removed.

    :param server: a server just started.
    :param generator: the generator.
    :param load: the appends, and how long before the others are created.
    :param mortals: the others.
    :returns: the latency of the appends before, beside the creation, and beside the removal.
    """
    outcome = Outcome()
    path = f"{BASE}/steady/{{n}}"
    generator.run("create", server.port, path, load.streams, type=CONTENT_TYPE)
    longest = load.warmup + load.seconds + mortals.lifetime + mortals.removal + 600
    numbers = (load.connections, longest, load.size)
    options: dict[str, Option] = {"streams": load.streams, "type": CONTENT_TYPE, "phases": "warmup"}
    with generator.start("append", server.port, path, *numbers, **options) as running:
        time.sleep(load.warmup)
        running.tell("before")
        time.sleep(load.seconds)
        running.tell("create")
        resident = [server.resident()]
        started = time.monotonic()
        mortal: dict[str, Option] = {"type": CONTENT_TYPE, "ttl": mortals.lifetime}
        created = generator.run("create", server.port, f"{BASE}/mortal/{{n}}", mortals.streams, timeout=600, **mortal)
        outcome.note(created)
        creation = time.monotonic() - started
        resident.append(server.resident())
        if creation < mortals.lifetime:
            running.tell("wait")
            time.sleep(mortals.lifetime - creation)
        else:
            outcome.remarks.append(f"creating took {creation:.1f} s: the first expired before the last were there")
        running.tell("expire")
        time.sleep(min(creation, mortals.lifetime) + mortals.removal)  # until the last expires, and then
        resident.append(server.resident())
        result = running.finish(60)
    outcome.note_speed(result)
    for phase in PHASES:
        for name in ("p50", "p99", "max"):
            outcome.figures[f"sweep_{phase}_{name}"] = result[f"{phase}_{name}_us"]
        outcome.remarks.append(f"{phase}: {result[phase + '_requests']:,.0f} appends")
    weights = ", ".join(f"{weight / MEBIBYTE:.0f}" for weight in resident)
    outcome.remarks.append(f"resident before, with all and at the end: {weights} MiB")
    return outcome
