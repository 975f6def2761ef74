"""Bytes to parts: decompression, the tar file, and the comparison of all digests."""

from __future__ import annotations

import io
from collections.abc import Iterator
from hashlib import sha256
from typing import Any, Final, Protocol

import msgspec
import zstandard
from msgspec import Struct

from .errors import ArchiveInvalid, ArchiveTooLarge
from .layout import (
    BLOCK,
    END_OF_TAR,
    HEADER_NAME,
    MANIFEST_NAME,
    MAX_WINDOW,
    PART_BYTES,
    TRAILER_BYTES,
    ZSTD_MAGIC,
    TarHeaders,
    padding,
    parse_header,
    parse_trailer,
    trailer_start,
)
from .packing import Index, Manifest

#: How much of the file is read at a time.
_READ_BYTES: Final = 131_072

_LAST_TIME: Final = 8**11 - 1


class Readable(Protocol):
    """A file that is open for reading bytes; :class:`io.RawIOBase` and others."""

    def read(self, size: int, /) -> bytes | None:
        """Return at most ``size`` bytes, and none only at the end."""


class Part(Struct, frozen=True, gc=False):
    """A part of an archive, whose position and size are right. Its digest is compared when the next index is read."""

    name: str
    data: bytes


class PackedSource(io.RawIOBase):
    """
    The file without its trailer, for the decompressor. It computes the file's digest.

    :ivar position: the number of bytes that were read.
    """

    def __init__(self, source: Readable) -> None:
        super().__init__()
        self._source = source
        self._ahead = bytearray()
        self._ended = False
        self._digest = sha256()
        self.position = 0

    def begins_as_archive(self) -> bool:
        """Return whether the file begins as data that zstd has compressed."""
        self._fill(len(ZSTD_MAGIC))
        return self._ahead.startswith(ZSTD_MAGIC)

    def _fill(self, size: int) -> None:
        while not self._ended and len(self._ahead) < size + TRAILER_BYTES:
            data = self._source.read(_READ_BYTES)
            self._ended = not data
            self._ahead += data or b""

    def read(self, size: int = -1) -> bytes:
        """Return at most ``size`` bytes before the trailer; none at its beginning."""
        size = _READ_BYTES if size < 0 else size
        self._fill(size)
        available = max(0, len(self._ahead) - TRAILER_BYTES)
        data = bytes(self._ahead[: min(size, available)])
        del self._ahead[: len(data)]
        self._digest.update(data)
        self.position += len(data)
        return data

    def check_trailer(self, unpacked_bytes: int) -> None:
        """
        Compare the trailer with what was read.

        :raises ArchiveInvalid: it differs.
        """
        if self.read(1):
            raise ArchiveInvalid("The archive has bytes between its last part and its trailer. Copy it again.")
        trailer = parse_trailer(bytes(self._ahead))
        if trailer is None:
            raise ArchiveInvalid(CUT_OFF)
        start = trailer_start(self.position, unpacked_bytes)
        self._digest.update(start)
        if not self._ahead.startswith(start) or trailer.digest != self._digest.digest():
            raise ArchiveInvalid(
                "The archive's SHA-256 is not that of its trailer: it was changed or damaged. Use another copy."
            )


CUT_OFF: Final = (
    "The archive does not end with its trailer: it was cut off while it was written or copied. Copy it again, or make "
    "a new backup."
)

NOT_AN_ARCHIVE: Final = "The file is not an archive of streams: it does not begin as one (.tar.zst). Check its name."


