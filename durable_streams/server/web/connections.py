"""Connections of a listener: their shared settings, clock tick, limits and drain."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable
from email.utils import formatdate
from functools import partial
from typing import Final

from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.protocol import Factory
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from ..clocks import clock_of
from ..identity.rates import Account
from .admission import Admission
from .callers import Caller
from .framing import Framer
from .handshakes import HandshakeFailures
from .http1.known_heads import HeadCache
from .operations import Operations
from .site.app import Pages
from .transports import Transport
from .wire import NO_STREAMS, below

#: The status of a request over a quota.
RATE_LIMITED: Final = 429

#: How many requests of a connection may be refused in one second because of a quota before it is closed.
MAX_REFUSALS: Final = 100

_log = Logger()


class ChannelSettings(Struct, frozen=True, gc=False):
    """
    Limits and time-outs of connections; times are whole seconds.

    :ivar connections: the maximum number of connections.
    :ivar refusals: the maximum number of further connections that are given time to read why they are refused.
    :ivar protocols: the protocols by their ALPN names, best first: ``http/1.1``, and ``h2`` over TLS.
    :ivar header_timeout: from the first byte of a request to the last of its headers.
    :ivar body_timeout: without a byte of a body.
    :ivar idle_timeout: between requests.
    :ivar stall_timeout: for a slow reader to take another 64 KiB.
    """

    connections: int = 10_000
    refusals: int = 100
    protocols: tuple[bytes, ...] = (b"http/1.1",)
    header_timeout: int = 15
    body_timeout: int = 30
    idle_timeout: int = 75
    stall_timeout: int = 60


class RefusalCounter:
    """Counts the requests of a connection that are refused because of a quota."""

    __slots__ = ("_count", "_tick")

    def __init__(self) -> None:
        self._count = self._tick = 0

    def add(self, tick: int) -> bool:
        """
        Count a refusal.

        :param tick: the factory's tick.
        :returns: whether there were too many in this second, so that the connection is to be closed.
        """
        if tick != self._tick:
            self._tick, self._count = tick, 0
        self._count += 1
        return self._count > MAX_REFUSALS


class Member(typing.Protocol):
    """
    A connection, as its factory manages it.

    :ivar deadline: the tick from which :meth:`expire` is called; 0 for none.
    """

    deadline: int
    transport: Transport

    def expire(self) -> None:
        """Act on the deadline, which has passed."""

    def drain(self) -> None:
        """Close the connection after the answers that are on their way."""


class Connections(Factory):
    """
    State that the connections of a listener share: settings, header caches, the clock tick, counters and the drain.

    :param pages: everything that is not below ``base_path``.
    :param base_path: the path of streams; None if there are none.
    :ivar limits: the largest sizes of the parts of a request.
    :ivar quotas: limits the connections of an address; None for no limit.
    :ivar tick: how many seconds the factory has been listening. Deadlines are ticks.
    :ivar framer: frames the answers.
    :ivar draining: every connection ends after its current answer.
    :ivar refusals: how many connections over the limit are being answered.
    :ivar accepted: how many connections were accepted.
    :ivar refused: how many connections were refused, because of the limit or a drain.
    :ivar handshake_failures: the TLS handshakes that failed.
    :ivar pauses: how often an answer was paused because its reader was slow.
    :ivar last_chunk: the last small piece of a body that was sent as an HTTP/1.1 chunk, and the chunk.
    """

    noisy = False

    def __init__(
        self,
        operations: Operations,
        pages: Pages,
        base_path: str | None,
        clock: IReactorTime,
        settings: ChannelSettings = ChannelSettings(),  # noqa: B008 (frozen)
    ) -> None:
        self.operations = operations
        self.pages = pages
        self.settings = settings
        self.limits = operations.settings.limits
        self._policy = operations.admission_policy(NO_STREAMS if base_path is None else below(base_path))
        self._heads: dict[Admission, HeadCache] = {}
        # Those of operators are not limited.
        self.quotas = operations.quotas if base_path is not None else None
        self.draining = False
        self.keeps_connections = True
        self.refusals = 0
        self.accepted = self.refused = self.pauses = 0
        self.last_chunk = (b"", b"")
        self.tick = 1
        self.framer = Framer(operations.telemetry)
        self.clock = clock_of(clock)
        self.handshake_failures = HandshakeFailures(self.clock)
        self._channels: set[Member] = set()
        # Connection -> the account of its address, if its connections are limited.
        self._accounts: dict[Member, Account] = {}
        # Made by doStart: to make a LoopingCall installs a reactor, whichever clock it is given.
        self._ticking: LoopingCall | None = None
        self._emptied: list[Deferred[None]] = []

    def doStart(self) -> None:
        super().doStart()
        if self._ticking is None:
            self._ticking = LoopingCall(self._tick)
            self._ticking.clock = self.clock
            self._ticking.start(1)

    def doStop(self) -> None:
        super().doStop()
        self._rest()

    @property
    def connections(self) -> int:
        """The number of connections."""
        return len(self._channels)

    def heads(self, caller: Caller) -> HeadCache:
        """Return the header cache for a connection; trusted proxies have their own."""
        admission = self.admission(caller)
        heads = self._heads.get(admission)
        if heads is None:
            heads = self._heads[admission] = HeadCache(admission)
        return heads

    def admission(self, caller: Caller) -> Admission:
        """Return the rules for the requests of a connection."""
        return self._policy.admission(caller)

    def joined(self, channel: Member) -> None:
        self._channels.add(channel)

    def charge(self, channel: Member, account: Account | None) -> None:
        """Count a connection for an account until it has left; see :meth:`.RequestQuotas.open_connection`."""
        if account is not None:
            self._accounts[channel] = account

    def discharge(self, channel: Member) -> Account | None:
        """Return the account of a connection, which is counted for another protocol of it from now on."""
        return self._accounts.pop(channel, None)

    def left(self, channel: Member) -> None:
        self._channels.discard(channel)
        if self._accounts and self.quotas is not None:
            account = self.discharge(channel)
            if account is not None:
                self.quotas.close_connection(account)
        if not self._channels:
            emptied, self._emptied = self._emptied, []
            for waiting in emptied:
                waiting.callback(None)
            self._rest()

    def drain(self) -> Deferred[None]:
        """Close every connection after its current answer; return when none is left."""
        self.draining = True
        self.keeps_connections = False
        self._each(list(self._channels), lambda channel: channel.drain())
        drained: Deferred[None] = Deferred()
        if self._channels:
            self._emptied.append(drained)
        else:
            drained.callback(None)
        return drained

    def abort(self) -> None:
        """Abort all connections."""
        self._each(list(self._channels), lambda channel: channel.transport.abortConnection())

    def _rest(self) -> None:
        if not self.numPorts and not self._channels and self._ticking is not None:
            self._ticking.stop()
            self._ticking = None

    def _tick(self) -> None:
        self.tick += 1
        self.framer.date_line = f"Date: {formatdate(self.clock.wall(), usegmt=True)}\r\n".encode()
        tick = self.tick
        self._each([channel for channel in self._channels if 0 < channel.deadline <= tick], self._expire)

    def _expire(self, channel: Member) -> None:
        if not 0 < channel.deadline <= self.tick:
            return
        try:
            channel.expire()
        except Exception:
            _log.failure("Closing a connection after its time-out failed.")
            channel.transport.abortConnection()

    def _each(self, channels: Iterable[Member], do: Callable[[Member], object]) -> None:
        """Queue a call for each connection; it is dropped if the connection is lost before."""
        turns = self.operations.streams.turns
        for channel in channels:
            turns.add(partial(self._if_there, channel, do))

    def _if_there(self, channel: Member, do: Callable[[Member], object]) -> None:
        if channel in self._channels:
            do(channel)
