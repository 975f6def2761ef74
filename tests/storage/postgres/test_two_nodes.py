"""Two nodes over one database: the contract of storages, and random operations beside the model of a storage."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from durable_streams.server.errors import OffsetConflict, StorageFull, StreamNotFound
from durable_streams.server.interfaces import IStorage
from durable_streams.server.model import FOREVER, Append, Appended, StorageLimits, StreamRestoration, StreamStatus
from durable_streams.server.testing import SharedStorageContract, storage_machine
from durable_streams.server.testing.values import TEXT

from .alternating import TwoNodes, two_nodes
from .databases import Database

reactor: Any = _reactor


class TwoNodeContractTests(SharedStorageContract, TestCase):
    """
    Each call is of the other node.

    Calls that run at the same time on two nodes take effect in any order, and the limits of all streams are exceeded by
    what the other node has not been told of yet. The figures of what was written are those of one node.
    """

    async def make_storage(self, limits: StorageLimits) -> TwoNodes:
        self.database = Database(self)
        return await two_nodes(self.database.dsn, limits)

    def set_time(self, now: float) -> None:
        self.database.set_time(now)

    async def test_a_limit_holds_for_concurrent_appends(self) -> None:
        await self.take(total_bytes=10, streams=5)
        for name in "abcde":
            await self.create(name)
        append = Append("text/plain", b"xxxx")
        calls: list[Callable[[], Any]] = [partial(self.storage.append, name, append, self.now) for name in "abcde"]
        outcomes = await self.together(calls)
        self.assertIn(sum(isinstance(outcome, StorageFull) for outcome in outcomes), (1, 2, 3))
        await self.refused(StorageFull, self.append("a", b"xxxx"))

    async def test_appends_and_an_installation_at_the_same_time_take_effect_in_order(self) -> None:
        await self.create(body=b"old")
        await self.create("__ds/1", TEXT, b"1")
        append = Append("text/plain", b"2")
        restoration = StreamRestoration(TEXT, FOREVER)
        calls: list[Callable[[], Any]] = [
            lambda: self.storage.append("a", append, self.now),
            lambda: self.storage.append("__ds/1", append, self.now),
            lambda: self.storage.install("__ds/1", "a", restoration, True, self.now),
            lambda: self.storage.append("a", append, self.now),
        ]
        outcomes = await self.together(calls)
        self.assertIsInstance(outcomes[2], StreamStatus)
        self.assertIsInstance(outcomes[1], (Appended, StreamNotFound))
        content = await self.content()
        self.assertEqual((content[:1], set(content[1:]) - set(b"2")), (b"1", set()))
        self.assertLessEqual(len(content), 4)
        self.assertEqual(await self.names(), ["a"])

    async def test_one_of_several_appends_that_expect_the_same_tail_is_accepted(self) -> None:
        await self.create(body=b"x")
        append = Append("text/plain", b"y", expected=self.at("a", 1))
        outcomes = await self.together([lambda: self.storage.append("a", append, self.now)] * 5)
        self.assertEqual(sum(isinstance(outcome, Appended) for outcome in outcomes), 1)
        self.assertEqual(sum(isinstance(outcome, OffsetConflict) for outcome in outcomes), 4)
        self.assertEqual(await self.content(), b"xy")

    async def test_figures_count_commits(self) -> None:
        await self.create("a", body=b"xxxx")
        await self.append("a", b"xx")
        await self.status()
        figures = self.storage.figures()
        assert figures.commit_sizes is not None
        self.assertEqual((sum(figures.commit_sizes.counts), figures.commit_sizes.total), (1, 1))

    async def test_figures_count_streams_and_bytes(self) -> None:
        await self.create("a", body=b"xxxx")
        await self.append("a", b"xx")
        await self.fork("b", "a", body=b"y")
        figures = self.storage.figures()
        self.assertEqual((figures.streams, figures.bytes, figures.written_bytes), (2, 7, 5))
        await self.delete("a")
        await self.delete("b")
        self.assertEqual((self.storage.figures().streams, self.storage.figures().bytes), (0, 0))


#: The position of the time among the arguments of the operations that have one.
_TIMES = {"create": 3, "append": 2, "read": 3, "status": 1, "record": 1, "install": 4, "delete": 1, "renew": 1}
_TIMES |= {"sweep": 0, "statuses": 0}


@implementer(IStorage)
class Blocking:
    """Two nodes, for a thread that waits for each result."""

    def __init__(self, database: Database, nodes: TwoNodes) -> None:
        self._database = database
        self._nodes = nodes

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if name in _TIMES:
                self._database.set_time(args[_TIMES[name]])
            return blockingCallFromThread(reactor, self._call, name, args)

        return call

    def _call(self, name: str, args: tuple[Any, ...]) -> Any:
        return getattr(self._nodes, name)(*args)


class TwoNodeTests(TestCase):
    timeout = 300

    def make_storage(self, limits: StorageLimits) -> Blocking:
        call: Any = blockingCallFromThread
        storage: Blocking = call(reactor, lambda: ensureDeferred(self.opened(limits)))
        return storage

    async def opened(self, limits: StorageLimits) -> Blocking:
        self.database.empty()
        return Blocking(self.database, await two_nodes(self.database.dsn, limits))

    def test_two_nodes_behave_like_the_model(self) -> Deferred[None]:
        self.database = Database(self)
        steps = settings(
            max_examples=12,
            # A failure that depends on the load would be searched for a shorter one for minutes.
            phases=[Phase.generate],
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        return deferToThread(run_state_machine_as_test, storage_machine(self.make_storage), settings=steps)
