"""The other nodes: what this node has committed is sent to them, and what they have committed is announced here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from uuid import UUID

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from ...errors import StreamsError
from ...interfaces import ICommitListener
from ..listeners import NullListener
from .connection import Connection
from .heads import Head
from .lookups import LookUps
from .notifications import Listener, Notifier
from .watches import Watches

_TOPIC: Final = "streams"
_SUBJECTS: Final = "subjects"
_LEASES: Final = "leases"

#: The maximum number of streams whose names are remembered by their ids.
_MAX_NAMES: Final = 100_000

#: The maximum number of streams that are looked up by their ids at once. Each session of the database can send ids.
_MAX_UNKNOWN: Final = 10_000

#: Stands for the version of a stream that was removed: greater than all versions.
_REMOVED: Final = 2**62


class Neighbours:
    """
    Messages about committed changes of streams, to and from the other nodes.

    :param connect: opens a connection that does not go through a pooler that shares sessions.
    :param node: identifies this node.
    :param used: is called with the head of a stream that readers of this node wait on.
    :ivar listener: is notified of the changes of others, and of what readers may have missed.
    :ivar received: is called with each subject that another node has published.
    :ivar missed: is called when messages may have been missed.
    :ivar leases_released: is called when another node has released leases.
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
        self.received: Callable[[str], None] = _ignore
        self.missed: Callable[[], None] = _nothing
        self.leases_released: Callable[[], None] = _nothing
        self._lookups = lookups
        lookups.seen = self._seen
        self._observed = False
        # The names of streams by id, if all changes are observed, the longest known ones first; and the ids that are
        # being looked up.
        self._names: dict[int, str] = {}
        self._unknown: set[int] = set()
        # Whether there were changes of more streams than were looked up.
        self._overflowed = False
        self.notifier = Notifier(connect, channel, sender, clock)
        self.receiver = Listener(connect, channel, sender, clock, self._receive, self._opened)

    def observe(self, wanted: bool) -> None:
        """Announce the changes of all streams by other nodes, not only of those that readers of this node wait on."""
        self._observed = wanted
        if not wanted:
            self._names.clear()

    def publish(self, subject: str) -> None:
        """Send a subject to the other nodes."""
        self.notifier.publish(_SUBJECTS, subject, subject)

    def publish_released_leases(self) -> None:
        """Tell the other nodes that they can take leases."""
        self.notifier.publish(_LEASES, "", "")

    def _opened(self) -> None:
        self.watches.look_again()
        self._names.clear()
        self.missed()

    def _seen(self, name: str, head: Head | None) -> None:
        if self._observed and head is not None:
            self._remember(head)
        self.watches.seen(name, head)

    def _remember(self, head: Head) -> None:
        names = self._names
        if head.facts.id not in names:
            if len(names) >= _MAX_NAMES:
                del names[next(iter(names))]
            names[head.facts.id] = head.facts.name

    def _resolve(self, stream_id: int, removed: bool) -> None:
        """Announce a change of a stream that no reader of this node waits on."""
        name = self._names.pop(stream_id, None) if removed else self._names.get(stream_id)
        if name is not None:
            self._announce(name)
        elif not removed and stream_id not in self._unknown:
            if len(self._unknown) >= _MAX_UNKNOWN:
                self._overflowed = True
                return
            self._unknown.add(stream_id)
            found = self._lookups.fresh_id(stream_id)
            found.addCallbacks(self._resolved, lambda failure: failure.trap(StreamsError))
            found.addBoth(self._looked_up, stream_id)

    def _looked_up(self, result: object, stream_id: int) -> object:
        self._unknown.discard(stream_id)
        if self._overflowed and not self._unknown:
            self._overflowed = False
            self.missed()
        return result

    def _resolved(self, head: Head | None) -> None:
        if head is not None and self._observed:
            self._remember(head)
            self._announce(head.facts.name)

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

    def _receive(self, topic: str, items: list[str]) -> None:
        if topic == _SUBJECTS:
            for item in items:
                self.received(item)
        elif topic == _LEASES:
            self.leases_released()
        elif topic == _TOPIC:
            for item in items:
                stream_id, _, version = item.partition(":")
                # Each session of the database can send to the channel.
                if stream_id.isdecimal() and version.isdecimal():
                    self._changed(int(stream_id), int(version) or _REMOVED)

    def _changed(self, stream_id: int, version: int) -> None:
        if self.watches.name(stream_id) is not None:
            self.watches.changed(stream_id, version)
        elif self._observed:
            self._resolve(stream_id, version == _REMOVED)


def _ignore(subject: str) -> None:
    """Do nothing."""


def _nothing() -> None:
    """Do nothing."""
