"""A strict parser of HTTP/1 answers."""

from __future__ import annotations

import json
import re
from collections import deque
from dataclasses import dataclass, field
from typing import Any

_STATUS_LINE = re.compile(rb"HTTP/1\.[01] ([1-5][0-9]{2}) ([\x20-\x7e]*)\r\n")
_HEADER_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?\r\n")
_CHUNK_LINE = re.compile(rb"([0-9a-f]{1,16})\r\n")
_BODILESS = frozenset([204, 304])


class BadReply(AssertionError):
    """The server sent something that is not HTTP/1.1."""


@dataclass
class Reply:
    """
    One answer, possibly incomplete.

    :ivar framing: ``length``, ``chunked``, ``end`` (of the connection) or ``none``.
    :ivar complete: whether all of it came.
    """

    status: int
    headers: list[tuple[str, str]]
    framing: str
    length: int | None = None
    body: bytearray = field(default_factory=bytearray)
    complete: bool = False

    def get(self, name: str) -> str | None:
        """Return the value of a header that occurs once."""
        values = [value for key, value in self.headers if key == name.lower()]
        if len(values) > 1:
            raise BadReply(f"{name} is there {len(values)} times")
        return values[0] if values else None

    def names(self) -> set[str]:
        """Return the headers' names in lower case."""
        return {name for name, _ in self.headers}

    def json(self) -> Any:
        """Return the body parsed as JSON."""
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        """The code of a problem document, or None."""
        if self.get("content-type") != "application/problem+json":
            return None
        code = self.json()["code"]
        assert isinstance(code, str)
        return code


class ReplyReader:
    """
    A parser of the bytes that a server sends.

    :param strict: whether a body without a length needs a word about the end of the connection.
    :ivar replies: the final answers, the last of them perhaps incomplete.
    :ivar interim: the statuses of those before final ones (100).
    """

    def __init__(self, strict: bool = True) -> None:
        self._strict = strict
        self.replies: list[Reply] = []
        self.interim: list[int] = []
        self._methods: deque[str] = deque()
        self._rest = bytearray()
        self._chunk_left: int | None = None
        self._ended = False

    def expect(self, method: str) -> None:
        """Note that a request of this method was sent."""
        self._methods.append(method)

    def feed(self, data: bytes) -> None:
        """
        Parse more bytes.

        :raises BadReply: it makes no sense.
        """
        if data and self._ended:
            raise BadReply("bytes after the end")
        self._rest += data
        while self._rest and self._step():
            pass

    def end(self) -> None:
        """
        Note that the server has ended the connection.

        :raises BadReply: it ended in the middle of a head.
        """
        self._ended = True
        if self._open() is None:
            if self._rest:
                raise BadReply(f"ended in the middle of a head: {bytes(self._rest[:80])!r}")
        elif self.replies[-1].framing == "end":
            self.replies[-1].complete = True

    def _open(self) -> Reply | None:
        return self.replies[-1] if self.replies and not self.replies[-1].complete else None

    def _step(self) -> bool:
        reply = self._open()
        if reply is None:
            return self._read_head()
        if reply.framing == "chunked":
            return self._read_chunk(reply)
        wanted = len(self._rest) if reply.length is None else reply.length - len(reply.body)
        reply.body += self._rest[:wanted]
        del self._rest[:wanted]
        if reply.length is not None and len(reply.body) == reply.length:
            reply.complete = True
        return bool(self._rest)

    def _read_head(self) -> bool:
        end = self._rest.find(b"\r\n\r\n")
        if end < 0:
            if not b"HTTP/1.".startswith(self._rest[:7]):
                raise BadReply(f"no status line: {bytes(self._rest[:80])!r}")
            return False
        head = bytes(self._rest[: end + 2])
        del self._rest[: end + 4]
        line = _STATUS_LINE.match(head)
        if line is None:
            raise BadReply(f"no status line: {head[:80]!r}")
        status = int(line[1])
        headers: list[tuple[str, str]] = []
        place = line.end()
        while place < len(head):
            found = _HEADER_LINE.match(head, place)
            if found is None:
                raise BadReply(f"no header line: {head[place : place + 80]!r}")
            headers.append((found[1].decode().lower(), (found[2] or b"").decode()))
            place = found.end()
        if status < 200:
            self.interim.append(status)
            return True
        self.replies.append(self._begin(status, headers))
        return True

    def _begin(self, status: int, headers: list[tuple[str, str]]) -> Reply:
        method = self._methods.popleft() if self._methods else "GET"
        reply = Reply(status, headers, "end")
        length, coding = reply.get("content-length"), reply.get("transfer-encoding")
        if length is not None and coding is not None:
            raise BadReply("a length and a coding")
        if status in _BODILESS or method == "HEAD":
            if status == 204 and (length is not None or coding is not None):
                raise BadReply("a 204 with framing")
            reply.framing, reply.complete = "none", True
        elif coding is not None:
            if coding != "chunked":
                raise BadReply(f"an odd coding: {coding}")
            reply.framing, self._chunk_left = "chunked", None
        elif length is not None:
            reply.framing, reply.length = "length", int(length)
            reply.complete = reply.length == 0
        elif reply.get("connection") != "close" and self._strict:
            raise BadReply("a body without an end")
        return reply

    def _read_chunk(self, reply: Reply) -> bool:
        if self._chunk_left is None:
            if b"\r\n" not in self._rest:
                if len(self._rest) > 18:
                    raise BadReply(f"no chunk: {bytes(self._rest[:40])!r}")
                return False
            line = _CHUNK_LINE.match(self._rest)
            if line is None:
                raise BadReply(f"no chunk: {bytes(self._rest[:40])!r}")
            self._chunk_left = int(line[1], 16)
            del self._rest[: line.end()]
            return True
        if self._chunk_left > 0:
            piece = self._rest[: self._chunk_left]
            reply.body += piece
            del self._rest[: len(piece)]
            self._chunk_left -= len(piece)
            if self._chunk_left == 0:
                self._chunk_left = -2
            return True
        if len(self._rest) < 2:
            return False
        if self._rest[:2] != b"\r\n":
            raise BadReply(f"a chunk without an end: {bytes(self._rest[:40])!r}")
        del self._rest[:2]
        reply.complete = self._chunk_left == 0
        self._chunk_left = None
        return True


