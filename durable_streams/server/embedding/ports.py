"""The ports of an embedded server: endpoints that the program gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, gatherResults, maybeDeferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.showing import concealed

_log = Logger()


class EndpointPorts:
    """
    The ports of endpoints, some of which may start to listen later.

    :param listeners: endpoints, or their descriptions.
    :ivar ports: the ports that listen.
    :raises ValueError: a description is invalid.
    """

    def __init__(self, listeners: Sequence[str | IStreamServerEndpoint], reactor: Any) -> None:
        self._endpoints = [
            _parse_endpoint(reactor, listener) if isinstance(listener, str) else listener for listener in listeners
        ]
        self._listening: list[Deferred[None]] | None = None
        self.ports: list[IListeningPort] = []

    @property
    def bound(self) -> bool:
        """Whether :meth:`bind` was called, and :meth:`stop` was not called since."""
        return self._listening is not None

    @property
    def addresses(self) -> list[IAddress]:
        """The addresses of the ports that listen, in the order of the listeners if they all listen at once."""
        return [port.getHost() for port in self.ports]

    def bind(self, factory: Any, _: object = None) -> None:
        """
        Listen on all endpoints.

        If an endpoint fails later, the failure is logged and the other ports stay open.

        :raises CannotListenError: a port cannot be bound; then none is.
        """
        self._listening = []
        refused: list[Failure] = []
        tried = False

        def refuse(failure: Failure) -> None:
            if not tried:
                refused.append(failure)
            elif not failure.check(CancelledError):
                _log.failure("Listening failed.", failure=failure)

        for endpoint in self._endpoints:
            opening = endpoint.listen(factory)
            self._listening.append(opening.addCallbacks(self.ports.append, refuse))
        tried = True
        if refused:
            self.stop()
            refused[0].raiseException()

    def stop(self) -> Deferred[Any]:
        """Close the ports; open connections stay open."""
        for opening in self._listening or ():
            opening.cancel()
        self._listening = None
        ports = self.ports[:]
        self.ports.clear()
        return gatherResults([maybeDeferred(port.stopListening) for port in ports])


def _parse_endpoint(reactor: Any, text: str) -> IStreamServerEndpoint:
    """
    Create an endpoint from its description.

    :raises ValueError: the description is invalid.
    """
    try:
        endpoint: IStreamServerEndpoint = serverFromString(reactor, text)
    except Exception as error:  # an endpoint's parser may raise anything
        cause = concealed(str(error)).rstrip(".") or type(error).__name__
        raise ValueError(
            f"The listener {concealed(text)} is not a valid endpoint: {cause}. An example is tcp:4437."
        ) from error
    return endpoint
