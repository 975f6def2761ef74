"""The places of streams' bytes after they have left the journal: packs for small streams, own files for large ones.

``docs/file-format.rst`` describes both.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Iterator, Sequence
from struct import Struct as Layout
from typing import Final, Literal, overload

from msgspec import Struct

from .frames import HEADER_SIZE, PIECE, Header, frame, is_whole, read_header, without_checksum
from .names import name_of

PACKS: Final = "packs"
STREAMS: Final = "streams"

#: A stream whose bytes are at least that many gets a file of its own.
OWN_FILE: Final = 65_536

_INDEX_ENTRY: Final = Layout("<QI")
INDEX_ENTRY_SIZE: Final = _INDEX_ENTRY.size

#: How many entries of an index are read at a time.
_INDEX_BLOCK: Final = 340


class Piece(Struct, array_like=True, frozen=True, gc=False):
    """
    Some appends of a stream, in a pack.

    :ivar position: of the piece's frame in the pack.
    :ivar start: where its first append begins in the stream.
    :ivar size: how many bytes of the stream it has.
    """

    pack: int
    position: int
    start: int
    size: int
    appends: int

    @property
    def end(self) -> int:
        """The position in the stream at which its last append ends."""
        return self.start + self.size

    @property
    def frame(self) -> int:
        """The size of the piece's frame in the pack."""
        return HEADER_SIZE + 8 * self.appends + self.size


class AppendRun(Struct, gc=False):
    """Consecutive appends of a stream: their bytes, their ends in the stream, and a CRC-32 for each."""

    start: int
    data: bytes
    ends: array[int]
    checksums: array[int]

    @staticmethod
    def no_numbers(typecode: Literal["I", "Q"]) -> array[int]:
        """Return an empty array for ends (Q) or checksums (I)."""
        return array(typecode)


def pack_path(number: int) -> str:
    """Return the path of a pack's file."""
    return f"{PACKS}/{name_of(number)}"


def stream_folder(stream_id: int) -> str:
    """Return the path of the folder of a stream's files."""
    return f"{STREAMS}/{stream_id % 256:02x}"


def data_path(stream_id: int) -> str:
    """Return the path of a stream's own file."""
    return f"{stream_folder(stream_id)}/{stream_id}.data"


def index_path(stream_id: int) -> str:
    """Return the path of the index of a stream's own file."""
    return f"{stream_folder(stream_id)}/{stream_id}.index"


def stream_id_of(path: str) -> int | None:
    """Return the id of the stream that a path belongs to; None if it is not the path of a stream's file."""
    number = path.rpartition("/")[2].partition(".")[0]
    if not (number.isascii() and number.isdigit()):
        return None
    stream_id = int(number)
    return stream_id if path in (data_path(stream_id), index_path(stream_id)) else None


def _little_endian(numbers: array[int]) -> array[int]:
    if sys.byteorder == "big":
        numbers = array(numbers.typecode, numbers)
        numbers.byteswap()
    return numbers


def piece_frame(stream_id: int, content: AppendRun, damaged: bool = False) -> bytes:
    """
    Encode appends as the frame of a piece in a pack.

    :param damaged: some of them do not have their checksums. Then the frame does not have its own either, so that no
        reader takes all of it for whole.
    """
    ends = array("I", [end - content.start for end in content.ends])
    payload = b"".join((_little_endian(ends).tobytes(), _little_endian(content.checksums).tobytes(), content.data))
    end = content.start + len(content.data)
    head, payload, _ = frame(Header(PIECE, len(payload), stream_id, content.start, end, len(ends)), payload)
    return (without_checksum(head) if damaged else head) + payload


def read_piece(data: bytes, appends: int, start: int) -> AppendRun:
    """Decode a piece's frame."""
    numbers = array("I")
    numbers.frombytes(data[HEADER_SIZE : HEADER_SIZE + 8 * appends])
    numbers = _little_endian(numbers)
    ends = array("Q", [start + end for end in numbers[:appends]])
    return AppendRun(start, data[HEADER_SIZE + 8 * appends :], ends, numbers[appends:])


def is_piece(data: bytes, stream_id: int, piece: Piece) -> bool:
    """Return whether a frame in a pack is the expected piece, and whole."""
    found = read_header(data)
    return (
        found is not None
        and found[0] == (PIECE, len(data) - HEADER_SIZE, stream_id, piece.start, piece.end, piece.appends)
        and is_whole(data, found[1], data[HEADER_SIZE:])
    )


def index_entries(ends: Sequence[int], checksums: Sequence[int]) -> bytes:
    """Encode the index entries of some appends."""
    return b"".join(map(_INDEX_ENTRY.pack, ends, checksums))


def read_index(data: bytes) -> list[tuple[int, int]]:
    """Read an index: where each append ends, and its checksum."""
    return [(end, checksum) for end, checksum in _INDEX_ENTRY.iter_unpack(data)]


class Index(Sequence[int]):
    """
    The index of a stream's own file: the end and checksum of each append. It is read on demand.

    :param read: reads some of the index file, by position and size.
    """

    def __init__(self, count: int, read: Callable[[int, int], bytes]) -> None:
        self._count = count
        self._read = read
        self._blocks: dict[int, bytes] = {}

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...

    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(self._count))]
        return self.entry(index)[0]

    def entry(self, index: int) -> tuple[int, int]:
        """
        Return where an append ends, and its checksum.

        :raises IndexError: there are not so many, or the file is too short.
        """
        if not 0 <= index < self._count:
            raise IndexError(index)
        number, offset = divmod(index, _INDEX_BLOCK)
        end, checksum = _INDEX_ENTRY.unpack_from(self._block(number), offset * INDEX_ENTRY_SIZE)
        return end, checksum

    def entries(self, index: int) -> Iterator[tuple[int, int]]:
        """
        Yield where each append ends, and its checksum, from the one with this number on.

        :raises IndexError: the file is too short.
        """
        while index < self._count:
            number, offset = divmod(index, _INDEX_BLOCK)
            block = self._block(number)
            yield from _INDEX_ENTRY.iter_unpack(memoryview(block)[offset * INDEX_ENTRY_SIZE :])
            index = (number + 1) * _INDEX_BLOCK

    def _block(self, number: int) -> bytes:
        block = self._blocks.get(number)
        if block is None:
            first = number * _INDEX_BLOCK
            size = min(_INDEX_BLOCK, self._count - first) * INDEX_ENTRY_SIZE
            block = self._read(first * INDEX_ENTRY_SIZE, size)
            if len(block) < size:
                raise IndexError(first)
            self._blocks[number] = block
        return block