def read_replies(data: bytes, *methods: str) -> list[Reply]:
    """
    Parse all bytes of a connection that the server has ended.

    :param methods: of the requests; GET where there are none left.
    """
    reader = ReplyReader()
    for method in methods:
        reader.expect(method)
    reader.feed(data)
    reader.end()
    return reader.replies


@dataclass
class Event:
    """A Server-Sent Event with its id, or a comment (kind ``:``)."""

    kind: str
    data: str
    id: str = field(default="", compare=False)

    @property
    def control(self) -> dict[str, Any]:
        assert self.kind == "control"
        value = json.loads(self.data)
        assert isinstance(value, dict)
        return value


def read_events(body: bytes) -> list[Event]:
    """
    Parse Server-Sent Events by the specification of EventSource.

    :raises BadReply: a line is none that an event stream should have here, an id is not the offset after the event, or
        the last event is cut.
    """
    text = body.decode()
    if text and not text.endswith("\n\n"):
        raise BadReply(f"a cut event: {text[-80:]!r}")
    events = []
    for block in text.split("\n\n")[:-1]:
        kind, data, event_id = "message", [], ""
        for line in block.split("\n"):
            name, colon, value = line.partition(":")
            if not colon:
                raise BadReply(f"a line without a colon: {line!r}")
            value = value.removeprefix(" ")
            if name == "event":
                kind = value
            elif name == "data":
                data.append(value)
            elif name == "id":
                event_id = value
            elif name == "":
                kind = ":"
            else:
                raise BadReply(f"an odd field: {line!r}")
        events.append(Event(kind, "\n".join(data), event_id))
        if kind == "control":
            offset = events[-1].control["streamNextOffset"]
            before = events[-2] if len(events) > 1 and events[-2].kind == "data" else events[-1]
            if (event_id, before.id) != (offset, offset):
                raise BadReply(f"the ids before {offset} are {before.id} and {event_id}")
    return events
