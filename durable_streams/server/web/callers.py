"""Who calls: what is known of the other end of a connection, found out once for all of its requests."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from secrets import token_hex
from typing import Any, Final, Protocol

from msgspec import Struct
from twisted.internet.interfaces import IAddress, ISSLTransport

#: Tells one run of the server from another in the ids of its requests.
RUN: Final = token_hex(4).encode()

#: Numbers requests. To draw one costs a twentieth of a microsecond.
next_number: Callable[[], int] = itertools.count(1).__next__


class Caller(Struct, frozen=True, gc=False):
    """
    Who is at the other end of a connection.

    :ivar address: the peer's IP address; empty where there is none, as on a UNIX socket.
    :ivar secure: whether the connection is TLS.
    :ivar trusted: whether it is a proxy that is believed what it says of its client.
    :ivar subject: of the client's certificate, as RFC 4514 writes it; None without one.
    """

    address: str = ""
    secure: bool = False
    trusted: bool = False
    subject: str | None = None


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
    address = getattr(transport.getPeer(), "host", None) or ""
    secure = ISSLTransport.providedBy(transport)
    return Caller(address, secure, is_trusted(address), subject_of(transport) if secure else None)


def subject_of(transport: Any) -> str | None:
    """Say whose the client's certificate is, if it has shown one."""
    certificate = transport.getPeerCertificate()
    if certificate is None:
        return None
    subject: str = certificate.to_cryptography().subject.rfc4514_string()
    return subject
