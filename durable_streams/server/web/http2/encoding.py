"""HPACK encoding (RFC 7541) of the heads of answers."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from .fields import FIELD_OVERHEAD, STATIC_FIELDS, STATIC_NAMES

#: How many bytes of headers are in the dynamic table, however large a table a client allows.
_TABLE_BYTES: Final = 4096

#: How many beginnings of heads are remembered as they are encoded, for one connection, and the largest size of one, in
#: bytes.
_BEGINNINGS: Final = 8
_BEGINNING_BYTES: Final = 2048

#: How many names of headers are remembered as they are encoded, for all connections.
_NAMES: Final = 512

#: The header lines from this one on differ from answer to answer: :class:`.answers.Answers` puts it behind those that
#: are the same for all answers of a kind.
_VARYING: Final = b"Stream-Next-Offset: "

#: Headers that are hardly ever the same twice. In the dynamic table they would cost both sides more than they save, and
#: push out the others.
_FLEETING: Final = frozenset(
    [
        b"content-length",
        b"content-range",
        b"etag",
        b"expires",
        b"last-modified",
        b"location",
        b"producer-epoch",
        b"producer-expected-seq",
        b"producer-received-seq",
        b"producer-seq",
        b"set-cookie",
        b"stream-cursor",
        b"stream-expected-offset",
        b"stream-expires-at",
        b"stream-next-offset",
        b"stream-ttl",
        b"www-authenticate",
    ]
)

_STATIC: Final = {(name, value): index for index, (name, value, _, _) in enumerate(STATIC_FIELDS, 1)}


def encode_integer(number: int, prefix: int, first: int) -> bytes:
    """
    Encode an integer (RFC 7541 section 5.1).

    :param prefix: the largest number that the bits of the first byte hold.
    :param first: the other bits of the first byte.
    """
    if number < prefix:
        return bytes((first | number,))
    encoded = bytearray((first | prefix,))
    number -= prefix
    while number >= 0x80:
        encoded.append(0x80 | (number & 0x7F))
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def encode_string(string: bytes) -> bytes:
    """Encode a string, without Huffman code: to compress a head of an answer takes longer than the answer."""
    size = len(string)
    return bytes((size,)) + string if size < 0x7F else encode_integer(size, 0x7F, 0) + string


def _encode_name(name: bytes, prefix: int, first: int) -> bytes:
    index = STATIC_NAMES.get(name)
    if index is not None:
        return encode_integer(index, prefix, first)
    return bytes((first,)) + encode_string(name)


def _encode_status(status: int) -> bytes:
    value = b"%d" % status
    index = _STATIC.get((b":status", value))
    return encode_integer(index, 0x7F, 0x80) if index else _encode_name(b":status", 0x0F, 0) + encode_string(value)


_STATUSES: Final = {status: _encode_status(status) for status in range(100, 600)}

_LENGTH: Final = _encode_name(b"content-length", 0x0F, 0)
_OFFSET: Final = _encode_name(b"stream-next-offset", 0x0F, 0)

#: Never to be indexed.
_REQUEST_ID: Final = _encode_name(b"x-request-id", 0x0F, 0x10)

#: Name of a header, as in a header line -> the encoded beginning of a field that is not added to the dynamic table;
#: whether the header is added to it, where it belongs to the answers of a kind; and the name in lower case.
_names: dict[bytes, tuple[bytes, bool, bytes]] = {}


def _learn_name(name: bytes) -> tuple[bytes, bool, bytes]:
    lower = name.lower()
    learnt = _encode_name(lower, 0x0F, 0), lower not in _FLEETING, lower
    if len(_names) >= _NAMES:
        _names.clear()
    _names[name] = learnt
    return learnt


@lru_cache(maxsize=2)
def _encode_date(line: bytes) -> bytes:
    return _encode_name(b"date", 0x0F, 0) + encode_string(line[len(b"Date: ") : -2]) if line else b""


class HeadEncoder:
    """
    The encoding side of a connection's HPACK context.

    Header lines that are the same for many answers are added to the dynamic table. While no further one is added, they
    encode to the same bytes, which are remembered.
    """

    __slots__ = ("_added", "_beginnings", "_indices", "_smallest", "table_bytes", "used_bytes")

    def __init__(self) -> None:
        #: The size of the dynamic table, and how much of it is used, in bytes.
        self.table_bytes = _TABLE_BYTES
        self.used_bytes = 0
        # The smallest size since the last head, if it was changed.
        self._smallest: int | None = None
        # Field in the dynamic table -> which one it was of all that were added; in that order.
        self._indices: dict[tuple[bytes, bytes], int] = {}
        self._added = 0
        self._beginnings: dict[bytes, bytes] = {}

    @property
    def fields(self) -> list[tuple[bytes, bytes]]:
        """The fields in the dynamic table, oldest first."""
        return list(self._indices)

    def resize(self, size: int) -> None:
        """Take note of the size of the table that the client allows."""
        size = min(size, _TABLE_BYTES)
        if size == self.table_bytes:
            return
        # Of all sizes since the last head the client must be told the smallest and the last (RFC 7541 section 4.2).
        self._smallest = size if self._smallest is None else min(size, self._smallest)
        self.table_bytes = size
        self._evict(size)

    def encode(self, status: int, head: bytes, date_line: bytes, request_id: bytes, length: int | None) -> bytes:
        """
        Encode the head of an answer.

        :param head: header lines, each ended with CRLF.
        :param date_line: the line of Date.
        :param length: that of the body, if it is stated.
        """
        beginning, varies, rest = head.partition(_VARYING)
        encoded = self._beginnings.get(beginning)
        if encoded is None:
            encoded = self._encode_beginning(beginning)
        # The size of the table, if it changed, comes first.
        parts = [
            _STATUSES.get(status) or _encode_status(status),
            encoded,
            _encode_date(date_line),
            _REQUEST_ID,
            encode_string(request_id),
        ]
        if self._smallest is not None:
            parts.insert(0, self._encode_sizes(self._smallest))
        if varies:
            value, _, rest = rest.partition(b"\r\n")
            parts += _OFFSET, encode_string(value)
            if rest:
                parts.append(self._encode_lines(rest))
        if length is not None:
            parts += _LENGTH, encode_string(b"%d" % length)
        return b"".join(parts)

    def encode_interim(self, status: int) -> bytes:
        """Encode the head of an interim answer, without headers."""
        sizes = b"" if self._smallest is None else self._encode_sizes(self._smallest)
        return sizes + _encode_status(status)

    def _encode_beginning(self, lines: bytes) -> bytes:
        """Encode header lines that many answers begin with, and add them to the dynamic table."""
        added = self._added
        parts: list[bytes] = []
        for line in lines.split(b"\r\n")[:-1]:
            name, _, value = line.partition(b": ")
            start, is_lasting, lower = _names.get(name) or _learn_name(name)
            if not is_lasting:
                parts += start, encode_string(value)
                continue
            index = _STATIC.get((lower, value)) or self._find((lower, value))
            if index:
                parts.append(encode_integer(index, 0x7F, 0x80))
            elif self._add(lower, value):
                parts += _encode_name(lower, 0x3F, 0x40), encode_string(value)
            else:
                parts += start, encode_string(value)
        encoded = b"".join(parts)
        if self._added == added:
            if len(self._beginnings) >= _BEGINNINGS:
                self._beginnings.clear()
            if len(lines) <= _BEGINNING_BYTES:
                self._beginnings[lines] = encoded
        return encoded

    @staticmethod
    def _encode_lines(lines: bytes) -> bytes:
        """Encode header lines of one answer."""
        parts: list[bytes] = []
        for line in lines.split(b"\r\n")[:-1]:
            name, _, value = line.partition(b": ")
            parts += (_names.get(name) or _learn_name(name))[0], encode_string(value)
        return b"".join(parts)

    def _find(self, field: tuple[bytes, bytes]) -> int:
        """Return the index of a field in the dynamic table, or 0."""
        place = self._indices.get(field)
        return 0 if place is None else len(STATIC_FIELDS) + self._added - place

    def _add(self, name: bytes, value: bytes) -> bool:
        """Add a field to the dynamic table, unless it is too large for it."""
        size = len(name) + len(value) + FIELD_OVERHEAD
        if size > self.table_bytes:
            return False
        self._evict(self.table_bytes - size)
        self._indices[name, value] = self._added
        self._added += 1
        self.used_bytes += size
        self._beginnings.clear()
        return True

    def _evict(self, size: int) -> None:
        """Drop the oldest fields until the rest is not larger than ``size``."""
        indices = self._indices
        while self.used_bytes > size:
            name, value = next(iter(indices))
            del indices[name, value]
            self.used_bytes -= len(name) + len(value) + FIELD_OVERHEAD
            self._beginnings.clear()

    def _encode_sizes(self, smallest: int) -> bytes:
        self._smallest = None
        sizes = encode_integer(self.table_bytes, 0x1F, 0x20)
        return sizes if smallest == self.table_bytes else encode_integer(smallest, 0x1F, 0x20) + sizes
