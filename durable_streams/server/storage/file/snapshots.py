"""Snapshots of streams for a checkpoint, in slices that are small enough to be encoded while the server answers.

Encoding holds the interpreter, whichever thread does it: 512 KiB of entries take about 2 ms.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from ...model import WriterState
from .checkpoint import CheckpointEntry, MoreWriters
from .stream import FileStream

#: The approximate size in bytes of an entry without its texts and pieces, and of a writer without its id.
_ENTRY: Final = 256
_WRITER: Final = 64
_PIECE: Final = 32


def entry_slices(
    streams: Iterable[FileStream], max_streams: int, max_bytes: int, wall_offset: float
) -> Iterator[list[CheckpointEntry] | MoreWriters]:
    """
    Take snapshots of streams, each as it is when its slice is asked for.

    A stream whose writers do not fit a slice is followed by the rest of them, from the same moment.

    :param max_streams: how many streams a slice has at the most.
    :param max_bytes: how many bytes a slice takes, about: it ends with the stream or writer that reaches them.
    :param wall_offset: how many seconds the wall clock is ahead of the clock that TTLs go by.
    """
    entries: list[CheckpointEntry] = []
    size = 0
    for stream in streams:
        if stream.gone:
            continue
        count = len(stream.writers or ())
        chunks = _writer_chunks(stream.writers or {}, max_bytes)
        writers, writers_size = next(chunks)
        entry = held(stream, writers or None, wall_offset)
        entries.append(entry)
        size += writers_size + _size_of(entry)
        if len(entries) >= max_streams or size >= max_bytes or len(writers) < count:
            yield entries
            entries = []
            size = 0
        if len(writers) < count:
            for more, _ in chunks:
                yield MoreWriters(entry.id, more)
    if entries:
        yield entries


def _writer_chunks(writers: dict[str, WriterState], max_bytes: int) -> Iterator[tuple[dict[str, WriterState], int]]:
    """Yield the writers in chunks, each with its size in bytes, as they are at the first chunk."""
    ids, states = tuple(writers), tuple(writers.values())
    first = size = 0
    for end, writer_id in enumerate(ids, 1):
        size += len(writer_id) + _WRITER
        if size >= max_bytes or end == len(ids):
            yield dict(zip(ids[first:end], states[first:end], strict=True)), size
            first, size = end, 0
    if not ids:
        yield {}, 0


def _size_of(entry: CheckpointEntry) -> int:
    """Estimate the size of an entry in bytes, without its writers."""
    return (
        _ENTRY
        + len(entry.name)
        + 2 * len(entry.content_type)
        + len(entry.sequence or b"")
        + (len(entry.config.fork.source) if entry.config.fork is not None else 0)
        + _PIECE * len(entry.pieces)
    )


def held(stream: FileStream, writers: dict[str, WriterState] | None, wall_offset: float) -> CheckpointEntry:
    """
    Return a stream's entry for a checkpoint, with times of the wall clock.

    :param writers: those of its writers that are in the entry itself.
    """
    facts = stream.facts
    return CheckpointEntry(
        facts.id,
        facts.name,
        facts.incarnation,
        facts.content_type,
        stream.config,
        stream.lifetime,
        None if stream.source is None else stream.source.facts.id,
        stream.base,
        stream.tail,
        stream.closed,
        stream.deleted,
        stream.sequence,
        writers,
        stream.created_at,
        stream.updated_at,
        stream.used_at(wall_offset),
        stream.lsn,
        stream.filed,
        stream.filed_appends,
        stream.pieces,
    )
