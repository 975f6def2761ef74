"""Metrics of authentication, denials and the audit log."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from .audit import AuditLog, AuditSink


def access_metrics(
    verifications: Mapping[tuple[str, str], int],
    audit: AuditLog,
    stale_files: Callable[[], Mapping[str, bool]] | None = None,
) -> Iterator[Metric]:
    """
    Yield the metrics.

    :param verifications: (method, outcome) -> number.
    :param stale_files: returns whether each file or URL could not be used, by the name of its setting; None for none.
    """
    yield _verified(verifications)
    if stale_files is not None:
        yield _stale(stale_files())
    denials = CounterMetricFamily(
        "durable_streams_denials",
        "Requests that were denied.",
        labels=("reason", "operation"),
    )
    for labels, count in sorted(audit.denials.items()):
        denials.add_metric(labels, count)
    yield denials
    if audit.sink is not None:
        yield from _written(audit.sink)


def _verified(verifications: Mapping[tuple[str, str], int]) -> Metric:
    verified = CounterMetricFamily(
        "durable_streams_authentications",
        "Verifications of credentials. Those that were verified lately are not verified again for each request.",
        labels=("method", "outcome"),
    )
    for labels, count in sorted(verifications.items()):
        verified.add_metric(labels, count)
    return verified


def _stale(files: Mapping[str, bool]) -> Metric:
    stale = GaugeMetricFamily(
        "durable_streams_access_file_stale",
        "1 while the file or URL of the setting cannot be used, so that its earlier content is in force.",
        labels=("setting",),
    )
    for setting, is_stale in sorted(files.items()):
        stale.add_metric((setting,), is_stale)
    return stale


def _written(sink: AuditSink) -> Iterator[Metric]:
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
