"""Who waits on which stream.

A wake carries no data: whoever is woken reads again from where they were. So a wake may be lost, doubled or late, and
costs a read and never a byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from math import inf

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from .interfaces import ICommitListener
from .run_queue import RunQueue

#: Under load, how long a waiter may be left in order to get all that comes meanwhile at once, in seconds.
GATHERING = 0.001

_log = Logger()


@implementer(ICommitListener)
class Waiting:
    """
    Wakes the watchers of a stream after it has changed.

    They are woken in a later turn of the reactor than the commit, so that its writer is answered first. The first
    commit after a pause wakes at once; those that follow within :data:`GATHERING` wake together. Each watcher is a task
    of its own in the run queue, so that many of them, or what they do, do not hold up the reactor.
    """

    def __init__(self, clock: IReactorTime, turns: RunQueue) -> None:
        self._clock = clock
        self._turns = turns
        self._watchers: dict[str, set[Callable[[], None]]] = {}
        self._changed: set[str] = set()
        # How many watchers of the round that is under way are still to be woken.
        self._due = 0
        self._scheduled = False
        self._last_woken = -inf

    def watch(self, name: str, wake: Callable[[], None]) -> None:
        """Call ``wake`` after each change of a stream, until :meth:`unwatch`."""
        self._watchers.setdefault(name, set()).add(wake)

    def unwatch(self, name: str, wake: Callable[[], None]) -> None:
        """Take back a :meth:`watch`; nothing, if there was none."""
        watchers = self._watchers.get(name)
        if watchers is not None:
            watchers.discard(wake)
            if not watchers:
                del self._watchers[name]

    def watched(self) -> Iterable[str]:
        """List the names of the streams that somebody waits on."""
        return list(self._watchers)

    def wake_all(self) -> None:
        """Wake every watcher of every stream, soon."""
        for name in self._watchers:
            self.committed(name)

    def committed(self, name: str) -> None:
        if name not in self._watchers:
            return
        self._changed.add(name)
        if not self._scheduled:
            self._scheduled = True
            quiet = self._clock.seconds() - self._last_woken > GATHERING
            self._clock.callLater(0 if quiet else GATHERING, self._wake)

    def _wake(self) -> None:
        """Begin a round: wake all that watch what has changed, as fast as the run queue lets them."""
        changed, self._changed = self._changed, set()
        round_ = [partial(self._wake_one, name, wake) for name in changed for wake in self._watchers.get(name, ())]
        self._due = len(round_)
        if not round_:
            self._end_round()
        self._turns.run(round_)

    def _wake_one(self, name: str, wake: Callable[[], None]) -> None:
        self._due -= 1
        if wake in self._watchers.get(name, ()):
            try:
                wake()
            except Exception:
                _log.failure("Waking a reader of {name} failed.", name=name)
        if not self._due:
            self._end_round()

    def _end_round(self) -> None:
        # What changes while a long round is under way has its own round after it, so that no commits, however fast,
        # make the queue longer than there are watchers.
        self._last_woken = self._clock.seconds()
        self._scheduled = bool(self._changed)
        if self._scheduled:
            self._clock.callLater(0, self._wake)
