"""The header cache of HTTP/1.1: headers that were parsed before are not parsed again."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

from ..admission import Admission
from ..callers import Client

#: Headers that say how the request itself is framed.
_FRAMING_HEADERS: Final = frozenset([b"content-length", b"transfer-encoding", b"expect", b"upgrade"])

#: Headers whose values differ from request to request. They are cut out of a block before it is looked up.
_VARYING: Final = (
    *(b"Content-Length", b"Producer-Seq", b"Stream-Seq", b"Stream-Expected-Offset", b"If-None-Match"),
    *(b"Traceparent", b"Tracestate", b"X-Request-Id", b"X-Amzn-Trace-Id", b"Cf-Ray"),
)

#: A value that is cut out: visible characters, which every parser reads alike, without white space around them.
_VALUE: Final = re.compile(rb"[!-~]{1,256}")

#: The number of digits of a Content-Length that is cut out.
_DIGITS: Final = 15

#: The largest number of blocks in each half of the cache, and the largest size of one, in bytes.
_BLOCKS: Final = 1024
_BLOCK_BYTES: Final = 2048

#: The largest number of blocks of which it is known that they came once.
_CANDIDATES: Final = 4096

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

    :ivar pieces: the bytes before each value that varies, with the name of the header that is read.
    :ivar rest: the bytes after the last of these values.
    :ivar headers: those that are read, by their names in lower case.
    :ivar length: the size of the body that follows, in bytes.
    :ivar client: the client that a trusted proxy names in them.
    """

    pieces: tuple[tuple[bytes, bytes], ...]
    rest: bytes
    headers: dict[bytes, bytes]
    length: int
    client: Client | None

    def read(self, data: bytes, at: int) -> tuple[dict[bytes, bytes], int, int] | None:
        """
        Return the headers of a request whose block equals this one apart from the varying values, else None.

        :param at: where the block begins, in bytes.
        :returns: the headers, and where the body begins and ends; None if it is another block.
        """
        headers = self.headers
        length = self.length
        for piece, key in self.pieces:
            if not data.startswith(piece, at):
                return None
            at += len(piece)
            end = data.find(b"\r\n", at)
            value = data[at:end]
            at = end
            known = headers.get(key)
            if value == known:
                continue
            if key == b"content-length":
                if not value.isdigit() or len(value) > _DIGITS:
                    return None
                length = int(value)
            elif not value.isdigit() and _VALUE.fullmatch(value) is None:
                return None
            if known is None:
                # A header that is not read.
                continue
            if headers is self.headers:
                headers = headers.copy()
            headers[key] = value
        if not data.startswith(self.rest, at):
            return None
        at += len(self.rest)
        return headers, at, at + length


class HeadCache:
    """
    Cache of parsed headers, shared by the connections of a listener that have one :class:`.Admission`.

    Clients send the same header lines again and again, but for the values of a few; llhttp parses them to the same
    headers. The cache maps a block of header lines, without the values that vary, to the parsed headers, and saves
    half of the time that a request takes. It keeps blocks that come again: one is added when it comes for the second
    time, and when a half of the cache is full, the half that was filled before it is dropped, without the blocks that
    were found in it.

    :ivar spellings: the names of headers as they were sent -> the name that is read, or nothing for one that is not.
    :ivar line: matches the request line of a request for a stream.
    """

    __slots__ = ("_candidates", "_newer", "_older", "_uncut", "_varying", "admission", "line", "spellings")

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.spellings: dict[bytes, bytes] = {}
        # Below the root itself there are paths that are no streams'.
        self.line = re.compile(_LINE % re.escape(admission.base) if admission.base != b"/" else b"(?!)")
        self._newer: dict[bytes, KnownHead] = {}
        self._older: dict[bytes, KnownHead] = {}
        # Hashes of blocks that came once.
        self._candidates: set[int] = set()
        # The beginnings of lines whose values are cut out, with their sizes and the names that are read. Clients write
        # names as in the documentation, or in lower case; those that have come so far are searched for.
        self._varying: tuple[tuple[bytes, int, bytes], ...] = ()
        self._uncut = [
            (b"\r\n%b: " % name, len(name) + 4, name.lower())
            for spelled in _VARYING
            for name in (spelled, spelled.lower())
        ]

    def __len__(self) -> int:
        """Return the number of blocks in the cache."""
        return len(self._newer) + len(self._older)

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

    def find(self, block: bytes) -> KnownHead | None:
        """
        Look up a block of headers.

        :param block: all header lines of a request as they were sent, from the end of the request line on.
        :returns: the cached block that equals it apart from the values that vary; None if there is none.
        """
        template = self._template(block)
        known = self._newer.get(template)
        if known is None:
            known = self._older.pop(template, None)
            if known is not None:
                self._add(template, known)
        return known

    def remember(self, block: bytes, headers: dict[bytes, bytes], length: int, client: Client | None = None) -> None:
        """
        Add a block of headers, if it has come before.

        :param headers: as the parser read them.
        """
        if len(block) > _BLOCK_BYTES:
            return
        for line in [line for line in self._uncut if line[0] in block]:
            self._uncut.remove(line)
            self._varying = (*self._varying, line)
        cuts: list[tuple[int, int, bytes]] = []
        for start, size, key in self._varying:
            at = block.find(start) + size
            if at < size:
                continue
            end = block.find(b"\r\n", at)
            value = block[at:end]
            if not _VALUE.fullmatch(value) or headers.get(key, value) != value:
                # Sent twice, folded, or with white space behind it.
                return
            cuts.append((at, end, key))
        template = self._template(block)
        fingerprint = hash(template)
        if fingerprint in self._candidates:
            cuts.sort()
            begins = [0, *(end for _, end, _ in cuts)]
            pieces = tuple((block[begin:at], key) for begin, (at, _, key) in zip(begins, cuts, strict=False))
            self._add(template, KnownHead(pieces, block[begins[-1] :], headers, length, client))
            return
        if len(self._candidates) >= _CANDIDATES:
            self._candidates.clear()
        self._candidates.add(fingerprint)

    def _template(self, block: bytes) -> bytes:
        """Return a block without the values that vary."""
        for start, size, _ in self._varying:
            at = block.find(start) + size
            if at >= size:
                block = block[:at] + block[block.find(b"\r\n", at) :]
        return block

    def _add(self, template: bytes, known: KnownHead) -> None:
        if len(self._newer) >= _BLOCKS:
            self._older = self._newer
            self._newer = {}
        self._newer[template] = known
