"""Parsing of HTTP/1.1 requests with llhttp, within the limits of sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NoReturn, Protocol

import httptools
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...errors import BodyTooLarge, StreamsError
from ..admission import AdmittedRequest, BodyPace, check_authority, origin_form
from ..callers import Caller, next_number
from ..incoming import IncomingBody
from ..problems import BadFraming, HeadersTooLarge, InternalError, WrongVersion
from ..requests import StreamRequest, find_operation, join_header
from .known_heads import HeadCache, KnownHead

#: Requests with one of these headers do not show by their head alone where they end.
_UNSTEADY: Final = frozenset([b"transfer-encoding", b"expect", b"upgrade"])

_log = Logger()


#: The size from which a packet may be parsed in parts, and the size of such a part of a body.
_BITE: Final = 4096
_BODY_BITE: Final = 16_384

#: What every request line has.
_VERSION: Final = b" HTTP/1."


class IntakeOwner(Protocol):
    """The connection that an intake passes requests to."""

    def asked(self, request: AdmittedRequest, lives_on: bool, old: bool) -> None:
        """
        Handle a request; its body is complete unless :meth:`body_begins` was called for it.

        :param lives_on: whether the connection is for more requests after it.
        :param old: whether it is HTTP/1.0.
        """

    def streams_body(self, method: bytes, target: bytes) -> bool:
        """Return whether the page of a request receives the body while it arrives."""

    def body_begins(self, length: int | None, expects_continue: bool) -> IncomingBody:
        """
        Create the streamed body of the request that the next :meth:`asked` passes.

        :param length: the size that the head states; None if it states none.
        :param expects_continue: the client waits for 100 Continue.
        """

    def body_ended(self) -> None:
        """Record that the streamed body has arrived completely."""

    def refused(self, error: StreamsError) -> None:
        """Refuse the request that is being read. Nothing after it is parsed."""

    def refused_early(self, request: StreamRequest, has_body: bool) -> bool:
        """
        Refuse a request whose body has not arrived, if it is not allowed. Then nothing after it is parsed.

        :param request: the request, without its body.
        :param has_body: whether the body is not empty for sure.
        :returns: whether it is refused at once. It may be refused later, with :meth:`Intake.drop`.
        """

    def expects_continue(self) -> None:
        """Record that the client waits for 100 Continue before it sends the body."""


class _NoOwner:
    """The owner of an intake whose connection is gone."""

    def streams_body(self, method: bytes, target: bytes) -> bool:
        """Return False."""
        return False

    def body_begins(self, length: int | None, expects_continue: bool) -> IncomingBody:
        """
        Raise an error: the connection is gone.

        :raises RuntimeError: always; no page asks for the body.
        """
        raise RuntimeError("The connection is gone.")

    def asked(self, request: AdmittedRequest, lives_on: bool, old: bool) -> None:
        """Drop the request."""

    def body_ended(self) -> None:
        """Do nothing."""

    def refused(self, error: StreamsError) -> None:
        """Do nothing: the connection is gone."""

    def refused_early(self, request: StreamRequest, has_body: bool) -> bool:
        """Return False: the connection is gone."""
        return False

    def expects_continue(self) -> None:
        """Do nothing: the connection is gone."""


_NO_OWNER: Final = _NoOwner()


class _Stop(Exception):
    """Stops the parser."""


def _all_unknown(name: bytes) -> None:
    """Return None: no spelling is known."""


def _all_ignored(name: bytes) -> bytes:
    """Return an empty name: trailers are ignored."""
    return b""


class Intake:
    """
    The receiving half of a connection.

    :ivar deaf: nothing more is parsed.
    :ivar admission: the rules for the connection's requests.
    :ivar timed: its owner has set the deadline of the headers.
    :ivar pace: for its owner to record how fast the body arrives.
    """

    __slots__ = (
        "_asking",
        "_bare_bytes",
        "_between",
        "_block",
        "_body",
        "_caller",
        "_counted",
        "_decided",
        "_fed",
        "_feed",
        "_fields",
        "_forwarded",
        "_head_size",
        "_headers",
        "_heads",
        "_in_body",
        "_incoming",
        "_interrupted",
        "_known",
        "_lives_on",
        "_look_up",
        "_old",
        "_owner",
        "_packet",
        "_parser",
        "_url",
        "_wire_bytes",
        "admission",
        "deaf",
        "pace",
        "timed",
    )

    def __init__(self, heads: HeadCache, owner: IntakeOwner, caller: Caller) -> None:
        self._heads = heads
        self.admission = heads.admission
        self._caller = caller
        self._owner = owner
        # The caller, with the client that a trusted proxy names in the request that is being read.
        self._asking = caller
        # Made for the first request that is not known: a parser takes 900 bytes.
        self._parser: Any = None
        self._feed: Any = None
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        # All headers as they came, for the tree; a stream's request has no need of them.
        self._fields: list[tuple[bytes, bytes]] | None = None
        # Whether forwarding headers of a request for a page were dropped.
        self._forwarded = False
        self._look_up: Callable[[bytes], bytes | None] = _all_unknown
        self._body: bytes | bytearray = b""
        # The body, if a page receives it while it arrives.
        self._incoming: IncomingBody | None = None
        self._in_body = False
        # How much of the body is counted as arriving.
        self._counted = 0
        # Whether the request was offered to be refused before its body has arrived.
        self._decided = False
        # The parser leaves the body to the protocol that the request asks for.
        self._interrupted = False
        self._lives_on = True
        self._old = False
        # The packet that the request began with, while it is being parsed; and the bytes of the packets since.
        self._packet = b""
        self._wire_bytes = 0
        # The bytes of the packets since the last one that had headers or some of the body; -1 during that one.
        self._bare_bytes = 0
        # Whether the next byte is the first of a request for sure. If it was: the size of its head, its headers, and
        # the bytes that came since.
        self._between = True
        self._head_size = 0
        self._block = b""
        # The known block of the last request whose headers were known.
        self._known: KnownHead | None = None
        self._fed = 0
        self.deaf = False
        self.timed = False
        self.pace: BodyPace | None = None

    @property
    def origin(self) -> bytes | None:
        """The Origin of the request that is being read; None if it has not arrived."""
        return self._headers.get(b"origin")

    def _renew(self) -> None:
        self._parser = httptools.HttpRequestParser(self)
        # Versions are checked here: one of a later minor version is served as 1.1 (RFC 9110 section 2.5).
        self._parser.set_dangerous_leniencies(lenient_version=True)
        self._feed = self._parser.feed_data

    def rest(self) -> None:
        """Drop the parser and the last head, if no part of another request has arrived: the answer takes its time."""
        if self._between:
            self._parser = self._feed = None
            self._block = b""

    @property
    def unfinished(self) -> bool:
        """Whether a request is being read: it has begun, and has neither ended nor been refused."""
        return bool(self._url) and not self.deaf

    @property
    def in_body(self) -> bool:
        """Whether the headers of the request that is being read are complete."""
        return self._in_body

    def close(self) -> None:
        """
        Drop the request that is being read, and the references between this, the parser and the owner.

        They are reference cycles: a body in them would stay in memory until the next full garbage collection.
        """
        self.deaf = True
        self._parser = self._feed = None
        self._owner = _NO_OWNER
        self._url = self._packet = self._block = self._body = b""
        self._headers = {}
        self._fields = self._incoming = None
        self._uncount_body()

    def feed(self, data: bytes) -> int:
        """
        Parse received bytes, or only the first of them if they may contain many requests.

        A packet of 64 KiB can have 2,000 requests. To parse them all takes 20 ms, and to keep them 2 MB.

        :returns: how many bytes were taken in. The rest is to be fed when what was asked for so far is answered.
        """
        if self._between:
            if self._is_known(data):
                return len(data)
            self._between = False
            self._fed = 0
        packet = data
        if len(data) > _BITE:
            cut = _BODY_BITE if self._in_body else data.find(_VERSION, _BITE)
            if cut > 0:
                packet = data[:cut]
        self._fed += len(packet)
        self._parse(packet)
        return len(packet)

    def _parse(self, packet: bytes) -> None:
        rest = packet
        if self._feed is None:
            self._renew()
        while rest and not self.deaf:
            self._packet = packet = rest
            rest = b""
            try:
                self._feed(packet)
            except httptools.HttpParserUpgrade as upgrade:
                # We upgrade to nothing: the request was taken as it stands, and the next one follows it.
                rest = packet[upgrade.args[0] :]
                if self._interrupted:
                    rest = self._without_upgrade(self._parser.get_method()) + rest
                self._renew()
            except httptools.HttpParserCallbackError as error:
                self._stopped(error)
            except httptools.HttpParserError as error:
                self._refuse(BadFraming(f"This is not HTTP/1.1 as the server reads it: {error}."))
        if self._url and not self.deaf:
            self._count(len(packet))

    def _is_known(self, data: bytes) -> bool:
        """Pass on a whole request whose headers are in the cache; return whether it was one."""
        heads = self._heads
        line = heads.line.match(data)
        if line is None:
            self._head_size = data.find(b"\r\n\r\n") + 4
            self._block = b""
            return False
        line_end = line.end()
        known = self._known
        found = None if known is None else known.read(data, line_end)
        if known is None or found is None:
            self._head_size = end = data.find(b"\r\n\r\n") + 4
            self._block = block = data[line_end:end]
            self._known = known = heads.find(block)
            found = None if known is None else known.read(data, line_end)
            if known is None or found is None:
                return False
        headers, start, end = found
        admission = self.admission
        limits = admission.limits
        if (
            len(data) != end
            or start > limits.header_bytes
            or line_end > limits.target_bytes
            or end - start > limits.body_bytes
        ):
            self._head_size = start
            self._block = data[line_end:start]
            return False
        method, path, query = line.groups(b"")
        client = known.client
        if client is None:
            caller = self._caller
        elif headers is known.headers:
            caller = self._caller.forwarding(client)
        else:
            # The proxy's id of the request is among the values that vary; the rest was read without an error before.
            caller = admission.identify(self._caller, headers)
        body, number = data[start:], next_number()
        operation, view = find_operation(method, query)
        request = StreamRequest(
            method, admission.base, path, query, headers, body, caller, number, "1.1", operation, view
        )
        self._owner.asked(request, True, False)
        return True

    def _without_upgrade(self, method: bytes) -> bytes:
        """
        Render the head that was read again, without the request for another protocol.

        What came behind it would otherwise be taken for the next request, and it is not the client's to say so. It is
        never longer than what the client wrote: that was held to its limit already.
        """
        fields = self._headers.items() if self._fields is None else self._fields
        lines = [b"%b:%b\r\n" % field for field in fields if field[0].lower() not in (b"connection", b"upgrade")]
        lines.append(b"Connection: keep-alive\r\n" if self._lives_on else b"Connection: close\r\n")
        head = b"%b %b HTTP/%b\r\n%b\r\n" % (method, self._url, b"1.0" if self._old else b"1.1", b"".join(lines))
        self._url = b""
        self._headers = {}
        self._fields = None
        self._in_body = self._interrupted = False
        self._wire_bytes = 0
        return head

    def _stopped(self, error: httptools.HttpParserCallbackError) -> None:
        self.deaf = True
        if not isinstance(error.__context__, _Stop):
            _log.failure("Parsing a request failed.", failure=Failure(error.__context__))
            self._refuse(InternalError())

    def _refuse(self, error: StreamsError) -> None:
        self.drop()
        self._owner.refused(error)

    def _refuse_early(self) -> bool:
        """
        Refuse a request for a stream whose body has not arrived, if it is not allowed or there is no room for it.

        :returns: whether it was refused.
        """
        if self._decided or self._fields is not None:
            return False
        self._decided = True
        length = int(self._headers.get(b"content-length", b"0"))
        try:
            self.admission.incoming.check(length, self._asking)
        except StreamsError as error:
            self._refuse(error)
            return True
        url = self._url if self._url.startswith(b"/") else origin_form(self._url)
        version = "1.0" if self._old else "1.1"
        request = self.admission.stream_request(
            self._parser.get_method(), url, self._headers, b"", self._asking, version
        )
        if not self._owner.refused_early(request, length > 0):
            return False
        self.drop()
        return True

    def drop(self) -> None:
        """Read nothing more: the request is refused."""
        self.deaf = True
        self._url = self._body = b""
        self._uncount_body()

    def _count(self, size: int) -> None:
        """Check the limits of a request that did not end with this packet."""
        limits = self.admission.limits
        if self._packet:
            self._wire_bytes += size
        else:
            # The request began inside the packet; its exact start is not worth finding.
            self._wire_bytes = 1
        self._packet = b""
        if not self._in_body:
            try:
                self.admission.check_head_size(self._wire_bytes)
            except StreamsError as error:
                self._refuse(error)
            return
        if self._incoming is None and self._refuse_early():
            return
        self._bare_bytes = self._bare_bytes + size if self._bare_bytes >= 0 else 0
        if self._incoming is None and self._wire_bytes > 2 * limits.body_bytes + limits.header_bytes:
            # The framing of chunks may take as many bytes as their data, but not more.
            self._refuse(BodyTooLarge(limits.body_bytes))
        elif self._bare_bytes > limits.header_bytes:
            # The parser keeps a trailer until it is complete.
            self._refuse(
                HeadersTooLarge(f"The trailers are larger than {limits.header_bytes} bytes (limits.max_header_bytes).")
            )
        elif self._incoming is None:
            try:
                self._count_body()
            except StreamsError as error:
                self._refuse(error)

    # What the parser calls

    def on_url(self, url: bytes) -> None:
        self._url = url = self._url + url if self._url else url
        if not url.startswith(b"/"):
            url = origin_form(url)
        try:
            self.admission.check_target_size(url)
        except StreamsError as error:
            self._stop(error)
        # As long as the target is not complete, it may still become a stream's.
        if self.admission.is_stream(url):
            self._fields = None
            self._look_up = self._heads.spellings.get
        else:
            self._fields = []
            self._forwarded = False
            self._look_up = _all_unknown

    def on_header(self, name: bytes, value: bytes) -> None:
        key = self._look_up(name)
        if key is None:
            key = self._heads.learn(name)
            if key is None:
                self._forwarded = True
                self.admission.proxies.disbelieve(self._caller)
                return
            if self._fields is not None:
                self._fields.append((name, value.rstrip(b" \t")))
        if key:
            if value[-1:] <= b" ":
                # The parser takes away the white space before a value, but not that behind it.
                value = value.rstrip(b" \t")
            if key not in self._headers:
                self._headers[key] = value
                return
            try:
                join_header(self._headers, key, value)
            except StreamsError as error:
                self._stop(error)

    def on_headers_complete(self) -> None:
        parser = self._parser
        headers = self._headers
        self._in_body = True
        self._bare_bytes = -1
        self._lives_on = parser.should_keep_alive()
        try:
            self._check_head()
        except StreamsError as error:
            self._stop(error)
        has_body = b"content-length" in headers
        if not has_body and b"transfer-encoding" in headers:
            has_body = True
            if self._old or headers[b"transfer-encoding"].strip().lower() != b"chunked":
                self._stop(BadFraming("Transfer-Encoding must be chunked, and only HTTP/1.1 has it."))
            self._look_up = _all_ignored
        if has_body and b"upgrade" in headers and parser.should_upgrade():
            self._interrupted = True
        elif self._fields is not None and self._streams_body():
            self._begin_streaming()
        elif has_body and b"expect" in headers and self._expects_continue():
            if self._refuse_early():
                raise _Stop
            self._owner.expects_continue()

    def _expects_continue(self) -> bool:
        return not self._old and self._headers.get(b"expect", b"").strip().lower() == b"100-continue"

    def _streams_body(self) -> bool:
        """Return whether the request is for a page that receives the body while it arrives."""
        return self._owner.streams_body(self._parser.get_method(), origin_form(self._url))

    def _begin_streaming(self) -> None:
        """
        Pass the request on before its body has arrived.

        :raises _Stop: nothing more is to be parsed.
        """
        length = self._headers.get(b"content-length")
        size = None if length is None else int(length)
        self._incoming = incoming = self._owner.body_begins(size, self._expects_continue())
        fields, self._fields = self._fields, None
        assert fields is not None
        method, url, version = self._parser.get_method(), origin_form(self._url), "1.0" if self._old else "1.1"
        page = self.admission.page_request(method, url, fields, incoming, self._asking, version, self._forwarded)
        self._owner.asked(page, self._lives_on, self._old)
        if self.deaf:
            raise _Stop

    def _check_head(self) -> None:
        """
        Check a head that is complete.

        :raises StreamsError: it is refused.
        """
        admission, headers, packet = self.admission, self._headers, self._packet
        host = headers.get(b"host")
        # To ask the parser for the version costs more than to look for it in a request that came in one piece.
        version_at = packet.find(b" ") + 1 + len(self._url)
        in_one_piece = not self._wire_bytes and packet.startswith(b" HTTP/1.1\r\n", version_at)
        if in_one_piece and host in admission.hosts:
            self._old = False
        else:
            self._check_version(self._parser.get_http_version())
            if host is None and not self._old:
                raise BadFraming("Host is missing.")
            admission.check_host(host)
        url = self._url
        if not url.startswith(b"/") or b"#" in url:
            admission.check_line(self._parser.get_method(), origin_form(url))
            check_authority(url, host)
        if len(packet) + self._wire_bytes > admission.limits.header_bytes and packet:
            admission.check_head_size(packet.find(b"\r\n\r\n") + self._wire_bytes)
        if self._caller.trusted:
            self._asking = admission.identify(self._caller, headers)
        if b"content-length" in headers and (self._fields is None or not self._streams_body()):
            admission.check_length(headers[b"content-length"])

    def _check_version(self, version: str) -> None:
        self._old = version == "1.0"
        if not version.startswith("1."):
            raise WrongVersion("The server speaks HTTP/1.1 and HTTP/1.0 here.")

    def on_body(self, data: bytes) -> None:
        self._bare_bytes = -1
        if self._incoming is not None:
            self._incoming.received(data)
            if self.deaf:
                raise _Stop
            return
        if not self._body:
            self._body = data
        else:
            if isinstance(self._body, bytes):
                self._body = bytearray(self._body)
            self._body += data
        try:
            self.admission.check_body_size(len(self._body))
        except StreamsError as error:
            self._stop(error)

    @property
    def body_size(self) -> int | None:
        """The number of bytes that have arrived of the body; None if a page receives them while they arrive."""
        return len(self._body) if self._incoming is None else None

    def _count_body(self) -> None:
        """
        Count the body of a request that did not end with this packet.

        :raises Unavailable: too much is arriving.
        """
        more = len(self._body) - self._counted
        self.admission.incoming.add(more, self._asking)
        self._counted += more

    def _uncount_body(self, dropped: bool = True) -> None:
        self.admission.incoming.remove(self._counted, self._asking, dropped)
        self._counted = 0

    def on_message_complete(self) -> None:
        if self._interrupted:
            return
        if self._incoming is not None:
            self._incoming = None
            self._end_request()
            self._owner.body_ended()
            if self.deaf or not self._lives_on:
                raise _Stop
            return
        method = self._parser.get_method()
        if method == b"CONNECT":
            # CONNECT is not supported, and the bytes that follow were meant for the tunnel.
            self._lives_on = False
        body = self._body if isinstance(self._body, bytes) else bytes(self._body)
        request: AdmittedRequest
        url = self._url if self._url.startswith(b"/") else origin_form(self._url)
        version = "1.0" if self._old else "1.1"
        if self._fields is None:
            request = self.admission.stream_request(method, url, self._headers, body, self._asking, version)
            self._note_end(request)
        else:
            request = self.admission.page_request(
                method, url, self._fields, body, self._asking, version, self._forwarded
            )
            self._fields = None
        self._end_request()
        self._owner.asked(request, self._lives_on, self._old)
        if self.deaf or not self._lives_on:
            # What follows is not ours to read, and no reason to complain.
            raise _Stop

    def _end_request(self) -> None:
        """Reset the state of the request that was read."""
        self._url = self._packet = self._body = b""
        self._headers = {}
        self._in_body = self._decided = self.timed = False
        self.pace = None
        if self._counted:
            self._uncount_body(dropped=False)
        self._wire_bytes = self._bare_bytes = 0

    def _note_end(self, request: StreamRequest) -> None:
        """Record whether the request ended with the last received byte, so that the next byte begins a new request."""
        size, self._head_size = self._head_size, 0
        if size < 4 or self._fed != size + len(request.body) or not self._lives_on or self._old:
            return
        if _UNSTEADY.isdisjoint(request.headers):
            self._between = True
            if self._packet and self._block:
                self._heads.remember(self._block, request.headers, len(request.body), self._asking.client)

    def _stop(self, error: StreamsError) -> NoReturn:
        """
        Refuse the request that is being read.

        :raises _Stop: always.
        """
        self._refuse(error)
        raise _Stop
