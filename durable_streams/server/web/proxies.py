"""Proxies in front of the server: which of them are believed, and what is read of what they say."""

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

#: How often at the most, in seconds, it is said that somebody is not believed.
_QUIET: Final = 60

#: Where IPv4 is in IPv6, so that a network has one form, and a peer too.
_MAPPED: Final = 0xFFFF << 32

_log = Logger()


class Networks:
    """
    Some addresses and networks; to look one up takes as long as there are different lengths of prefixes.

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


class Reading(Struct, frozen=True):
    """
    What is made of the headers of a connection's requests, by their names in lower case.

    :ivar read: those that mean something.
    :ivar dropped: those that are as if they were not there, for whatever else serves requests too.
    """

    read: frozenset[bytes] = READ_HEADERS
    dropped: frozenset[bytes] = _ALL


class Proxies:
    """
    Decides whom to believe.

    :param seconds: says the time; None where nobody is believed and nothing said of it.
    :param forwarded_headers: which family of headers the proxies speak: ``none``, ``x-forwarded`` or ``forwarded``.
    :param trusted: addresses and networks of proxies, and ``unix`` for all that come by a UNIX socket.
    :param identity_header: in which the proxies say who the client is; None for none.
    """

    def __init__(
        self,
        seconds: Callable[[], float] | None = None,
        forwarded_headers: str = "none",
        trusted: Iterable[str] = (),
        identity_header: str | None = None,
    ) -> None:
        self._seconds = seconds
        self._networks = Networks(trusted)
        self._read_client = read_forwarded if forwarded_headers == "forwarded" else read_x_forwarded
        self._identity = identity_header.lower().encode() if identity_header else b""
        identity = frozenset([self._identity] if self._identity else [])
        family = _FAMILIES[forwarded_headers]
        believed = READ_HEADERS | family | {REQUEST_ID}
        self._distrusting = Reading(dropped=_ALL | identity)
        self._trusting = Reading(believed, (_ALL - family) | identity)
        self._identifying = Reading(believed | identity, _ALL - family)
        self._quiet_until = float("-inf")

    def trusts(self, address: str) -> bool:
        """
        Tell whether a peer is a trusted proxy.

        :param address: as :attr:`.Caller.address`.
        """
        return address in self._networks

    def reading(self, caller: Caller) -> Reading:
        """Say what is read of what comes on a connection."""
        if not caller.trusted:
            return self._distrusting
        # A proxy's word for who the client is needs the proxy's own certificate.
        return self._trusting if caller.subject is None else self._identifying

    def client(self, headers: Mapping[bytes, bytes]) -> Client:
        """
        Read what a trusted proxy says of its client.

        :param headers: by their names in lower case, as the connection's :class:`Reading` has left them.
        :raises InvalidRequest: it can't be understood.
        """
        said = self._read_client(headers, self.trusts)
        identity = headers.get(self._identity)
        return replace(said, request_id=given_id(headers), identity=identity.decode("latin-1") if identity else None)

    def disbelieve(self, caller: Caller) -> None:
        """A header was dropped. If its sender may have thought that it is trusted, say so, but not all the time."""
        if self._seconds is None or caller.trusted or self._seconds() < self._quiet_until:
            return
        self._quiet_until = self._seconds() + _QUIET
        _log.warn(
            "Ignored forwarding headers from {peer}, which is not in proxy.trusted_proxies. "
            "If it is your proxy, add its address there.",
            peer=caller.address or "A peer without an address",
        )

    def keep(self, fields: list[tuple[bytes, bytes]], caller: Caller) -> list[tuple[bytes, bytes]]:
        """Leave out of a request's headers what its sender is not believed."""
        dropped = self.reading(caller).dropped
        kept = [field for field in fields if field[0].lower() not in dropped]
        if len(kept) < len(fields):
            self.disbelieve(caller)
        return kept

    def admit(self, request: Request) -> Caller:
        """Find out on whose connection a twisted.web request came, and drop of its headers what is not believed."""
        channel: Any = request.channel
        known: Caller | None = getattr(channel, "caller", None)
        if known is not None:
            # It came by way of the daemon's own channel, which has done all this.
            return known
        # An HTTP/2 stream has none of its own; that of its connection tells who is there.
        transport = getattr(channel, "transport", None) or channel._conn.transport
        caller = caller_on(transport, self.trusts)
        reading = self.reading(caller)
        headers = request.requestHeaders
        for name in reading.dropped:
            if headers.hasHeader(name):
                headers.removeHeader(name)
                self.disbelieve(caller)
        return caller
