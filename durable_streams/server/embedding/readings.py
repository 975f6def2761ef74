"""The results of reads from Python."""

from __future__ import annotations

from msgspec import Struct
from msgspec.structs import replace

from ..interfaces import settle
from ..model import Chunk, Offset
from ..protocol.messages import document
from ..streams import Streams


class Reading(Struct, frozen=True):
    """
    The result of a read.

    :ivar data: the bytes that were read; of a JSON stream, one array of messages.
    :ivar next_offset: the offset to continue from.
    :ivar up_to_date: whether ``data`` ended at the stream's tail at the time of the read.
    :ivar closed: whether ``data`` ended at the tail of a closed stream.
    """

    data: bytes
    next_offset: str
    up_to_date: bool
    closed: bool


async def read_appends(streams: Streams, name: str, place: Offset, limit: int) -> Chunk:
    """
    Read whole appends.

    :param limit: the maximum number of bytes; the first append is read whole, also if it is larger.
    """
    chunk = await settle(streams.read(name, place, limit, whole=True))
    if not chunk.more:
        return chunk
    end = chunk.start + len(chunk.data)
    rest = await settle(streams.read_range(chunk.facts, end, end + chunk.more))
    return replace(chunk, data=chunk.data + rest, more=0)


def reading_of(chunk: Chunk) -> Reading:
    """Convert a chunk of whole appends."""
    end = chunk.start + len(chunk.data)
    at_tail = end == chunk.tail
    return Reading(
        document(chunk.data) if chunk.facts.json else chunk.data,
        str(Offset(chunk.facts.incarnation, end)),
        at_tail,
        at_tail and chunk.closed,
    )
