"""Messages between nodes: what one node has committed, so that the readers of the others need not poll for it.

A message is a PostgreSQL notification of one channel. It has a sender, a topic, and items of it. Messages are hints:
they may be lost or come twice, so whoever relies on them looks again from time to time, and when the connection of a
listener was opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final
from urllib.parse import quote, unquote

from psycopg.pq.abc import PGresult
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from ...clocks import clock_of
from .connection import Connection
from .packing import TEXT
from .queries import ConnectionLost, QueryFailed, Statement
from .reconnecting import Reconnector

#: The minimum time between the beginnings of two messages, in seconds: items are collected meanwhile. The first item
#: after a pause is sent at once. NOTIFY in the transaction of a commit costs up to a third of the throughput.
_INTERVAL: Final = 0.005

#: The maximum size of a message and of an item, in bytes: PostgreSQL refuses 8,000.
_MAX_PAYLOAD: Final = 7_900
_MAX_ITEM: Final = 7_000

#: How many items may wait while the database is away. More are dropped: readers find them by their own look-ups.
_MAX_ITEMS: Final = 100_000

#: How often a connection that listens is tried out, in seconds.
_PROBE_INTERVAL: Final = 5.0


#: Items that are sent as they are.
_is_plain: Final = re.compile(r"[A-Za-z0-9/:,]*").fullmatch


class Notifier:
    """
    Sends messages, on a connection of its own, which nobody waits for.

    :param connect: opens a connection.
    :param channel: the name of the channel.
    :param sender: identifies this node; no spaces.
    :ivar sent: the number of messages that were sent.
    :ivar dropped: the number of items that were not sent.
    """

    def __init__(
        self, connect: Callable[[], Deferred[Connection]], channel: str, sender: str, clock: IReactorTime
    ) -> None:
        self.sent = 0
        self.dropped = 0
        self._channel = channel.encode()
        self._sender = sender
        self._clock = clock_of(clock)
        # Topic -> items by key; an item replaces an earlier one of its key.
        self._items: dict[str, dict[str, str]] = {}
        self._count = 0
        self._timer: IDelayedCall | None = None
        self._sending = False
        self._sent_at = self._clock.seconds() - _INTERVAL
        self._notify = Statement("notify", "SELECT pg_notify($1, $2)", (TEXT, TEXT))
        self._reconnector = Reconnector(connect, clock, lambda _: self._schedule())

    @property
    def reconnectors(self) -> list[Reconnector]:
        """What opens the connection."""
        return [self._reconnector]

    def start(self) -> None:
        """Open the connection."""
        self._reconnector.start()

    def stop(self) -> None:
        """Close the connection. What was not sent is not sent any more."""
        self._reconnector.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def publish(self, topic: str, key: str, item: str) -> None:
        """
        Send an item with the next message.

        :param topic: no spaces.
        :param key: replaces an item of the same key that was not sent yet.
        """
        # quote takes 1 us, which would be 2 % of an append.
        text = item if _is_plain(item) else quote(item, safe="/:,")
        items = self._items.setdefault(topic, {})
        if key not in items:
            if self._count >= _MAX_ITEMS or len(text) > _MAX_ITEM:
                self.dropped += 1
                return
            self._count += 1
        items[key] = text
        if not self._sending:
            self._schedule()

    def _schedule(self) -> None:
        if self._timer is None and self._count and self._reconnector.connection is not None:
            pause = max(0.0, self._sent_at + _INTERVAL - self._clock.seconds())
            self._timer = self._clock.callLater(min(pause, _INTERVAL), self._send)

    def _send(self) -> None:
        self._timer = None
        connection = self._reconnector.connection
        if connection is None or not self._count:
            self._sending = False
            return
        self._sending = True
        self._sent_at = self._clock.seconds()
        payload = self._next_payload()
        # What did not fit into this message does not wait.
        sent = connection.execute(self._notify, (self._channel, payload))
        sent.addCallbacks(self._was_sent, self._was_not_sent, (self._count > 0,))

    def _next_payload(self) -> bytes:
        """Take as many items of one topic as a message can have."""
        topic, items = next((topic, items) for topic, items in self._items.items() if items)
        message = f"{self._sender} {topic}"
        taken = []
        for key, text in items.items():
            if len(message) + 1 + len(text) > _MAX_PAYLOAD:
                break
            message = f"{message} {text}"
            taken.append(key)
        for key in taken:
            del items[key]
        self._count -= len(taken)
        return message.encode()

    def _was_sent(self, _: PGresult, is_more: bool) -> None:
        self.sent += 1
        if is_more:
            self._send()
        else:
            self._sending = False
            self._schedule()

    def _was_not_sent(self, failure: Failure) -> None:
        """Drop a message that failed. If the connection was lost, the rest is sent when it is open again."""
        self._sending = False
        failure.trap(QueryFailed, ConnectionLost)
        self._schedule()


class Listener:
    """
    Receives the messages of the other nodes, on a connection of its own.

    :param connect: opens a connection. It must not go through a pooler that shares sessions.
    :param received: called with the topic and the items of each message of another node.
    :param opened: called when the connection is open: messages that were sent before were not received.
    :ivar received_count: the number of messages of other nodes.
    """

    def __init__(
        self,
        connect: Callable[[], Deferred[Connection]],
        channel: str,
        sender: str,
        clock: IReactorTime,
        received: Callable[[str, list[str]], None],
        opened: Callable[[], None],
    ) -> None:
        self.received_count = 0
        self._sender = sender
        self._clock = clock_of(clock)
        self._received = received
        self._opened = opened
        self._timer: IDelayedCall | None = None
        self._listen = Statement("listen", f"LISTEN {channel}")
        self._probe = Statement("probe", "SELECT 1")
        self._reconnector = Reconnector(connect, clock, self._use, self._lost)

    @property
    def reconnectors(self) -> list[Reconnector]:
        """What opens the connection."""
        return [self._reconnector]

    @property
    def is_open(self) -> bool:
        """Whether messages are received."""
        return self._timer is not None

    def start(self) -> None:
        """Open the connection."""
        self._reconnector.start()

    def stop(self) -> None:
        """Close the connection."""
        self._reconnector.stop()
        self._lost("")

    def _use(self, connection: Connection) -> None:
        connection.notified = self._notified
        listening = connection.execute(self._listen)
        listening.addCallback(self._listens, connection).addErrback(self._refused, connection)

    def _listens(self, _: PGresult, connection: Connection) -> None:
        self._timer = self._clock.callLater(_PROBE_INTERVAL, self._try_out, connection)
        self._opened()

    def _try_out(self, connection: Connection) -> None:
        """Find out whether the connection still works. The connection's deadline ends it if no answer comes."""
        self._timer = self._clock.callLater(_PROBE_INTERVAL, self._try_out, connection)
        connection.execute(self._probe).addErrback(self._refused, connection)

    def _refused(self, failure: Failure, connection: Connection) -> None:
        failure.trap(QueryFailed, ConnectionLost)
        connection.abandon(f"Listening for messages of other nodes failed: {failure.getErrorMessage()}")

    def _lost(self, _: str) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _notified(self, _: str, payload: str) -> None:
        sender, _, rest = payload.partition(" ")
        topic, *items = rest.split(" ")
        if sender == self._sender:
            return
        self.received_count += 1
        self._received(topic, [unquote(item) for item in items])
