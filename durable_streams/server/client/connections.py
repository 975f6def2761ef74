"""Connections of a client: TCP, TLS or a UNIX socket, each with a limit on the head of an answer."""

from __future__ import annotations

from typing import Any

from twisted.internet.endpoints import HostnameEndpoint, UNIXClientEndpoint, wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory, IPolicyForHTTPS
from zope.interface import implementer

from ..guarded_endpoints import GuardedEndpoint
from .errors import InvalidAnswer
from .options import ClientOptions
from .tls import TlsPolicy


@implementer(IAgentEndpointFactory)
class Endpoints:
    """
    Creates the endpoint for a URL: the UNIX socket of the options, or the URL's host and port.

    :raises InvalidUse: a certificate or key of the options cannot be used.
    """

    def __init__(self, reactor: Any, options: ClientOptions) -> None:
        self._reactor = reactor
        self._options = options
        self._policy: IPolicyForHTTPS = TlsPolicy(options)

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:  # noqa: N802
        """Return the endpoint for a URL."""
        timeout = self._options.connect_timeout
        endpoint: IStreamClientEndpoint
        if self._options.unix_socket is not None:
            endpoint = UNIXClientEndpoint(self._reactor, self._options.unix_socket, timeout)
        else:
            endpoint = HostnameEndpoint(self._reactor, uri.host, uri.port, timeout)
        if uri.scheme == b"https":
            endpoint = wrapClientTLS(self._policy.creatorForNetloc(uri.host, uri.port), endpoint)
        return GuardedEndpoint(self._reactor, endpoint, self._options.max_head_bytes, InvalidAnswer)
