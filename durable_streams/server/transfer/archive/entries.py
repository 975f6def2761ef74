"""The JSON parts of an archive, and the checks of their values."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from datetime import datetime
from math import isfinite
from typing import Final, TypeVar

import msgspec
from msgspec import Struct

from ...errors import InvalidName, InvalidOffset, InvalidRequest
from ...model import MAX_INCARNATION, NOW, START, Fork, Lifetime, Offset, StreamConfig, StreamRecord, WriterState
from ...protocol.content import JSON_TYPE, media_type
from ...protocol.lifetimes import MAX_TTL, parse_timestamp
from ...protocol.names import NameLimits, check_name
from ...protocol.offsets import parse_offset
from .errors import ArchiveInvalid, ArchiveUnsupported
from .layout import FORMAT, FORMAT_VERSION, bare_name

T = TypeVar("T")

#: The largest position of an offset, of 16 digits.
MAX_POSITION: Final = 10**16 - 1

#: The largest epoch and sequence number of a producer: JavaScript's largest exact integer.
_MAX_INTEGER: Final = 2**53 - 1

#: The latest time, in seconds since 1970: the end of the year 9999, and a day.
_MAX_TIME: Final = 253_402_387_200.0

#: The longest content type, in bytes. HTTP has a smaller limit; embedding programs may create streams without it.
_MAX_TYPE: Final = 8192

_TIME: Final = re.compile(r"[0-9T:.Z-]{20,32}")


class ArchiveHeader(Struct, frozen=True, gc=False):
    """
    The first part of an archive.

    :ivar created_at: when the backup began, as an RFC 3339 time.
    """

    format: str
    format_version: int
    server_version: str
    created_at: str


class LifetimeEntry(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A lifetime: see :class:`.model.Lifetime`."""

    ttl: int | None
    expires_at: float | None


