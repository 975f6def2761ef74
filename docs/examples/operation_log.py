"""A storage of one's own: streams in memory, and a file with every operation that changed one of them.

It is small and passes the contract, but it is slow: each change blocks the reactor for one fdatasync, the file only
grows, and loading it repeats every operation. The storages of this distribution write in another thread, in batches,
and compact their files.
"""

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias, TypeVar
from zlib import crc32

import msgspec
from msgspec import Struct
from msgspec.structs import replace
from zope.interface import implementer

from durable_streams.server import ICommitListener, IStorage, MemoryStorage, StorageError, StorageLimits
from durable_streams.server.errors import StreamsError, Unavailable
from durable_streams.server.model import (
    Append,
    Appended,
    Chunk,
    Created,
    ForkPoint,
    Offset,
    StorageFigures,
    StreamConfig,
    StreamFacts,
    StreamRecord,
    StreamRestoration,
    StreamStatus,
)

T = TypeVar("T")


# The records of the file. A storage gets the time of each call as ``now``, so repeating the calls has the same results.


class Create(Struct, tag=True):
    """A call of ``create``."""

    now: float
    name: str
    config: StreamConfig
    body: bytes
    point: ForkPoint | None

    def apply(self, streams: MemoryStorage) -> Created:
        """Create the stream."""
        return streams.create(self.name, self.config, self.body, self.now, self.point)


class Write(Struct, tag=True):
    """A call of ``append``."""

    now: float
    name: str
    append: Append

    def apply(self, streams: MemoryStorage) -> Appended:
        """Append to the stream."""
        return streams.append(self.name, self.append, self.now)


class Install(Struct, tag=True):
    """A call of ``install``."""

    now: float
    staged: str
    name: str
    restoration: StreamRestoration
    replace: bool

    def apply(self, streams: MemoryStorage) -> StreamStatus:
        """Install the staged stream."""
        return streams.install(self.staged, self.name, self.restoration, self.replace, self.now)


class Delete(Struct, tag=True):
    """A call of ``delete``."""

    now: float
    name: str

    def apply(self, streams: MemoryStorage) -> None:
        """Delete the stream."""
        streams.delete(self.name, self.now)


class Sweep(Struct, tag=True):
    """A call of ``sweep``."""

    now: float
    max_count: int

    def apply(self, streams: MemoryStorage) -> int:
        """Remove expired streams."""
        return streams.sweep(self.now, self.max_count)


class Visit(Struct, tag=True):
    """A call that renewed the TTL of a stream, or found it expired, which removes it."""

    now: float
    name: str

    def apply(self, streams: MemoryStorage) -> None:
        """Renew the TTL, or remove the stream."""
        streams.status(self.name, self.now)
        streams.renew(self.name, self.now)


class WriteValues(Struct, tag=True):
    """A call of ``write_values``; those that it expected were there."""

    puts: dict[str, bytes | None]

    def apply(self, streams: MemoryStorage) -> None:
        """Write the values."""
        streams.write_values(self.puts, {})


class WallOffset(Struct, tag=True):
    """A call of ``set_wall_offset``."""

    offset: float

    def apply(self, streams: MemoryStorage) -> None:
        """Set the offset."""
        streams.set_wall_offset(self.offset)


class Limits(Struct, tag=True):
    """The first record: with other limits, some operations would have other results."""

    limits: StorageLimits


Operation: TypeAlias = Create | Write | Install | Delete | Sweep | Visit | WriteValues | WallOffset

_decoder = msgspec.msgpack.Decoder(Operation | Limits)


def encode(record: Operation | Limits) -> bytes:
    """Encode a record: its length, its checksum, itself."""
    data = msgspec.msgpack.encode(record)
    return len(data).to_bytes(4, "big") + crc32(data).to_bytes(4, "big") + data


def decode(data: bytes) -> Iterator[tuple[int, Operation | Limits]]:
    """Yield each whole record with the position of its end."""
    place = 0
    while place + 8 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        body = data[place + 8 : end]
        if end > len(data) or crc32(body) != int.from_bytes(data[place + 4 : place + 8], "big"):
            return
        yield end, _decoder.decode(body)
        place = end


@implementer(ICommitListener)
class Changes:
    """Collects the names of changed streams until the change is on disk."""

    def __init__(self) -> None:
        self._names: list[str] = []

    def committed(self, name: str) -> None:
        """Note a change."""
        self._names.append(name)

    def take(self) -> list[str]:
        """Return the names since the last call."""
        names, self._names = self._names, []
        return names


