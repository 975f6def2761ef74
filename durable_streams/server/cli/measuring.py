"""A short load on a server: appends, reads and tails, with their rates and latencies."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from secrets import token_hex
from typing import Any, Final

import msgspec
from msgspec import Struct
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from ..client import ClientError, StreamClient
from ..client.urls import stream_url
from .progress import ProgressBar

#: What a bench that is killed leaves behind expires after so many seconds.
_TTL: Final = 600

#: One request of a phase, by the client of a number; it notes its success.
Step = Callable[["_Meter", int], Coroutine[Any, Any, None]]

_TEXT: Final = "text/plain"
_JSON: Final = "application/json"

#: The size of the stream that is read, in bytes.
READ_SIZE: Final = 1_048_576

#: The pause between two appends to the stream that is tailed, in seconds.
_TAIL_PAUSE: Final = 0.02

#: So many failures without a success end a phase.
_HOPELESS: Final = 10


class Load(Struct, frozen=True):
    """
    How much load.

    :ivar seconds: the duration of each phase.
    :ivar clients: how many requests are under way at a time.
    :ivar streams: to how many streams is appended.
    :ivar size: the bytes of an append.
    :ivar tails: how many readers follow a stream.
    """

    seconds: float = 5.0
    clients: int = 32
    streams: int = 8
    size: int = 100
    tails: int = 20


class Phase(Struct):
    """
    The figures of one phase.

    :ivar name: what was done.
    :ivar count: how many requests, or deliveries to tails, succeeded.
    :ivar seconds: the time that they took together.
    :ivar per_second: ``count`` by ``seconds``.
    :ivar bytes_per_second: the bytes of the data.
    :ivar p50_ms: the median latency; None if nothing succeeded.
    :ivar failures: how many requests failed.
    :ivar failure: the first error; None if there was none.
    :ivar client_busy: the share of the time that this command ran, or waited for a processor: near 1, it was the limit
        and not the server.
    """

    name: str
    count: int = 0
    seconds: float = 0.0
    per_second: float = 0.0
    bytes_per_second: float = 0.0
    p50_ms: float | None = None
    p99_ms: float | None = None
    max_ms: float | None = None
    failures: int = 0
    failure: str | None = None
    client_busy: float = 0.0


def _busy_seconds() -> float:
    """Return for how long this process has run, or waited for a processor that others had."""
    try:
        waited = int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        # Kernels without it do not tell how long a process waits.
        waited = 0.0
    return time.process_time() + waited


class _Meter:
    """Collects the latencies of a phase."""

    def __init__(self, name: str) -> None:
        self._phase = Phase(name)
        self._latencies: list[float] = []
        self._bytes = 0
        self._began_at = time.monotonic()
        self._busy_at_start = _busy_seconds()

    def restart(self) -> None:
        """Begin to measure now, and not when this was created."""
        self._began_at = time.monotonic()
        self._busy_at_start = _busy_seconds()

    def add(self, began_at: float, size: int) -> None:
        """Note a success; ``began_at`` is by the monotonic clock."""
        self._latencies.append(time.monotonic() - began_at)
        self._bytes += size

    def fail(self, error: ClientError) -> None:
        """
        Note a failure.

        :raises ClientError: nothing succeeds.
        """
        phase = self._phase
        phase.failures += 1
        phase.failure = phase.failure or str(error)
        if not self._latencies and phase.failures >= _HOPELESS:
            raise error

    def result(self) -> Phase:
        """Return the figures."""
        phase = self._phase
        phase.seconds = max(time.monotonic() - self._began_at, 1e-9)
        phase.count = len(self._latencies)
        phase.per_second = phase.count / phase.seconds
        phase.bytes_per_second = self._bytes / phase.seconds
        phase.client_busy = min((_busy_seconds() - self._busy_at_start) / phase.seconds, 1.0)
        if self._latencies:
            ordered = sorted(self._latencies)
            phase.p50_ms = ordered[len(ordered) // 2] * 1000
            phase.p99_ms = ordered[len(ordered) * 99 // 100] * 1000
            phase.max_ms = ordered[-1] * 1000
        return phase


async def together(reactor: Any, works: list[Coroutine[Any, Any, None]]) -> None:
    """
    Run coroutines at the same time until all have ended; the first error, or a cancellation, ends the others.

    :raises Exception: the first error.
    """
    running = [Deferred.fromCoroutine(work) for work in works]
    errors: list[Failure] = []

    def failed(failure: Failure) -> None:
        if not errors:
            errors.append(failure)
            # Not at once: the coroutine that failed may be the one that is being started.
            reactor.callLater(0, cancel)

    def cancel() -> None:
        for one in running:
            one.cancel()

    for one in running:
        one.addErrback(failed)
    await DeferredList(running, consumeErrors=True)
    if errors:
        errors[0].raiseException()


class Bench:
    """
    Puts a load on a server.

    :param base: the URL below which the streams are.
    :param bar: shows how much of a phase is over, in seconds.
    """

    def __init__(self, reactor: Any, client: StreamClient, base: str, load: Load, bar: ProgressBar) -> None:
        self._reactor = reactor
        self._client = client
        self._load = load
        self._bar = bar
        self._base = base
        self._folder = f"bench-{token_hex(6)}"
        self._body = (b"durable streams " * (load.size // 16 + 1))[: load.size]

    async def run(self) -> AsyncIterator[Phase]:
        """
        Run the phases, and return the figures of each when it ends. The streams are deleted at the end.

        :raises ClientError: the server cannot be used.
        """
        async with self._streams("append", self._load.streams) as urls:
            yield await self._append("append, 1 client", urls, 1)
            yield await self._append(f"append, {self._load.clients} clients", urls, self._load.clients)
        async with self._streams("read", 1, b"r" * READ_SIZE) as urls:
            yield await self._read(urls[0])
        async with self._streams("tail", 1, content_type=_JSON) as urls:
            yield await self._tail(urls[0])

    @asynccontextmanager
    async def _streams(
        self, kind: str, count: int, data: bytes | None = None, content_type: str = _TEXT
    ) -> AsyncIterator[list[str]]:
        """Create streams, and delete them at the end."""
        urls = [stream_url(self._base, f"{self._folder}/{kind}-{number}") for number in range(count)]
        try:
            for url in urls:
                await self._client.create(url, content_type, data, ttl=_TTL)
            yield urls
        finally:
            for url in urls:
                try:
                    await self._client.delete(url)
                except ClientError:
                    # It was not created, or the server is gone: it expires.
                    continue

    async def _until_over(self, name: str, step: Step, clients: int) -> Phase:
        """Repeat a step in several clients until the time is over."""
        meter = _Meter(name)
        clock = self._clock(name)

        async def client(number: int) -> None:
            while clock():
                try:
                    await step(meter, number)
                except ClientError as error:
                    meter.fail(error)

        await together(self._reactor, [client(number) for number in range(clients)])
        return meter.result()

    def _clock(self, name: str) -> Callable[[], bool]:
        """Begin a phase, and return a function that moves the bar and tells whether the phase goes on."""
        total = round(self._load.seconds)
        begun_at = time.monotonic()
        self._bar.restart(name, total)

        def goes_on() -> bool:
            elapsed = time.monotonic() - begun_at
            self._bar.update(int(elapsed), total)
            return elapsed < self._load.seconds

        return goes_on

    async def _append(self, name: str, urls: list[str], clients: int) -> Phase:
        async def step(meter: _Meter, number: int) -> None:
            began_at = time.monotonic()
            await self._client.append(urls[number % len(urls)], self._body, _TEXT)
            meter.add(began_at, len(self._body))

        return await self._until_over(name, step, clients)

    async def _read(self, url: str) -> Phase:
        async def step(meter: _Meter, _: int) -> None:
            began_at = time.monotonic()
            size = 0
            answer = await self._client.http.request("GET", f"{url}?offset=-1")
            async for piece in answer.body:
                size += len(piece)
            meter.add(began_at, size)

        name = f"read of {READ_SIZE >> 20} MiB, {self._load.clients} clients"
        return await self._until_over(name, step, self._load.clients)

    async def _tail(self, url: str) -> Phase:
        """Append times of the monotonic clock to a stream, and compare them with the time at which tails get them."""
        name = f"append to {self._load.tails} tails"
        meter = _Meter(name)
        begun: list[Deferred[None]] = [Deferred() for _ in range(self._load.tails)]

        async def follow(number: int) -> None:
            reader = await self._client.tail(url, "-1", "sse", give_up_after=10.0)
            try:
                async for batch in reader:
                    for message in batch.messages:
                        meter.add(msgspec.json.decode(message, type=float), len(message))
                    if not begun[number].called:
                        begun[number].callback(None)
            finally:
                await reader.aclose()

        async def write() -> None:
            await DeferredList(begun)
            clock = self._clock(name)
            meter.restart()
            while clock():
                await self._client.append(url, b"%r" % time.monotonic(), _JSON)
                await deferLater(self._reactor, _TAIL_PAUSE)
            # The tails end.
            await self._client.close(url)

        await together(self._reactor, [*(follow(number) for number in range(self._load.tails)), write()])
        return meter.result()
