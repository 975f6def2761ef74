"""What a program is given of a stream."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from ..interfaces import settle
from ..model import Chunk, Offset
from ..protocol.messages import document
from ..streams import Streams


class Reading(Struct, frozen=True):
    """
    What a read found.

    :ivar data: bytes; of a JSON stream, one array of messages.
    :ivar next_offset: where to read on.
    :ivar up_to_date: there was nothing more at that moment.
    :ivar closed: there will never be anything more.
    """

    data: bytes
    next_offset: str
    up_to_date: bool
    closed: bool


async def read_appends(streams: Streams, name: str, place: Offset, limit: int) -> Chunk:
    """
    Read whole appends.

    :param limit: how many bytes at the most; the first append comes whole.
    """
    chunk = await settle(streams.read(name, place, limit, whole=True))
    if not chunk.more:
        return chunk
    end = chunk.start + len(chunk.data)
    rest = await settle(streams.read_range(chunk.facts, end, end + chunk.more))
    return replace(chunk, data=chunk.data + rest, more=0)


def reading_of(chunk: Chunk) -> Reading:
    """Make a chunk of whole appends what a program reads."""
    end = chunk.start + len(chunk.data)
    at_tail = end == chunk.tail
    return Reading(
        document(chunk.data) if chunk.facts.json else chunk.data,
        str(Offset(chunk.facts.incarnation, end)),
        at_tail,
        at_tail and chunk.closed,
    )
