"""The header cache of HTTP/1.1: headers that were parsed before are not parsed again."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

from ..admission import Admission
from ..callers import Client

#: Headers that say how the request itself is framed.
_FRAMING_HEADERS: Final = frozenset([b"content-length", b"transfer-encoding", b"expect", b"upgrade"])

#: The largest number of blocks in the cache, and the largest size of one, in bytes.
_BLOCKS: Final = 2048
_BLOCK_BYTES: Final = 2048

#: The largest number of spellings in the cache, and the largest size of one, in bytes.
_SPELLINGS: Final = 512
_SPELLING_BYTES: Final = 64

#: A request line for a stream, of characters that every parser reads alike.
_LINE: Final = (
    rb"(GET|HEAD|POST|PUT|DELETE) %b([A-Za-z0-9._~!$&'()*+,;=:@%%/-]*)"
    rb"(?:\?([A-Za-z0-9._~!$&'()*+,;=:@%%/?-]*))? HTTP/1\.1(?=\r\n)"
)


class KnownHead(Struct, frozen=True, gc=False):
    """
    The parsed form of a block of headers.

    :ivar headers: those that are read, by their names in lower case.
    :ivar length: the size of the body that follows, in bytes.
    :ivar client: the client that a trusted proxy names in them.
    """

    headers: dict[bytes, bytes]
    length: int
    client: Client | None


class HeadCache:
    """
    Cache of parsed headers, shared by the connections of a listener that have one :class:`.Admission`.

    :ivar spellings: the names of headers as they were sent -> the name that is read, or nothing for one that is not.
    :ivar line: matches the request line of a request for a stream.
    :ivar blocks: all header lines of a request as they were sent, from the end of the request line on. Clients send the
        same block again and again, and llhttp parses it to the same headers; the cache saves a third of the time of a
        request.
    """

    __slots__ = ("admission", "blocks", "line", "spellings")

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.spellings: dict[bytes, bytes] = {}
        self.blocks: dict[bytes, KnownHead] = {}
        # Below the root itself there are paths that are no streams'.
        self.line = re.compile(_LINE % re.escape(admission.base) if admission.base != b"/" else b"(?!)")

    def learn(self, name: bytes) -> bytes | None:
        """
        Look up a header that :attr:`spellings` does not have, and add it.

        :returns: its name in lower case; empty for one that is not read, None for one that is dropped.
        """
        lower = name.lower()
        reading = self.admission.reading
        if lower in reading.dropped:
            return None
        key = lower if lower in reading.read or lower in _FRAMING_HEADERS else b""
        if len(self.spellings) < _SPELLINGS and len(name) < _SPELLING_BYTES:
            self.spellings[name] = key
        return key

    def remember(self, block: bytes, headers: dict[bytes, bytes], length: int, client: Client | None = None) -> None:
        """Add a block of headers."""
        if len(block) <= _BLOCK_BYTES:
            if len(self.blocks) >= _BLOCKS:
                self.blocks.clear()
            self.blocks[block] = KnownHead(headers, length, client)