class ForkEntry(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The fork headers of a create request; ``offset`` as in HTTP, ``-1`` for the start."""

    source: str
    offset: str | None
    sub_offset: int


class ConfigEntry(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """The configuration in a create request, with which a later PUT is compared."""

    content_type: str | None
    lifetime: LifetimeEntry
    closed: bool
    fork: ForkEntry | None


class StreamEntry(Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """
    All of a stream but its bytes and its writers; see :class:`.model.StreamRecord`.

    :ivar incarnation: the first part of its offsets.
    :ivar base: the position of the first byte that the archive has of it: the fork point, or 0.
    :ivar sequence: Stream-Seq in base64.
    :ivar writers: how many idempotent producers it has.
    :ivar forks: how many forks it had, of which the archive may have fewer.
    """

    name: str
    content_type: str
    incarnation: int
    config: ConfigEntry
    lifetime: LifetimeEntry
    base: int
    tail: int
    closed: bool
    deleted: bool
    source: str | None
    sequence: str | None
    writers: int
    forks: int
    created_at: float
    updated_at: float
    used_at: float

    @property
    def json(self) -> bool:
        """Whether the stream is in JSON mode."""
        return media_type(self.content_type) == JSON_TYPE


#: A writer in an archive: id, epoch, last sequence number, and when it was seen last.
WriterEntry = tuple[str, int, int, float]


def entry_of(record: StreamRecord) -> StreamEntry:
    """Return the entry for a stream of a storage."""
    config = record.config
    fork = config.fork
    return StreamEntry(
        record.facts.name,
        record.facts.content_type,
        record.facts.incarnation,
        ConfigEntry(
            config.content_type,
            _lifetime_entry(config.lifetime),
            config.closed,
            None if fork is None else ForkEntry(fork.source, _render_offset(fork.offset), fork.sub_offset),
        ),
        _lifetime_entry(record.lifetime),
        record.base,
        record.tail,
        record.closed,
        record.deleted,
        record.source,
        None if record.sequence is None else b64encode(record.sequence).decode(),
        len(record.writers),
        record.forks,
        record.created_at,
        record.updated_at,
        record.used_at,
    )


def _lifetime_entry(lifetime: Lifetime) -> LifetimeEntry:
    return LifetimeEntry(lifetime.ttl, lifetime.expires_at)


def _render_offset(offset: Offset | None) -> str | None:
    if offset is None:
        return None
    return {START: "-1", NOW: "now"}.get(offset) or str(offset)


def lifetime_of(entry: LifetimeEntry) -> Lifetime:
    """Return the lifetime of an entry."""
    return Lifetime(entry.ttl, entry.expires_at)


def config_of(entry: StreamEntry) -> StreamConfig:
    """Return the configuration with which the stream was created."""
    config = entry.config
    fork = config.fork
    return StreamConfig(
        config.content_type,
        lifetime_of(config.lifetime),
        config.closed,
        None if fork is None else Fork(fork.source, fork_offset(fork), fork.sub_offset),
    )


def fork_offset(fork: ForkEntry) -> Offset | None:
    """Return the offset at which a fork was requested."""
    return None if fork.offset is None else parse_offset(fork.offset)


def sequence_of(entry: StreamEntry) -> bytes | None:
    """Return the Stream-Seq of a stream."""
    return None if entry.sequence is None else b64decode(entry.sequence)


# Checks


def _decode(data: bytes, kind: type[T], name: str) -> T:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArchiveInvalid(f"The archive's part {name} is malformed: {error}.") from None


def read_header(data: bytes) -> ArchiveHeader:
    """
    Read the first part of an archive.

    :raises ArchiveUnsupported: it is of another version.
    :raises ArchiveInvalid: it is malformed.
    """
    header = _decode(data, ArchiveHeader, "archive.json")
    if header.format != FORMAT:
        raise ArchiveInvalid(f"The file is not an archive of streams: its format is {header.format[:64]!r}.")
    if header.format_version != FORMAT_VERSION:
        raise ArchiveUnsupported(header.format_version)
    if not _TIME.fullmatch(header.created_at) or len(header.server_version) > 128:
        raise ArchiveInvalid("The archive's part archive.json has a malformed time or version.")
    try:
        parse_timestamp(header.created_at)
        # A leap second is a time of RFC 3339, but no server writes one.
        parse_time(header)
    except (InvalidRequest, ValueError):
        raise ArchiveInvalid("The archive's part archive.json has a time that does not exist.") from None
    return header


def read_stream(data: bytes, part: str, names: NameLimits) -> StreamEntry:
    """
    Read a stream's record.

    :param part: the name of the part, for messages.
    :param names: the limits of names.
    :raises ArchiveInvalid: a value is impossible, or the name is not allowed.
    """
    entry = _decode(data, StreamEntry, part)
    try:
        fault = _check_texts(entry, names) or _check_numbers(entry) or _check_fork(entry)
    except (InvalidName, InvalidRequest, InvalidOffset, Base64Error, ValueError) as error:
        fault = str(error)
    if fault:
        raise ArchiveInvalid(f"The archive's part {part} has a value that no stream has: {fault}")
    return entry


def _check_texts(entry: StreamEntry, names: NameLimits) -> str | None:
    check_name(bare_name(entry.name) if entry.deleted else entry.name, names)
    for content_type in (entry.content_type, entry.config.content_type):
        if content_type is not None:
            media_type(content_type)
            if len(content_type) > _MAX_TYPE:
                return f"The content type is longer than {_MAX_TYPE} bytes."
            if media_type(content_type) != media_type(entry.content_type):
                return "The configuration has another content type than the stream."
    if entry.sequence is not None:
        b64decode(entry.sequence, validate=True)
    return None


def _check_numbers(entry: StreamEntry) -> str | None:
    if not 0 < entry.incarnation <= MAX_INCARNATION:
        return "The incarnation is out of range."
    if not 0 <= entry.base <= entry.tail <= MAX_POSITION:
        return "The position of the first byte or of the tail is out of range."
    if entry.writers < 0 or entry.forks < 0:
        return "The number of producers or of forks is negative."
    for lifetime in (entry.lifetime, entry.config.lifetime):
        if lifetime.ttl is not None and not 0 <= lifetime.ttl <= MAX_TTL:
            return "The TTL is out of range."
        if lifetime.expires_at is not None and not abs(lifetime.expires_at) <= _MAX_TIME * 2:
            return "The time of expiry is out of range."
        if lifetime.ttl is not None and lifetime.expires_at is not None:
            return "It has a TTL and a time of expiry."
    if not all(_is_time(time) for time in (entry.created_at, entry.updated_at, entry.used_at)):
        return "A time is out of range."
    return None


def _is_time(time: float) -> bool:
    return isfinite(time) and abs(time) <= _MAX_TIME


def _check_fork(entry: StreamEntry) -> str | None:
    fork = entry.config.fork
    if (fork is None) != (entry.source is None):
        return "Only a fork has a source."
    if fork is None:
        return "A stream that is no fork begins at position 0." if entry.base else None
    if entry.source == entry.name:
        return "The source is the stream itself."
    fork_offset(fork)
    if not 0 <= fork.sub_offset <= MAX_POSITION:
        return "Stream-Fork-Sub-Offset is out of range."
    return None


def read_writers(data: bytes, part: str) -> list[WriterEntry]:
    """
    Read a slice of a stream's writers.

    :raises ArchiveInvalid: a value is impossible.
    """
    writers = _decode(data, list[WriterEntry], part)
    for writer_id, epoch, seq, seen in writers:
        if not writer_id or not 0 <= epoch <= _MAX_INTEGER or not 0 <= seq <= _MAX_INTEGER or not _is_time(seen):
            raise ArchiveInvalid(f"The archive's part {part} has a producer with values that no producer has.")
    return writers


def writer_states(writers: list[WriterEntry]) -> dict[str, WriterState]:
    """Return writers as storages have them."""
    return {writer_id: WriterState(epoch, seq, seen) for writer_id, epoch, seq, seen in writers}


def parse_time(header: ArchiveHeader) -> int:
    """Return when the archive was made, in whole seconds since 1970."""
    return int(datetime.fromisoformat(header.created_at).timestamp())
