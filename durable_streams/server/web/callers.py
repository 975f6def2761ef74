"""Callers: the peer of a connection, and the client that a trusted proxy names."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from secrets import token_hex
from typing import Any, Final, Protocol

from msgspec import Struct
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress, ISSLTransport

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
    """

    address: str | None = None
    scheme: bytes | None = None
    authority: bytes | None = None
    request_id: bytes | None = None
    identity: str | None = None


class Caller(Struct, frozen=True, gc=False):
    """
    The peer of a connection, with the client for which it sends a request.

    :ivar address: the peer's IP address; :data:`UNIX_PEER` on a UNIX socket, empty where it is not known.
    :ivar secure: whether the connection is TLS.
    :ivar trusted: whether it is a trusted proxy (``proxy.trusted_proxies``).
    :ivar subject: of the client's certificate, as RFC 4514 writes it; None without one.
    :ivar client: the client that it names; differs between its requests. None unless it is trusted.
    :ivar certificate: what is read of the client's certificate for its authentication; None without one.
    """

    address: str = ""
    secure: bool = False
    trusted: bool = False
    subject: str | None = None
    client: Client | None = None
    certificate: object | None = None

    @property
    def client_address(self) -> str:
        """The address of the client: as a trusted proxy names it, or else the peer's."""
        client = self.client
        return client.address or self.address if client is not None else self.address

    @property
    def identity(self) -> str | None:
        """The client's identity: as a trusted proxy names it, or else the subject of the peer's certificate."""
        client = self.client
        return client.identity or self.subject if client is not None else self.subject

    def forwarding(self, client: Client) -> Caller:
        """Return a copy of this caller with the client that it names."""
        return Caller(self.address, self.secure, self.trusted, self.subject, client, self.certificate)

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


def caller_on(transport: PeerTransport, is_trusted: Callable[[str], bool] = nobody_is_trusted) -> Caller:
    """
    Return the caller on a connection whose handshake, if it has one, is finished.

    :param is_trusted: returns whether an address is that of a trusted proxy.
    """
    peer = transport.getPeer()
    address = UNIX_PEER if isinstance(peer, UNIXAddress) else getattr(peer, "host", None) or ""
    if address.startswith(_MAPPED) and "." in address:
        # A listener for IPv6 that takes IPv4 too names IPv4 peers in this form (RFC 4291 section 2.5.5.2).
        address = address[len(_MAPPED) :]
    secure = ISSLTransport.providedBy(transport)
    return Caller(address, secure, is_trusted(address), subject_of(transport) if secure else None)


def subject_of(transport: Any) -> str | None:
    """Return the subject of the client's certificate; None without one."""
    certificate = transport.getPeerCertificate()
    if certificate is None:
        return None
    try:
        subject: str = certificate.to_cryptography().subject.rfc4514_string()
    except ValueError:
        # The library refuses some old string types that OpenSSL has accepted.
        parts = certificate.get_subject().get_components()
        subject = ",".join(f"{name.decode()}={value.decode('utf-8', 'backslashreplace')}" for name, value in parts)
    return subject


class RequestWithCaller(Protocol):
    """A request for a stream or a page, of which only the caller is used."""

    @property
    def caller(self) -> Caller:
        """The caller that sent the request."""


def client_of(request: RequestWithCaller) -> str:
    """Return the address of a request's client; see :attr:`Caller.client_address`."""
    return request.caller.client_address


def identity_of(request: RequestWithCaller) -> str | None:
    """Return the identity of a request's client; see :attr:`Caller.identity`."""
    return request.caller.identity
