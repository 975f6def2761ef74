"""
A program whose counters write values by compare-and-set, and append to streams, until it is killed.

``python -m tests.support.values_program MODE DIRECTORY`` prints the counter and the number of each acknowledged write.
"""

from __future__ import annotations

import sys
from typing import Any

from durable_streams.server.interfaces import IStorage
from durable_streams.server.model import Append, StreamConfig
from durable_streams.server.testing import settled

from .killed_program import run_until_killed

#: How many counters there are, and how many places each has for its last values.
COUNTERS = 8
_PLACES = 40

TEXT = StreamConfig("text/plain")


def payload(number: int) -> bytes:
    """Return the value that a counter writes with this number: up to 5 KB."""
    return b"%08d," % number * (1 + number * 7919 % 600)


def after(counter: int, number: int) -> dict[str, bytes]:
    """Return all values of a counter after it has written this number: those of the last half of its places."""
    found = {f"log/{counter}/{each % _PLACES:02d}": payload(each) for each in range(1, number + 1)[-_PLACES // 2 :]}
    return {f"count/{counter}": b"%d" % number, **found} if number else {}


def step(counter: int, number: int) -> tuple[dict[str, bytes | None], dict[str, bytes | None]]:
    """Return what a counter writes with this number, and what it expects."""
    before, now = after(counter, number - 1), after(counter, number)
    puts: dict[str, bytes | None] = dict.fromkeys(before.keys() - now.keys())
    puts.update({key: value for key, value in now.items() if before.get(key) != value})
    return puts, {key: before.get(key) for key in puts}


async def count_forever(storage: IStorage, counter: int, clock: Any) -> None:
    """Append each number to the counter's stream, then write it."""
    await settled(storage.create(f"{counter}", TEXT, b"", clock.seconds()))
    found = await settled(storage.values(f"count/{counter}"))
    number = int(found[0][1]) if found else 0
    while True:
        number += 1
        await settled(storage.append(f"{counter}", Append("text/plain", b"%08d," % number), clock.seconds()))
        await settled(storage.write_values(*step(counter, number)))
        print(counter, number, flush=True)


def main(mode: str, directory: str) -> None:
    """Run until a kill."""
    run_until_killed(
        mode,
        directory,
        lambda storage, clock: [count_forever(storage, counter, clock) for counter in range(COUNTERS)],
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
