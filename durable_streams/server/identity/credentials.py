"""The credentials that a request can present, each with the interface by which a portal finds its checker."""

from __future__ import annotations

from msgspec import Struct
from twisted.cred.credentials import ICredentials
from zope.interface import Attribute, implementer


class ClientCertificate(Struct, frozen=True):
    """
    The names in a client's certificate that the TLS handshake has verified.

    :ivar subject: the distinguished name (RFC 4514).
    :ivar dns: the DNS names among the subject alternative names.
    :ivar uris: the URIs among them, such as SPIFFE ids.
    :ivar emails: the e-mail addresses among them.
    :ivar common_name: of the subject; empty if it has none, or several.
    :ivar expires_at: the end of its validity, in UNIX seconds; None if that is not known.
    :ivar serial: its serial number, in hexadecimal digits.
    """

    subject: str
    dns: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()
    common_name: str = ""
    expires_at: float | None = None
    serial: str = ""


class Presented(Struct, frozen=True):
    """
    The credentials of a request, not verified yet, and the parts of it that their checkers need.

    :ivar authorization: the value of Authorization; None without one.
    :ivar query: the target's query, without the question mark.
    :ivar method: the HTTP method.
    :ivar name: the path below the base path, percent-encoded as it was sent.
    :ivar certificate: of the connection's client; None without one.
    :ivar proxy_identity: the user that a trusted proxy names in its identity header; None without one.
    :ivar address: the client's address, for limits of failed attempts.
    """

    authorization: bytes | None = None
    query: bytes = b""
    method: bytes = b"GET"
    name: bytes = b""
    certificate: ClientCertificate | None = None
    proxy_identity: str | None = None
    address: str = ""

    def __repr__(self) -> str:
        # The header and the query have secrets.
        return f"{type(self).__name__}({self.method!r}, address={self.address!r})"


class IBearerToken(ICredentials):
    """A bearer token (RFC 6750): a static token, a JWT, or one of the program that embeds the server."""

    token = Attribute("The token, as bytes.")
    address = Attribute("The client's address.")


class IClientCertificate(ICredentials):
    """A certificate of a client that the TLS handshake has verified."""

    certificate = Attribute("A ClientCertificate.")


class IProxyIdentity(ICredentials):
    """A user whom a trusted proxy has authenticated."""

    identity = Attribute("The value of the proxy's header.")


class ISignedUrl(ICredentials):
    """A URL that carries a signature of the operation, the stream and the time at which it expires."""

    query = Attribute("The target's query, as bytes.")
    name = Attribute("The path below the base path, percent-encoded, as bytes.")
    method = Attribute("The HTTP method, as bytes.")


@implementer(IBearerToken)
class BearerToken(Struct, frozen=True):
    """
    A bearer token.

    :ivar token: the token itself, without the scheme.
    :ivar address: the client's address: checkers that work for long serve addresses in turn.
    """

    token: bytes
    address: str = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"


@implementer(IClientCertificate)
class CertificateCredentials(Struct, frozen=True):
    """A client certificate that the TLS handshake has verified."""

    certificate: ClientCertificate


@implementer(IProxyIdentity)
class ProxyIdentity(Struct, frozen=True):
    """The value of a trusted proxy's identity header."""

    identity: str


@implementer(ISignedUrl)
class SignedUrlCredentials(Struct, frozen=True):
    """
    The parts of a request with a signed URL.

    :ivar query: the target's query.
    :ivar name: the path below the base path, percent-encoded.
    :ivar method: the HTTP method.
    """

    query: bytes
    name: bytes
    method: bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}(***)"
