"""Operations in progress, and how a storage waits for them when it is closed."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.storage.postgres.turns import Operations


class OperationsTests(SynchronousTestCase):
    async def wait_for(self, end: Deferred[str]) -> str:
        return await end

    def test_each_close_waits_for_the_operations_in_progress_and_lets_no_other_begin(self) -> None:
        operations, end = Operations(), Deferred[str]()
        running = operations.begin(self.wait_for, end)
        closes = [operations.close(), operations.close()]
        self.assertRaises(Unavailable, operations.begin, self.wait_for, end)
        self.assertEqual([False, False], [close.called for close in closes])
        end.callback("done")
        self.assertEqual("done", self.successResultOf(running))
        self.assertEqual([True, True], [close.called for close in closes])

    def test_each_close_without_operations_returns_at_once(self) -> None:
        operations = Operations()
        for _ in range(2):
            self.assertIsNone(self.successResultOf(operations.close()))
