"""The other nodes: what this node has committed is sent to them, and what they have committed is announced here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ...interfaces import ICommitListener
from ..listeners import NullListener
from .connection import Connection
from .heads import Head
from .lookups import LookUps
from .notifications import Listener, Notifier
from .watches import Watches

_TOPIC: Final = "streams"

#: Stands for the version of a stream that was removed: greater than all versions.
_REMOVED: Final = 2**62


class Neighbours:
    """
    Messages about committed changes of streams, to and from the other nodes.

    :param connect: opens a connection that does not go through a pooler that shares sessions.
    :param node: identifies this node.
    :param used: is called with the head of a stream that readers of this node wait on.
    :ivar listener: is notified of the changes of others, and of what readers may have missed.
    """

    def __init__(
        self,
        connect: Callable[[], Deferred[Connection]],
        schema: str,
        node: UUID,
        lookups: LookUps,
        used: Callable[[Head], None],
        clock: IReactorTime,
    ) -> None:
        self.listener: ICommitListener = NullListener()
        channel, sender = schema, node.hex
        self.watches = Watches(
            lambda name: Deferred.fromCoroutine(lookups.fresh(name)),
            self._announce,
            used,
            clock,
        )
        lookups.seen = self.watches.seen
        self.notifier = Notifier(connect, channel, sender, clock)
        self.receiver = Listener(connect, channel, sender, clock, self._received, self.watches.look_again)

    def _announce(self, name: str) -> None:
        self.listener.committed(name)

    def start(self) -> None:
        """Open the connections."""
        self.notifier.start()
        self.receiver.start()

    def stop(self) -> None:
        """Close the connections."""
        self.notifier.stop()
        self.receiver.stop()

    def changed(self, stream_id: int, version: int) -> None:
        """
        Tell the other nodes of a change that this node has committed and announced.

        :param version: the stream's version now; 0 if it was removed.
        """
        name = self.watches.name(stream_id)
        if name is not None:
            self.watches.committed(name, stream_id, version or _REMOVED)
        key = str(stream_id)
        self.notifier.publish(_TOPIC, key, f"{key}:{version}")

    def _received(self, topic: str, items: list[str]) -> None:
        if topic == _TOPIC:
            for item in items:
                stream_id, _, version = item.partition(":")
                self.watches.changed(int(stream_id), int(version) or _REMOVED)
