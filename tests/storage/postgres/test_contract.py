"""The contract of storages, on a real server whose clock the tests set."""

from __future__ import annotations

from typing import Any, cast

from msgspec.structs import replace
from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import TestCase

from durable_streams.server.interfaces import ICommitListener, IStorage
from durable_streams.server.model import StorageFigures, StorageLimits
from durable_streams.server.storage.postgres.settings import PostgresSettings
from durable_streams.server.storage.postgres.storage import PostgresStorage
from durable_streams.server.testing import SharedStorageContract, settled
from durable_streams.server.testing.contract.announcing import AnnouncementContract
from durable_streams.server.testing.contract.appending import AppendContract
from durable_streams.server.testing.contract.concurrent import ConcurrencyContract
from durable_streams.server.testing.contract.creating import CreateContract
from durable_streams.server.testing.contract.deleting import DeleteContract
from durable_streams.server.testing.contract.durable import DurabilityContract
from durable_streams.server.testing.contract.forks import ForkContract
from durable_streams.server.testing.contract.installing import InstallContract
from durable_streams.server.testing.contract.lifetimes import LifetimeContract
from durable_streams.server.testing.contract.limits import LimitContract
from durable_streams.server.testing.contract.reading import ReadContract
from durable_streams.server.testing.contract.records import ListingContract, RecordContract
from durable_streams.server.testing.contract.values import ValueContract
from durable_streams.server.testing.contract.writers import WriterContract
from tests.storage.postgres.databases import Database
from tests.storage.postgres.writers import until
from tests.support.skipping import skip_not_applicable


class ContractTests(SharedStorageContract, DurabilityContract, TestCase):
    """One node."""

    async def make_storage(self, limits: StorageLimits) -> PostgresStorage:
        self.database = Database(self)
        self.limits = limits
        return await self.opened(limits)

    async def opened(self, limits: StorageLimits) -> PostgresStorage:
        storage = PostgresStorage(PostgresSettings(self.database.dsn, connections=2), limits, reactor)
        storage.open()
        # Until then it removes nothing that has expired.
        await until(reactor, storage._is_sweeper)
        return storage

    def set_time(self, now: float) -> None:
        self.database.set_time(now)

    async def reopen(self, storage: IStorage) -> IStorage:
        assert isinstance(storage, PostgresStorage)
        await storage.close()
        return await self.opened(self.limits)


class TwoNodes:
    """
    Two nodes on one database, of which the calls use one after the other.

    What a node knows late by design is exchanged between the calls: totals, and uses of streams that only read.
    """

    def __init__(self, nodes: list[PostgresStorage]) -> None:
        self.nodes = nodes
        self._calls = 0

    def __getattr__(self, name: str) -> Any:
        self._calls += 1
        node = self.nodes[self._calls % 2]
        method = getattr(node, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            try:
                return await settled(method(*arguments, **options))
            finally:
                await until(reactor, lambda: not self._unwritten(node))
                for each in self.nodes:
                    await each._totals.refresh()

        return lambda *arguments, **options: Deferred.fromCoroutine(call(*arguments, **options))

    @staticmethod
    def _unwritten(node: PostgresStorage) -> bool:
        """Return whether a node has uses that are not written, and have it write them at once."""
        if node._uses._timer is not None:
            node._uses._timer.reset(0)
        return bool(node._uses._uses)

    def figures(self) -> StorageFigures:
        """Return the figures of one node, with the bytes that both have written."""
        figures = [node.figures() for node in self.nodes]
        return replace(figures[0], written_bytes=sum(each.written_bytes for each in figures))

    def listen(self, listener: ICommitListener) -> None:
        for node in self.nodes:
            node.listen(listener)

    async def sweep(self, now: float, max_count: int) -> int:
        """Remove expired streams: only one of the nodes has this task."""
        removed = 0
        for node in self.nodes:
            removed += await node.sweep(now, max_count)
            await gatherResults([Deferred.fromCoroutine(each._totals.refresh()) for each in self.nodes])
        return removed

    async def close(self) -> None:
        for node in self.nodes:
            await node.close()


class TwoNodeTests(
    LimitContract,
    AnnouncementContract,
    CreateContract,
    AppendContract,
    WriterContract,
    ReadContract,
    RecordContract,
    ListingContract,
    InstallContract,
    DeleteContract,
    LifetimeContract,
    ForkContract,
    ValueContract,
    ConcurrencyContract,
    TestCase,
):
    """Two nodes, each call to the other one: what one has written, the other knows at once."""

    async def _skipped(self) -> None:
        skip_not_applicable(
            "calls that run at the same time on different nodes have no order, and count for themselves"
        )

    test_one_of_several_appends_that_expect_the_same_tail_is_accepted = _skipped
    test_appends_and_an_installation_at_the_same_time_take_effect_in_order = _skipped
    test_a_limit_holds_for_concurrent_appends = _skipped
    test_figures_count_commits = _skipped

    async def make_storage(self, limits: StorageLimits) -> IStorage:
        self.database = Database(self)
        nodes = [PostgresStorage(PostgresSettings(self.database.dsn, connections=1), limits, reactor) for _ in range(2)]
        for node in nodes:
            node.open()
        await until(reactor, lambda: any(node._is_sweeper() for node in nodes))
        return cast("IStorage", TwoNodes(nodes))

    def set_time(self, now: float) -> None:
        self.database.set_time(now)
