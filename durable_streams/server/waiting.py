"""Wake-ups for readers that wait for a stream to change.

A wake-up carries no data: a woken reader reads again from its own offset. So a lost, repeated or late wake-up costs an
extra read, never data.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container
from math import inf

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from .interfaces import ICommitListener
from .run_queue import SLICE, RunQueue

#: The minimum interval between two rounds of wake-ups, in seconds: under load, changes are gathered for one round.
GATHERING = 0.001

_log = Logger()


class ChangeCounter:
    """
    Counter of the changes that watchers are woken for.

    :ivar count: while it stays the same, a watched stream reads the same.
    """

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


@implementer(ICommitListener)
class Waiting:
    """
    The watchers of all streams. Wakes those of a stream after a commit to it.

    They are woken in a later turn of the reactor than the commit, so that its writer is answered first. The first
    commit after a pause wakes them without delay; later commits within :data:`GATHERING` seconds wake them once. A
    round of wake-ups is a task in the run queue, which ends after a slice of time and is queued again, so that many or
    slow watchers do not block the reactor.

    :ivar changes: counts the commits to watched streams.
    :ivar watched_names: the names of the streams that have watchers, as they are at each look-up.
    """

    def __init__(self, clock: IReactorTime, turns: RunQueue) -> None:
        self._clock = clock
        self._turns = turns
        self._watchers: dict[str, set[Callable[[], None]]] = {}
        self.watched_names: Container[str] = self._watchers
        self._changed: set[str] = set()
        self.changes = ChangeCounter()
        # What the current round has yet to wake: changed streams, and some of their watchers.
        self._round: list[tuple[str, list[Callable[[], None]]]] = []
        self._scheduled = False
        self._last_woken = -inf

    def watch(self, name: str, wake: Callable[[], None]) -> None:
        """Call ``wake`` after each change of a stream, until :meth:`unwatch`."""
        self._watchers.setdefault(name, set()).add(wake)

    def unwatch(self, name: str, wake: Callable[[], None]) -> None:
        """Cancel a :meth:`watch`; do nothing if there was none."""
        watchers = self._watchers.get(name)
        if watchers is not None:
            watchers.discard(wake)
            if not watchers:
                del self._watchers[name]

    def watchers(self, name: str) -> Collection[Callable[[], None]]:
        """Return the watchers of a stream, as :meth:`watch` was given them."""
        return self._watchers.get(name, ())

    def watched(self) -> Collection[str]:
        """Return the names of the streams that have watchers."""
        return list(self._watchers)

    def wake_all(self) -> None:
        """Schedule a wake-up of every watcher of every stream."""
        for name in self._watchers:
            self.committed(name)

    def committed(self, name: str) -> None:
        if name not in self._watchers:
            return
        self.changes.count += 1
        self._changed.add(name)
        if not self._scheduled:
            self._scheduled = True
            quiet = self._clock.seconds() - self._last_woken > GATHERING
            self._clock.callLater(0 if quiet else GATHERING, self._wake)

    def _wake(self) -> None:
        """Start a round: wake each watcher of each changed stream."""
        changed, self._changed = self._changed, set()
        watchers = self._watchers
        self._round = [(name, list(watchers[name])) for name in changed if name in watchers]
        self._turns.run([self._wake_some])

    def _wake_some(self) -> None:
        """Wake watchers for a slice of time; then queue for the next slice."""
        seconds = self._turns.seconds
        end = seconds() + SLICE
        round_ = self._round
        while round_:
            name, wakes = round_[-1]
            while wakes:
                wake = wakes.pop()
                # It may have left since the round began.
                if wake in self._watchers.get(name, ()):
                    try:
                        wake()
                    except Exception:
                        _log.failure("Waking a reader of {name} failed.", name=name)
                    if seconds() >= end:
                        self._turns.add(self._wake_some)
                        return
            round_.pop()
        self._end_round()

    def _end_round(self) -> None:
        # Changes during a long round are woken in the next round, so that the queue is never longer than the number of
        # watchers, however fast commits arrive.
        self._last_woken = self._clock.seconds()
        self._scheduled = bool(self._changed)
        if self._scheduled:
            self._clock.callLater(0, self._wake)


@implementer(ICommitListener)
class ObservedListener:
    """
    A commit listener with an observer beside it. For streams that nobody watches or observes, it makes no call.

    :param waiting: is notified first.
    :param observer: is called with the name of the stream; what it raises is logged.
    :param quiet: names of streams for which it is not called; they may change at any time.
    """

    __slots__ = ("_notify", "_observer", "_quiet", "_watched")

    def __init__(self, waiting: Waiting, observer: Callable[[str], None], quiet: Container[str] = ()) -> None:
        self._notify = waiting.committed
        self._watched = waiting.watched_names
        self._observer = observer
        self._quiet = quiet

    def committed(self, name: str) -> None:
        if name in self._watched:
            self._notify(name)
        if name in self._quiet:
            return
        try:
            self._observer(name)
        except Exception:
            _log.failure("The observer of commits failed at a change of {name}.", name=name)
