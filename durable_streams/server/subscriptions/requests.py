"""Requests about one subscription: claims, acks and changes of its streams, decided while it is up to date."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from .comparing import Comparison
from .counts import SubscriptionCounts
from .decisions import Current, Decision
from .entry import Entry
from .errors import AlreadyClaimed, Fenced, NoPendingWork, SubscriptionNotFound
from .following import ChangeFollower
from .model import Acked, AckRequest, Claimed, TokenClaims
from .registry import Registry, draw
from .representation import acked, claimed
from .seams import Tokens

_T = TypeVar("_T")


class Requests:
    """
    Performs requests, and counts their outcomes.

    :param seconds: returns the time, in seconds since 1970, by a steady clock.
    :param check_ready: raises :exc:`.SubscriptionsUnavailable` while requests are refused.
    :param comparison: finds what other nodes have changed, if some share the storage.
    """

    def __init__(
        self,
        registry: Registry,
        changes: ChangeFollower,
        counts: SubscriptionCounts,
        seconds: Callable[[], float],
        check_ready: Callable[[], None],
        comparison: Comparison | None = None,
    ) -> None:
        self._registry = registry
        self._changes = changes
        self._counts = counts
        self._seconds = seconds
        self._check_ready = check_ready
        self._comparison = comparison

    async def locked(self, subscription_id: str, work: Callable[[Entry, Current], Coroutine[Any, Any, _T]]) -> _T:
        """
        Perform a request for a subscription that is up to date, while nothing else decides about it.

        :raises SubscriptionNotFound: there is none.
        """
        self._check_ready()
        if self._comparison is None:
            return await self._locked(self._registry.find(subscription_id), work)
        while True:
            entry = await self._registry.obtain(subscription_id)
            entry.users += 1
            entry.idle = False
            try:
                await self._comparison.refresh(entry)
                return await self._locked(entry, work)
            except SubscriptionNotFound:
                if entry.current is not None:
                    raise
                # It was deleted by another node, and may have been created again.
            finally:
                entry.users -= 1

    async def _locked(self, entry: Entry, work: Callable[[Entry, Current], Coroutine[Any, Any, _T]]) -> _T:
        await self._changes.read_tails(entry, of_all=True)
        await entry.lock.acquire()
        try:
            self._check_ready()
            await self._registry.bring_up_to_date(entry)
            if entry.current is None:
                raise SubscriptionNotFound(entry.id)
            return await work(entry, entry.current)
        finally:
            entry.lock.release()

    async def _decide(self, subscription_id: str, decide: Callable[[Current], Decision]) -> Decision:
        async def commit(entry: Entry, _: Current) -> Decision:
            return await self._registry.commit(entry, decide)

        try:
            decision = await self.locked(subscription_id, commit)
        except Fenced:
            self._counts.fenced += 1
            raise
        if decision.refusal is not None:
            raise decision.refusal
        return decision

    async def add_streams(self, subscription_id: str, paths: Sequence[str]) -> None:
        """See :meth:`.SubscriptionService.add_streams`."""

        async def add(entry: Entry, _: Current) -> None:
            await self._registry.add_streams(entry, paths)

        await self.locked(subscription_id, add)

    async def remove_stream(self, subscription_id: str, path: str) -> None:
        """See :meth:`.SubscriptionService.remove_stream`."""
        machine = self._registry.machine_of(subscription_id)
        await self._decide(
            subscription_id, lambda current: machine.remove_stream(current, path, self._seconds(), draw())
        )

    async def claim(self, subscription_id: str, worker: str, tokens: Tokens) -> dict[str, object]:
        """See :meth:`.SubscriptionService.claim`."""
        machine = self._registry.machine_of(subscription_id)
        try:
            decision = await self._decide(
                subscription_id, lambda current: machine.claim(current, worker, self._seconds(), draw())
            )
        except AlreadyClaimed:
            self._counts.claims["already_claimed"] += 1
            raise
        except NoPendingWork:
            self._counts.claims["no_pending_work"] += 1
            raise
        answer = decision.answer
        assert isinstance(answer, Claimed)
        self._counts.claims["claimed"] += 1
        return claimed(answer, tokens.issue(TokenClaims(subscription_id, answer.generation, answer.wake_id)))

    async def ack(self, subscription_id: str, claims: TokenClaims, request: AckRequest) -> dict[str, object]:
        """See :meth:`.SubscriptionService.ack`."""
        machine = self._registry.machine_of(subscription_id)
        decision = await self._decide(
            subscription_id, lambda current: machine.ack(current, claims, request, self._seconds(), draw())
        )
        assert isinstance(decision.answer, Acked)
        return acked(decision.answer)

    async def release(self, subscription_id: str, claims: TokenClaims, request: AckRequest) -> None:
        """See :meth:`.SubscriptionService.release`."""
        machine = self._registry.machine_of(subscription_id)
        await self._decide(
            subscription_id, lambda current: machine.release(current, claims, request, self._seconds(), draw())
        )
