"""The decision of a creation: which stream is created, or why it is refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from msgspec.structs import replace

from ...errors import ContentTypeMismatch, InvalidRequest
from ...model import FOREVER, Fork, ForkPoint, StorageLimits, StreamConfig
from ...protocol.content import DEFAULT_TYPE, media_type
from ...protocol.creating import check_same
from ...protocol.forks import LongSearch, anchor_of, divergence
from ...protocol.messages import first_data
from ..entry import facts_of
from ..limits import check_data_room, check_fork_depth, check_metadata_room, check_stream_count
from .changesets import ChangeSet, NewStream
from .chunk_index import split
from .heads import Head
from .totals import Totals

#: The maximum length of a name in bytes of UTF-8: a longer one has no room in a page of the index of names.
MAX_NAME: Final = 2_500

#: Returns the start and the bytes of the append of a stream that has the byte at a position.
AppendAt = Callable[[Head, int], Awaitable[tuple[int, bytes]]]


def check_name_size(name: str) -> None:
    """
    Check that a name has room in the index of names.

    :raises InvalidRequest: it is too long.
    """
    size = len(name.encode())
    if size > MAX_NAME:
        raise InvalidRequest(f"The name has {size} bytes; in a PostgreSQL storage at most {MAX_NAME} are allowed.")


def plain_stream(name: str, config: StreamConfig, body: bytes) -> NewStream:
    """
    Return the stream that a creation asks for, which is no fork.

    :raises InvalidRequest: the content type is malformed, or the name is too long.
    :raises InvalidJson: the body is not JSON.
    """
    content_type = config.content_type or DEFAULT_TYPE
    return _with_data(NewStream(name, content_type, config, config.lifetime), body)


def forked_stream(name: str, config: StreamConfig, body: bytes, source: Head, base: int) -> NewStream:
    """
    Return the fork that a creation asks for.

    :param base: the position at which it diverges from the source.
    :raises InvalidJson: the body is not JSON.
    """
    lifetime = source.lifetime if config.lifetime == FOREVER else config.lifetime
    new = NewStream(
        name,
        source.facts.content_type,
        config,
        lifetime,
        source.facts.incarnation,
        source.facts.id,
        source.depth + 1,
        base,
    )
    return _with_data(new, body)


def _with_data(new: NewStream, body: bytes) -> NewStream:
    check_name_size(new.name)
    data = first_data(body, facts_of(new.name, 0, 0, new.content_type).json)
    chunks = tuple(split(new.base, new.base, [data])) if data else ()
    return replace(new, size=len(data), chunks=chunks)


def check_limits(new: NewStream, totals: Totals, limits: StorageLimits, changes: ChangeSet = ChangeSet()) -> None:  # noqa: B008 (frozen)
    """
    Check that the limits allow a new stream.

    :param changes: what is written with it, such as the removal of an expired stream.
    :raises StreamsError: they do not.
    """
    streams, size, metadata = changes.freed
    check_data_room(new.name, 0, totals.bytes - size, new.size, limits)
    check_stream_count(totals.streams - streams, limits)
    check_metadata_room(totals.metadata, new.metadata - metadata, limits)


def check_source(name: str, config: StreamConfig, source: Head, limits: StorageLimits) -> None:
    """
    Check that a stream can be the source of a fork of this configuration.

    :raises ContentTypeMismatch: the fork's content type is not the source's.
    :raises InsufficientStorage: the source is too deep.
    """
    if config.content_type is not None and media_type(config.content_type) != source.facts.media_type:
        raise ContentTypeMismatch(name, source.facts.media_type, media_type(config.content_type))
    check_fork_depth(source.depth, limits)


async def fork_point(fork: Fork, source: Head, append_at: AppendAt, point: ForkPoint | None) -> int:
    """
    Return the position at which a fork diverges from its source.

    :param point: the result of an earlier search, or None.
    :raises InvalidRequest: there is no such position.
    :raises LongSearch: to find it takes long.
    """
    if point is not None and point.source_id == source.facts.id and point.fork == fork:
        if isinstance(point.result, str):
            raise InvalidRequest(point.result)
        return point.result
    anchor = anchor_of(fork, source.facts, source.tail)
    append = None if anchor == source.tail else await append_at(source, anchor)
    found = divergence(anchor, fork.sub_offset, append, source.facts.json)
    if isinstance(found, int):
        return found
    raise LongSearch(source.facts.id, found)


def check_existing(config: StreamConfig, existing: Head, same_point: bool) -> None:
    """
    Check that a creation has the same configuration as the existing stream.

    :raises StreamExists: it has another one.
    """
    check_same(config, existing.config, existing.facts, existing.lifetime, existing.closed, same_point)
