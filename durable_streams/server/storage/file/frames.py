"""The frames that journals and checkpoints consist of: a header, a payload, and a checksum over both.

``docs/file-format.rst`` describes them. All numbers are little-endian.
"""

from __future__ import annotations

from struct import Struct
from typing import Final, NamedTuple

from ..checksums import crc32

#: Where a frame may begin: at a multiple of this, so that no write ever touches a block that an earlier one filled.
BLOCK: Final = 4096

#: magic, checksum of the rest, payload size, segment, first LSN, last LSN, durable LSN
_HEADER: Final = Struct("<4sIQQQQQ")
HEADER_SIZE: Final = _HEADER.size
_CHECKED_FROM: Final = 8

BATCH: Final = b"DSb1"
OPENING: Final = b"DSj1"
ENTRIES: Final = b"DSe1"
WRITERS: Final = b"DSw1"
VALUES: Final = b"DSv1"
CLOSING: Final = b"DSz1"
PIECE: Final = b"DSp1"

_ZEROS: Final = bytes(BLOCK)


class Header(NamedTuple):
    """
    The header of a frame.

    :ivar size: of the payload, in bytes.
    :ivar number: of the checkpoint that it is in, the mark of the journal segment, or the id of the piece's stream.
    :ivar first: the LSN of its first change; in the opening of a journal segment, of the first that will be in it.
    :ivar last: the LSN of its last change.
    :ivar durable: up to which LSN everything was on the disk for sure when it was written.
    """

    magic: bytes
    size: int
    number: int
    first: int
    last: int
    durable: int


def padded(size: int) -> int:
    """Round a position up to the next block, where a frame may begin."""
    return (size + BLOCK - 1) // BLOCK * BLOCK


def frame_size(payload_size: int) -> int:
    """Return the size of a frame, padding included."""
    return padded(HEADER_SIZE + payload_size)


def frame(header: Header, payload: bytes) -> list[bytes]:
    """Make a frame, as parts to be written one after the other, padded to whole blocks."""
    rest = _HEADER.pack(header.magic, 0, len(payload), *header[2:])
    checksum = crc32(payload, crc32(rest[_CHECKED_FROM:]))
    head = _HEADER.pack(header.magic, checksum, len(payload), *header[2:])
    return [head, payload, _ZEROS[: -(HEADER_SIZE + len(payload)) % BLOCK]]


def without_checksum(head: bytes) -> bytes:
    """Invert the checksum of a header, so that readers treat the frame as damaged."""
    return head[:4] + bytes(byte ^ 0xFF for byte in head[4:_CHECKED_FROM]) + head[_CHECKED_FROM:]


def read_header(data: bytes) -> tuple[Header, int] | None:
    """Return a header and its checksum, or None if it is not a header."""
    if len(data) < HEADER_SIZE:
        return None
    magic, checksum, size, number, first, last, durable = _HEADER.unpack_from(data)
    if magic not in (BATCH, OPENING, ENTRIES, WRITERS, VALUES, CLOSING, PIECE):
        return None
    return Header(magic, size, number, first, last, durable), checksum


def is_whole(head: bytes, checksum: int, payload: bytes) -> bool:
    """Return whether the checksum of a header and its payload matches."""
    return crc32(payload, crc32(head[_CHECKED_FROM:HEADER_SIZE])) == checksum
