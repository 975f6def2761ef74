"""Records of streams, and archives of them, for the tests of archives."""

from __future__ import annotations

import io
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import msgspec

from durable_streams.server.model import FOREVER, Fork, Lifetime, StreamConfig, StreamRecord, WriterState
from durable_streams.server.storage.entry import facts_of
from durable_streams.server.transfer.archive.layout import PART_BYTES
from durable_streams.server.transfer.archive.writer import ArchiveWriter

#: When the sample archives were made.
MADE_AT = 1_790_000_000

#: A stream: its record and its own appends.
Sample = tuple[StreamRecord, Sequence[bytes]]


def record(name: str = "a", size: int = 0, **changes: Any) -> StreamRecord:
    """Return the record of a stream; ``size`` is the number of its own bytes."""
    base = changes.get("base", 0)
    content_type = changes.pop("content_type", "text/plain")
    made = StreamRecord(
        facts_of(name, 7, 1_700_000_000_000_001, content_type),
        StreamConfig(content_type),
        FOREVER,
        base + size,
        closed=False,
        deleted=False,
        sequence=None,
        writers={},
        created_at=1_700_000_000.25,
        updated_at=1_700_000_001.5,
        used_at=1_700_000_002.0,
        base=base,
        source=None,
        source_id=None,
        forks=0,
    )
    return msgspec.structs.replace(made, **changes)


def fork(name: str, source: str, base: int, size: int = 0, **changes: Any) -> StreamRecord:
    """Return the record of a fork."""
    changes.setdefault("config", StreamConfig(fork=Fork(source)))
    return record(name, size, base=base, source=source, source_id=7, **changes)


def sample(name: str, appends: Sequence[bytes], **changes: Any) -> Sample:
    """Return a stream with its appends."""
    return record(name, sum(map(len, appends)), **changes), appends


def add(writer: ArchiveWriter, stream: Sample) -> None:
    """Write a stream into an archive."""
    made, appends = stream
    writer.begin_stream(made)
    group: list[bytes] = []
    for data in appends:
        if group and sum(map(len, group)) + len(data) > PART_BYTES:
            writer.add_appends([len(each) for each in group], b"".join(group))
            group = []
        group.append(data)
    if group:
        writer.add_appends([len(each) for each in group], b"".join(group))
    writer.end_stream()


def archive(*streams: Sample) -> bytes:
    """Return an archive of streams."""
    writer = ArchiveWriter(MADE_AT, "1.0")
    for stream in streams:
        add(writer, stream)
    writer.finish()
    return writer.take()


def source(data: bytes) -> io.BytesIO:
    """Return a file with this content."""
    return io.BytesIO(data)


def cut(data: bytes, sizes: Sequence[int]) -> list[bytes]:
    """Cut data into pieces of these sizes."""
    ends = list(accumulate(sizes))
    return [data[end - size : end] for end, size in zip(ends, sizes, strict=True)]


def full_sample() -> Sample:
    """Return a stream that has something of everything."""
    return sample(
        "chat/42 \u00e4",
        [b"hello", b" ", b"world"],
        lifetime=Lifetime(ttl=3600),
        closed=True,
        deleted=False,
        sequence=b"\xff\x00seq",
        writers={"w\u00f6": WriterState(3, 17, 1_700_000_000.125), "b": WriterState(0, 0, 1_700_000_003.0)},
    )
