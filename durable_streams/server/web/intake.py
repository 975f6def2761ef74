"""How bytes become requests on one of the daemon's connections: llhttp frames, and this keeps the limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

import httptools
from msgspec import Struct
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..errors import BodyTooLarge, InvalidRequest, StreamsError
from .problems import BadFraming, HeadersTooLarge, TargetTooLong
from .requests import READ_HEADERS, StreamRequest, check_host, join_header
from .tree import TreeRequest

#: A request for a stream, or one for whatever else is served.
Asked: TypeAlias = StreamRequest | TreeRequest

#: Headers that say how the request itself is framed.
_FRAMING_HEADERS: Final = frozenset([b"content-length", b"transfer-encoding", b"expect"])

_log = Logger()


class IntakeLimits(Struct, frozen=True, gc=False):
    """How large the parts of a request may be, in bytes."""

    header_bytes: int = 32_768
    target_bytes: int = 8_192
    body_bytes: int = 10_485_760


class IntakeOwner(Protocol):
    """Who is told what came in."""

    def asked(self, request: Asked, lives_on: bool, old: bool) -> None:
        """
        A request is there, whole.

        :param lives_on: whether the connection is for more requests after it.
        :param old: whether it is HTTP/1.0.
        """

    def refused(self, error: StreamsError) -> None:
        """What came is no request, or one over a limit; nothing after it means anything."""

    def expects_continue(self) -> None:
        """A client waits to be told that it may send its body."""


class Shared:
    """What the intakes of one listener learn and share: which spellings of headers they know, and which hosts."""

    __slots__ = ("base", "hosts", "limits", "secure", "spellings")

    def __init__(self, base: bytes, limits: IntakeLimits, secure: bool) -> None:
        self.base = base
        self.limits = limits
        self.secure = secure
        self.spellings: dict[bytes, bytes] = {}
        self.hosts: set[bytes] = set()

    def learn(self, name: bytes) -> bytes:
        """Find out whether a header is read: its name in lower case, or nothing. Usual spellings are remembered."""
        lower = name.lower()
        key = lower if lower in READ_HEADERS or lower in _FRAMING_HEADERS else b""
        if len(self.spellings) < 512 and len(name) < 64:
            self.spellings[name] = key
        return key


class _Stop(Exception):
    """Stops the parser."""


def _origin_form(url: bytes) -> bytes:
    """Take from an absolute URL, which a client may send to a proxy, and so to us, the path and the query."""
    scheme, _, rest = url.partition(b"://")
    return b"/" + rest.partition(b"/")[2] if scheme.lower() in (b"http", b"https") else url


def _all_unknown(name: bytes) -> None:
    """Look a header up where none is known."""


def _all_ignored(name: bytes) -> bytes:
    """Look a trailer up: it means nothing here."""
    return b""


class Intake:
    """
    The receiving half of a connection.

    :ivar deaf: nothing that comes means anything any more.
    :ivar timed: for its owner to note that it has set a time for the headers.
    """

    __slots__ = (
        "__weakref__",
        "_body",
        "_feed",
        "_fields",
        "_headers",
        "_in_body",
        "_lives_on",
        "_look_up",
        "_old",
        "_owner",
        "_packet",
        "_parser",
        "_shared",
        "_url",
        "_wire_bytes",
        "deaf",
        "timed",
    )

    def __init__(self, shared: Shared, owner: IntakeOwner) -> None:
        self._shared = shared
        self._owner = owner
        self._renew()
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        # All headers as they came, for the tree; a stream's request has no need of them.
        self._fields: list[tuple[bytes, bytes]] | None = None
        self._look_up: Callable[[bytes], bytes | None] = _all_unknown
        self._body: bytes | bytearray = b""
        self._in_body = False
        self._lives_on = True
        self._old = False
        # The packet that the request began with, while it is being parsed; and the bytes of the packets since.
        self._packet = b""
        self._wire_bytes = 0
        self.deaf = False
        self.timed = False

    def _renew(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        self._feed = self._parser.feed_data

    @property
    def unfinished(self) -> bool:
        """Whether a request has begun, and not ended."""
        return bool(self._url)

    @property
    def in_body(self) -> bool:
        """Whether the headers of that request are complete."""
        return self._in_body

    def feed(self, data: bytes) -> None:
        """Take in what the socket had."""
        rest = data
        while rest and not self.deaf:
            self._packet, rest = rest, b""
            try:
                self._feed(self._packet)
            except httptools.HttpParserUpgrade as upgrade:
                # We upgrade to nothing: the request was taken as it stands, and the next one follows it.
                self._renew()
                rest = data = data[upgrade.args[0] :]
            except httptools.HttpParserCallbackError as error:
                self._stopped(error)
            except httptools.HttpParserError as error:
                self._refuse(BadFraming(f"This is not HTTP/1.1 as the server reads it: {error}."))
        if self._url and not self.deaf:
            self._count(len(data))

    def _stopped(self, error: httptools.HttpParserCallbackError) -> None:
        self.deaf = True
        if not isinstance(error.__context__, _Stop):
            _log.failure("A request could not be taken in.", failure=Failure(error.__context__))
            self._refuse(BadFraming("The server could not take this in."))

    def _refuse(self, error: StreamsError) -> None:
        self.deaf = True
        self._url = b""
        self._owner.refused(error)

    def _count(self, size: int) -> None:
        """Hold a request that did not end with this packet to its limits."""
        limits = self._shared.limits
        if self._packet:
            self._wire_bytes += size
        else:
            # It began somewhere in the packet; where, does not matter enough to find out.
            self._wire_bytes = 1
        self._packet = b""
        if not self._in_body:
            if self._wire_bytes > limits.header_bytes:
                self._refuse(HeadersTooLarge(f"The headers are larger than {limits.header_bytes} bytes."))
        elif self._wire_bytes > 2 * limits.body_bytes + limits.header_bytes:
            # Chunks may cost as much again as what they carry, but not more.
            self._refuse(BodyTooLarge(limits.body_bytes))

    # What the parser calls

    def on_url(self, url: bytes) -> None:
        self._url = url = self._url + url if self._url else url
        if not url.startswith(b"/"):
            url = _origin_form(url)
        shared = self._shared
        if len(url) > shared.limits.target_bytes:
            self._stop(TargetTooLong(f"The request's target is longer than {shared.limits.target_bytes} bytes."))
        # As long as the target is not complete, it may still become a stream's.
        if url.startswith(shared.base):
            self._fields = None
            self._look_up = shared.spellings.get
        else:
            self._fields = []
            self._look_up = _all_unknown

    def on_header(self, name: bytes, value: bytes) -> None:
        key = self._look_up(name)
        if key is None:
            key = self._shared.learn(name)
            if self._fields is not None:
                self._fields.append((name, value))
        if key:
            if key in self._headers and not join_header(self._headers, key, value):
                self._stop(BadFraming(f"{key.decode().title()} was sent twice. Send it once."))
            self._headers[key] = value

    def on_headers_complete(self) -> None:
        parser = self._parser
        headers = self._headers
        self._in_body = True
        self._lives_on = parser.should_keep_alive()
        if headers.get(b"host") not in self._shared.hosts or b" HTTP/1.1\r\n" not in self._packet:
            self._check_version_and_host(parser.get_http_version())
        else:
            self._old = False
        limits = self._shared.limits
        if len(self._packet) + self._wire_bytes > limits.header_bytes:
            header_bytes = self._packet.find(b"\r\n\r\n") + self._wire_bytes
            if self._packet and header_bytes > limits.header_bytes:
                self._stop(HeadersTooLarge(f"The headers are larger than {limits.header_bytes} bytes."))
        if b"content-length" in headers:
            if int(headers[b"content-length"]) > limits.body_bytes:
                self._stop(BodyTooLarge(limits.body_bytes))
        elif b"transfer-encoding" in headers:
            if self._old or headers[b"transfer-encoding"].strip().lower() != b"chunked":
                self._stop(BadFraming("Transfer-Encoding must be chunked, and only HTTP/1.1 has it."))
            self._look_up = _all_ignored
        else:
            return
        if b"expect" in headers and not self._old and headers[b"expect"].strip().lower() == b"100-continue":
            self._owner.expects_continue()

    def _check_version_and_host(self, version: str) -> None:
        self._old = version == "1.0"
        if not self._old and version != "1.1":
            self._stop(BadFraming("The server speaks HTTP/1.1 and HTTP/1.0 here."))
        host = self._headers.get(b"host")
        if host is None:
            if not self._old:
                self._stop(BadFraming("Host is missing."))
            return
        try:
            check_host(host)
        except InvalidRequest as error:
            self._stop(error)
        if len(self._shared.hosts) < 1024:
            self._shared.hosts.add(host)

    def on_body(self, data: bytes) -> None:
        if not self._body:
            self._body = data
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data
        if len(self._body) > self._shared.limits.body_bytes:
            self._stop(BodyTooLarge(self._shared.limits.body_bytes))

    def on_message_complete(self) -> None:
        method = self._parser.get_method()
        body = self._body if isinstance(self._body, bytes) else bytes(self._body)
        request: Asked
        if self._fields is None:
            base = self._shared.base
            url = self._url if self._url.startswith(b"/") else _origin_form(self._url)
            path, _, query = url.partition(b"?")
            request = StreamRequest(method, base, path[len(base) :], query, self._headers, body, self._shared.secure)
        else:
            request = TreeRequest(method, self._url, self._fields, body)
            self._fields = None
        self._url = self._packet = self._body = b""
        self._headers = {}
        self._in_body = self.timed = False
        self._wire_bytes = 0
        self._owner.asked(request, self._lives_on, self._old)
        if not self._lives_on:
            # What follows is not ours to read, and no reason to complain.
            raise _Stop

    def _stop(self, error: StreamsError) -> None:
        """
        Refuse the request that is being read.

        :raises _Stop: always.
        """
        self._refuse(error)
        raise _Stop
