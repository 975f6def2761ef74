"""The metrics of all workers: collected by the supervisor, combined into one text."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.daemon.workers.collecting import PATIENCE, MetricsCollector
from durable_streams.server.daemon.workers.messages import Message, MetricsAnswer, MetricsRequest
from durable_streams.server.daemon.workers.metrics import combine
from durable_streams.server.telemetry.metrics import MAX_AGE

TEXT = """# HELP a_total A counter.
# TYPE a_total counter
a_total{operation="append",status="204"} 3.0
# HELP b A gauge \\\\ with \\n escapes.
# TYPE b gauge
b{name="x\\"y\\\\"} 2.5
# HELP c_seconds A histogram.
# TYPE c_seconds histogram
c_seconds_bucket{le="0.1"} 1.0
c_seconds_bucket{le="+Inf"} 2.0
c_seconds_count 2.0
c_seconds_sum 1.5
"""


def samples(text: str) -> dict[tuple[object, ...], float]:
    """Return the samples of a text without the label of the worker."""
    return {
        (sample.name, *sorted(pair for pair in sample.labels.items() if pair[0] != "worker")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


class CombinationTests(SynchronousTestCase):
    def test_each_sample_has_its_worker_and_families_are_not_repeated(self) -> None:
        text = combine({1: TEXT, 2: TEXT.replace("3.0", "4.0")}, {1: 0, 2: 5})
        for line in (
            'a_total{worker="1",operation="append",status="204"} 3.0',
            'a_total{worker="2",operation="append",status="204"} 4.0',
            'b{worker="2",name="x\\"y\\\\"} 2.5',
            'c_seconds_bucket{worker="1",le="+Inf"} 2.0',
            'c_seconds_sum{worker="2"} 1.5',
            'durable_streams_worker_up{worker="1"} 1.0',
            'durable_streams_worker_restarts_total{worker="2"} 5.0',
        ):
            self.assertIn(f"\n{line}\n", text)
        names = re.findall(r"^# TYPE (\S+)", text, re.M)
        self.assertEqual(len(names), len(set(names)), names)

    def test_the_text_of_each_worker_is_unchanged_but_for_the_label(self) -> None:
        before = {
            (s.name, *sorted(s.labels.items())): s.value
            for f in text_string_to_metric_families(TEXT)
            for s in f.samples
        }
        after = {
            (s.name, *sorted((k, v) for k, v in s.labels.items() if k != "worker")): s.value
            for f in text_string_to_metric_families(combine({3: TEXT}, {3: 0}))
            for s in f.samples
            if not s.name.startswith("durable_streams_worker")
        }
        self.assertEqual(before, after)

    @given(st.lists(st.tuples(st.text(), st.text(), st.floats(allow_nan=False))), st.integers(1, 256))
    def test_labels_are_kept_whatever_they_contain(self, labels: list[tuple[str, str, float]], worker: int) -> None:
        registry = CollectorRegistry()
        gauge = Gauge("a", "A text\n# HELP of\n# TYPE lines", labelnames=("one", "two"), registry=registry)
        plain = Counter("b", "", registry=registry)
        plain.inc()
        for one, two, value in labels:
            gauge.labels(one.replace("\r", ""), two.replace("\r", "")).set(value)
        text = generate_latest(registry).decode()
        combined = combine({worker: text}, {worker: 0})
        self.assertEqual(samples(text), {k: v for k, v in samples(combined).items() if not k[0].startswith("durable")})  # type: ignore[attr-defined]
        self.assertNotIn(f'worker="{worker + 1}"', combined)

    def test_a_worker_without_metrics_is_down(self) -> None:
        text = combine({1: TEXT, 2: None}, {1: 0, 2: 1})
        self.assertIn('durable_streams_worker_up{worker="2"} 0.0', text)
        self.assertNotIn('b{worker="2",name="x\\"y\\\\"}', text)


class FakeWorker:
    """A worker that records its messages."""

    def __init__(self, number: int, serves: bool = True) -> None:
        self.number = number
        self.serves = serves
        self.restarts = 0
        self.sent: list[Message] = []

    def send(self, message: Message, /) -> None:
        self.sent.append(message)


class CollectorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.collector = MetricsCollector(self.clock)
        self.workers = [FakeWorker(1), FakeWorker(2)]

    def answer(self, number: int, request: int = 1) -> None:
        self.collector.answered(number, MetricsAnswer(request, TEXT))

    def test_the_answer_is_complete_when_all_workers_have_answered(self) -> None:
        collected = self.collector.collect(self.workers)
        self.assertEqual([worker.sent for worker in self.workers], [[MetricsRequest(1)]] * 2)
        self.answer(2)
        self.assertNoResult(collected)
        self.answer(1)
        self.assertEqual(self.successResultOf(collected), combine({1: TEXT, 2: TEXT}, {1: 0, 2: 0}))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_workers_that_do_not_serve_are_not_asked(self) -> None:
        self.workers[0].serves = False
        collected = self.collector.collect(self.workers)
        self.assertEqual(self.workers[0].sent, [])
        self.answer(2)
        self.assertIn('worker_up{worker="1"} 0.0', self.successResultOf(collected))

    def test_a_worker_that_ends_is_not_waited_for(self) -> None:
        collected = self.collector.collect(self.workers)
        self.answer(1)
        self.collector.lost(2)
        self.assertIn('worker_up{worker="2"} 0.0', self.successResultOf(collected))

    def test_a_worker_that_does_not_answer_delays_the_answer_for_a_limited_time(self) -> None:
        collected = self.collector.collect(self.workers)
        self.answer(1)
        self.clock.advance(PATIENCE)
        self.assertIn('worker_up{worker="2"} 0.0', self.successResultOf(collected))
        # Its answer is too late, also for the next request.
        self.clock.advance(MAX_AGE)
        again = self.collector.collect(self.workers)
        self.answer(2, 1)
        self.answer(1, 2)
        self.assertNoResult(again)
        self.answer(2, 2)
        self.assertIn('worker_up{worker="2"} 1.0', self.successResultOf(again))

    def test_all_who_ask_meanwhile_share_one_collection(self) -> None:
        first = self.collector.collect(self.workers)
        second = self.collector.collect(self.workers)
        self.assertEqual(len(self.workers[0].sent), 1)
        self.answer(1)
        self.answer(2)
        self.assertEqual(self.successResultOf(first), self.successResultOf(second))

    def test_workers_are_asked_once_a_second_at_most(self) -> None:
        first = self.collector.collect(self.workers)
        self.answer(1)
        self.answer(2)
        self.clock.advance(MAX_AGE - 0.01)
        self.assertEqual(self.successResultOf(self.collector.collect(self.workers)), self.successResultOf(first))
        self.assertEqual(len(self.workers[0].sent), 1)
        self.clock.advance(0.01)
        self.assertNoResult(self.collector.collect(self.workers))
        self.assertEqual(len(self.workers[0].sent), 2)

    def test_without_a_worker_that_serves_the_answer_comes_at_once(self) -> None:
        for worker in self.workers:
            worker.serves = False
        self.successResultOf(self.collector.collect(self.workers))
        self.assertEqual(self.clock.getDelayedCalls(), [])
