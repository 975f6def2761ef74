"""A program that restores an archive into a data directory, or prints what the directory has. It may kill itself.

``python -m tests.process.restoring restore|contents|make MODE DIRECTORY [ARCHIVE POLICY|SEED [PASSAGE]]``
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from itertools import pairwise
from typing import Any

from msgspec.structs import replace
from twisted.internet import task
from twisted.internet.defer import Deferred

from durable_streams.server.interfaces import settle
from durable_streams.server.model import Append, Fork, Offset, StorageLimits, StreamConfig, StreamRecord, Writer
from durable_streams.server.streams import Streams
from durable_streams.server.transfer.archive.backup import backup_streams
from durable_streams.server.transfer.archive.restore import restore_streams
from tests.support.killed_program import small_storage

LIMITS = StorageLimits(total_bytes=1 << 30, stream_bytes=1 << 30)

#: How many families of a source that is deleted, a fork, and a fork of that; and how many other streams.
FAMILIES = 4
OTHERS = 400

#: The appends of a stream of a family, and of another one. Many of the others are restored at the same time.
APPENDS = 100
FEW = 4


class Trap:
    """
    Kills the process in a restore.

    :param passage: at which write it does: a creation, an append, an installation or a deletion; 0 for never; or
        ``delete`` for the first deletion.
    :ivar writes: the number of writes so far.
    """

    def __init__(self, streams: Streams, passage: str) -> None:
        self._passage = passage
        self.writes = 0
        for name in ("create", "append", "install", "delete"):
            setattr(streams, name, self._counted(name, getattr(streams, name)))

    def _counted(self, name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **more: Any) -> Any:
            self.writes += 1
            if self._passage in (name, str(self.writes)):
                # The writes before it may be committed or not.
                time.sleep(self.writes % 4 * 0.002)
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*arguments, **more)

        return counted


async def write(
    streams: Streams, name: str, rng: random.Random, fork: Fork | None = None, appends: int = APPENDS
) -> None:
    """Make a stream of appends, some of a writer."""
    config = StreamConfig(None if fork else "text/plain", fork=fork)
    facts = (await settle(streams.create(name, config, b""))).facts
    for number in range(appends):
        data = rng.randbytes(rng.randrange(1, 1500))
        writer = Writer("w", 3, number // 3) if number % 3 == 0 else None
        await settle(streams.append(name, Append(facts.media_type, data, writer=writer)))


async def make(streams: Streams, archive: str, seed: str) -> None:
    """Make streams; if an archive is named, back them up."""
    rng = random.Random(seed)
    for number in range(FAMILIES):
        names = [f"m{number}", f"{number}-fork", f"z{number}-fork-of-fork"]
        await write(streams, names[0], rng)
        for source, name in pairwise(names):
            facts = (await settle(streams.record(source))).facts
            ends = await settle(streams.append_ends(facts, 0, 60))
            await write(streams, name, rng, Fork(source, Offset(facts.incarnation, ends[-1])))
        if number % 2:
            await settle(streams.delete(names[0]))
    for number in range(OTHERS):
        await write(streams, f"other/{number}", rng, appends=FEW)
    if archive:
        with open(archive, "wb") as file:
            await backup_streams(streams, file)


def state(record: StreamRecord, data: bytes, ends: list[int]) -> str:
    """Return a digest of a stream: of all that does not differ between servers."""
    same = replace(record, facts=replace(record.facts, id=0), source=None, source_id=None, used_at=0.0, forks=0)
    return sha256(repr((same, data, ends)).encode()).hexdigest()


async def contents(streams: Streams) -> dict[str, str]:
    """Return the digest of each stream that clients find."""
    found = {}
    for status in await settle(streams.statuses("", 10_000)):
        record = await settle(streams.record(status.facts.name))
        data = await settle(streams.read_range(record.facts, 0, record.tail))
        ends = [*(await settle(streams.append_ends(record.facts, 0, 10_000)))]
        found[status.facts.name] = state(record, data, ends)
    return found


async def run(reactor: Any, what: str, mode: str, directory: str, archive: str, policy: Any, passage: str) -> None:
    """Do what the command line says."""
    streams = Streams(small_storage(mode, directory, reactor, LIMITS), reactor)
    streams.startService()
    if what == "restore":
        trap = Trap(streams, passage)
        with open(archive, "rb") as file:
            stats = await restore_streams(streams, file, on_conflict=policy)
        print(trap.writes, stats.streams_restored, flush=True)
    elif what == "make":
        await make(streams, archive, policy)
    else:
        print(json.dumps(await contents(streams)), flush=True)
    await streams.stopService()


def main(what: str, mode: str, directory: str, archive: str = "", policy: str = "", passage: str = "") -> None:
    """Run the program."""
    task.react(lambda reactor: Deferred.fromCoroutine(run(reactor, what, mode, directory, archive, policy, passage)))


if __name__ == "__main__":
    main(*sys.argv[1:])
