"""HPACK decoding (RFC 7541) of the heads of requests, within limits."""

from __future__ import annotations

from typing import Final

from hpack import HPACKDecodingError
from hpack.huffman_table import decode_huffman

from .errors import ErrorCode, Http2Error
from .fields import FIELD_OVERHEAD, STATIC_FIELDS, Field, make_field

#: The size of the dynamic table that a client may use, in bytes; the default of SETTINGS_HEADER_TABLE_SIZE.
TABLE_BYTES: Final = 4096

#: The index of the newest field of the dynamic table.
_DYNAMIC: Final = len(STATIC_FIELDS) + 1

#: The largest number of strings and of fields that are remembered for all connections, and their largest size.
_REMEMBERED: Final = 4096
_REMEMBERED_BYTES: Final = 256

#: The largest integer that is read. Every length and index is smaller.
_MAX_INTEGER: Final = 2**24

#: The largest number of strings of fields that must never be indexed that are remembered for a connection.
_SECRETS: Final = 4

#: Huffman code -> string. To decode a byte takes about 0.2 us. Strings of fields that must never be indexed, which are
#: secrets as a rule, are remembered for their own connection only: the time that it takes to decode a string must not
#: tell other clients whether it was sent before.
_strings: dict[bytes, bytes] = {}

#: Name and value -> field.
_fields: dict[tuple[bytes, bytes], Field] = {}


def _corrupt(message: str) -> Http2Error:
    return Http2Error(ErrorCode.COMPRESSION_ERROR, message)


class HeadDecoder:
    """
    The decoding side of a connection's HPACK context.

    :ivar max_list_bytes: the largest size of a head as RFC 9113 section 6.5.2 counts it. One that is larger ends the
        connection.
    :ivar changes: how often the dynamic table was changed. While it stays the same, equal blocks decode to equal heads.
    """

    __slots__ = ("_max_table_bytes", "_secrets", "_table", "_table_bytes", "changes", "max_list_bytes")

    def __init__(self, max_list_bytes: int) -> None:
        self.max_list_bytes = max_list_bytes
        self.changes = 0
        # Both tables: an index of HPACK is an index of this list. The first item is no field.
        self._table: list[Field] = [STATIC_FIELDS[0], *STATIC_FIELDS]
        self._table_bytes = 0
        self._max_table_bytes = TABLE_BYTES
        self._secrets: dict[bytes, bytes] = {}

    def decode(self, block: bytes) -> list[Field]:  # noqa: C901, PLR0912, PLR0915 (a call for each field costs too much)
        """
        Decode a block of fields.

        :raises Http2Error: it is no HPACK, after which the context is of no use, or larger than
            :attr:`max_list_bytes`.
        """
        fields: list[Field] = []
        table = self._table
        left = self.max_list_bytes
        place = 0
        end = len(block)
        try:
            while place < end:
                byte = block[place]
                place += 1
                if byte >= 0x80:
                    # An indexed field
                    index = byte & 0x7F
                    if index == 0x7F:
                        index, place = _read_integer(block, place, 0x7F)
                    elif not index:
                        raise _corrupt("There is no field with the index 0.")
                    field = table[index]
                elif byte & 0xE0 == 0x20:
                    if fields:
                        raise _corrupt("The size of the dynamic table changes after a field.")
                    size = byte & 0x1F
                    if size == 0x1F:
                        size, place = _read_integer(block, place, 0x1F)
                    self._resize(size)
                    continue
                else:
                    # A literal; of those that are not added to the dynamic table, some must never be
                    prefix = 0x3F if byte & 0x40 else 0x0F
                    index = byte & prefix
                    if index == prefix:
                        index, place = _read_integer(block, place, prefix)
                    secret = byte & 0xF0 == 0x10
                    if index:
                        name = table[index][0]
                    else:
                        name, place = _read_string(block, place)
                    # The value, as _read_string does it; the call takes a fifth of the time of a field
                    byte_of_value = block[place]
                    place += 1
                    size = byte_of_value & 0x7F
                    if size == 0x7F:
                        size, place = _read_integer(block, place, 0x7F)
                    value = block[place : place + size]
                    place += size
                    if place > end:
                        raise _corrupt("A string is truncated.")
                    if byte_of_value & 0x80:
                        value = self._decode_secret(value) if secret else _strings.get(value) or _decode_string(value)
                    field = _fields.get((name, value)) or _make_field(name, value, secret)
                    if byte & 0x40:
                        self._insert(field)
                left -= field[3]
                if left < 0:
                    raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, f"A head is larger than {self.max_list_bytes} bytes.")
                fields.append(field)
        except IndexError:
            raise _corrupt("A block is truncated, or has an index without a field.") from None
        return fields

    def _decode_secret(self, code: bytes) -> bytes:
        secrets = self._secrets
        string = secrets.get(code)
        if string is None:
            string = _decode(code)
            if len(secrets) >= _SECRETS:
                secrets.clear()
            if len(code) <= _REMEMBERED_BYTES:
                secrets[code] = string
        return string

    def _insert(self, field: Field) -> None:
        self.changes += 1
        size = field[3]
        self._evict(self._max_table_bytes - size)
        # A field that is larger than the table empties it (RFC 7541 section 4.4).
        if size <= self._max_table_bytes:
            self._table.insert(_DYNAMIC, field)
            self._table_bytes += size

    def _resize(self, size: int) -> None:
        if size > TABLE_BYTES:
            raise _corrupt(f"The dynamic table must not be larger than {TABLE_BYTES} bytes.")
        self.changes += 1
        self._max_table_bytes = size
        self._evict(size)

    def _evict(self, size: int) -> None:
        """Drop the oldest fields until the rest is not larger than ``size``."""
        table = self._table
        used = self._table_bytes
        while used > size and used:
            used -= table.pop()[3]
        self._table_bytes = used


def _read_integer(block: bytes, place: int, prefix: int) -> tuple[int, int]:
    """Read the rest of an integer whose prefix is all ones (RFC 7541 section 5.1)."""
    number = prefix
    shift = 0
    while True:
        byte = block[place]
        place += 1
        number += (byte & 0x7F) << shift
        if number > _MAX_INTEGER or shift > 21:
            raise _corrupt("An integer is too large.")
        if byte < 0x80:
            return number, place
        shift += 7


def _read_string(block: bytes, place: int) -> tuple[bytes, int]:
    byte = block[place]
    place += 1
    size = byte & 0x7F
    if size == 0x7F:
        size, place = _read_integer(block, place, 0x7F)
    string = block[place : place + size]
    if len(string) != size:
        raise _corrupt("A string is truncated.")
    if byte & 0x80:
        string = _strings.get(string) or _decode_string(string)
    return string, place + size


def _decode(code: bytes) -> bytes:
    try:
        return decode_huffman(code)
    except HPACKDecodingError as error:
        raise _corrupt("A string is not valid Huffman code.") from error


def _decode_string(code: bytes) -> bytes:
    string = _decode(code)
    if len(code) <= _REMEMBERED_BYTES:
        if len(_strings) >= _REMEMBERED:
            _strings.clear()
        _strings[code] = string
    return string


def _make_field(name: bytes, value: bytes, secret: bool) -> Field:
    field = make_field(name, value)
    if not secret and field[3] <= _REMEMBERED_BYTES + FIELD_OVERHEAD:
        if len(_fields) >= _REMEMBERED:
            _fields.clear()
        _fields[name, value] = field
    return field
