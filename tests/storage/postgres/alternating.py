"""Two nodes over one database as one storage: each call is of the other node."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from zope.interface import implementer

from durable_streams.server.interfaces import ICommitListener, IStorage
from durable_streams.server.model import StorageFigures, StorageLimits
from durable_streams.server.storage.postgres.settings import PostgresSettings
from durable_streams.server.storage.postgres.storage import PostgresStorage
from durable_streams.server.storage.postgres.uses import Uses

from .writers import until


@implementer(IStorage)
class TwoNodes:
    """
    Two nodes. Before each call they know of each other what they would know within a second: totals, and last uses.
    """

    def __init__(self, nodes: list[PostgresStorage]) -> None:
        self._nodes = nodes
        self._next = cycle(nodes)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **options: Deferred.fromCoroutine(self._perform(name, args, options))

    def figures(self) -> StorageFigures:
        return self._nodes[0].figures()

    def obstacle(self) -> str | None:
        return self._nodes[0].obstacle()

    def listen(self, listener: ICommitListener) -> None:
        for node in self._nodes:
            node.listen(listener)

    def set_wall_offset(self, offset: float) -> None:
        for node in self._nodes:
            node.set_wall_offset(offset)

    def renew(self, name: str, now: float) -> Any:
        return next(self._next).renew(name, now)

    def close(self) -> Deferred[None]:
        return gatherResults([node.close() for node in self._nodes]).addCallback(lambda _: None)

    def sweep(self, now: float, max_count: int) -> Deferred[int]:
        return Deferred.fromCoroutine(self._sweep(now, max_count))

    async def _sweep(self, now: float, max_count: int) -> int:
        # Beside a busy machine, a lease may run out before it is renewed.
        await until(reactor, lambda: any(node._is_sweeper() for node in self._nodes))
        return sum(await gatherResults([node.sweep(now, max_count) for node in self._nodes]))

    async def _perform(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        node = next(self._next)
        await self._share()
        try:
            return await maybeDeferred(getattr(node, name), *args, **options)
        finally:
            await self._share()

    async def _share(self) -> None:
        for node in self._nodes:
            await _write_uses(node._uses)
            await node._totals.refresh()


async def _write_uses(uses: Uses) -> None:
    while uses._uses or uses._writing is not None:
        if uses._timer is not None:
            uses._timer.cancel()
            uses._timer = None
        if uses._writing is None:
            uses._start()
        if uses._writing is not None:
            await uses._writing


async def two_nodes(dsn: str, limits: StorageLimits) -> TwoNodes:
    """Return two nodes that are open, one of which removes what has expired."""
    nodes = [PostgresStorage(PostgresSettings(dsn, connections=1), limits, reactor) for _ in range(2)]
    for node in nodes:
        node.open()
        await node.values()
    await until(reactor, lambda: any(node._is_sweeper() for node in nodes))
    return TwoNodes(nodes)
