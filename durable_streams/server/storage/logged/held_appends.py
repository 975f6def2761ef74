"""Appends that must wait for something, such as a new segment of the log, in their order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeAlias

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from ...errors import StreamsError
from ...interfaces import NowOrLater
from ...model import Append, Appended
from .commit_queue import NotYet

#: An append that waits: its data, its time, and the answer.
_Held: TypeAlias = tuple[Append, float, "Deferred[Appended]"]


class HeldAppends:
    """
    A queue for each stream with an append that raised :exc:`.NotYet`.

    Later appends of the stream wait behind it, since writers may send many without waiting for the answers.

    :param append: makes an append.
    :param refused: returns a Deferred for a refusal that depends on uncommitted changes of a stream, or None.
    :ivar queues: the queues by the names of their streams; none is empty.
    """

    def __init__(
        self,
        append: Callable[[str, Append, float], NowOrLater[Appended]],
        refused: Callable[[StreamsError, str], Deferred[Appended] | None],
    ) -> None:
        self._append = append
        self._refused = refused
        self.queues: dict[str, deque[_Held]] = {}

    def add(self, name: str, append: Append, now: float, cause: NotYet | None = None) -> Deferred[Appended]:
        """
        Hold an append.

        :param cause: what it raised; None if it waits behind another one.
        """
        answer: Deferred[Appended] = Deferred()
        self.queues.setdefault(name, deque()).append((append, now, answer))
        if cause is not None:
            self._wait(name, cause)
        return answer

    def _wait(self, name: str, cause: NotYet) -> None:
        cause.ready.addCallbacks(lambda _: self._go_on(name), lambda failure: self._fail(name, failure))

    def _fail(self, name: str, failure: Failure) -> None:
        """Refuse the first append of a stream, and go on with the others."""
        self.queues[name].popleft()[2].errback(failure)
        self._go_on(name)

    def _go_on(self, name: str) -> None:
        queue = self.queues[name]
        while queue:
            append, now, answer = queue[0]
            outcome: NowOrLater[Appended] | Failure | None
            try:
                outcome = self._append(name, append, now)
            except NotYet as cause:
                self._wait(name, cause)
                return
            except StreamsError as refusal:
                outcome = self._refused(refusal, name) or Failure()
            except Exception:
                outcome = Failure()
            queue.popleft()
            if isinstance(outcome, Deferred):
                outcome.addCallbacks(answer.callback, answer.errback)
            elif isinstance(outcome, Failure):
                answer.errback(outcome)
            else:
                answer.callback(outcome)
        del self.queues[name]
