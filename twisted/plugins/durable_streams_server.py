"""What this distribution adds to twistd and to string endpoints. Everything is imported only when it is used."""

from twisted.application.service import ServiceMaker
from twisted.internet.interfaces import IReactorCore, IStreamServerEndpoint, IStreamServerEndpointStringParser
from twisted.plugin import IPlugin
from twisted.python.reflect import namedAny
from zope.interface import implementer

durable_streams = ServiceMaker(
    "Durable Streams",
    "durable_streams.server.tap",
    "A Durable Streams server: append-only streams over HTTP.",
    "durable-streams",
)


@implementer(IPlugin, IStreamServerEndpointStringParser)
class _Endpoint:
    """String endpoints that begin with a prefix."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def parseStreamServer(self, reactor: IReactorCore, *args: object, **kwargs: object) -> IStreamServerEndpoint:
        """
        Make the endpoint.

        :raises ValueError: the string makes no sense; the message says what to change.
        """
        endpoint: IStreamServerEndpoint = namedAny(f"durable_streams.server.listening.endpoints.{self.prefix}")(
            reactor, *args, **kwargs
        )
        return endpoint


http = _Endpoint("http")
mtls = _Endpoint("mtls")
