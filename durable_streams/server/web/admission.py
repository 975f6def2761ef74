"""
Admission of requests: the limits and rules for the head and the body of a request.

HTTP/1.1's parser, HTTP/2 and the resources for a Site apply these rules, each as soon as it has the part of the request
that a rule is about. The header cache (:mod:`.http1.known_heads`) admits what they have admitted before.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from math import ceil
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from ..errors import BodyTooLarge, Unavailable
from .callers import Caller, next_number
from .incoming import IncomingBody
from .pages import PageRequest
from .problems import BadFraming, HeadersTooLarge, MethodNotAllowed, TargetTooLong
from .proxies import HeaderSelection, Proxies
from .requests import WHOLE_SERVER, StreamRequest, check_host, check_target, pick_headers, stream_request
from .wire import is_stream

if TYPE_CHECKING:
    from .quotas import RequestQuotas

#: A request for a stream, or for anything else that is served.
AdmittedRequest: TypeAlias = StreamRequest | PageRequest

#: The characters of a method (RFC 9110 section 5.6.2). The HTTP/2 engine and twisted.web accept any bytes.
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

_ABSOLUTE_FORM: Final = re.compile(rb"(https?)://([^/?#]*)", re.IGNORECASE)
_DEFAULT_PORTS: Final = {b"http": b":80", b"https": b":443"}

#: The largest number of valid Host headers that are remembered, and the number of digits of a length that is read.
_HOSTS: Final = 1024
_DIGITS: Final = 18


class RequestLimits(Struct, frozen=True, gc=False):
    """
    The largest sizes of the parts of a request, in bytes.

    :ivar incoming_bytes: of all bodies together that are arriving on the connections of a listener.
    :ivar body_rate: how many bytes of a body must arrive a second on average; 0 for any number.
    """

    header_bytes: int = 32_768
    target_bytes: int = 8_192
    body_bytes: int = 10_485_760
    incoming_bytes: int = 268_435_456
    body_rate: int = 500


class IncomingBodies:
    """
    The total size of the request bodies that are arriving on all connections of a policy, and its limit.

    Bodies that arrive in one packet with their head are not counted: they are performed, or refused, at once.

    :param quotas: limits the bodies of one address; None for no limit.
    :ivar size: what has arrived of them, in bytes.
    """

    __slots__ = ("_limit", "_quotas", "size")

    def __init__(self, limit: int, quotas: RequestQuotas | None = None) -> None:
        self._limit = limit
        self._quotas = quotas
        self.size = 0

    def check(self, size: int, caller: Caller) -> None:
        """
        Check whether there is room for a body that begins to arrive.

        :param size: its size, in bytes.
        :param caller: the client that sends it.
        :raises Unavailable: there is none.
        :raises RateLimited: the address of the client sends too much.
        """
        if self._quotas is not None:
            self._quotas.check_incoming(caller, size)
        self._check_all(size)

    def _check_all(self, size: int) -> None:
        if self.size + size > self._limit:
            raise Unavailable(
                f"The request bodies that are arriving are larger than {self._limit} bytes together "
                "(limits.max_incoming_bytes). Send it again."
            )

    def add(self, size: int, caller: Caller) -> None:
        """
        Count bytes that have arrived.

        :param caller: the client that sends them.
        :raises Unavailable: there are too many; then they are not counted.
        :raises RateLimited: the address of the client sends too many.
        """
        self._check_all(size)
        if self._quotas is not None:
            self._quotas.add_incoming(caller, size)
        self.size += size

    def remove(self, size: int, caller: Caller, dropped: bool = False) -> None:
        """
        Subtract the bytes of a body that is complete, or is dropped.

        :param caller: the client that they were counted for.
        :param dropped: whether its request will not be performed.
        """
        self.size -= size
        if self._quotas is not None:
            self._quotas.remove_incoming(caller, size, dropped)


class BodyPace:
    """
    The deadline of a request body that must arrive at a minimum rate.

    Each byte extends the deadline, to the time-out from now at most. An average since the first byte would let a client
    that was fast at first hold back the rest for hours.
    """

    __slots__ = ("_size", "_until")

    def __init__(self) -> None:
        self._size = 0
        self._until = 0.0

    def deadline(self, now: int, size: int, timeout: int, rate: int) -> int:
        """
        Return when the next bytes must have arrived; times are ticks, of a second each.

        :param size: how many bytes have arrived.
        :param timeout: how long a client may send nothing.
        :param rate: how many bytes must arrive a second; 0 for any number.
        """
        more, self._size = size - self._size, size
        if not rate:
            return now + timeout
        self._until = min(now + timeout, (self._until or now + timeout) + more / rate)
        return ceil(self._until)


class Admission:
    """
    The rules for requests that arrive on connections of one kind; trusted proxies have their own.

    :ivar base: the path prefix of streams.
    :ivar reading: the headers that are read, and those that are dropped.
    :ivar incoming: the bodies that are arriving.
    :ivar hosts: values of Host that are known to be valid.
    """

    __slots__ = ("base", "hosts", "incoming", "limits", "proxies", "reading")

    def __init__(
        self,
        base: bytes,
        limits: RequestLimits,
        reading: HeaderSelection = HeaderSelection(),  # noqa: B008 (frozen)
        proxies: Proxies | None = None,
        incoming: IncomingBodies | None = None,
    ) -> None:
        self.incoming = incoming or IncomingBodies(limits.incoming_bytes)
        self.base = base
        self.limits = limits
        self.reading = reading
        self.proxies = proxies or Proxies()
        self.hosts: set[bytes] = set()

    def check_target_size(self, target: bytes) -> None:
        """
        Check the size of a target in origin form.

        :raises TargetTooLong: it is over the limit.
        """
        limit = self.limits.target_bytes
        if len(target) > limit:
            raise TargetTooLong(f"The request's target is longer than {limit} bytes (limits.max_target_bytes).")

    def check_head_size(self, size: int) -> None:
        """
        Check the size of a head: the request line and the headers, with the overhead of the protocol for each.

        :raises HeadersTooLarge: it is over the limit.
        """
        limit = self.limits.header_bytes
        if size > limit:
            raise HeadersTooLarge(f"The headers are larger than {limit} bytes (limits.max_header_bytes).")

    def check_line(self, method: bytes, target: bytes) -> None:
        """
        Check the method, and that the target has a form that the method allows (RFC 9112 section 3.2).

        :raises MethodNotAllowed: it is CONNECT.
        :raises BadFraming: the method is no token, or the target no path.
        :raises InvalidRequest: the target has a fragment.
        """
        if not _TOKEN.fullmatch(method):
            raise BadFraming("The method of a request is letters, digits and a few signs, as in GET.")
        if method == b"CONNECT":
            raise MethodNotAllowed("CONNECT is not supported: the server is not a proxy.")
        if target == WHOLE_SERVER and method == b"OPTIONS":
            return
        check_target(target)
        if not target.startswith(b"/"):
            raise BadFraming("The path of a request begins with a slash.")

    def read(self, fields: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
        """
        Select the headers that are read.

        :returns: their values, by their names in lower case.
        :raises InvalidRequest: a header that is no list was sent twice.
        """
        return pick_headers(fields, self.reading.read)

    def check_host(self, host: bytes | None) -> None:
        """
        Check the value of Host.

        :raises InvalidRequest: it is malformed.
        """
        if host is not None and host not in self.hosts:
            check_host(host)
            if len(self.hosts) < _HOSTS:
                self.hosts.add(host)

    def check_length(self, length: bytes) -> None:
        """
        Check the size of a body by its Content-Length, which is digits.

        :raises BodyTooLarge: it is over the limit.
        """
        digits = length.lstrip(b"0")
        if len(digits) > _DIGITS or int(digits or b"0") > self.limits.body_bytes:
            raise BodyTooLarge(self.limits.body_bytes)

    def check_body_size(self, size: int) -> None:
        """
        Check how much of a body has arrived.

        :raises BodyTooLarge: it is over the limit.
        """
        if size > self.limits.body_bytes:
            raise BodyTooLarge(self.limits.body_bytes)

    def identify(self, caller: Caller, headers: dict[bytes, bytes]) -> Caller:
        """
        Add to the caller the client that a trusted proxy names.

        :raises InvalidRequest: the proxy's headers are malformed.
        """
        if not caller.trusted or caller.client is not None:
            return caller
        return caller.forwarding(self.proxies.client(headers))

    def is_stream(self, target: bytes) -> bool:
        """Return whether the operations of streams answer a target, which is complete or the beginning of one."""
        base = self.base
        if base == b"/":
            return is_stream(target, base) or target == WHOLE_SERVER
        # wire.is_stream without the call, which is 1 % of the time that parsing a request takes.
        return target.startswith(base) or target == WHOLE_SERVER

    def stream_request(
        self, method: bytes, target: bytes, headers: dict[bytes, bytes], body: bytes, caller: Caller, version: str
    ) -> StreamRequest:
        """
        Make the request for a stream.

        :param target: in origin form, below :attr:`base`; or ``*``.
        :param headers: as :meth:`read` returns them.
        """
        base = self.base if target != WHOLE_SERVER else target
        path, _, query = target.partition(b"?")
        return stream_request(method, base, path[len(base) :], query, headers, body, caller, next_number(), version)

    def page_request(
        self,
        method: bytes,
        target: bytes,
        fields: list[tuple[bytes, bytes]],
        body: bytes | IncomingBody,
        caller: Caller,
        version: str,
        forwarded: bool = False,
    ) -> PageRequest:
        """
        Make the request for a page.

        :param fields: all headers, but those that are dropped.
        :param body: all of it, or what produces it.
        :param forwarded: whether forwarding headers were dropped.
        """
        return PageRequest(method, target, fields, body, caller, next_number(), version, forwarded)


class AdmissionPolicy:
    """
    The rules for all connections of a listener or a Site.

    :param base: the path prefix of streams.
    :param more_headers: headers that are read besides those that the operations read, in lower case.
    :param quotas: limits the bodies of one address that are arriving; None for no limit.
    """

    def __init__(
        self,
        base: bytes,
        limits: RequestLimits,
        proxies: Proxies,
        more_headers: frozenset[bytes],
        quotas: RequestQuotas | None = None,
    ) -> None:
        self._base = base
        self._limits = limits
        self._proxies = proxies
        self._more_headers = more_headers
        self._incoming = IncomingBodies(limits.incoming_bytes, quotas)
        self._admissions: dict[HeaderSelection, Admission] = {}

    def admission(self, caller: Caller) -> Admission:
        """Return the rules for the requests of a connection."""
        reading = self._proxies.reading(caller)
        admission = self._admissions.get(reading)
        if admission is None:
            read = replace(reading, read=reading.read | self._more_headers)
            admission = self._admissions[reading] = Admission(
                self._base, self._limits, read, self._proxies, self._incoming
            )
        return admission


def origin_form(target: bytes) -> bytes:
    """Return path and query of a target in absolute form, which clients send to proxies; any other target as it is."""
    match = _ABSOLUTE_FORM.match(target)
    if match is None:
        return target
    rest = target[match.end() :]
    return rest if rest.startswith(b"/") else b"/" + rest


def check_authority(target: bytes, host: bytes | None) -> None:
    """
    Check that a target in absolute form and Host have the same host.

    RFC 9112 section 3.2.2 gives precedence to the target; a reader that takes Host instead would see another host.

    :raises BadFraming: they differ.
    """
    match = _ABSOLUTE_FORM.match(target)
    if match is None or host is None:
        return
    port = _DEFAULT_PORTS[match[1].lower()]
    if _without_port(host, port) != _without_port(match[2], port):
        raise BadFraming("The request's URL is of another host than Host says. Send one host.")


def _without_port(authority: bytes, port: bytes) -> bytes:
    """Return host and port in lower case, without a port that is empty or the scheme's default."""
    return authority.lower().removesuffix(port).removesuffix(b":")
