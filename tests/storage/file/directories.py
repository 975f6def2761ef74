"""Data directories to look at, with something of everything in them."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Final

from twisted.internet import reactor
from twisted.internet.defer import Deferred

from durable_streams.server.model import FOREVER, START, Append, Fork, StreamConfig, StreamRestoration, Writer
from durable_streams.server.storage.file import FileSettings, FileStorage
from durable_streams.server.testing import settled

TEXT: Final = "text/plain"
SMALL: Final = FileSettings(segment_sizes=(1 << 20,), slice_streams=2)


def opened(directory: Path, settings: FileSettings = SMALL) -> FileStorage:
    """Open a storage in a directory."""
    storage = FileStorage(directory, reactor, settings=settings)
    storage.open()
    return storage


async def checkpointed(storage: FileStorage) -> None:
    """Make a checkpoint that has all changes so far."""
    if storage._checkpointer._running is not None:
        # It may have begun before the last change.
        await _end_of_checkpoint(storage)
    storage._checkpointer.start()
    await _end_of_checkpoint(storage)


async def _end_of_checkpoint(storage: FileStorage) -> None:
    running = storage._checkpointer._running
    assert running is not None
    ended: Deferred[None] = Deferred()

    def end(outcome: object) -> object:
        ended.callback(None)
        return outcome

    running.addBoth(end)
    await ended


async def create(storage: FileStorage, name: str, body: bytes = b"", fork: Fork | None = None) -> None:
    """Make a stream."""
    await settled(storage.create(name, StreamConfig(None if fork else TEXT, fork=fork), body, 0.0))


async def append(storage: FileStorage, name: str, data: bytes, writer: Writer | None = None) -> None:
    """Append to it."""
    await settled(storage.append(name, Append(TEXT, data, writer=writer), 0.0))


async def install(storage: FileStorage, staged: str, name: str, closed: bool = False) -> None:
    """Install a staged stream; replace the one of the name."""
    restoration = StreamRestoration(StreamConfig(TEXT), FOREVER, closed)
    await settled(storage.install(staged, name, restoration, True, 0.0))


async def fill(directory: Path) -> None:
    """
    Make a directory with all that a file storage has: ten streams (one of them hidden), thirty-one appends.

    What comes after the checkpoint is in the journal, each change in a batch of its own.
    """
    storage = opened(directory)
    await create(storage, "large")
    for letter in b"abc":
        await append(storage, "large", bytes([letter]) * 40_000)
    for number in range(5):
        await create(storage, f"small/{number}", b"first")
        await append(storage, f"small/{number}", b"%d, second" % number, Writer("w", 0, 0))
    await create(storage, "source", b"what others begin with")
    await create(storage, "fork", b", and go on", Fork("source"))
    await settled(storage.delete("source", 0.0))
    await create(storage, "gone", b"x" * 70_000)
    await settled(storage.delete("gone", 0.0))
    await create(storage, "empty")
    await checkpointed(storage)
    for number in range(5):
        await append(storage, f"small/{number}", b", third of %d" % number)
        await append(storage, f"small/{number}", b", fourth of %d" % number)
    await append(storage, "large", b"d" * 30_000)
    await create(storage, "late", b"it is")
    for word in (b"never", b"too", b"late", b"for"):
        await append(storage, "late", word)
    await storage.close()


async def contents(directory: Path) -> dict[str, bytes]:
    """Read all streams that can be read, by the storage itself."""
    storage = opened(directory)
    found = {}
    for status in await settled(storage.statuses(0.0)):
        chunk = await settled(storage.read(status.facts.name, START, 1 << 30, 0.0))
        found[status.facts.name] = chunk.data
    await storage.close()
    return found


def digests(directory: Path) -> dict[str, str]:
    """Return the content of each file in a directory except the lock file."""
    return {
        path.relative_to(directory).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != "LOCK"
    }


def only(directory: Path, pattern: str) -> Path:
    """Find the one file of a name."""
    [path] = directory.glob(pattern)
    return path


def flip(path: Path, position: int) -> None:
    """Damage one byte of a file."""
    data = bytearray(path.read_bytes())
    data[position] ^= 0x20
    path.write_bytes(data)
