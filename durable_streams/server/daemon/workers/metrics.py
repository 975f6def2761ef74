"""The metrics of all workers as one text, each sample with the number of its worker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector


class _Combination(Collector):
    def __init__(self, texts: Mapping[int, str | None], restarts: Mapping[int, int]) -> None:
        self._texts = texts
        self._restarts = restarts

    def describe(self) -> tuple[Metric, ...]:
        return ()

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily(
            "durable_streams_worker_up", "1 if the worker's metrics are in this answer.", labels=("worker",)
        )
        restarts = CounterMetricFamily(
            "durable_streams_worker_restarts", "How often the worker was replaced.", labels=("worker",)
        )
        families: dict[str, Metric] = {}
        for worker, text in sorted(self._texts.items()):
            up.add_metric((str(worker),), text is not None)
            restarts.add_metric((str(worker),), self._restarts[worker])
            for family in () if text is None else text_string_to_metric_families(text):
                samples = families.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                ).samples
                samples += [
                    sample._replace(labels={"worker": str(worker), **sample.labels}) for sample in family.samples
                ]
        yield up
        yield restarts
        yield from families.values()


def combine(texts: Mapping[int, str | None], restarts: Mapping[int, int]) -> str:
    """
    Return the metrics of all workers.

    :param texts: number of a worker -> its metrics; None if it has not answered.
    :param restarts: number of a worker -> how often it was replaced.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Combination(texts, restarts))
    return generate_latest(registry).decode()
