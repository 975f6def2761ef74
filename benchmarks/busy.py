"""Benchmark of commits beside a reactor that is busy with other work."""

import time
from typing import Any, Final

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import LoopingCall, deferLater

from benchmarks.databases import fresh
from durable_streams.server.model import Append, Appended, StorageLimits, StreamConfig
from durable_streams.server.storage.postgres.settings import PostgresSettings
from durable_streams.server.storage.postgres.storage import PostgresStorage

#: The streams, of which each is appended to every 10 ms; and a turn of the reactor's other work, in seconds.
STREAMS: Final = 16
_EVERY: Final = 0.010
_TURN: Final = 0.001

#: The shares of the reactor's time that other work takes.
_SHARES: Final = (0.0, 0.5, 0.8)

_LIMITS: Final = StorageLimits(total_bytes=1 << 40, stream_bytes=1 << 40)


class _Work:
    """
    Work in turns of a millisecond, for a share of all time.

    :param share: less than 1.
    """

    def __init__(self, reactor: Any, share: float) -> None:
        self._reactor = reactor
        self._share = share
        self._over = False
        if share:
            self._turn()

    def _turn(self) -> None:
        if self._over:
            return
        end = time.thread_time() + _TURN
        while time.thread_time() < end:
            pass
        self._reactor.callLater(_TURN * (1 / self._share - 1), self._turn)

    def stop(self) -> None:
        """Work no longer."""
        self._over = True


async def _appends(storage: PostgresStorage, reactor: Any, seconds: float) -> list[float]:
    """Append at a steady rate, and return the sorted latencies in milliseconds."""
    latencies: list[float] = []
    data = Append("text/plain", b"x" * 256)
    waiting: set[Deferred[Appended]] = set()

    def append() -> None:
        began_at = time.perf_counter()

        def answered(result: Any, answer: Deferred[Appended]) -> Any:
            latencies.append((time.perf_counter() - began_at) * 1000)
            waiting.discard(answer)
            return result

        for number in range(STREAMS):
            answer = storage.append(f"busy/{number}", data, 0)
            waiting.add(answer)
            answer.addCallback(answered, answer)

    loop = LoopingCall(append)
    loop.clock = reactor
    loop.start(_EVERY)
    await deferLater(reactor, seconds, lambda: None)
    loop.stop()
    await gatherResults(list(waiting))
    return sorted(latencies)


async def measure(reactor: Any, seconds: float, core: int | None) -> None:
    """
    Print the latency of appends of a storage without HTTP, for several shares of other work.

    :param core: of the database, or None for any.
    """
    with fresh(core) as database:
        storage = PostgresStorage(PostgresSettings(database.dsn), _LIMITS, reactor)
        storage.open()
        config = StreamConfig("text/plain")
        await gatherResults([storage.create(f"busy/{number}", config, b"", 0) for number in range(STREAMS)])
        await _appends(storage, reactor, 1)
        for share in _SHARES:
            work = _Work(reactor, share)
            latencies = await _appends(storage, reactor, seconds)
            work.stop()
            middle, late = latencies[len(latencies) // 2], latencies[len(latencies) * 99 // 100]
            print(
                f"reactor busy for {share:.0%} with other work: {len(latencies) / seconds:,.0f} appends/s, "
                f"p50 {middle:.2f} ms, p99 {late:.2f} ms",
                flush=True,
            )
        await storage.close()
