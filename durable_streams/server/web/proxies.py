"""Trusted proxies, and the selection of forwarding headers that are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from ipaddress import ip_address, ip_network
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace
from twisted.logger import Logger
from twisted.web.server import Request

from .callers import UNIX_PEER, Caller, Client, caller_on
from .forwarded import (
    FOR,
    FORWARDED,
    HOST,
    PORT,
    PROTO,
    REQUEST_ID,
    given_id,
    read_forwarded,
    read_x_forwarded,
)
from .requests import READ_HEADERS

_X_FORWARDED: Final = frozenset([FOR, HOST, PROTO, PORT])
_FAMILIES: Final = {"none": frozenset[bytes](), "x-forwarded": _X_FORWARDED, "forwarded": frozenset([FORWARDED])}
_ALL: Final = _X_FORWARDED | {FORWARDED}

#: The minimum interval, in seconds, between warnings about ignored headers.
_QUIET: Final = 60

#: The prefix of IPv4-mapped IPv6 addresses: all addresses are compared in this form.
_MAPPED: Final = 0xFFFF << 32

_log = Logger()


class Networks:
    """
    A set of addresses and networks. A look-up takes one step for each length of prefix.

    :param entries: such as ``10.0.0.0/8``, ``::1``, or a word that stands for itself.
    """

    def __init__(self, entries: Iterable[str]) -> None:
        self._words: set[str] = set()
        self._prefixes: dict[int, set[int]] = {}
        for entry in entries:
            if entry == UNIX_PEER:
                self._words.add(entry)
                continue
            network = ip_network(entry)
            # How many bits of an address do not matter.
            free = network.max_prefixlen - network.prefixlen
            self._prefixes.setdefault(free, set()).add(_number(network.network_address) >> free)

    def __contains__(self, address: str) -> bool:
        if not self._prefixes or address in self._words:
            return address in self._words
        try:
            number = _number(ip_address(address))
        except ValueError:
            return False
        return any(number >> free in prefixes for free, prefixes in self._prefixes.items())


def _number(address: Any) -> int:
    number = int(address)
    return number | _MAPPED if address.version == 4 else number


class HeaderSelection(Struct, frozen=True):
    """
    The headers that are read from a connection's requests, by their names in lower case.

    :ivar read: the headers that are read.
    :ivar dropped: the headers that are removed, for pages as well.
    """

    read: frozenset[bytes] = READ_HEADERS
    dropped: frozenset[bytes] = _ALL


class Proxies:
    """
    The trusted proxies and the headers that are accepted from them.

    :param seconds: returns the time; None if no proxy is trusted, and ignored headers are not logged.
    :param forwarded_headers: the family of headers: ``none``, ``x-forwarded`` or ``forwarded``.
    :param trusted: addresses and networks of proxies, and ``unix`` for all that come by a UNIX socket.
    :param identity_header: the header with the identity of the client; None for none.
    :param identifies: whether this identity authenticates the client, so that the proxy's certificate does not.
    """

    def __init__(
        self,
        seconds: Callable[[], float] | None = None,
        forwarded_headers: str = "none",
        trusted: Iterable[str] = (),
        identity_header: str | None = None,
        identifies: bool = True,
    ) -> None:
        self._seconds = seconds
        self._networks = Networks(trusted)
        self._read_client = read_forwarded if forwarded_headers == "forwarded" else read_x_forwarded
        self._identity = identity_header.lower().encode() if identity_header else b""
        self._identifies = identifies and bool(self._identity)
        identity = frozenset([self._identity] if self._identity else [])
        family = _FAMILIES[forwarded_headers]
        believed = READ_HEADERS | family | {REQUEST_ID}
        self._distrusting = HeaderSelection(dropped=_ALL | identity)
        self._trusting = HeaderSelection(believed, (_ALL - family) | identity)
        self._identifying = HeaderSelection(believed | identity, _ALL - family)
        self._quiet_until = float("-inf")

    def trusts(self, address: str) -> bool:
        """
        Return whether a peer is a trusted proxy.

        :param address: as :attr:`.Caller.address`.
        """
        return address in self._networks

    def reading(self, caller: Caller) -> HeaderSelection:
        """Return the selection of headers for a connection."""
        if not caller.trusted:
            return self._distrusting
        # The identity header is trusted only if the proxy has a client certificate.
        return self._trusting if caller.subject is None else self._identifying

    def client(self, headers: Mapping[bytes, bytes]) -> Client:
        """
        Return the client that a trusted proxy names.

        :param headers: by their names in lower case, as the connection's :class:`HeaderSelection` has left them.
        :raises InvalidRequest: a header is malformed.
        """
        said = self._read_client(headers, self.trusts)
        identity = headers.get(self._identity)
        return replace(
            said,
            request_id=given_id(headers),
            identity=identity.decode("latin-1") if identity else None,
            identified=self._identifies,
        )

    def disbelieve(self, caller: Caller) -> None:
        """Log that a header was dropped, at most once in :data:`_QUIET` seconds."""
        if self._seconds is None or caller.trusted or self._seconds() < self._quiet_until:
            return
        self._quiet_until = self._seconds() + _QUIET
        _log.warn(
            "Ignored forwarding headers from {peer}, which is not in proxy.trusted_proxies. "
            "If it is your proxy, add its address there.",
            peer=caller.address or "A peer without an address",
        )

    def keep(self, fields: list[tuple[bytes, bytes]], caller: Caller) -> list[tuple[bytes, bytes]]:
        """Return a request's headers without the dropped ones."""
        dropped = self.reading(caller).dropped
        kept = [field for field in fields if field[0].lower() not in dropped]
        if len(kept) < len(fields):
            self.disbelieve(caller)
        return kept

    def admit(self, request: Request) -> Caller:
        """Return the caller of a twisted.web request, and remove the headers that are dropped."""
        channel: Any = request.channel
        known: Caller | None = getattr(channel, "caller", None)
        if known is not None:
            # It came by way of the daemon's own channel, which has done all this.
            return known
        # An HTTP/2 stream has no certificate; that of its connection names the peer.
        transport = getattr(channel, "transport", None) or channel._conn.transport
        caller = caller_on(transport, self.trusts)
        reading = self.reading(caller)
        headers = request.requestHeaders
        for name in reading.dropped:
            if headers.hasHeader(name):
                headers.removeHeader(name)
                self.disbelieve(caller)
        return caller
