"""The first half of an import: a document becomes validated entries in temporary files."""

from __future__ import annotations

import os
import sqlite3
import struct
import tempfile
from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from collections.abc import AsyncIterator, Callable, Generator
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from ..errors import InvalidJson
from ..protocol.messages import compact, compact_in_steps
from .context import Context
from .document import StreamEntry
from .errors import InvalidBase64, InvalidDocument, InvalidJsonMessage, MessageTooLarge, SpoolFailed, shown
from .limits import ImportLimits
from .parsing import STEP, DocumentParser, Item, LongMessage, MessagesStart, is_json
from .pieces import PIECE
from .spool import SpoolFile

T = TypeVar("T")

#: A record of the spool file: one append. First how many messages it has, and how many bytes.
_RECORD: Final = struct.Struct("<IQ")

#: Messages of a JSON stream are appended together up to this size, in bytes.
_BATCH: Final = 131_072

#: Longer base64 is decoded in slices: a multiple of four characters.
_SLICE: Final = 1_048_576

#: How many streams are put into the database, or taken out of it, at once.
_PAGE: Final = 500

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(StreamEntry).decode


class SpooledEntry(Struct, frozen=True):
    """
    A stream of the document in the temporary files.

    :ivar start: where its appends begin in the spool file.
    :ivar end: where they end.
    :ivar messages: how many messages it has.
    :ivar size: how many bytes these have.
    :ivar unchecked: whether it is in JSON mode, but its content type came after its messages: then each is there as it
        was in the document.
    """

    entry: StreamEntry
    start: int
    end: int
    messages: int
    size: int
    unchecked: bool


class EntryIndex:
    """
    The validated streams, in a temporary database, by their names: their number is not limited by memory.

    :param directory: where it is.
    """

    def __init__(self, context: Context, directory: str) -> None:
        self._blocking = context.blocking
        self._directory = directory
        self._database: sqlite3.Connection | None = None
        self._pending: list[SpooledEntry] = []
        self.count = 0
        self.size = 0

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._blocking.do(lambda: work(self._open()))
        except (OSError, sqlite3.OperationalError) as error:
            raise SpoolFailed(self._directory, error) from error

    def _open(self) -> sqlite3.Connection:
        if self._database is None:
            file, path = tempfile.mkstemp(prefix="durable-streams-", dir=self._directory)
            os.close(file)
            try:
                database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
                for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", "cache_size=-4096"):
                    database.execute(f"PRAGMA {pragma}")
                database.execute(
                    "CREATE TABLE entries (number INTEGER PRIMARY KEY, name TEXT UNIQUE, entry BLOB, first INTEGER,"
                    " past INTEGER, messages INTEGER, size INTEGER, unchecked INTEGER)"
                )
            finally:
                os.unlink(path)
            self._database = database
        return self._database

    @property
    def full(self) -> bool:
        """Whether so many streams are in memory that they are to be written."""
        return len(self._pending) >= _PAGE

    def add(self, spooled: SpooledEntry) -> None:
        """Add a stream in memory; :meth:`flush` writes it."""
        self._pending.append(spooled)
        self.count += 1
        self.size += spooled.size

    async def flush(self) -> None:
        """
        Write what is in memory.

        :raises InvalidDocument: a stream of the same name was added before.
        :raises SpoolFailed: it cannot be written.
        """
        pending, self._pending = self._pending, []
        if pending:
            twice = await self._run(lambda database: _insert(database, pending))
            if twice is not None:
                raise InvalidDocument(f"it has the stream {shown(twice)} twice. Remove one of them.")

    async def pages(self) -> AsyncIterator[list[SpooledEntry]]:
        """Return all streams in the document's order, some hundreds at once."""
        after = 0
        while True:
            rows = await self._run(partial(_select, after=after))
            if not rows:
                return
            yield [SpooledEntry(_decode(row[1]), *row[2:6], bool(row[6])) for row in rows]
            after = rows[-1][0]

    async def close(self) -> None:
        """Remove the database."""
        database, self._database = self._database, None
        if database is not None:
            await self._blocking.do(database.close)


