"""Read the streams of a data directory of the file storage, with nothing of the server's.

``python recover_by_hand.py DIRECTORY`` lists the streams; with a stream's name after it, it writes that stream's bytes
to the standard output. It changes nothing. What it relies on is written in ``docs/file-format.rst``; any MessagePack
library will do in place of this one. Copy the directory first, or see that no server runs on it.
"""

import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

from msgspec import msgpack

HEADER = struct.Struct("<4sIQQQQQ")


@dataclass
class Stream:
    """One stream: its own bytes begin at ``base``; those before are its source's."""

    name: str
    source: int | None
    base: int
    closed: bool
    deleted: bool
    own: bytes
    filed: bool = False


def frames(data: bytes) -> Iterator[tuple[bytes, int, list[Any]]]:
    """Read frames up to the first that is not whole: magic, first number, what is in it."""
    position = 0
    while len(data) - position >= HEADER.size:
        magic, checksum, size, _number, first, _last, _durable = HEADER.unpack_from(data, position)
        end = position + HEADER.size + size
        if not magic.startswith(b"DS") or crc32(data[position + 8 : end]) != checksum:
            return
        yield magic, first, msgpack.decode(data[position + HEADER.size : end]) if size else []
        position = (end + 4095) // 4096 * 4096


def warn(text: str) -> None:
    """Say what is wrong, and go on."""
    print(text, file=sys.stderr)


def own_file(root: Path, stream_id: int) -> Path:
    """Return the path of a stream's own file."""
    return root / "streams" / f"{stream_id % 256:02x}" / f"{stream_id}.data"


def filed(root: Path, stream_id: int, base: int, size: int, appends: int) -> bytes:
    """Read a stream's own file, and compare it with its index."""
    path = own_file(root, stream_id)
    if not path.exists():
        # The stream was removed after the checkpoint, or else this is reported later.
        return b""
    data = path.read_bytes()[:size]
    start = 0
    for end, checksum in struct.iter_unpack("<QI", path.with_suffix(".index").read_bytes()[: 12 * appends]):
        if crc32(data[start : end - base]) != checksum:
            warn(f"{path}: {start} to {end - base} are damaged")
        start = end - base
    return data


def packed(root: Path, pack: int, position: int, size: int, appends: int) -> bytes:
    """Read a piece of a pack."""
    path = root / "packs" / f"{pack:016d}"
    with path.open("rb") as file:
        file.seek(position)
        frame = file.read(HEADER.size + 8 * appends + size)
    if crc32(frame[8:]) != HEADER.unpack_from(frame)[1]:
        warn(f"{path}: the piece at {position} is damaged")
    return frame[HEADER.size + 8 * appends :]


def read_checkpoint(root: Path, streams: dict[int, Stream]) -> int:
    """Take the streams of the latest checkpoint, and say with which segment the journal goes on."""
    checkpoints = sorted(path for path in root.glob("checkpoint/*") if path.name.isdigit())
    segment = 0
    for magic, _, content in frames(checkpoints[-1].read_bytes()) if checkpoints else ():
        if magic == b"DSz1":
            segment = content[1]
            continue
        if magic != b"DSe1":
            # More producers of a stream, or values that belong to none.
            continue
        for entry in content:
            stream_id, name, source, base = entry[0], entry[1], entry[6], entry[7]
            size, appends, pieces = entry[17], entry[18], entry[19]
            own = filed(root, stream_id, base, size, appends) if size else b""
            for pack, position, _start, piece_size, piece_appends in pieces:
                own += packed(root, pack, position, piece_size, piece_appends)
            streams[stream_id] = Stream(name, source, base, entry[9], entry[10], own, size > 0)
    return segment


def apply(change: list[Any], streams: dict[int, Stream]) -> None:
    """Do what a change says. What a place outside the journal has already is not there a second time."""
    kind, stream_id = change[0], change[1]
    if kind == 5:
        # Values, which belong to no stream.
        return
    if kind == 1 and stream_id not in streams:
        streams[stream_id] = Stream(change[2], change[7], change[8], change[5]["closed"], False, b"")
    if kind == 4 and change[4] in streams:
        streams[change[4]].deleted = True
    stream = streams.get(stream_id)
    if stream is None:
        return
    if kind == 3:
        stream.deleted = True
        return
    if kind == 4:
        stream.name, stream.closed = change[2], change[3]["closed"]
        return
    start, data, checksum = (change[8], change[10], change[11]) if kind == 1 else (change[2], change[3], change[4])
    if crc32(data) != checksum:
        warn(f"{stream.name}: {start} to {start + len(data)} are damaged")
    if start == stream.base + len(stream.own):
        stream.own += data
    stream.closed = stream.closed or (kind == 2 and change[6])


def read(root: Path) -> dict[int, Stream]:
    """Put all streams together."""
    streams: dict[int, Stream] = {}
    segment = read_checkpoint(root, streams)
    last: int | None = None
    for path in sorted(root.glob("journal/*")):
        if not path.name.isdigit() or int(path.name) < segment:
            continue
        for magic, first, content in frames(path.read_bytes()):
            if last is not None and first != last + 1:
                warn(f"{path}: changes {last + 1} to {first - 1} are missing")
            last = first - 1
            if magic == b"DSb1":
                last += len(content)
                for change in content:
                    apply(change, streams)
    for stream_id, stream in streams.items():
        if stream.filed and not stream.deleted and not own_file(root, stream_id).exists():
            warn(f"{own_file(root, stream_id)} is missing")
    return streams


def whole(stream: Stream, streams: dict[int, Stream]) -> bytes:
    """Put a stream's bytes together, and those that it has from its source."""
    if stream.source is None:
        return stream.own
    return whole(streams[stream.source], streams)[: stream.base] + stream.own


def main(directory: str, name: str | None = None) -> None:
    """List the streams, or write out one of them."""
    streams = read(Path(directory))
    for stream in sorted(streams.values(), key=lambda stream: stream.name):
        if stream.deleted:
            continue
        data = whole(stream, streams)
        if name is None:
            print(f"{stream.name}\t{len(data)}\t{'closed' if stream.closed else 'open'}")
        elif stream.name == name:
            sys.stdout.buffer.write(data)


if __name__ == "__main__":
    main(*sys.argv[1:])
