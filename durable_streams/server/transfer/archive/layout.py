"""The layout of an archive: the names and the limits of its parts, tar headers, and the trailer."""

from __future__ import annotations

import re
import struct
import tarfile
from typing import Final

from msgspec import Struct

from ...protocol.names import RESERVED_PREFIX

#: The version of the format. A reader refuses every other one.
FORMAT_VERSION: Final = 1

#: The value of ``format`` in the first part.
FORMAT: Final = "durable-streams-archive"

#: The maximum size of a part, in bytes.
PART_BYTES: Final = 1_048_576

#: The maximum number of appends whose sizes are in one part.
PART_APPENDS: Final = 65_536

#: The maximum number of parts that one index lists.
INDEX_PARTS: Final = 1_000

#: A frame of zstd ends after this many bytes of parts, so that damage to one frame leaves the others readable.
FRAME_BYTES: Final = 16_777_216

#: The largest window of a frame that a reader allocates, in bytes. Levels of zstd up to 19 use at most this.
MAX_WINDOW: Final = 8_388_608

#: The size of a block of a tar file, in bytes.
BLOCK: Final = 512

#: The end of a tar file: two blocks of zeros.
END_OF_TAR: Final = bytes(2 * BLOCK)

#: The names of the first and of the last part.
HEADER_NAME: Final = "archive.json"
MANIFEST_NAME: Final = "manifest.json"

#: The beginning of reserved names. A stream that is only kept for its forks may have such a name after a restore.
STAGING_PREFIX: Final = f"{RESERVED_PREFIX}restore/"
_STAGED: Final = re.compile(rf"{STAGING_PREFIX}[0-9]+/")

#: The first bytes of a frame of zstd.
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"

#: A skippable frame of zstd, which other programs ignore: magic, size, signature, the number of bytes before it, the
#: number of bytes that these unpack to, and the SHA-256 of all bytes of the file before the digest itself.
_TRAILER: Final = struct.Struct("<II8sQQ")
_TRAILER_MAGIC: Final = 0x184D2A5D
_SIGNATURE: Final = b"DSARCHV1"
_DIGEST_BYTES: Final = 32

#: The size of the trailer, in bytes.
TRAILER_BYTES: Final = _TRAILER.size + _DIGEST_BYTES


class Trailer(Struct, frozen=True, gc=False):
    """
    The end of an archive.

    :ivar packed_bytes: the number of bytes before the trailer.
    :ivar unpacked_bytes: the size of the tar file.
    :ivar digest: the SHA-256 of all bytes before it.
    """

    packed_bytes: int
    unpacked_bytes: int
    digest: bytes


def trailer_start(packed_bytes: int, unpacked_bytes: int) -> bytes:
    """Return the bytes of the trailer before its digest."""
    size = TRAILER_BYTES - 8
    return _TRAILER.pack(_TRAILER_MAGIC, size, _SIGNATURE, packed_bytes, unpacked_bytes)


def parse_trailer(data: bytes) -> Trailer | None:
    """Parse the last bytes of a file; return None if they are no trailer."""
    if len(data) != TRAILER_BYTES:
        return None
    magic, size, signature, packed, unpacked = _TRAILER.unpack_from(data)
    if (magic, size, signature) != (_TRAILER_MAGIC, TRAILER_BYTES - 8, _SIGNATURE):
        return None
    return Trailer(packed, unpacked, data[_TRAILER.size :])


def bare_name(name: str) -> str:
    """Return the name for which a stream was staged; of a stream that is not staged, its own."""
    return _STAGED.sub("", name, count=1) if _STAGED.match(name) else name


def stream_folder(number: int) -> str:
    """Return the folder of a stream's parts."""
    return f"streams/{number:08d}"


def index_name(number: int) -> str:
    """Return the name of an index."""
    return f"index/{number:06d}"


class TarHeaders:
    """
    The headers of an archive's parts: regular files with mode 0600 that belong to root.

    They differ in name and size only. So a reader renders the header for the name and size that it has read, and
    refuses the archive if that is not what the archive has: links, devices, extensions and wrong checksums included.

    :param modified_at: the modification time of all parts, in whole seconds since 1970.
    """

    def __init__(self, modified_at: int) -> None:
        info = tarfile.TarInfo()
        info.mode = 0o600
        info.mtime = modified_at
        template = bytearray(info.tobuf(tarfile.USTAR_FORMAT, "ascii", "strict"))
        # The checksum is computed over itself as spaces. tarfile takes 40 us for a header, this 4 us.
        template[148:156] = b" " * 8
        self._template = template

    def render(self, name: str, size: int) -> bytes:
        """Return the header of a part."""
        block = bytearray(self._template)
        block[0 : len(name)] = name.encode("ascii")
        block[124:136] = b"%011o\0" % size
        block[148:156] = b"%06o\0 " % sum(block)
        return bytes(block)


def parse_header(block: bytes) -> tuple[str, int, int] | None:
    """Return the name, the size and the modification time in a tar header; None if they are malformed."""
    try:
        name = block[:100].rstrip(b"\0").decode("ascii")
        size, modified_at = (int(field[:-1], 8) for field in (block[124:136], block[136:148]))
    except ValueError:
        return None
    return name, size, modified_at


def padding(size: int) -> bytes:
    """Return the zeros between a part of this size and the next header."""
    return bytes(-size % BLOCK)
