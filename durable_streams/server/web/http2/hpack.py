"""What HTTP/2 remembers of heads to write the next ones shorter (RFC 7541)."""

from __future__ import annotations

from typing import Final

from hpack import Encoder, NeverIndexedHeaderTuple

#: How many bytes of headers are remembered for a client's next answers, whatever it would remember: each header of an
#: answer is looked for among all of them.
_REMEMBERED: Final = 4096

#: Headers that are hardly ever the same twice. To remember them for the next answer would cost both sides more than it
#: saves, and make them forget the others.
_FLEETING: Final = frozenset(
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
    """Make a header of an answer, that is remembered or not."""
    return NeverIndexedHeaderTuple(name, value) if name in _FLEETING else (name, value)


class HeadEncoder(Encoder):
    """
    Writes heads, and remembers no more of them than is of use.

    hpack, told the same size twice, would forget to tell the client of it.
    """

    @property
    def header_table_size(self) -> int:
        """How many bytes of headers are remembered."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        value = min(value, _REMEMBERED)
        if value == self.header_table.maxsize:
            return
        self.header_table.maxsize = value
        # Of all the sizes since the last head the client must be told the smallest and the last (RFC 7541 section 4.2).
        self.table_size_changes = [min([value, *self.table_size_changes]), value]
