"""The metrics of subscriptions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from ..model import Distribution
from ..subscriptions import SubscriptionFigures
from .buckets import buckets

_PREFIX: Final = "durable_streams_subscription"

_TRANSITIONS: Final = ("wake_issued", "wake_done", "wake_cleared", "released", "lease_expired")


def subscription_metrics(figures: SubscriptionFigures) -> Iterator[Metric]:
    """Yield the metrics of subscriptions with their present values. None has the name of a stream."""
    counts = figures.counts
    subscriptions = _gauge("s", "Subscriptions.", "type", "status")
    for (kind, status), count in sorted(figures.subscriptions.items()):
        subscriptions.add_metric((kind, status), count)
    yield subscriptions
    for name, text, value in (
        ("_links", "Links of all subscriptions.", figures.links),
        ("_pending_bytes", "Bytes of linked streams that are not acknowledged.", figures.pending_bytes),
        ("_oldest_wake_seconds", "Age of the oldest wake that no worker has.", figures.oldest_wake_seconds),
        ("_deliveries_waiting", "Deliveries that wait for a slot.", figures.waiting),
        ("_deliveries_running", "Deliveries that run.", figures.running),
    ):
        yield GaugeMetricFamily(_PREFIX + name, text, value=value)
    if figures.partitions is not None:
        text = "Partitions of the subscriptions that this node is responsible for."
        yield GaugeMetricFamily(_PREFIX + "_partitions", text, value=figures.partitions)
    transitions = _counter("_transitions", "Transitions of wakes and leases.", "transition")
    for name in _TRANSITIONS:
        transitions.add_metric((name,), counts.happened[name])
    yield transitions
    deliveries = _counter("_deliveries", "Delivery attempts.", "type", "outcome")
    for (kind, outcome), count in sorted(counts.deliveries.items()):
        deliveries.add_metric((kind, outcome), count)
    yield deliveries
    failures = _counter("_failures", "Webhook requests that have failed.", "reason")
    for reason, count in sorted(figures.failures.items()):
        failures.add_metric((reason,), count)
    yield failures
    claims = _counter("_claims", "Claims of pull-wake subscriptions.", "outcome")
    for outcome, count in sorted(counts.claims.items()):
        claims.add_metric((outcome,), count)
    yield claims
    yield CounterMetricFamily(_PREFIX + "_retries", "Delivery attempts after a failed one.", value=counts.retries)
    yield CounterMetricFamily(_PREFIX + "_fenced", "Requests whose wake had ended.", value=counts.fenced)
    yield _histogram("_delivery_seconds", "Duration of webhook requests.", counts.delivery_seconds.distribution())
    yield _histogram("_sweep_seconds", "Duration of sweeps.", counts.sweep_seconds.distribution())


def _gauge(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(_PREFIX + name, text, labels=labels)


def _counter(name: str, text: str, *labels: str) -> CounterMetricFamily:
    return CounterMetricFamily(_PREFIX + name, text, labels=labels)


def _histogram(name: str, text: str, measured: Distribution) -> Metric:
    return HistogramMetricFamily(
        _PREFIX + name, text, buckets=buckets(measured.bounds, measured.counts), sum_value=measured.total
    )
