"""Header compression of HTTP/2 (RFC 7541): which headers are indexed, and the size of the table."""

from __future__ import annotations

from typing import Final

from hpack import Encoder, NeverIndexedHeaderTuple

#: The maximum size of the dynamic table, in bytes, even if the client allows more: the encoder searches all of it for
#: each header.
_TABLE_BYTES: Final = 4096

#: Headers whose values rarely repeat. To index them costs both sides more than it saves, and evicts other headers.
_NOT_INDEXED: Final = frozenset(
    [
        b"content-length",
        b"date",
        b"etag",
        b"location",
        b"producer-epoch",
        b"producer-expected-seq",
        b"producer-received-seq",
        b"producer-seq",
        b"stream-cursor",
        b"stream-expires-at",
        b"stream-next-offset",
        b"stream-ttl",
        b"x-request-id",
    ]
)


def field(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Return a header of an answer, marked as never indexed if its value rarely repeats."""
    return NeverIndexedHeaderTuple(name, value) if name in _NOT_INDEXED else (name, value)


class HeadEncoder(Encoder):
    """
    Encoder with a bounded dynamic table.

    When hpack sets the same size twice, it does not send the size to the client; this does.
    """

    @property
    def header_table_size(self) -> int:
        """The size of the dynamic table, in bytes."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        value = min(value, _TABLE_BYTES)
        if value == self.header_table.maxsize:
            return
        self.header_table.maxsize = value
        # Of all the sizes since the last head the client must be told the smallest and the last (RFC 7541 section 4.2).
        self.table_size_changes = [min([value, *self.table_size_changes]), value]