def _insert(database: sqlite3.Connection, pending: list[SpooledEntry]) -> str | None:
    """Insert streams; return the name of one that is there already, or None."""
    database.execute("BEGIN")
    for spooled in pending:
        entry = spooled.entry
        try:
            database.execute(
                "INSERT INTO entries VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *(entry.name, _encode(entry), spooled.start, spooled.end, spooled.messages, spooled.size),
                    spooled.unchecked,
                ),
            )
        except sqlite3.IntegrityError:
            return entry.name
    database.execute("COMMIT")
    return None


def _select(database: sqlite3.Connection, after: int) -> list[tuple[int, bytes, int, int, int, int, int]]:
    columns = "number, entry, first, past, messages, size, unchecked"
    query = f"SELECT {columns} FROM entries WHERE number > ? ORDER BY number LIMIT {_PAGE}"  # noqa: S608 (constants)
    return database.execute(query, (after,)).fetchall()


class Batch(Struct, frozen=True):
    """One append of an import, in the stream's wire form, and how many messages of the document it has."""

    messages: int
    data: bytes


class Intake:
    """
    Validate a document piece by piece, and keep its streams and messages in temporary files.

    :param directory: where these are.
    """

    def __init__(self, context: Context, limits: ImportLimits, directory: str) -> None:
        self._context = context
        self._limits = limits
        self._parser = DocumentParser(limits)
        self._spool = SpoolFile(context, directory)
        self.index = EntryIndex(context, directory)
        self._stream = MessagesStart("", None)
        self._start = self._messages = self._size = self._batched = 0
        self._batch = bytearray()
        self._unchecked = False
        self.messages = 0

    @property
    def position(self) -> int:
        """The number of bytes of the document that were read."""
        return self._parser.position

    async def feed(self, data: bytes) -> None:
        """
        Take the next part of the document.

        :raises TransferError: the document is not valid.
        """
        rest = memoryview(data)
        while rest:
            await self._context.streams.turns.finish(self._absorb(rest[:PIECE]))
            rest = rest[PIECE:]
            if self._spool.full:
                await self._spool.flush()
            if self.index.full:
                await self.index.flush()

    async def finish(self) -> None:
        """
        Note the end of the document.

        :raises TransferError: the document is not valid.
        """
        self._parser.finish()
        await self._spool.flush()
        await self.index.flush()
        if self._unchecked:
            async for page in self.index.pages():
                for spooled in page:
                    if spooled.unchecked:
                        await self._check(spooled)

    async def _check(self, spooled: SpooledEntry) -> None:
        """Check the messages of a JSON stream whose content type came after them."""
        self._stream = MessagesStart(shown(spooled.entry.name), True)
        self._messages = 0
        async for record in self._records(spooled):
            self._json(record.data)
            self._messages += 1
            await self._context.pause()

    async def close(self) -> None:
        """Remove the temporary files."""
        with suppress(OSError, sqlite3.Error):
            await self._spool.close()
        with suppress(OSError, sqlite3.Error):
            await self.index.close()

    async def batches(self, spooled: SpooledEntry) -> AsyncIterator[Batch]:
        """Return the appends of a stream."""
        if not spooled.unchecked:
            async for batch in self._records(spooled):
                yield batch
            return
        data = bytearray()
        count = 0
        async for record in self._records(spooled):
            data += compact(record.data) + b","
            count += 1
            if len(data) >= _BATCH:
                yield Batch(count, bytes(data))
                data.clear()
                count = 0
        if count:
            yield Batch(count, bytes(data))

    async def _records(self, spooled: SpooledEntry) -> AsyncIterator[Batch]:
        position, end = spooled.start, spooled.end
        held = bytearray()
        while position < end or held:
            part = await self._spool.read(position, min(PIECE, end - position))
            position += len(part)
            held += part
            used = 0
            while len(held) - used >= _RECORD.size:
                messages, size = _RECORD.unpack_from(held, used)
                start = used + _RECORD.size
                if len(held) - start < size:
                    break
                yield Batch(messages, bytes(held[start : start + size]))
                used = start + size
            del held[:used]

    # Validation

    def _absorb(self, data: memoryview) -> Generator[None, None, None]:
        for start in range(0, len(data), STEP):
            for item in self._parser.feed(bytes(data[start : start + STEP])):
                yield from self._take(item)
            yield

    def _take(self, item: Item) -> Generator[None, None, None]:
        if isinstance(item, str):
            data = self._decode(item)
            self._add(self._json(data) if self._stream.json else data)
        elif isinstance(item, LongMessage):
            data = yield from self._decode_long(item.parts)
            if self._stream.json:
                data = yield from self._json_in_steps(data)
                yield
            self._add(data)
        elif isinstance(item, MessagesStart):
            self._stream = item
            self._start = self._spool.size
            self._messages = self._size = 0
        else:
            self._end_stream(item)

    def _decode(self, text: str | bytes) -> bytes:
        try:
            data = a2b_base64(text, strict_mode=True)
            last = text[-4:].encode() if isinstance(text, str) else text[-4:]
            if last.endswith(b"=") and b2a_base64(data[-(len(data) % 3) :], newline=False) != last:
                raise Base64Error("bits after the last byte are not zero")
        except ValueError as error:
            raise InvalidBase64(
                self._stream.stream, self._messages + 1, f"is not padded standard base64 ({error})."
            ) from None
        self._check_size(len(data))
        return data

    def _check_size(self, size: int) -> None:
        limit = self._limits.message_bytes
        if size > limit:
            reason = f"has {size} bytes, more than {limit}. Raise the import's limit if it may."
            raise MessageTooLarge(self._stream.stream, self._messages + 1, reason)

    def _decode_long(self, parts: list[bytes]) -> Generator[None, None, bytes]:
        """Decode a message in slices. It takes the parts out of the list, which frees them."""
        decoded = []
        rest = bytearray()
        parts.reverse()
        while parts:
            rest += parts.pop()
            if parts and len(rest) < _SLICE:
                continue
            part = bytes(rest[:_SLICE] if parts else rest)
            del rest[: len(part)]
            # Padding in the middle is an error.
            decoded.append(self._decode(part[:-1] + b"!" if parts and part.endswith(b"=") else part))
            yield
        self._check_size(sum(map(len, decoded)))
        data = b"".join(decoded)
        yield
        return data

    def _end_stream(self, entry: StreamEntry) -> None:
        self._end_batch()
        unchecked = self._stream.json is None and is_json(entry.content_type)
        self._unchecked = self._unchecked or unchecked
        self.messages += self._messages
        self.index.add(SpooledEntry(entry, self._start, self._spool.size, self._messages, self._size, unchecked))

    def _json(self, data: bytes) -> bytes:
        try:
            return compact(data)
        except InvalidJson as error:
            raise self._not_json(error) from None

    def _json_in_steps(self, data: bytes) -> Generator[None, None, bytes]:
        try:
            return (yield from compact_in_steps(data))
        except InvalidJson as error:
            raise self._not_json(error) from None

    def _not_json(self, error: InvalidJson) -> InvalidJsonMessage:
        reason = f"is not one JSON value, but the stream's type is application/json. {error}"
        return InvalidJsonMessage(self._stream.stream, self._messages + 1, reason)

    def _add(self, value: bytes) -> None:
        """Add a message: to the batch of a JSON stream, or as an append of its own."""
        if self._stream.json:
            self._batch += value
            self._batch += b","
            self._batched += 1
            if len(self._batch) >= _BATCH:
                self._end_batch()
        else:
            self._spool.add(_RECORD.pack(1, len(value)))
            self._spool.add(value)
        self._messages += 1
        self._size += len(value)

    def _end_batch(self) -> None:
        if self._batched:
            self._spool.add(_RECORD.pack(self._batched, len(self._batch)))
            self._spool.add(self._batch)
            self._batch.clear()
            self._batched = 0
