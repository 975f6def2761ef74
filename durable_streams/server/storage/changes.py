"""Log records: the changes to the streams of a storage. Replaying all of them restores its state.

Each is encoded as an array that begins with its tag. Times are seconds since 1970, sizes and positions bytes.
"""

from __future__ import annotations

from typing import ClassVar, TypeAlias

from msgspec import Struct

from ..model import Lifetime, StreamConfig, StreamFacts, StreamRestoration
from .entry import facts_of


class StreamCreated(Struct, tag=1, array_like=True, frozen=True, gc=False):
    """
    The creation of a stream.

    :ivar config: the configuration as requested; a repeated creation is compared with it.
    :ivar lifetime: the effective lifetime, which a fork may inherit from its source.
    :ivar source: the id of the stream that it was forked from, or None.
    :ivar base: the position of its first own byte: the fork point, or 0.
    :ivar data: the first append; empty for none.
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
        """The immutable properties of the stream."""
        return facts_of(self.name, self.id, self.incarnation, self.content_type)


class DataAppended(Struct, tag=2, array_like=True, frozen=True, gc=False):
    """
    An append to a stream, a close, or both.

    :ivar start: the stream's tail before the append.
    :ivar checksum: CRC-32 of ``data``.
    :ivar writer: the id of the idempotent writer, with its ``epoch`` and ``seq``; or None.
    :ivar forgotten: the ids of the writers that were evicted for this one.
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


class StreamRemoved(Struct, tag=3, array_like=True, frozen=True, gc=False):
    """
    The deletion or expiry of a stream. A stream that has forks stays hidden until its last fork is removed.
    """

    id: int
    at: float


class StreamInstalled(Struct, tag=4, array_like=True, frozen=True, gc=False):
    """
    The installation of a staged stream under a name (:meth:`.IStorage.install`).

    :ivar state: the stream's state, in which neither times nor the incarnation are None. If ``deleted`` is true, the
        next change of the same batch is the stream's :class:`StreamRemoved`, by which it is deleted.
    :ivar replaced: the id of the stream that is removed with it, or None.
    """

    id: int
    name: str
    state: StreamRestoration
    replaced: int | None


class ValuesWritten(Struct, tag=5, array_like=True, frozen=True, gc=False):
    """
    A write of values (:meth:`.IStorage.write_values`).

    :cvar id: the id of no stream.
    :ivar puts: the values by key; None for one that is removed.
    """

    id: ClassVar[int] = 0

    puts: dict[str, bytes | None]


Change: TypeAlias = StreamCreated | DataAppended | StreamRemoved | StreamInstalled | ValuesWritten

#: Upper bound of the encoded size of a change, in bytes, without its data and texts.
OVERHEAD = 256

#: Upper bound of the encoded size of a writer in a change, in bytes, without its id.
WRITER = 64

#: Upper bound of the encoded size of a value in a change, in bytes, without its key and its bytes.
VALUE = 16

#: Maximum length of a content type, in characters.
MAX_CONTENT_TYPE = 512
