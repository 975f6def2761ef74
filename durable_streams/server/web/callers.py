"""Who calls: what is known of the other end of a connection, found out once for all of its requests."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from secrets import token_hex
from typing import Any, Final, Protocol

from msgspec import Struct
from twisted.internet.address import UNIXAddress
from twisted.internet.interfaces import IAddress, ISSLTransport

#: Tells one run of the server from another in the ids of its requests.
RUN: Final = token_hex(4).encode()

#: Numbers requests. To draw one costs a twentieth of a microsecond.
next_number: Callable[[], int] = itertools.count(1).__next__


#: The address of everybody who comes by a UNIX socket.
UNIX_PEER: Final = "unix"

#: What an IPv4 address begins with where it is written as an IPv6 one.
_MAPPED: Final = "::ffff:"


class Client(Struct, frozen=True, gc=False):
    """
    What a trusted proxy says of the client whose request it forwards; None for what it does not say.

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
    Who is at the other end of a connection.

    :ivar address: the peer's IP address; :data:`UNIX_PEER` on a UNIX socket, empty where it is not known.
    :ivar secure: whether the connection is TLS.
    :ivar trusted: whether it is a proxy that is believed what it says of its client.
    :ivar subject: of the client's certificate, as RFC 4514 writes it; None without one.
    :ivar client: for whom it asks, as it says; differs between its requests. None where it is not believed.
    """

    address: str = ""
    secure: bool = False
    trusted: bool = False
    subject: str | None = None
    client: Client | None = None

    @property
    def client_address(self) -> str:
        """From which address its request came at first, as far as that can be believed."""
        client = self.client
        return client.address or self.address if client is not None else self.address

    @property
    def identity(self) -> str | None:
        """Who sent its request: a trusted proxy's word for it, or else the subject of its own certificate."""
        client = self.client
        return client.identity or self.subject if client is not None else self.subject

    def forwarding(self, client: Client) -> Caller:
        """Say that it asks for somebody."""
        return Caller(self.address, self.secure, self.trusted, self.subject, client)

    def origin(self, host: bytes | None) -> bytes:
        """
        Say where the client thinks that it is: scheme, host and port. Empty where nobody has said the host.

        :param host: what the request has for Host.
        """
        scheme, authority = b"https" if self.secure else b"http", host
        client = self.client
        if client is not None:
            scheme, authority = client.scheme or scheme, client.authority or host
        return b"%b://%b" % (scheme, authority) if authority else b""


#: Somebody of whom nothing is known.
NOBODY: Final = Caller()


class Connection(Protocol):
    """What must be known of a transport."""

    def getPeer(self) -> IAddress:
        """Say who is at the other end."""


def nobody_is_trusted(address: str) -> bool:
    """Believe no proxy."""
    return False


def caller_on(transport: Connection, is_trusted: Callable[[str], bool] = nobody_is_trusted) -> Caller:
    """
    Find out who is at the other end of a connection whose handshake, if it has one, is over.

    :param is_trusted: tells whether a peer's address is that of a trusted proxy.
    """
    peer = transport.getPeer()
    address = UNIX_PEER if isinstance(peer, UNIXAddress) else getattr(peer, "host", None) or ""
    if address.startswith(_MAPPED) and "." in address:
        # A listener for IPv6 that takes IPv4 too names IPv4 peers in this form (RFC 4291 section 2.5.5.2).
        address = address[len(_MAPPED) :]
    secure = ISSLTransport.providedBy(transport)
    return Caller(address, secure, is_trusted(address), subject_of(transport) if secure else None)


def subject_of(transport: Any) -> str | None:
    """Say whose the client's certificate is, if it has shown one."""
    certificate = transport.getPeerCertificate()
    if certificate is None:
        return None
    try:
        subject: str = certificate.to_cryptography().subject.rfc4514_string()
    except ValueError:
        # Old authorities write in alphabets that the library refuses; OpenSSL, which has let it in, does not.
        parts = certificate.get_subject().get_components()
        subject = ",".join(f"{name.decode()}={value.decode('utf-8', 'backslashreplace')}" for name, value in parts)
    return subject


class Called(Protocol):
    """A request, as far as it matters who sent it."""

    @property
    def caller(self) -> Caller:
        """Whose it is."""


def client_of(request: Called) -> str:
    """Say from which address a request came at first, as far as that can be believed."""
    return request.caller.client_address


def identity_of(request: Called) -> str | None:
    """Say who sent a request: a trusted proxy's word for it, or else the subject of the peer's certificate."""
    return request.caller.identity
