"""Encoded Server-Sent Events, shared by the tails at one place of a stream."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from ..model import Chunk, Offset, StreamFacts
from ..protocol import sse
from ..protocol.content import is_text
from .answers import Sink

#: A data event up to this size is joined to its control event and sent in one write, in bytes.
_SMALL: Final = 4096

#: How many bytes of data events, and of joined events, are kept at a time.
_DATA_BYTES: Final = 4_194_304
_JOINED_BYTES: Final = 1_048_576


class LargeEvent:
    """
    A data event of an append that is larger than a piece, with the position of one tail in it.

    :param beginning: the read that found it.
    :ivar end: where the append ends.
    :ivar position: where the next piece begins.
    """

    __slots__ = ("_closed", "_tail", "end", "facts", "position")

    def __init__(self, beginning: Chunk) -> None:
        self.facts = beginning.facts
        self.position = beginning.start
        self.end = beginning.start + len(beginning.data) + beginning.more
        self._tail = beginning.tail
        self._closed = beginning.closed

    @property
    def piece_end(self) -> int:
        """Return where the piece ends that begins at the position."""
        return min(self.position + sse.PIECE, self.end)

    def place(self) -> Chunk:
        """Return the state of the stream when the event began, as a read from the event's end would have found it."""
        return Chunk(self.facts, self.end, b"", self._tail, self._closed)


class SharedEvent(Struct, frozen=True, gc=False):
    """
    The event that the last tail was sent, for the other tails at the same place of the stream.

    :ivar facts: those of the stream.
    :ivar start: where it begins.
    :ivar end: the tail of the stream.
    :ivar cursor: the cursor in it.
    :ivar change: the number of the change after which it was read; after another change it is not the latest any more.
    :ivar data: the data event and its control event.
    """

    facts: StreamFacts
    start: int
    end: int
    cursor: int
    change: int
    data: bytes


class Events:
    """
    Encodes events, each once for all tails.

    A data event depends on the stream's bytes alone; the control event after it has the tail's cursor as well. So data
    events are kept apart from control events, and only small ones are kept joined to one. Events larger than a piece
    are encoded and sent a piece at a time: their size, six-fold if it is all line breaks, bounds neither memory nor the
    time of a turn.

    :ivar latest: the last small event that ended at the tail of its stream, and had the cursor of all tails.
    """

    def __init__(self) -> None:
        self.latest: SharedEvent | None = None
        self._data: dict[tuple[int, int, int], bytes] = {}
        self._data_bytes = 0
        self._joined: dict[tuple[int, int, int, bool, bool, int], bytes] = {}
        self._joined_bytes = 0

    def write(self, sink: Sink, chunk: Chunk, cursor: int, change: int | None) -> int:
        """
        Write a chunk's data event, if it has data, and its control event; return how many bytes these are.

        :param change: the number of the change after which the chunk was read, if the cursor is that of all tails.
        """
        facts = chunk.facts
        end = chunk.start + len(chunk.data)
        up_to_date = end == chunk.tail
        key = (facts.id, chunk.start, end, up_to_date, chunk.closed, cursor)
        event = self._joined.get(key)
        if event is None:
            offset = str(Offset(facts.incarnation, end))
            event = sse.control_event(offset, cursor, up_to_date, up_to_date and chunk.closed)
            if chunk.data:
                data = self._data_event(chunk, end, offset)
                if len(data) > _SMALL:
                    # Not one copy for each cursor.
                    sink.write(data)
                    sink.write(event)
                    return len(data) + len(event)
                event = data + event
            self._joined_bytes += len(event)
            if self._joined_bytes > _JOINED_BYTES:
                self._joined.clear()
                self._joined_bytes = len(event)
            self._joined[key] = event
        if change is not None and up_to_date and chunk.data and not chunk.closed:
            self.latest = SharedEvent(facts, chunk.start, end, cursor, change, event)
        sink.write(event)
        return len(event)

    def _data_event(self, chunk: Chunk, end: int, offset: str) -> bytes:
        facts = chunk.facts
        key = (facts.id, chunk.start, end)
        data = self._data.get(key)
        if data is None:
            data = sse.data_event(chunk.data, facts.json, is_text(facts.media_type), offset)
            self._keep(key, data)
        return data

    def piece(self, event: LargeEvent) -> bytes | None:
        """Return the encoded piece at the event's position if it is cached for another tail, else None."""
        return self._data.get((event.facts.id, event.position, event.end))

    def encode(self, data: bytes, event: LargeEvent) -> bytes:
        """
        Encode the piece at the event's position.

        :param data: its bytes, after the byte before them, if there is one in the event.
        """
        facts = event.facts
        before = data[: len(data) - (event.piece_end - event.position)]
        last = event.piece_end == event.end
        offset = str(Offset(facts.incarnation, event.end))
        piece = sse.data_piece(data[len(before) :], facts.json, is_text(facts.media_type), offset, before, last)
        self._keep((facts.id, event.position, event.end), piece)
        return piece

    def _keep(self, key: tuple[int, int, int], data: bytes) -> None:
        self._data_bytes += len(data)
        if self._data_bytes > _DATA_BYTES:
            self._data.clear()
            self._data_bytes = len(data)
        self._data[key] = data

    def forget(self) -> None:
        """Clear the cache."""
        self._data.clear()
        self._joined.clear()
        self._data_bytes = self._joined_bytes = 0
        self.latest = None
