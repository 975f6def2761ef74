"""Endpoints that connect to addresses which were checked, whatever a later look-up of the name would say."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Any, Final

from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet import address as twisted_address
from twisted.internet.endpoints import HostnameEndpoint, wrapClientTLS
from twisted.internet.interfaces import (
    IHostnameResolver,
    IHostResolution,
    IOpenSSLClientConnectionCreator,
    IReactorPluggableNameResolver,
    IReactorTime,
    IResolutionReceiver,
    IStreamClientEndpoint,
)
from twisted.internet.ssl import optionsForClientTLS, platformTrust
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from .addresses import Address, WebhookUrl
from .authorities import Authorities

#: The number of hosts whose TLS contexts are kept: making one takes about 4 ms, for it has all authorities.
_KEPT_CONTEXTS: Final = 16


class PinnedEndpoints:
    """
    Creates endpoints for URLs whose addresses were checked.

    Over TLS, the host of the URL is sent as SNI, and the certificate is verified for it. Of several addresses the one
    that connects first is used; the next is tried after 0.3 s.

    :param authorities: those that are trusted besides the system's.
    """

    def __init__(self, reactor: Any, authorities: Authorities) -> None:
        self._reactor = reactor
        self._authorities = authorities

        @lru_cache(_KEPT_CONTEXTS)
        def creator(host: str, version: int) -> IOpenSSLClientConnectionCreator:
            created = optionsForClientTLS(host, trustRoot=platformTrust())
            return _WithAuthorities(created, authorities.certificates) if authorities.certificates else created

        self._creator: Callable[[str, int], IOpenSSLClientConnectionCreator] = creator

    def endpoint(self, url: WebhookUrl, addresses: Sequence[Address], timeout: float) -> IStreamClientEndpoint:
        """
        Return the endpoint for a URL.

        :param addresses: at least one; there is no other look-up.
        :param timeout: of a connection attempt, in seconds.
        """
        pinned = _PinnedReactor(self._reactor, addresses)
        endpoint = HostnameEndpoint(pinned, str(addresses[0]), url.port, timeout)
        if url.scheme != "https":
            return endpoint
        self._authorities.check(self._reactor.seconds())
        return wrapClientTLS(self._creator(url.host, self._authorities.version), endpoint)


@implementer(IOpenSSLClientConnectionCreator)
class _WithAuthorities:
    """Creates connections of a host that trust authorities besides the system's."""

    def __init__(self, creator: IOpenSSLClientConnectionCreator, certificates: Sequence[X509]) -> None:
        self._creator = creator
        self._to_add = certificates

    def clientConnectionForTLS(self, tlsProtocol: TLSMemoryBIOProtocol) -> SSL.Connection:  # noqa: N802, N803
        """Create a connection. All of them share a context, to which the first one adds the authorities."""
        connection: SSL.Connection = self._creator.clientConnectionForTLS(tlsProtocol)
        store: Any = connection.get_context().get_cert_store()
        for certificate in self._to_add:
            store.add_cert(certificate)
        self._to_add = ()
        return connection


@implementer(IReactorPluggableNameResolver, IReactorTime)
class _PinnedReactor:
    """A reactor for one HostnameEndpoint: its name resolver has the addresses at hand."""

    def __init__(self, reactor: Any, addresses: Sequence[Address]) -> None:
        self.nameResolver = _PinnedResolver(addresses)
        self.connectTCP = reactor.connectTCP
        self.callLater = reactor.callLater
        self.seconds = reactor.seconds
        self.getDelayedCalls = reactor.getDelayedCalls

    def installNameResolver(self, resolver: IHostnameResolver) -> IHostnameResolver:  # noqa: N802
        """
        Refuse another resolver.

        :raises NotImplementedError: always.
        """
        raise NotImplementedError


@implementer(IHostnameResolver)
class _PinnedResolver:
    """Resolves each name to the same addresses."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses

    def resolveHostName(  # noqa: N802
        self,
        resolutionReceiver: IResolutionReceiver,  # noqa: N803
        hostName: str,  # noqa: N803
        portNumber: int = 0,  # noqa: N803
        addressTypes: Sequence[Any] | None = None,  # noqa: N803
        transportSemantics: str = "TCP",  # noqa: N803
    ) -> IHostResolution:
        """Report the addresses at once."""
        resolution = _Resolution(hostName)
        resolutionReceiver.resolutionBegan(resolution)
        for pinned in self._addresses:
            kind = twisted_address.IPv6Address if isinstance(pinned, IPv6Address) else twisted_address.IPv4Address
            resolutionReceiver.addressResolved(kind("TCP", str(pinned), portNumber))
        resolutionReceiver.resolutionComplete()
        return resolution


@implementer(IHostResolution)
class _Resolution:
    """A look-up that is complete."""

    def __init__(self, name: str) -> None:
        self.name = name

    def cancel(self) -> None:
        """Do nothing."""
