"""A cache of verified chunks: the least recently read ones are dropped when they take more than a limit of bytes."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict
from typing import Final

from .chunk_index import StoredChunk

#: The memory of a cached chunk besides its bytes, and of each end in it, in bytes: measured with CPython 3.11.
_CHUNK_BYTES: Final = 480
_END_BYTES: Final = 8


class ChunkCache:
    """
    Chunks by stream and position. Chunks of one stream may overlap, since a merged one has the bytes of several.

    Those of removed streams are not found any more, since ids are not used again, and are dropped as the least recently
    read ones.

    :param max_bytes: of all chunks, with what they take besides their data.
    :ivar hits: the number of chunks that were found.
    :ivar misses: the number of chunks that were not.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._chunks: OrderedDict[tuple[int, int], StoredChunk] = OrderedDict()
        self._starts: dict[int, list[int]] = {}
        self.bytes = 0
        self.hits = 0
        self.misses = 0

    def __len__(self) -> int:
        return len(self._chunks)

    def find(self, stream_id: int, position: int) -> StoredChunk | None:
        """Return a chunk that has the byte at a position, or None."""
        starts = self._starts.get(stream_id)
        if starts is not None:
            index = bisect_right(starts, position)
            if index:
                key = (stream_id, starts[index - 1])
                chunk = self._chunks[key]
                if position < chunk.finish:
                    self._chunks.move_to_end(key)
                    self.hits += 1
                    return chunk
        self.misses += 1
        return None

    def add(self, stream_id: int, chunk: StoredChunk) -> None:
        """Keep a chunk, unless the cached one with the same start is longer."""
        size = _size(chunk)
        if size > self._max_bytes:
            return
        key = (stream_id, chunk.start)
        known = self._chunks.get(key)
        if known is not None:
            if known.finish >= chunk.finish:
                return
            self.bytes -= _size(known)
        else:
            insort(self._starts.setdefault(stream_id, []), chunk.start)
        self._chunks[key] = chunk
        self._chunks.move_to_end(key)
        self.bytes += size
        while self.bytes > self._max_bytes:
            (other_id, start), dropped = self._chunks.popitem(last=False)
            self.bytes -= _size(dropped)
            self._drop_start(other_id, start)

    def _drop_start(self, stream_id: int, start: int) -> None:
        starts = self._starts[stream_id]
        if len(starts) == 1:
            del self._starts[stream_id]
        else:
            del starts[bisect_right(starts, start) - 1]

    def clear(self) -> None:
        """Drop all chunks."""
        self._chunks.clear()
        self._starts.clear()
        self.bytes = 0


def _size(chunk: StoredChunk) -> int:
    return len(chunk.data) + _CHUNK_BYTES + _END_BYTES * len(chunk.ends)
