"""Streams that readers of this node wait on: changes by other nodes are announced for them.

A message of the other node is the fast way. As it may be lost, watched streams are looked up once a second, too. A
change is announced once, whichever way it becomes known first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ...clocks import clock_of
from ...errors import StreamsError
from .heads import Head

#: How often a watched stream is looked up, in seconds: how late a change is noticed whose message was lost.
POLL_INTERVAL: Final = 1.0

#: A stream that nobody has watched for so long is forgotten, in seconds.
_FORGET_AFTER: Final = 5.0


class _Watch:
    """
    A watched stream.

    :ivar id: of the stream that was found last; 0 for none.
    :ivar version: the last version that was announced, or was current when it was announced.
    :ivar is_certain: whether the database has had this version since the connection was opened; it may have lost it.
    :ivar looked_at: when the last look-up was sent or answered, by the reactor's clock.
    :ivar renewed_at: when a reader last waited, by the reactor's clock.
    """

    __slots__ = ("id", "is_certain", "looked_at", "renewed_at", "version")

    def __init__(self) -> None:
        self.id = 0
        self.version = -1
        self.is_certain = True
        self.looked_at = self.renewed_at = 0.0


class Watches:
    """
    The streams that readers wait on.

    :param look_up: looks a stream up by its name.
    :param announce: notifies the readers of a stream.
    :param used: is called with the head of a watched stream, which is in use.
    """

    def __init__(
        self,
        look_up: Callable[[str], Deferred[Head | None]],
        announce: Callable[[str], None],
        used: Callable[[Head], None],
        clock: IReactorTime,
    ) -> None:
        self._look_up = look_up
        self._announce = announce
        self._used = used
        self._clock = clock_of(clock)
        self._watches: dict[str, _Watch] = {}
        self._names: dict[int, str] = {}
        self._pruned_at = 0.0

    def __len__(self) -> int:
        return len(self._watches)

    def name(self, stream_id: int) -> str | None:
        """Return the name of a watched stream by its id."""
        return self._names.get(stream_id)

    def renew(self, name: str) -> Deferred[None] | None:
        """
        Note that readers wait on a stream, and look it up if that was not done lately.

        The first call announces the stream once: it may have changed since the readers have read.

        :returns: fires when the look-up is done; None if there was none.
        """
        now = self._clock.seconds()
        self._prune(now)
        watch = self._watches.get(name)
        if watch is None:
            watch = self._watches[name] = _Watch()
        elif now - watch.looked_at < POLL_INTERVAL:
            watch.renewed_at = now
            return None
        watch.renewed_at = watch.looked_at = now
        return self._look_up(name).addCallbacks(self._found, self._not_found, (name,))

    def _found(self, head: Head | None, name: str) -> None:
        self.seen(name, head)
        if head is not None:
            self._used(head)

    def _not_found(self, failure: Failure) -> None:
        """Look again after the interval: the database is away."""
        failure.trap(StreamsError)

    def look_again(self) -> None:
        """Look all watched streams up at the next renewal: messages may have been lost."""
        for watch in self._watches.values():
            watch.looked_at -= POLL_INTERVAL
            watch.is_certain = False

    def seen(self, name: str, head: Head | None) -> None:
        """Announce a stream whose look-up shows a change that was not announced. Each look-up calls this."""
        watch = self._watches.get(name)
        if watch is None:
            return
        if head is None:
            if watch.id or watch.version < 0:
                self._set(name, watch, 0, 0)
                self._announce(name)
        elif watch.id != head.facts.id or watch.version < head.version or not watch.is_certain:
            changed = (watch.id, watch.version) != (head.facts.id, head.version)
            self._set(name, watch, head.facts.id, head.version)
            if changed:
                self._announce(name)

    def committed(self, name: str, stream_id: int, version: int) -> None:
        """Note that a change of this node was committed, which is announced anyway."""
        watch = self._watches.get(name)
        if watch is not None and (watch.id != stream_id or watch.version < version):
            self._set(name, watch, stream_id, version)

    def changed(self, stream_id: int, version: int) -> None:
        """Announce a stream that another node has changed, if it is watched."""
        name = self._names.get(stream_id)
        if name is not None:
            watch = self._watches[name]
            if watch.version < version:
                watch.version = version
                self._announce(name)

    def _set(self, name: str, watch: _Watch, stream_id: int, version: int) -> None:
        if self._names.get(watch.id) == name:
            del self._names[watch.id]
        watch.id, watch.version, watch.is_certain = stream_id, version, True
        if stream_id:
            self._names[stream_id] = name

    def _prune(self, now: float) -> None:
        """Forget the streams on which nobody waits any more."""
        if now - self._pruned_at < _FORGET_AFTER:
            return
        self._pruned_at = now
        for name, watch in list(self._watches.items()):
            if now - watch.renewed_at >= _FORGET_AFTER:
                self._set(name, watch, 0, 0)
                del self._watches[name]
