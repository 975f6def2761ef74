"""Callers: the peer of a connection, and the client that a trusted proxy names."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec import Struct
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress, ISSLTransport

if TYPE_CHECKING:
    from ..identity.certificates import PeerCertificate
    from ..identity.credentials import ClientCertificate

#: The prefix of request ids of this process.
RUN: Final = token_hex(4).encode()

#: Returns the next number of a request, in 0.05 us.
next_number: Callable[[], int] = itertools.count(1).__next__


#: The address of every client of a UNIX socket.
UNIX_PEER: Final = "unix"

#: The prefix of an IPv4-mapped IPv6 address.
_MAPPED: Final = "::ffff:"


class Client(Struct, frozen=True, gc=False):
    """
    The client that a trusted proxy names for a forwarded request; fields that it does not name are None.

    :ivar address: the client's IP address, or what the proxy calls it instead.
    :ivar scheme: by which the client came: ``http`` or ``https``.
    :ivar authority: the host that the client asked for, with its port if it is an unusual one.
    :ivar request_id: the proxy's id of the request.
    :ivar identity: who the client is.
    :ivar identified: whether the proxy has to name the identity of every client (``proxy.identity.mode``), by which the
        client is authenticated. If so, the proxy's own certificate identifies none of them.
    """

    address: str | None = None
    scheme: bytes | None = None
    authority: bytes | None = None
    request_id: bytes | None = None
    identity: str | None = None
    identified: bool = False


class Caller(Struct, frozen=True):
    """
    The peer of a connection, with the client for which it sends a request.

    :ivar address: the peer's IP address; :data:`UNIX_PEER` on a UNIX socket, empty where it is not known.
    :ivar secure: whether the connection is TLS.
    :ivar trusted: whether it is a trusted proxy (``proxy.trusted_proxies``).
    :ivar subject: of the client's certificate, as RFC 4514 writes it; None without one.
    :ivar client: the client that it names; differs between its requests. None unless it is trusted.
    :ivar presented: the certificate that the peer has presented; None without one.
    """

    address: str = ""
    secure: bool = False
    trusted: bool = False
    subject: str | None = None
    client: Client | None = None
    presented: PeerCertificate | None = None

    @property
    def certificate(self) -> ClientCertificate | None:
        """The names in the client's certificate; None without one, or if a proxy has to name the client's identity."""
        client, presented = self.client, self.presented
        if presented is None or (client is not None and client.identified):
            return None
        return presented.names

    @property
    def client_address(self) -> str:
        """The address of the client: as a trusted proxy names it, or else the peer's."""
        client = self.client
        return client.address or self.address if client is not None else self.address

    @property
    def counted_address(self) -> str:
        """The address of the client, for limits by address; empty if it is a trusted proxy that names no client."""
        client = self.client
        if not self.trusted:
            return self.address
        return "" if client is None else client.address or ""

    @property
    def identity(self) -> str | None:
        """The client's identity: as a trusted proxy names it, or else the subject of the peer's certificate."""
        client = self.client
        return client.identity or self.subject if client is not None else self.subject

    def forwarding(self, client: Client) -> Caller:
        """Return a copy of this caller with the client that it names."""
        return Caller(self.address, self.secure, self.trusted, self.subject, client, self.presented)

    def origin(self, host: bytes | None) -> bytes:
        """
        Return the server's origin as the client sees it: scheme, host and port. Empty if the host is not known.

        :param host: the value of Host.
        """
        scheme, authority = b"https" if self.secure else b"http", host
        client = self.client
        if client is not None:
            scheme, authority = client.scheme or scheme, client.authority or host
        return b"%b://%b" % (scheme, authority) if authority else b""


#: A caller of whom nothing is known.
NOBODY: Final = Caller()


class PeerTransport(Protocol):
    """A transport, as far as :func:`caller_on` reads it."""

    def getPeer(self) -> IAddress:
        """Return the peer's address."""


def nobody_is_trusted(address: str) -> bool:
    """Return False: no proxy is trusted."""
    return False


def peer_address(peer: IAddress) -> str:
    """Return the address of a peer, as :attr:`Caller.address` has it."""
    address = UNIX_PEER if isinstance(peer, UNIXAddress) else getattr(peer, "host", None) or ""
    if address.startswith(_MAPPED) and "." in address:
        # A listener for IPv6 that takes IPv4 too names IPv4 peers in this form (RFC 4291 section 2.5.5.2).
        address = address[len(_MAPPED) :]
    return address


def caller_on(transport: PeerTransport, is_trusted: Callable[[str], bool] = nobody_is_trusted) -> Caller:
    """
    Return the caller on a connection whose handshake, if it has one, is finished.

    :param is_trusted: returns whether an address is that of a trusted proxy.
    """
    address = peer_address(transport.getPeer())
    secure, trusted = ISSLTransport.providedBy(transport), is_trusted(address)
    certificate = presented_on(transport) if secure else None
    if certificate is None:
        return Caller(address, secure, trusted)
    return Caller(address, secure, trusted, certificate.subject, presented=certificate)


def presented_on(transport: Any) -> PeerCertificate | None:
    """Return the certificate that the client on a connection has presented; None without one."""
    certificate = transport.getPeerCertificate()
    if certificate is None:
        return None
    from ..identity.certificates import PeerCertificate  # noqa: PLC0415 (15 ms that plain HTTP does not need)

    return PeerCertificate(certificate)


class RequestWithCaller(Protocol):
    """A request for a stream or a page, of which only the caller is used."""

    @property
    def caller(self) -> Caller:
        """The caller that sent the request."""


def client_of(request: RequestWithCaller) -> str:
    """Return the address of a request's client; see :attr:`Caller.client_address`."""
    return request.caller.client_address
