"""Requests for streams: their parts, their operations, and the queries of reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from ipaddress import IPv6Address
from typing import Final
from urllib.parse import unquote_to_bytes

from msgspec import Struct

from ..errors import InvalidOffset, InvalidRequest
from ..model import Offset
from ..protocol.names import NameLimits, parse_name
from ..protocol.offsets import parse_offset
from .access_parts import Access
from .callers import NOBODY, Caller
from .redaction import redacted_query

#: The headers that operations read, in lower case. The front reads some others; the rest is ignored.
READ_HEADERS: Final = frozenset(
    b"authorization content-encoding content-type host if-none-match last-event-id origin producer-epoch producer-id "
    b"producer-seq "
    b"stream-closed stream-expected-offset stream-expires-at stream-fork-offset stream-fork-sub-offset "
    b"stream-forked-from stream-seq stream-ttl traceparent tracestate".split()
)

#: The operations of requests that read data, and of live ones.
LIVE_READS: Final = frozenset({"poll", "subscribe"})
READS: Final = LIVE_READS | {"read"}

#: Headers whose values, sent several times, are one list. Of every other, a second one is refused.
_LISTS: Final = frozenset(
    b"content-encoding forwarded if-none-match traceparent tracestate upgrade user-agent x-forwarded-for "
    b"x-forwarded-host x-forwarded-port x-forwarded-proto x-request-id".split()
)

#: The target of a request about the server itself (RFC 9112 section 3.2.4). Only OPTIONS has it.
WHOLE_SERVER: Final = b"*"

#: A host by RFC 3986 section 3.2.2, with a port or without: an address in brackets, or a registered name, which may be
#: percent-encoded and may be empty.
_HOST: Final = re.compile(
    rb"(?:\[(?:([0-9A-Fa-f:.]{2,45})|[Vv][0-9A-Fa-f]+\.[A-Za-z0-9._~!$&'()*+,;=:-]+)\]"
    rb"|(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})*)(?::[0-9]*)?"
)


class View(Struct, frozen=True, gc=False):
    """
    The query of a GET.

    :ivar offset: where the read begins; None if the query does not say.
    :ivar live: the live mode; None for a catch-up read.
    :ivar cursor: the cursor of the last live read.
    :ivar bad_offset: why the offset is refused; empty if it is valid.
    :ivar bad_live: why the live mode is refused; empty if it is valid.
    """

    offset: Offset | None = None
    live: str | None = None
    cursor: str | None = None
    bad_offset: str = ""
    bad_live: str = ""

    def check(self) -> None:
        """
        Raise why the query is refused.

        :raises InvalidOffset: the offset is malformed or missing, or there are two.
        :raises InvalidRequest: the live mode is unknown.
        """
        if self.bad_offset:
            raise InvalidOffset(self.bad_offset)
        if self.bad_live:
            raise InvalidRequest(self.bad_live)


class StreamRequest(Struct):
    """
    A request for a stream, as all fronts pass it to the operations. :func:`stream_request` makes it.

    It is changed only by the gate, which sets :attr:`access`, and by what serves the reserved paths.

    :ivar method: in upper case, as HTTP has it.
    :ivar mount: the part of the path before the stream's name, slash included; percent-encoded.
    :ivar path: the rest of the path: the stream's name, percent-encoded.
    :ivar query: what follows the question mark.
    :ivar headers: those of :data:`READ_HEADERS`, by their names in lower case.
    :ivar caller: who sent it.
    :ivar number: the number of the request in this process.
    :ivar version: of HTTP.
    :ivar operation: ``append``, ``create``, ``head``, ``delete``, ``read``, ``poll`` or ``subscribe``; ``request`` for
        any other method.
    :ivar view: what a GET asks for; empty for other methods.
    :ivar access: the decision of the gate that has admitted it; None without a gate, and before it.
    """

    method: bytes
    mount: bytes
    path: bytes
    query: bytes
    headers: dict[bytes, bytes]
    body: bytes
    caller: Caller
    number: int
    version: str
    operation: str
    view: View
    access: Access | None = None

    @property
    def target(self) -> bytes:
        """The path and the query as they were sent, without the signature of a signed URL."""
        target = self.mount + self.path
        return target + b"?" + redacted_query(self.query) if self.query else target

    @property
    def is_live(self) -> bool:
        """Whether it is a live read: a long-poll or Server-Sent Events."""
        return self.operation in LIVE_READS


def stream_request(  # noqa: PLR0913, PLR0917 (the parts of a request)
    method: bytes,
    mount: bytes,
    path: bytes,
    query: bytes,
    headers: dict[bytes, bytes],
    body: bytes,
    caller: Caller = NOBODY,
    number: int = 0,
    version: str = "1.1",
) -> StreamRequest:
    """Make a request for a stream; see :class:`StreamRequest`."""
    operation, view = find_operation(method, query)
    return StreamRequest(method, mount, path, query, headers, body, caller, number, version, operation, view)


def join_header(headers: dict[bytes, bytes], name: bytes, value: bytes) -> None:
    """
    Add a header that was sent before to the first one's value.

    :raises InvalidRequest: it is no list.
    """
    if name not in _LISTS:
        raise InvalidRequest(f"{name.decode('latin-1').title()} was sent twice. Send it once.")
    headers[name] += b", " + value


def pick_headers(fields: Iterable[tuple[bytes, bytes]], read: frozenset[bytes] = READ_HEADERS) -> dict[bytes, bytes]:
    """
    Select the headers that are read.

    :param read: their names in lower case.
    :raises InvalidRequest: one that is no list was sent twice.
    """
    headers: dict[bytes, bytes] = {}
    for name, value in fields:
        key = name.lower()
        if key in read:
            if key not in headers:
                headers[key] = value
            else:
                join_header(headers, key, value)
    return headers


def check_host(host: bytes | None) -> None:
    """
    Check a Host header (RFC 9110 section 7.2): its value becomes part of Location, and of logs.

    :raises InvalidRequest: it is not a host and port by RFC 3986 section 3.2.
    """
    if host is None:
        return
    match = _HOST.fullmatch(host)
    if match is None or (match[1] is not None and not _is_ipv6(match[1])):
        raise InvalidRequest("Host must be the name or the address of a host, with its port or without.")


def _is_ipv6(text: bytes) -> bool:
    try:
        IPv6Address(text.decode())
    except ValueError:
        return False
    return True


def check_target(target: bytes) -> None:
    """
    Check that a request target has no fragment, which belongs to the client alone (RFC 9110 section 4.2.5).

    :raises InvalidRequest: it has a ``#``.
    """
    if b"#" in target:
        raise InvalidRequest("The request's target has a #. Percent-encode it as %23, or leave the fragment out.")


def name_reader(limits: NameLimits, remembered: int = 4096) -> Callable[[bytes], str]:
    """Return a :func:`.parse_name` with a cache of short names."""
    seen: dict[bytes, str] = {}

    def read_name(path: bytes) -> str:
        name = seen.get(path)
        if name is None:
            name = parse_name(path, limits)
            if len(path) < 256:
                if len(seen) >= remembered:
                    seen.clear()
                seen[path] = name
        return name

    return read_name


def _unquote(value: bytes) -> str:
    if b"%" in value:
        value = unquote_to_bytes(value)
    return value.decode("latin-1")


def find_operation(method: bytes, query: bytes) -> tuple[str, View]:
    """Return the operation of a request, and the parsed query of a GET (PROTOCOL sections 5.6 to 5.8)."""
    if method == b"GET":
        return _FIRST_READS.get(query) or _read_query(query)
    return _BY_METHOD.get(method, _OTHER)


def offset_of_reconnect(headers: dict[bytes, bytes]) -> Offset | None:
    """
    Return the offset from which a tail resumes: a browser's EventSource sends its last event's id when it reconnects.

    :raises InvalidOffset: Last-Event-ID is not the id of an event.
    """
    last_event_id = headers.get(b"last-event-id")
    if not last_event_id:
        return None
    try:
        return parse_offset(last_event_id.decode("latin-1"))
    except InvalidOffset:
        raise InvalidOffset(
            "Last-Event-ID is not the id of an event of a stream. Leave it out, or send that id."
        ) from None


def _read_query(query: bytes) -> tuple[str, View]:
    """Read the query of a GET. Unknown parameters are ignored."""
    offset = live = cursor = None
    bad_offset = bad_live = ""
    for pair in query.split(b"&"):
        key, _, value = pair.partition(b"=")
        if key == b"offset":
            try:
                if offset is not None:
                    raise InvalidOffset("There are two offsets. Send one.")
                offset = parse_offset(_unquote(value))
            except InvalidOffset as invalid:
                bad_offset = bad_offset or str(invalid)
        elif key == b"live":
            live = _unquote(value)
        elif key == b"cursor":
            cursor = _unquote(value)
    if live is not None and not bad_offset:
        if live not in _LIVE:
            bad_live = "live must be long-poll or sse."
        elif offset is None:
            bad_offset = "Live reads need an offset: -1, now, or the last Stream-Next-Offset."
    return _LIVE.get(live or "", "read"), View(offset, live, cursor, bad_offset, bad_live)


#: Live mode -> operation.
_LIVE: Final = {"long-poll": "poll", "sse": "subscribe"}

_NO_VIEW: Final = View()
_OTHER: Final = "request", _NO_VIEW

#: Method -> operation and view. The operation of a GET depends on its query.
_BY_METHOD: Final = {
    b"POST": ("append", _NO_VIEW),
    b"PUT": ("create", _NO_VIEW),
    b"HEAD": ("head", _NO_VIEW),
    b"DELETE": ("delete", _NO_VIEW),
}

#: The most frequent queries of first reads.
_FIRST_READS: Final = {query: _read_query(query) for query in (b"", b"offset=-1", b"offset=now")}
