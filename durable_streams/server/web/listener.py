"""What all connections of a listener share: their settings, one clock tick a second, and their number."""

from __future__ import annotations

from email.utils import formatdate
from typing import Final

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, IReactorTime
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.server import Site

from ..errors import Unavailable
from .channel import StreamChannel
from .framing import CLOSE, STATUS_LINES, below
from .intake import IntakeLimits, Shared
from .operations import Operations
from .outlet import Transport, is_direct
from .requests import READ_HEADERS

#: How long a connection over the limit is left the time to read why, in seconds, and how many of them at a time.
_LINGER: Final = 1
_REFUSALS: Final = 100

_log = Logger()


class ChannelSettings(Struct, frozen=True, gc=False):
    """
    What connections may do; times are whole seconds.

    :ivar connections: how many of them there may be.
    :ivar header_timeout: from the first byte of a request to the last of its headers.
    :ivar body_timeout: without a byte of a body.
    :ivar idle_timeout: between requests.
    :ivar stall_timeout: for a slow reader to take another 64 KiB.
    """

    intake: IntakeLimits = IntakeLimits()
    connections: int = 10_000
    header_timeout: int = 15
    body_timeout: int = 30
    idle_timeout: int = 75
    stall_timeout: int = 60


class ChannelFactory(Factory):
    """
    Makes a :class:`.StreamChannel` for each connection.

    :param site: what serves everything that is not below ``base_path``.
    :ivar tick: how many seconds it has been listening. Deadlines are ticks.
    :ivar date_line: the Date header of this second.
    :ivar draining: every connection is to end after the answer that is on its way.
    :ivar refusals: how many connections over the limit are being told so.
    :ivar accepted: how many connections there have been, but for those that were refused.
    :ivar refused: how many were over the limit, or came when it was draining.
    :ivar pauses: how often a reader was too slow for what was sent to it, and it had to wait.
    """

    noisy = False

    def __init__(
        self,
        operations: Operations,
        site: Site,
        base_path: str,
        clock: IReactorTime,
        settings: ChannelSettings = ChannelSettings(),  # noqa: B008 (frozen)
    ) -> None:
        self.operations = operations
        self.site = site
        self.shared = Shared(below(base_path), settings.intake, READ_HEADERS | operations.telemetry.headers)
        self.settings = settings
        self.draining = False
        self.refusals = 0
        self.accepted = self.refused = self.pauses = 0
        self.tick = 1
        self.date_line = b""
        self.clock = clock
        self._channels: set[StreamChannel] = set()
        self._ticking = LoopingCall(self._tick)
        self._ticking.clock = clock
        self._emptied: list[Deferred[None]] = []

    def doStart(self) -> None:
        super().doStart()
        if not self._ticking.running:
            self._ticking.start(1)

    def doStop(self) -> None:
        super().doStop()
        self._rest()

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        if len(self._channels) >= self.settings.connections or self.draining:
            return _Refusal(self)
        return StreamChannel(self)

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._channels)

    def joined(self, channel: StreamChannel) -> None:
        self.accepted += 1
        self._channels.add(channel)

    def left(self, channel: StreamChannel) -> None:
        self._channels.discard(channel)
        if not self._channels:
            emptied, self._emptied = self._emptied, []
            for waiting in emptied:
                waiting.callback(None)
            self._rest()

    def drain(self) -> Deferred[None]:
        """End every connection after the answer that is on its way, and say when there are none left."""
        self.draining = True
        for channel in list(self._channels):
            channel.drain()
        drained: Deferred[None] = Deferred()
        if self._channels:
            self._emptied.append(drained)
        else:
            drained.callback(None)
        return drained

    def abort(self) -> None:
        """Hang up on everybody."""
        for channel in list(self._channels):
            channel.transport.abortConnection()

    def _rest(self) -> None:
        if not self.numPorts and not self._channels and self._ticking.running:
            self._ticking.stop()

    def _tick(self) -> None:
        self.tick += 1
        self.date_line = f"Date: {formatdate(self.clock.seconds(), usegmt=True)}\r\n".encode()
        tick = self.tick
        for channel in [channel for channel in self._channels if 0 < channel.deadline <= tick]:
            try:
                channel.expire()
            except Exception:
                # An error here would stop the clock for everybody.
                _log.failure("A connection whose time was over could not be ended.")
                channel.transport.abortConnection()


class _Refusal(Protocol):
    """What a connection over the limit gets: an answer, whatever it asks, and the end."""

    transport: Transport  # type: ignore[assignment]

    def __init__(self, factory: ChannelFactory) -> None:
        self._factory = factory
        self._end: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._factory.refused += 1
        self._factory.refusals += 1
        if self._factory.refusals > _REFUSALS:
            self.transport.abortConnection()
            return
        error = Unavailable("The server has as many connections as it takes. Come back in a moment.")
        answer = self._factory.operations.answers.error(None, error)
        assert isinstance(answer.body, bytes)
        self.transport.write(
            STATUS_LINES[answer.status]
            + self._factory.date_line
            + answer.head
            + CLOSE
            + b"Content-Length: %d\r\n\r\n" % len(answer.body)
            + answer.body
        )
        if is_direct(self.transport):
            # A client that is still sending would never read this if the socket were closed under it.
            self.transport.loseWriteConnection()
        else:
            self.transport.loseConnection()
        self._end = self._factory.clock.callLater(_LINGER, self.transport.abortConnection)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._factory.refusals -= 1
        if self._end is not None and self._end.active():
            self._end.cancel()
