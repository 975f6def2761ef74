"""Programs that use a storage and print a line for each acknowledged write, until they are killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from durable_streams.server.interfaces import IStorage
from durable_streams.server.model import StorageLimits
from durable_streams.server.storage.acid import AcidStorage
from durable_streams.server.storage.file import FileSettings, FileStorage

from .forks import ForkedProgram


def small_storage(
    mode: str,
    directory: str | Path,
    reactor: Any,
    limits: StorageLimits = StorageLimits(),  # noqa: B008 (frozen)
) -> IStorage:
    """Make the storage of a mode, with small files so that checkpoints are made all the time."""
    if mode == "acid":
        return AcidStorage(directory, reactor, limits)
    settings = FileSettings(
        durable=mode == "file-durable", checkpoint_bytes=1 << 17, segment_sizes=(1 << 20, 1 << 19), open_files=8
    )
    return FileStorage(directory, reactor, limits, settings)


def run_until_killed(
    mode: str, directory: str, writers: Callable[[IStorage, Any], Iterable[Coroutine[Any, Any, None]]]
) -> None:
    """
    Open a storage and run writers until the process is killed, or until one of them fails.

    :param writers: returns them, given the storage and the reactor.
    """
    from twisted.internet import reactor  # noqa: PLC0415 (the default one, which importing installs)

    running: Any = reactor
    storage = small_storage(mode, directory, reactor)
    storage.open()

    def start() -> None:
        for writer in writers(storage, reactor):
            Deferred.fromCoroutine(writer).addErrback(lambda failure: (failure.printTraceback(), running.stop()))

    running.callWhenRunning(start)
    running.run()


def lines_until_killed(module: str, *arguments: object, seconds: float) -> list[bytes]:
    """
    Run a program, kill it, and return the whole lines that it has printed.

    :param module: the module of the program, as of :class:`.ForkedProgram`.
    :param seconds: how long it runs after its first line.
    """
    with ForkedProgram(module, *arguments) as program:
        lines = [program.output.readline()]
        time.sleep(seconds)
        program.kill()
        lines += program.output.readlines()
    return [line for line in lines if line.endswith(b"\n")]
