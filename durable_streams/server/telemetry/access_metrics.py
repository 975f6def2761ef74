"""Metrics of authentication, denials and the audit log."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from .audit import AuditLog


def access_metrics(verifications: Mapping[tuple[str, str], int], audit: AuditLog) -> Iterator[Metric]:
    """
    Yield the metrics.

    :param verifications: (method, outcome) -> number.
    """
    verified = CounterMetricFamily(
        "durable_streams_authentications",
        "Verifications of credentials. Those that were verified lately are not verified again for each request.",
        labels=("method", "outcome"),
    )
    for labels, count in sorted(verifications.items()):
        verified.add_metric(labels, count)
    yield verified
    denials = CounterMetricFamily(
        "durable_streams_denials",
        "Requests that were denied.",
        labels=("reason", "operation"),
    )
    for labels, count in sorted(audit.counts.denials.items()):
        denials.add_metric(labels, count)
    yield denials
    sink = audit.sink
    if sink is not None:
        yield CounterMetricFamily("durable_streams_audit_lines", "Lines written into the audit log.", value=sink.lines)
        yield CounterMetricFamily(
            "durable_streams_audit_lines_lost",
            "Lines that the audit log lacks because its file could not be written.",
            value=sink.lost,
        )
        yield GaugeMetricFamily(
            "durable_streams_audit_failed",
            "1 while the file of the audit log cannot be written.",
            value=sink.obstacle is not None,
        )
