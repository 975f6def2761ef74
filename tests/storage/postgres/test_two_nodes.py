"""Random operations on two nodes over one database, each call on the other node, beside the model of a storage."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test
from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from durable_streams.server.interfaces import IStorage
from durable_streams.server.model import StorageLimits
from durable_streams.server.storage.postgres.settings import PostgresSettings
from durable_streams.server.storage.postgres.storage import PostgresStorage
from durable_streams.server.storage.postgres.uses import Uses
from durable_streams.server.testing import storage_machine

from .databases import Database
from .writers import until

reactor: Any = _reactor

#: The position of the time among the arguments of the operations that have one.
_TIMES = {"create": 3, "append": 2, "read": 3, "status": 1, "record": 1, "install": 4, "delete": 1, "renew": 1}
_TIMES |= {"sweep": 0, "statuses": 0}


@implementer(IStorage)
class Alternating:
    """
    Two nodes as one storage, for a thread that waits for each result: each call is of the other node.

    Before each call the nodes know of each other what they would know within a second: the totals, and last uses.
    """

    def __init__(self, database: Database, nodes: list[PostgresStorage]) -> None:
        self._database = database
        self._nodes = nodes
        self._next = cycle(nodes)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            if name in _TIMES:
                self._database.set_time(arguments[_TIMES[name]])
            return blockingCallFromThread(reactor, self._call, name, arguments)

        return call

    def _call(self, name: str, arguments: tuple[Any, ...]) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._perform(name, arguments))

    async def _perform(self, name: str, arguments: tuple[Any, ...]) -> Any:
        if name == "close":
            return await gatherResults([node.close() for node in self._nodes])
        if name == "sweep":
            return sum(await gatherResults([node.sweep(*arguments) for node in self._nodes]))
        await gatherResults([Deferred.fromCoroutine(node._totals.refresh()) for node in self._nodes])
        node = next(self._next)
        try:
            return await maybeDeferred(getattr(node, name), *arguments)
        finally:
            await self._write_uses(node._uses)

    @staticmethod
    async def _write_uses(uses: Uses) -> None:
        while uses._uses or uses._writing is not None:
            if uses._timer is not None:
                uses._timer.cancel()
                uses._timer = None
            if uses._writing is None:
                uses._start()
            if uses._writing is not None:
                await uses._writing


class TwoNodeTests(TestCase):
    timeout = 300

    def make_storage(self, limits: StorageLimits) -> Alternating:
        call: Any = blockingCallFromThread
        storage: Alternating = call(reactor, self.begin, limits)
        return storage

    def begin(self, limits: StorageLimits) -> Deferred[Alternating]:
        return Deferred.fromCoroutine(self.opened(limits))

    async def opened(self, limits: StorageLimits) -> Alternating:
        self.database.empty()
        nodes = [PostgresStorage(PostgresSettings(self.database.dsn, connections=1), limits, reactor) for _ in range(2)]
        for node in nodes:
            node.open()
            await node.values()
        await until(reactor, lambda: any(node._is_sweeper() for node in nodes))
        return Alternating(self.database, nodes)

    def test_two_nodes_behave_like_the_model(self) -> Deferred[None]:
        self.database = Database(self)
        steps = settings(
            max_examples=12,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            database=None,
        )
        machine = storage_machine(self.make_storage)
        return deferToThread(run_state_machine_as_test, machine, settings=steps)