class PartReader:
    """
    Reader of parts. It keeps one part at a time.

    :param source: the archive, from its beginning.
    :param max_bytes: the maximum size of the unpacked archive; None for no limit.
    :ivar manifest: the last part, after all others were read.
    :ivar modified_at: the time in each part's header, in whole seconds since 1970.
    """

    manifest: Manifest
    modified_at = 0

    def __init__(self, source: Readable, max_bytes: int | None = None) -> None:
        self._packed = PackedSource(source)
        self._max_bytes = max_bytes
        self._unpacked_bytes = 0
        self._index = Index()
        self._headers: TarHeaders | None = None

    @property
    def position(self) -> int:
        """How many bytes of the file were read."""
        return self._packed.position

    def parts(self) -> Iterator[Part]:
        """
        Yield the parts, but for indexes and the manifest. The archive is verified only after the last one.

        :raises ArchiveInvalid: the archive is damaged, incomplete or not an archive.
        """
        if not self._packed.begins_as_archive():
            raise ArchiveInvalid(NOT_AN_ARCHIVE)
        try:
            yield from self._read_parts()
        except zstandard.ZstdError as error:
            raise ArchiveInvalid(
                f"The archive is damaged before byte {self.position}: {error}. Use another copy."
            ) from None

    def _read_parts(self) -> Iterator[Part]:
        unpacker = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
        # The type annotations of the library do not have all file objects that it takes.
        source: Any = self._packed
        with unpacker.stream_reader(source, read_size=_READ_BYTES, read_across_frames=True, closefd=False) as tar:
            while True:
                part = self._next(tar)
                if self._index.is_full or self._is_index(part):
                    self._check_index(part)
                elif part.name == MANIFEST_NAME:
                    break
                else:
                    yield part
                    self._index.add(part.name, part.data)
            self._check_end(tar, part)

    def _is_index(self, part: Part) -> bool:
        return part.name.startswith("index/")

    def _next(self, tar: zstandard.ZstdDecompressionReader) -> Part:
        block = self._read(tar, BLOCK)
        header = parse_header(block)
        if header is None:
            raise self._malformed("has a malformed header")
        name, size, modified_at = header
        if self._headers is None:
            if name != HEADER_NAME or not 0 <= modified_at <= _LAST_TIME:
                raise ArchiveInvalid(NOT_AN_ARCHIVE)
            self.modified_at = modified_at
            self._headers = TarHeaders(modified_at)
        if not 0 <= size <= PART_BYTES:
            raise self._malformed(f"has a size of {size} bytes; at most {PART_BYTES} are allowed")
        if self._headers.render(name, size) != block:
            raise self._malformed("is not a plain file as this server writes it")
        data = self._read(tar, size)
        if self._read(tar, -size % BLOCK) != padding(size):
            raise self._malformed("is not padded with zeros")
        return Part(name, data)

    def _read(self, tar: zstandard.ZstdDecompressionReader, size: int) -> bytes:
        self._unpacked_bytes += size
        if self._max_bytes is not None and self._unpacked_bytes > self._max_bytes:
            raise ArchiveTooLarge(
                f"The archive unpacks to more than {self._max_bytes} bytes, which is the limit. Raise the limit if the "
                "archive is expected to be so large."
            )
        data = tar.read(size) if size else b""
        if len(data) < size:
            raise ArchiveInvalid(CUT_OFF)
        return data

    def _malformed(self, fault: str) -> ArchiveInvalid:
        return ArchiveInvalid(
            f"The archive is damaged or was not written by this server: the part before byte {self.position} of the "
            f"file {fault}. Use another copy."
        )

    def _check_index(self, part: Part) -> None:
        """Compare an index with the digests of the parts before it."""
        if part != Part(*self._index.cut()):
            raise self._malformed("differs from its digest, or is not in its place")

    def _check_end(self, tar: zstandard.ZstdDecompressionReader, part: Part) -> None:
        try:
            self.manifest = msgspec.json.decode(part.data, type=Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise self._malformed("is not the manifest") from None
        if not self._index.is_complete or part.data != self._index.manifest(self.manifest.totals):
            raise self._malformed("is not the manifest of the parts before it")
        if self._read(tar, len(END_OF_TAR)) != END_OF_TAR or tar.read(1):
            raise self._malformed("does not end as an archive does")
        self._packed.check_trailer(self._unpacked_bytes)
