"""Parsing of Server-Sent Events (HTML Living Standard, section 9.2), bounded in memory."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from msgspec import Struct

from .errors import InvalidAnswer

_BOM: Final = b"\xef\xbb\xbf"
_LINE_END: Final = re.compile(b"\r\n|\n|\r")


class Event(Struct, frozen=True):
    """
    One event.

    :ivar name: the value of its ``event`` field; ``message`` without one.
    :ivar data: the values of its ``data`` fields, joined by line feeds.
    """

    name: str
    data: bytes


class EventParser:
    """
    Parses an event stream that arrives in pieces.

    Lines end with CR, LF or CRLF, which may be split between pieces, as may UTF-8 characters: data is not decoded.

    :param limit: the largest event, and the largest line, in bytes.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        #: The last line, as far as it has arrived.
        self._line = bytearray()
        self._is_first = True
        self._ended_with_cr = False
        self._name = ""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes) -> Iterator[Event]:
        """
        Yield the events that a piece completes.

        :raises InvalidAnswer: an event is larger than the limit.
        """
        start = 0
        if self._ended_with_cr and piece:
            # A line feed after the carriage return belongs to the same line end.
            self._ended_with_cr = False
            start = 1 if piece[:1] == b"\n" else 0
        for end in _LINE_END.finditer(piece, start):
            line = piece[start : end.start()]
            start = end.end()
            if self._line:
                self._check(len(self._line) + len(line))
                line = bytes(self._line) + line
                self._line.clear()
            event = self._read_line(line)
            if event is not None:
                yield event
        self._ended_with_cr = start == len(piece) and piece[-1:] == b"\r"
        self._check(len(self._line) + len(piece) - start)
        self._line += piece[start:]

    def _check(self, more: int) -> None:
        if self._size + more > self._limit:
            raise InvalidAnswer(
                f"The server sent an event of more than {self._limit} bytes. Read the stream by long-poll instead, or "
                "raise the limit (max_message_bytes)."
            )

    def _read_line(self, line: bytes) -> Event | None:
        if self._is_first:
            self._is_first = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._complete()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._check(len(value) + 1)
            self._size += len(value) + 1
            self._data.append(value)
        elif field == b"event":
            self._name = value[:64].decode("utf-8", "replace")
        # A comment has an empty field name. Ids and retry times are not used: offsets come with control events.
        return None

    def _complete(self) -> Event | None:
        name, data = self._name, self._data
        self._name, self._data, self._size = "", [], 0
        # An event without data is not dispatched.
        return Event(name or "message", b"\n".join(data)) if data else None
