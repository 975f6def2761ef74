"""The metrics of ``/metrics`` in Prometheus' text format, collected from plain counters at each scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import PackageNotFoundError, version
from math import inf
from platform import python_version
from time import perf_counter
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
)
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from twisted.internet.defer import Deferred

from ..model import DatabaseFigures, Distribution, StorageFigures
from ..web.connections import Connections
from ..web.operations import Operations
from .buckets import buckets
from .counts import DURATIONS, RequestCounts

if TYPE_CHECKING:
    from ..identity.quotas import Quota
    from ..subscriptions import SubscriptionFigures

#: The maximum age of the figures that a scrape gets, in seconds. Rendering them blocks the reactor for 3 to 20 ms.
MAX_AGE: Final = 1.0


class Metrics(Collector):
    """
    All metrics of a server, in their own registry.

    :param counts: the request counters.
    :param operations: the operations, with the service and the live readers.
    :param backend: the storage mode.
    :ivar collect_all: returns the metrics of all workers, if this is one of them; None for those of this process.
    """

    def __init__(self, counts: RequestCounts, operations: Operations, backend: str) -> None:
        self._counts = counts
        self._streams = operations.streams
        self._live = operations.live
        self._quotas = [] if operations.quotas is None else operations.quotas.quotas.all()
        self._build = {"version": _version(), "python": python_version(), "storage": backend}
        self._factories: list[Connections] = []
        self._subscriptions: Callable[[], SubscriptionFigures] | None = None
        self._seconds = perf_counter
        self._access: Callable[[], Iterator[Metric]] | None = None
        self.collect_all: Callable[[], Deferred[bytes]] | None = None
        self._scraped = b""
        self._scraped_at = -inf
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def watch(self, factory: Connections) -> None:
        """Count the connections of a listener from now on."""
        self._factories.append(factory)

    def watch_subscriptions(self, figures: Callable[[], SubscriptionFigures]) -> None:
        """Render the metrics of subscriptions, too."""
        self._subscriptions = figures

    def watch_access(self, collect: Callable[[], Iterator[Metric]]) -> None:
        """Render the metrics of authentication, denials and the audit log, too."""
        self._access = collect

    def answer(self) -> bytes | Deferred[bytes]:
        """Return what ``/metrics`` answers: the metrics of this process, or of all workers."""
        return self.scrape() if self.collect_all is None else self.collect_all()

    def scrape(self) -> bytes:
        """Return the rendered metrics; render them again if they are older than :data:`MAX_AGE`."""
        now = self._seconds()
        if now - self._scraped_at >= MAX_AGE:
            self._scraped = self.render()
            self._scraped_at = now
        return self._scraped

    def render(self) -> bytes:
        """Render the present values of all metrics."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that the registry does not collect everything when this is registered."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield all metrics with their present values."""
        yield InfoMetricFamily(
            "durable_streams_build",
            "The server's version and Python's, and the storage mode.",
            self._build,
        )
        yield from self._requests()
        yield from self._readers()
        yield from self._connections()
        yield from _quota_metrics(self._quotas)
        if self._access is not None:
            yield from self._access()
        yield from _storage(self._streams.figures())
        if self._subscriptions is not None:
            from .subscriptions import subscription_metrics  # noqa: PLC0415 (only if there are subscriptions)

            yield from subscription_metrics(self._subscriptions())
        streams = self._streams
        # Before the service runs, an obstacle means that the storage still loads, which is not a failure.
        failed = bool(streams.running) and streams.obstacle() is not None
        yield _gauge(
            "storage_failed",
            "1 if the storage refuses writes: until a restart, or until its database can be reached again.",
            failed,
        )
        yield _gauge(
            "ready",
            "1 if streams can be read and written; 0 while the storage loads, after it failed, and during a stop.",
            bool(streams.running) and not streams.draining and not failed,
        )

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily("durable_streams_requests", "Requests answered.", labels=("operation", "status"))
        durations = HistogramMetricFamily(
            "durable_streams_request_duration_seconds",
            "Time from a request's arrival until its answer begins; includes the wait of long-polls.",
            labels=("operation",),
        )
        for operation, tally in self._counts.operations.items():
            for status, count in tally.statuses():
                requests.add_metric((operation, str(status)), count)
            durations.add_metric((operation,), buckets(DURATIONS, tally.durations()), tally.seconds)
        yield requests
        yield durations
        appends = sum(count for status, count in self._counts.operations["append"].statuses() if status < 300)
        yield _counter("appends", "Accepted appends, including retries.", appends)
        read = self._counts.read_bytes + self._live.sent.bytes
        yield _counter("read_bytes", "Bytes in answers to reads, including Server-Sent Events.", read)

    def _readers(self) -> Iterator[Metric]:
        yield _gauge("live_tails", "Open Server-Sent Events connections.", self._live.tails)
        yield _gauge("live_polls", "Waiting long-polls.", self._live.polls)

    def _connections(self) -> Iterator[Metric]:
        factories = self._factories
        connections = sum(factory.connections for factory in factories)
        accepted = sum(factory.accepted for factory in factories)
        refused = sum(factory.refused for factory in factories)
        pauses = sum(factory.pauses for factory in factories)
        failures = sum(factory.handshake_failures.count for factory in factories)
        yield _gauge("connections", "Open connections.", connections)
        yield _counter("connections_accepted", "Connections accepted.", accepted)
        yield _counter("connections_refused", "Connections refused because there were too many.", refused)
        yield _counter("tls_handshake_failures", "TLS handshakes that failed.", failures)
        yield _counter("slow_reader_pauses", "Pauses of an answer because its reader was slow.", pauses)


def _quota_metrics(quotas: Iterable[Quota]) -> Iterator[Metric]:
    labels = ("scope", "quota")
    refusals = CounterMetricFamily("durable_streams_quota_refusals", "Refusals because of a quota.", labels=labels)
    delays = CounterMetricFamily("durable_streams_quota_delays", "Pauses of answers because of a quota.", labels=labels)
    for quota in quotas:
        refusals.add_metric((quota.scope, quota.kind), quota.refusals)
        delays.add_metric((quota.scope, quota.kind), quota.delays)
    yield refusals
    yield delays


def _storage(figures: StorageFigures) -> Iterator[Metric]:
    yield _gauge("storage_streams", "Streams, including deleted ones that are kept for their forks.", figures.streams)
    yield _gauge("storage_bytes", "Bytes of data of all streams; the limit is limits.max_total_bytes.", figures.bytes)
    yield _gauge(
        "storage_metadata_bytes",
        "Bytes of the metadata of all streams; the limit is limits.max_metadata_bytes.",
        figures.metadata_bytes,
    )
    yield _counter("appended_bytes", "Bytes of data written by appends and creates.", figures.written_bytes)
    yield _gauge("storage_queued_bytes", "Bytes of changes that wait to be written.", figures.queued_bytes)
    yield _gauge(
        "storage_unsynced_changes",
        "Acknowledged changes that are not synced to disk; lost if a sync has failed.",
        figures.unsynced_changes,
    )
    if figures.commit_sizes is not None:
        yield _histogram("storage_commit_changes", "Changes in one commit.", figures.commit_sizes)
    if figures.commit_seconds is not None:
        yield _histogram(
            "storage_commit_seconds", "Duration of a commit, including the sync to disk.", figures.commit_seconds
        )
    if figures.database is not None:
        yield from database_metrics(figures.database)


def database_metrics(figures: DatabaseFigures) -> Iterator[Metric]:
    """Yield the metrics of a storage in a database."""
    for name, text, count in (
        ("misses", "Streams that were not written at once: another server had changed or locked them.", figures.misses),
        ("uncertain_commits", "Commits without an answer, whose outcome was looked up.", figures.uncertain_commits),
        ("cache_hits", "Pieces of data read from the server's cache.", figures.cache_hits),
        ("cache_misses", "Pieces of data read from the database.", figures.cache_misses),
        ("reconnections", "Connections to the database that were opened after one was lost.", figures.reconnections),
    ):
        yield _counter(f"database_{name}", text, count)
    for name, text, value in (
        (
            "cache_bytes",
            "Size of the server's cache of data; the limit is storage.postgres.cache_bytes.",
            figures.cache_bytes,
        ),
        ("connections", "Open connections to the database.", figures.connections),
        ("lock_waits", "Locks that sessions of the database wait for.", figures.lock_waits),
        ("notify_queue_usage", "How full the database's queue of NOTIFY is, from 0 to 1.", figures.notify_queue),
        ("oldest_xmin_age", "Transactions that began since the database's oldest snapshot.", figures.oldest_xmin),
        (
            "oldest_xmin_seconds",
            "For how long the same snapshot has been the database's oldest one while others began.",
            figures.oldest_xmin_seconds,
        ),
    ):
        yield _gauge(f"database_{name}", text, value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"durable_streams_{name}", text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"durable_streams_{name}", text, value=value)


def _histogram(name: str, text: str, measured: Distribution) -> Metric:
    cumulative = buckets(measured.bounds, measured.counts)
    return HistogramMetricFamily(f"durable_streams_{name}", text, buckets=cumulative, sum_value=measured.total)


def _version() -> str:
    try:
        return version("durable-streams-server")
    except PackageNotFoundError:
        return "unknown"