@implementer(IStorage)
class OperationLogStorage:
    """
    Streams in memory whose changes are in a file.

    :ivar path: the file; created if it does not exist.
    :param limits: for a new file. An existing one has the limits with which it was created.
    """

    def __init__(self, path: str | Path, limits: StorageLimits = StorageLimits()) -> None:  # noqa: B008 (frozen)
        self.path = Path(path)
        self._limits = limits
        self._streams = MemoryStorage(limits)
        self._changes = Changes()
        self._listener: ICommitListener | None = None
        self._file = -1
        self._wall_offset = 0.0
        self._replayed_bytes = 0
        self._failure: str | None = None

    # Life

    def load(self) -> None:
        """Load the file. The service calls this in a thread if it takes long."""
        if self._file >= 0:
            return
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            end = self._replay(self.path.read_bytes())
            # What follows the last whole record was never acknowledged.
            os.truncate(self._file, end)
            os.lseek(self._file, end, os.SEEK_SET)
            if not end:
                self._sync_folder()
                self._log(Limits(self._limits))
        except (OSError, Unavailable) as error:
            self.close()
            raise StorageError(f"Cannot open {self.path}: {error}") from error
        self._replayed_bytes = self._streams.figures().written_bytes
        self._streams.listen(self._changes)
        self.set_wall_offset(self._wall_offset)

    def _replay(self, data: bytes) -> int:
        replayed = 0
        for end, record in decode(data):
            if isinstance(record, Limits):
                self._streams = MemoryStorage(record.limits)
            else:
                # A refused operation is in the file too if it removed an expired stream.
                with suppress(StreamsError):
                    record.apply(self._streams)
            replayed = end
        return replayed

    def _sync_folder(self) -> None:
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def open(self) -> None:
        """Start: there is no background work."""
        self.load()

    def close(self) -> None:
        """Close the file, which releases its lock."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def obstacle(self) -> str | None:
        """Return why writes are refused: ``/readyz`` and the metrics show it."""
        return self._failure

    def figures(self) -> StorageFigures:
        """Return the figures for the metrics."""
        figures = self._streams.figures()
        return replace(figures, written_bytes=figures.written_bytes - self._replayed_bytes)

    def listen(self, listener: ICommitListener) -> None:
        """Announce commits to this listener."""
        self._listener = listener

    def set_wall_offset(self, offset: float) -> None:
        """Set the offset, which may happen before the file is open."""
        self._wall_offset = offset
        if self._file >= 0:
            self._perform(WallOffset(offset).apply, WallOffset(offset), always=True)

    # Operations

    def create(
        self, name: str, config: StreamConfig, body: bytes, now: float, point: ForkPoint | None = None
    ) -> Created:
        """Create a stream."""
        operation = Create(now, name, config, body, point)
        return self._perform(operation.apply, operation)

    def append(self, name: str, append: Append, now: float) -> Appended:
        """Append to a stream."""
        operation = Write(now, name, append)
        return self._perform(operation.apply, operation, always=self._has_ttl(name))

    def install(
        self, staged: str, name: str, restoration: StreamRestoration, replace: bool, now: float
    ) -> StreamStatus:
        """Install a staged stream."""
        operation = Install(now, staged, name, restoration, replace)
        return self._perform(operation.apply, operation)

    def delete(self, name: str, now: float) -> None:
        """Delete a stream."""
        operation = Delete(now, name)
        self._perform(operation.apply, operation)

    def sweep(self, now: float, max_count: int) -> int:
        """Remove expired streams."""
        operation = Sweep(now, max_count)
        return self._perform(operation.apply, operation)

    def read(self, name: str, offset: Offset, limit: int, now: float, whole: bool = False, renew: bool = True) -> Chunk:
        """Read; renew the stream's TTL."""
        return self._perform(
            lambda streams: streams.read(name, offset, limit, now, whole, renew),
            Visit(now, name),
            always=renew and self._has_ttl(name),
        )

    def renew(self, name: str, now: float) -> None:
        """Renew a stream's TTL."""
        self._perform(lambda streams: streams.renew(name, now), Visit(now, name), always=self._has_ttl(name))

    def status(self, name: str, now: float) -> StreamStatus:
        """Return a stream's metadata."""
        return self._perform(lambda streams: streams.status(name, now), Visit(now, name))

    def read_range(self, facts: StreamFacts, start: int, end: int, hidden: bool = False) -> bytes:
        """Read a range."""
        return self._streams.read_range(facts, start, end, hidden)

    def record(self, name: str, now: float, hidden: bool = False) -> StreamRecord:
        """Return all metadata of a stream."""
        return self._perform(lambda streams: streams.record(name, now, hidden), Visit(now, name))

    def append_ends(self, facts: StreamFacts, start: int, max_count: int, hidden: bool = False) -> Sequence[int]:
        """Return where appends end."""
        return self._streams.append_ends(facts, start, max_count, hidden)

    def statuses(self, now: float, after: str = "", max_count: int = 1000, prefix: str = "") -> list[StreamStatus]:
        """Return the metadata of a page of streams."""
        return self._streams.statuses(now, after, max_count, prefix)

    def values(self, prefix: str = "", after: str = "", max_count: int = 1000) -> list[tuple[str, bytes]]:
        """Return a page of values."""
        return self._streams.values(prefix, after, max_count)

    def write_values(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> None:
        """Write values. The listener is not notified of them, and a refusal changes nothing."""
        self._check_writable()
        self._streams.write_values(puts, expected)
        self._log(WriteValues(dict(puts)))

    # Durability

    def _has_ttl(self, name: str) -> bool:
        # At time 0 no stream has expired, so this removes none.
        try:
            return self._streams.status(name, 0.0).lifetime.ttl is not None
        except StreamsError:
            return False

    def _check_writable(self) -> None:
        if self._failure is not None:
            raise Unavailable(self._failure)

    def _perform(self, call: Callable[[MemoryStorage], T], operation: Operation, always: bool = False) -> T:
        """
        Carry out an operation. If it changed something, return, or raise, only after it is in the file.

        The reactor does nothing else in between, so no reader sees what is not on disk yet.
        """
        self._check_writable()
        try:
            return call(self._streams)
        finally:
            names = self._changes.take()
            if names or always:
                self._log(operation)
            for name in names:
                if self._listener is not None:
                    self._listener.committed(name)

    def _log(self, record: Operation | Limits) -> None:
        try:
            data = encode(record)
            if os.write(self._file, data) < len(data):
                raise OSError("the disk is full")
            os.fdatasync(self._file)
        except OSError as error:
            # A failed sync is final: what is in memory may not be on disk, and a second sync would not tell.
            self._failure = f"Writing {self.path} failed ({error}). Restart the server."
            raise Unavailable(self._failure) from error
