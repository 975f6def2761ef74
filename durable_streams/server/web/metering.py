"""Streamed bodies whose bytes are counted against quotas, and which are slowed down to them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

from msgspec import Struct
from twisted.internet.interfaces import IDelayedCall

from ..clocks import IClock
from ..identity.quotas import RateQuota
from ..identity.rates import Account
from ..run_queue import SLICE
from ..streams import Streams
from .answers import AnswerBody
from .relayed_bodies import RelayedBody

#: The shortest and the longest time between two looks at the bodies of one account that wait, in seconds.
_PAUSE: Final = 0.01
_MAX_PAUSE: Final = 1.0


class Charge(Struct, frozen=True):
    """A quota of bytes, and the account that pays."""

    quota: RateQuota
    account: Account


class Pacer:
    """
    Resumes bodies that were paused because their account has debts, in turn, when it has none.

    When the service drains, they are resumed in any case, so that it does not have to wait for them.

    :param streams: the service.
    :param now: the time of the accounts' buckets.
    """

    def __init__(self, clock: IClock, streams: Streams, now: Callable[[], float]) -> None:
        self.now = now
        self._clock = clock
        self._streams = streams
        self._turns = streams.turns
        self._waiting: dict[Account, _Queue] = {}

    def __len__(self) -> int:
        """Return the number of bodies that wait."""
        return sum(len(queue.bodies) for queue in self._waiting.values())

    def add(self, body: MeteredBody, charge: Charge) -> None:
        """Have a body resumed when an account has no debts."""
        queue = self._waiting.get(charge.account)
        if queue is None:
            queue = self._waiting[charge.account] = _Queue(charge)
        queue.bodies[body] = None
        if queue.next is None and not queue.running:
            self._schedule(queue)

    def discard(self, body: MeteredBody, charge: Charge) -> None:
        """Forget a body that has ended."""
        queue = self._waiting.get(charge.account)
        if queue is not None:
            queue.bodies.pop(body, None)
            if not queue.bodies and not queue.running:
                self._remove(queue)

    def debt(self, charges: Sequence[Charge]) -> Charge | None:
        """Return the first charge whose account has debts that must be waited for."""
        if self._streams.draining:
            return None
        now = self.now()
        for charge in charges:
            if charge.quota.meter.wait(charge.account, now) > 0:
                return charge
        return None

    def _schedule(self, queue: _Queue) -> None:
        charge = queue.charge
        wait = charge.quota.meter.wait(charge.account, self.now())
        queue.next = self._clock.callLater(min(max(_PAUSE, wait), _MAX_PAUSE), self._resume, queue)

    def _remove(self, queue: _Queue) -> None:
        self._waiting.pop(queue.charge.account, None)
        if queue.next is not None:
            queue.next.cancel()
            queue.next = None

    def _resume(self, queue: _Queue) -> None:
        queue.next = None
        queue.running = True
        self._turns.add(lambda: self._run(queue))

    def _run(self, queue: _Queue) -> None:
        """Resume bodies for a slice of time, until the account has debts again."""
        charges, bodies = (queue.charge,), queue.bodies
        end = self._turns.seconds() + SLICE
        try:
            while bodies and self.debt(charges) is None:
                bodies.popitem(last=False)[0].proceed()
                if self._turns.seconds() >= end:
                    break
        finally:
            queue.running = False
            if bodies:
                self._schedule(queue)
            else:
                self._remove(queue)


class _Queue:
    """The bodies of one account that wait, and the call that resumes them."""

    __slots__ = ("bodies", "charge", "next", "running")

    def __init__(self, charge: Charge) -> None:
        self.charge = charge
        self.bodies: OrderedDict[MeteredBody, None] = OrderedDict()
        self.next: IDelayedCall | None = None
        self.running = False


class MeteredBody(RelayedBody):
    """
    The body of an answer, whose bytes are charged to accounts as they are sent.

    While an account has debts the body is paused, as it is for a slow client: a tail then reads on from its offset, and
    a download continues at the rate of the quota. To end it instead would make the client ask again at once, and read
    the same bytes twice.

    :param charges: the quotas that limit it; none for a body that is only waited for.
    :param report_end: is called once, when the body has ended.
    """

    __slots__ = ("_charges", "_is_slow", "_pacer", "_report_end", "_waits_for")

    def __init__(
        self, body: AnswerBody, charges: Sequence[Charge], pacer: Pacer, report_end: Callable[[], None]
    ) -> None:
        super().__init__(body)
        self._charges = charges
        self._pacer = pacer
        self._report_end = report_end
        # Whether the client has paused it, and the charge that it waits for.
        self._is_slow = False
        self._waits_for: Charge | None = None

    def pauseProducing(self) -> None:
        self._is_slow = True
        super().pauseProducing()

    def resumeProducing(self) -> None:
        self._is_slow = False
        if self._waits_for is None:
            super().resumeProducing()

    def count(self, size: int) -> None:
        """Charge bytes that are sent, and pause the body if an account has debts."""
        now = self._pacer.now()
        for charge in self._charges:
            charge.quota.meter.charge(charge.account, size, now)
        if not self.is_over and self._waits_for is None:
            debt = self._pacer.debt(self._charges)
            if debt is not None:
                debt.quota.delays += 1
                self._wait_for(debt)

    def proceed(self) -> None:
        """Resume the body, unless another account has debts or the client is slow."""
        self._waits_for = None
        debt = self._pacer.debt(self._charges)
        if debt is not None:
            self._wait_for(debt)
        elif not self._is_slow:
            self.body.resumeProducing()

    def ended(self, outcome: str) -> None:
        waits_for, self._waits_for = self._waits_for, None
        if waits_for is not None:
            self._pacer.discard(self, waits_for)
        self._report_end()

    def _wait_for(self, debt: Charge) -> None:
        self._waits_for = debt
        self.body.pauseProducing()
        self._pacer.add(self, debt)
