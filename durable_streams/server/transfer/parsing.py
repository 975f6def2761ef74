"""Incremental parser of transfer documents, in bounded memory."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any, Final, NoReturn, TypeAlias

import ijson
from msgspec import Struct

from ..errors import StreamsError
from ..protocol.content import JSON_TYPE, media_type
from ..protocol.lifetimes import MAX_TTL, parse_timestamp
from ..protocol.names import check_name
from .document import FORMAT_VERSION, StreamEntry
from .errors import InvalidDocument, UnsupportedVersion, shown
from .limits import ImportLimits

#: How much text is parsed in one step, in bytes: at most some milliseconds, whatever it is.
STEP: Final = 16_384

#: A text of this length or more is no longer given to the JSON parser, which would read it again with each piece. Only
#: a message may be so long.
LONG: Final = 65_536

_BOM: Final = b"\xef\xbb\xbf"
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")

#: The longest content type, in characters, as in requests.
_MAX_CONTENT_TYPE: Final = 512

#: The keys of an object that are read, and those that are not.
_DOCUMENT: Final = frozenset({"format_version", "exported_at", "server_version", "streams"})
_STREAM: Final = frozenset(
    ("name", "config", "closed", "created_at", "updated_at", "total_bytes", "message_count", "next_offset", "messages")
)
_CONFIG: Final = frozenset({"content_type", "ttl_seconds", "expires_at", "created_closed"})

_Event: TypeAlias = "tuple[str, Any]"
_Rule: TypeAlias = "Generator[None, _Event, None]"


class MessagesStart(Struct, frozen=True):
    """
    The beginning of a stream's messages.

    :ivar stream: the stream for error messages: its quoted name, or its number if its name comes later.
    :ivar json: whether the stream is in JSON mode; None if its content type comes later.
    """

    stream: str
    json: bool | None


class LongMessage(Struct, frozen=True):
    """The base64 of a message of more than 64 KiB, in parts."""

    parts: list[bytes]


#: What a document consists of: for each stream a :class:`MessagesStart`, the messages in base64, the entry.
Item: TypeAlias = "MessagesStart | str | LongMessage | StreamEntry"


def is_json(content_type: str) -> bool:
    """Return whether a valid content type is that of JSON mode."""
    return media_type(content_type) == JSON_TYPE


class DocumentParser:
    """
    Parse a document piece by piece.

    Keys may be in any order. Unknown keys are ignored. No value is kept in memory that is longer than the limit.

    :ivar position: the number of bytes that were parsed.
    """

    def __init__(self, limits: ImportLimits) -> None:
        self._limits = limits
        self._events = ijson.sendable_list()
        self._json = ijson.basic_parse_coro(self._events, use_float=True)
        self._rule: _Rule = self._document()
        next(self._rule)
        self._items: list[Item] = []
        self._without_event = 0
        # Whether the next value is a message's data; the parts of it that the JSON parser is not given.
        self._in_data = False
        self._parts: list[bytes] | None = None
        self._end = b""
        self._surrogates = False
        self._number = 0
        self.position = 0

    def feed(self, piece: bytes) -> list[Item]:
        """
        Parse the next piece of the document.

        :param piece: at most :data:`STEP` bytes.
        :returns: what was completed by it.
        :raises InvalidDocument: the document is not valid.
        :raises UnsupportedVersion: the document has another version.
        """
        if not self.position and piece.startswith(_BOM):
            raise InvalidDocument("it begins with a UTF-8 byte order mark. Remove these three bytes.")
        # An escape may be cut between two pieces.
        text = self._end + piece
        self._surrogates = self._surrogates or _SURROGATE.search(text) is not None
        self._end = text[-4:]
        if self._parts is not None:
            piece = self._gather(piece)
        if piece:
            self._parse(piece)
        items, self._items = self._items, []
        return items

    def _gather(self, piece: bytes) -> bytes:
        """Add a piece to the long text that is arriving; return the rest, from its closing quote on."""
        assert self._parts is not None
        end = piece.find(b'"')
        part = piece if end < 0 else piece[:end]
        self._parts.append(part)
        self._count(len(part))
        self.position += len(part)
        return piece[len(part) :]

    def _parse(self, piece: bytes) -> None:
        try:
            self._json.send(piece)
        except (ijson.JSONError, UnicodeDecodeError) as error:
            self._apply()
            self._refuse_text(error)
        if self._events:
            self._without_event = 0
            self._apply()
        elif self._parts is not None:
            self._refuse("a message is not padded standard base64: it has a backslash")
        else:
            self._count(len(piece))
            if self._in_data and self._without_event >= LONG and not piece.isspace():
                self._parts = []
        self.position += len(piece)

    def _count(self, size: int) -> None:
        """Check the length of the value that is arriving."""
        self._without_event += size
        if self._in_data and self._without_event > self._limits.text_bytes + STEP:
            self._refuse(
                f"a message has more than {self._limits.message_bytes} bytes. Raise the import's limit if it may"
            )
        if not self._in_data and self._without_event > LONG + STEP:
            self._refuse(f"it has a value, or white space, of more than {LONG} bytes, which only a message may have")

    def finish(self) -> None:
        """
        Note the end of the document.

        :raises InvalidDocument: the document is incomplete.
        """
        if not self.position:
            raise InvalidDocument("it is empty. Check how it was exported.")
        try:
            self._json.close()
        except (ijson.JSONError, UnicodeDecodeError):
            raise InvalidDocument(
                f"it ends after {self.position} bytes in the middle of a value: it is cut off. Export or copy it again."
            ) from None

    def _apply(self) -> None:
        """Apply the grammar to the events of a piece."""
        send = self._rule.send
        events = self._events
        try:
            for event in events:
                send(event)
        except StopIteration:
            # The document's last event: whatever follows it is an error of the JSON parser.
            self._rule = _nothing()
            next(self._rule)
        finally:
            del events[:]

    def _refuse(self, reason: str) -> NoReturn:
        raise InvalidDocument(f"{reason}, near byte {self.position}.")

    def _refuse_text(self, error: Exception) -> NoReturn:
        reason = str(error).partition("\n")[0].partition("\\n")[0]
        if isinstance(error, UnicodeDecodeError) or "UTF8" in reason:
            self._refuse("it is not UTF-8")
        self._refuse(f"it is not JSON: {reason.rpartition('error: ')[2].rstrip('.')}")

    # The grammar: each rule receives one event for each of its yields.

    def _document(self) -> _Rule:
        event, _ = yield
        if event != "start_map":
            self._refuse("it must be an object")
        seen: set[str] = set()
        while True:
            event, key = yield
            if event == "end_map":
                break
            self._check_key(key, seen, _DOCUMENT, "the document")
            if key == "format_version":
                event, version = yield
                if event != "number" or not isinstance(version, int):
                    self._refuse("format_version must be an integer")
                if version != FORMAT_VERSION:
                    raise UnsupportedVersion(version)
            elif key == "streams":
                yield from self._streams()
            else:
                yield from self._skip((yield))
        for key in ("format_version", "streams"):
            if key not in seen:
                self._refuse(f"the key {key} is missing")

    def _streams(self) -> _Rule:
        event, _ = yield
        if event != "start_array":
            self._refuse("streams must be an array")
        while True:
            event, _ = yield
            if event == "end_array":
                return
            if event != "start_map":
                self._refuse("each stream must be an object")
            self._number += 1
            yield from self._stream()

    def _stream(self) -> _Rule:
        fields: dict[str, Any] = {}
        seen: set[str] = set()
        while True:
            event, key = yield
            if event == "end_map":
                break
            self._check_key(key, seen, _STREAM, self._label(fields))
            if key == "messages":
                self._items.append(MessagesStart(self._label(fields), fields.get("json")))
                yield from self._messages(self._label(fields))
            elif key == "config":
                yield from self._config(fields)
            elif key == "name":
                event, name = yield
                fields["name"] = self._name(event, name)
            elif key == "closed":
                event, closed = yield
                fields["closed"] = self._boolean(event, closed, "closed", fields)
            else:
                yield from self._skip((yield))
        for key in ("name", "config", "closed", "messages"):
            if key not in seen:
                self._refuse(f"the key {key} of stream {self._label(fields)} is missing")
        del fields["json"]
        self._items.append(StreamEntry(**fields))

    def _messages(self, stream: str) -> _Rule:
        event, _ = yield
        if event != "start_array":
            self._refuse(f"messages of stream {stream} must be an array")
        while True:
            event, _ = yield
            if event == "end_array":
                return
            if event != "start_map":
                self._refuse(f"each message of stream {stream} must be an object")
            text = None
            while True:
                event, key = yield
                if event == "end_map":
                    break
                if key == "data_base64":
                    if text is not None:
                        self._refuse(f"a message of stream {stream} has the key data_base64 twice")
                    self._in_data = True
                    event, text = yield
                    self._in_data = False
                    if event != "string":
                        self._refuse(f"data_base64 must be a text in each message of stream {stream}")
                    if self._parts is not None:
                        text = LongMessage([text.encode(), *self._parts])
                        self._parts = None
                else:
                    value = yield
                    if value[0] in ("start_map", "start_array"):
                        yield from self._skip(value)
            if text is None:
                self._refuse(f"the key data_base64 is missing in a message of stream {stream}")
            self._items.append(text)

    def _config(self, fields: dict[str, Any]) -> _Rule:
        event, _ = yield
        label = self._label(fields)
        if event != "start_map":
            self._refuse(f"config of stream {label} must be an object")
        seen: set[str] = set()
        while True:
            event, key = yield
            if event == "end_map":
                break
            self._check_key(key, seen, _CONFIG, f"config of stream {label}")
            value = yield
            if key not in _CONFIG:
                yield from self._skip(value)
            elif key == "content_type":
                fields["content_type"], fields["json"] = self._content_type(*value, label)
            elif key == "ttl_seconds":
                fields["ttl"] = self._ttl(*value, label)
            elif key == "expires_at":
                fields["expires_at"] = self._expiry(*value, label)
            else:
                fields["created_closed"] = self._boolean(*value, "created_closed", fields)
        for key in ("content_type", "created_closed"):
            if key not in seen:
                self._refuse(f"the key {key} in config of stream {label} is missing")

    def _skip(self, event: _Event) -> _Rule:
        """Ignore a value; ``event`` is its first event."""
        depth = 0
        while True:
            if event[0] in ("start_map", "start_array"):
                depth += 1
                if depth > self._limits.depth:
                    self._refuse(f"a value is nested more than {self._limits.depth} levels deep")
            elif event[0] in ("end_map", "end_array"):
                depth -= 1
            if not depth:
                return
            event = yield

    # Values

    def _label(self, fields: dict[str, Any]) -> str:
        return shown(fields["name"]) if "name" in fields else f"number {self._number}"

    def _check_key(self, key: str, seen: set[str], known: frozenset[str], where: str) -> None:
        if key in known:
            if key in seen:
                self._refuse(f"{where} has the key {key} twice")
            seen.add(key)

    def _name(self, event: str, name: Any) -> str:
        if event != "string":
            self._refuse(f"the name of stream number {self._number} must be a text")
        if "?" in name and self._surrogates:
            # The parser replaces half of an escaped surrogate pair by a question mark.
            self._refuse(
                f"the name {shown(name)} may have half of a surrogate pair. Write names in UTF-8, without escapes"
            )
        try:
            check_name(name, self._limits.names)
        except StreamsError as error:
            raise InvalidDocument(f"the name {shown(name)} is not allowed. {error}") from None
        return str(name)

    def _boolean(self, event: str, value: Any, key: str, fields: dict[str, Any]) -> bool:
        if event != "boolean":
            self._refuse(f"{key} of stream {self._label(fields)} must be true or false")
        return bool(value)

    def _content_type(self, event: str, value: Any, stream: str) -> tuple[str, bool]:
        if event != "string":
            self._refuse(f"content_type of stream {stream} must be a text")
        try:
            if len(value) <= _MAX_CONTENT_TYPE:
                return value, is_json(value)
            self._refuse(f"content_type of stream {stream} is longer than {_MAX_CONTENT_TYPE} characters")
        except StreamsError:
            self._refuse(f"content_type of stream {stream} must be a media type such as text/plain, not {shown(value)}")

    def _ttl(self, event: str, value: Any, stream: str) -> int | None:
        if event == "null":
            return None
        if event != "number" or not isinstance(value, int) or not 0 <= value <= MAX_TTL:
            self._refuse(f"ttl_seconds of stream {stream} must be null, or whole seconds from 0 to {MAX_TTL}")
        return value

    def _expiry(self, event: str, value: Any, stream: str) -> float | None:
        if event == "null":
            return None
        try:
            return parse_timestamp(value if event == "string" else "")
        except StreamsError:
            self._refuse(
                f"expires_at of stream {stream} must be null, or an RFC 3339 time such as 2030-01-31T12:00:00Z"
            )


def _nothing() -> _Rule:
    """Accept no further event."""
    yield
    raise InvalidDocument("there is a value after its end.")
