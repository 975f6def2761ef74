"""
A program that installs one stream after the other under one name, until it is killed.

``python -m tests.support.installing_program MODE DIRECTORY FIRST`` prints the number of each acknowledged installation.
"""

from __future__ import annotations

import sys
from typing import Any

from durable_streams.server.interfaces import IStorage
from durable_streams.server.model import FOREVER, Append, Lifetime, StreamConfig, StreamRestoration
from durable_streams.server.testing import settled

from .killed_program import run_until_killed

#: The stream that is replaced again and again.
NAME = "a"
TEXT = StreamConfig("text/plain")


def content(number: int) -> bytes:
    """Return the content of the installation with this number: up to 100 KB."""
    return b"%08d," % number * (1 + number * 7919 % 11_000)


async def install_forever(storage: IStorage, number: int, clock: Any) -> None:
    """Stage each stream with three appends, and install it."""
    while True:
        data = content(number)
        third = len(data) // 3
        staged = f"__ds/{number}"
        now = clock.seconds()
        await settled(storage.create(staged, StreamConfig("text/plain", Lifetime(ttl=3600)), data[:third], now))
        await settled(storage.append(staged, Append("text/plain", data[third : 2 * third]), now))
        await settled(storage.append(staged, Append("text/plain", data[2 * third :]), now))
        await settled(storage.install(staged, NAME, StreamRestoration(TEXT, FOREVER), True, now))
        print(number, flush=True)
        number += 1


def main(mode: str, directory: str, first: str) -> None:
    """Run until a kill."""
    run_until_killed(mode, directory, lambda storage, clock: [install_forever(storage, int(first), clock)])


if __name__ == "__main__":
    main(*sys.argv[1:])
