"""All that is known of one stream but its data, and its deletion by operators."""

from __future__ import annotations

from math import isinf
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec import Struct

from ....interfaces import settle
from ....model import Offset, StreamRecord
from ....protocol.lifetimes import deadline, render_timestamp
from ....protocol.names import NameLimits, parse_name
from ....streams import Streams
from ...answers import Answer
from ...live import Live
from ...pages import PageRequest
from ...problems import NoSuchPath
from ..app import Routes
from .heads import JSON_HEAD, NO_STORE
from .query import Query

#: How many writers are listed unless the request asks for more, and the most that it may ask for: rendering one takes
#: 10 us.
WRITERS: Final = 100
MAX_WRITERS: Final = 1_000


class ReaderDetails(Struct):
    """The readers of a stream that are waiting now."""

    tails: int
    long_polls: int
    embedded: int


class ForkDetails(Struct):
    """
    The source of a fork.

    :ivar source: its name.
    :ivar offset: where the fork begins.
    """

    source: str
    offset: str


class WriterDetails(Struct):
    """An idempotent producer: its epoch, and the number and time of its last accepted append."""

    id: str
    epoch: int
    sequence: int
    seen_at: str


class StreamDetails(Struct):
    """
    One stream.

    :ivar status: ``open``, ``closed``, or ``deleted`` for one that is kept for its forks.
    :ivar total_bytes: what a reader gets from the start, including what a fork has from its source.
    :ivar own_bytes: what is stored for this stream itself.
    :ivar expires_at: as it was requested; None if it was not.
    :ivar expiry: when it expires if it is not used before; None if it does not expire.
    :ivar stream_seq: the last Stream-Seq.
    :ivar forks: how many streams are forks of it.
    :ivar writer_count: how many writers are recorded, of which ``writers`` has the ones that were accepted last.
    """

    name: str
    status: str
    content_type: str
    incarnation: int
    next_offset: str
    total_bytes: int
    own_bytes: int
    message_count: int | None
    created_at: str
    updated_at: str
    used_at: str
    ttl_seconds: int | None
    expires_at: str | None
    expiry: str | None
    stream_seq: str | None
    fork: ForkDetails | None
    forks: int
    readers: ReaderDetails
    writer_count: int
    writers: list[WriterDetails]


def add_details(app: Routes, base_path: str, streams: Streams, live: Live, limits: NameLimits) -> None:
    """
    Add the page of each stream, which is at ``/streams/NAME`` below the base path.

    :param live: counts the readers.
    :param limits: of names.
    """
    above = f"{base_path}/streams/"

    @app.route(f"{above}<path:name>", methods=["GET", "HEAD"])
    async def stream_details(request: PageRequest, name: str) -> Answer:
        """Answer with a JSON object."""
        max_writers = Query(request, ("writers",)).number("writers", MAX_WRITERS) or WRITERS
        record = await settle(streams.record(_name_in(request.path, above, limits), hidden=True))
        return Answer(200, JSON_HEAD, msgspec.json.encode(_details_of(record, live, max_writers)))

    @app.route(f"{above}<path:name>", methods=["DELETE"])
    async def delete_stream(request: PageRequest, name: str) -> Answer:
        """Delete the stream, as a client may."""
        Query(request, ())
        await settle(streams.delete(_name_in(request.path, above, limits)))
        return Answer(204, NO_STORE)


def _name_in(path: bytes, above: str, limits: NameLimits) -> str:
    """
    Return the name of a stream, which follows a prefix in a path.

    It is read from the path as it was sent: the path by which pages are routed is decoded, so that another split of it
    could be another stream.

    :raises NoSuchPath: the prefix is not written segment by segment.
    :raises InvalidName: the rest is not a name.
    """
    # As it is routed: slashes before the path do not count.
    segments = path.lstrip(b"/").split(b"/")
    depth = above.count("/") - 1
    if unquote_to_bytes(b"/".join(segments[:depth])).decode("latin-1") != above.strip("/"):
        raise NoSuchPath(None)
    return parse_name(b"/".join(segments[depth:]), limits)


def _details_of(record: StreamRecord, live: Live, max_writers: int) -> StreamDetails:
    facts, lifetime = record.facts, record.lifetime
    status = "closed" if record.closed else "open"
    ends_at = deadline(lifetime, record.used_at)
    readers = live.readers_of(facts.name)
    return StreamDetails(
        name=facts.name,
        status="deleted" if record.deleted else status,
        content_type=facts.content_type,
        incarnation=facts.incarnation,
        next_offset=str(Offset(facts.incarnation, record.tail)),
        total_bytes=record.tail,
        own_bytes=record.tail - record.base,
        message_count=None,
        created_at=render_timestamp(record.created_at),
        updated_at=render_timestamp(record.updated_at),
        used_at=render_timestamp(record.used_at),
        ttl_seconds=lifetime.ttl,
        expires_at=None if lifetime.expires_at is None else render_timestamp(lifetime.expires_at),
        expiry=None if isinf(ends_at) else render_timestamp(ends_at),
        stream_seq=None if record.sequence is None else record.sequence.decode("latin-1"),
        fork=_fork_of(record),
        forks=record.forks,
        readers=ReaderDetails(readers.tails, readers.polls, readers.others),
        writer_count=len(record.writers),
        writers=_writers_of(record, max_writers),
    )


def _fork_of(record: StreamRecord) -> ForkDetails | None:
    if record.source is None:
        return None
    return ForkDetails(record.source, str(Offset(record.facts.incarnation, record.base)))


def _writers_of(record: StreamRecord, max_writers: int) -> list[WriterDetails]:
    """Return the writers that were accepted last, the last one first."""
    latest = list(record.writers.items())[: -max_writers - 1 : -1]
    return [WriterDetails(writer, state.epoch, state.seq, render_timestamp(state.seen)) for writer, state in latest]
