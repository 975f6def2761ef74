"""What can happen to the streams of a storage, as records that a log keeps. Together they are all that there is.

Each is an array that begins with its number. Times are seconds since 1970, sizes and positions bytes.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from ..model import Lifetime, StreamConfig, StreamFacts
from .catalogue import facts_of


class Made(Struct, tag=1, array_like=True, frozen=True, gc=False):
    """
    A stream was made.

    :ivar config: as it was asked for, so that the same creation finds it again.
    :ivar lifetime: its own, which a fork may have from its source.
    :ivar source: the id of the stream that it was forked from.
    :ivar base: where its own bytes begin, which is where it left its source.
    :ivar data: its first append; may be empty, which is none.
    :ivar checksum: CRC-32 of ``data``.
    """

    id: int
    name: str
    incarnation: int
    content_type: str
    config: StreamConfig
    lifetime: Lifetime
    source: int | None
    base: int
    at: float
    data: bytes
    checksum: int

    @property
    def facts(self) -> StreamFacts:
        """What never changes of the stream."""
        return facts_of(self.name, self.id, self.incarnation, self.content_type)


class Wrote(Struct, tag=2, array_like=True, frozen=True, gc=False):
    """
    A stream was appended to, or closed, or both.

    :ivar start: the stream's tail before it.
    :ivar checksum: CRC-32 of ``data``.
    :ivar writer: the idempotent writer's id, where there is one, with its ``epoch`` and ``seq``.
    :ivar forgotten: the ids of the writers that the stream forgot to remember this one.
    """

    id: int
    start: int
    data: bytes
    checksum: int
    at: float
    close: bool = False
    sequence: bytes | None = None
    writer: str | None = None
    epoch: int = 0
    seq: int = 0
    forgotten: tuple[str, ...] = ()


class Removed(Struct, tag=3, array_like=True, frozen=True, gc=False):
    """
    A stream was deleted, or has expired: it is gone, or hidden while it has forks. A hidden one goes with the last.
    """

    id: int
    at: float


Change: TypeAlias = Made | Wrote | Removed

#: How many bytes a change takes in a log at the most, besides its data and its texts.
OVERHEAD = 256

#: How many characters a content type has at the most.
MOST_OF_A_TYPE = 512
