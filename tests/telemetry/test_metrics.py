"""Tests of ``/metrics``: the figures are correct and Prometheus can read them."""

from __future__ import annotations

import re
from pathlib import Path
from time import perf_counter
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client import REGISTRY
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.clocks import clock_of
from durable_streams.server.config.sections import HttpSettings, ObservabilitySettings
from durable_streams.server.config.settings import Settings
from durable_streams.server.daemon.assembly import operations_from
from durable_streams.server.daemon.workers.metrics import combine
from durable_streams.server.model import DatabaseFigures
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.streams import Streams
from durable_streams.server.subscriptions.counts import SubscriptionCounts, SubscriptionFigures
from durable_streams.server.telemetry import counts, metrics_from, telemetry_from
from durable_streams.server.telemetry.access_metrics import access_metrics
from durable_streams.server.telemetry.audit import AuditLog
from durable_streams.server.telemetry.counts import DURATIONS, RequestCounts
from durable_streams.server.telemetry.describing import OPERATIONS
from durable_streams.server.telemetry.metrics import MAX_AGE, Metrics
from durable_streams.server.web.answers import Answer
from durable_streams.server.web.callers import NOBODY
from durable_streams.server.web.requests import StreamRequest, stream_request
from durable_streams.server.web.telemetry import Occasion, Telemetry
from tests.support.at_once import file_storage_at_once
from tests.support.audit_lines import Lines
from tests.support.cases import TEXT, ChannelTestCase, FrontTestCase, each_way, get
from tests.support.fronts import BASE, ChannelFront, Front, SiteFront, settings_with
from tests.support.stopwatch import Stopwatch

#: Samples by name and labels.
Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def read(text: bytes) -> Samples:
    """Parse the metrics as Prometheus does."""
    samples: Samples = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            key = (sample.name, tuple(sorted(sample.labels.items())))
            assert key not in samples, key
            samples[key] = sample.value
    return samples


class Figures:
    """All figures of a front at one moment."""

    def __init__(self, front: Front) -> None:
        assert front.metrics is not None
        self.samples = read(front.metrics.render())

    def __call__(self, name: str, **labels: str) -> float:
        return self.samples.get((f"durable_streams_{name}", tuple(sorted(labels.items()))), 0)

    def requests(self) -> dict[tuple[str, str], float]:
        """The number of requests by operation and status."""
        return {
            (dict(labels)["operation"], dict(labels)["status"]): value
            for (name, labels), value in self.samples.items()
            if name == "durable_streams_requests_total"
        }


@each_way
class RequestTests(FrontTestCase):
    def test_requests_are_counted_by_operation_and_status(self) -> None:
        self.front.create("a", body=b"first")
        self.front.append("a", b"one")
        self.front.append("a", b"two")
        self.front.ask("POST", BASE + "b", TEXT, b"lost")
        self.front.ask("GET", BASE + "a")
        self.front.ask("GET", BASE + "b")
        self.front.ask("HEAD", BASE + "a")
        self.front.ask("PATCH", BASE + "a")
        self.front.ask("OPTIONS", BASE + "a")
        self.front.follow(BASE + "a?offset=now&live=sse")
        self.front.follow(BASE + "a?offset=-1&live=long-poll")
        self.front.ask("PUT", BASE + "a", TEXT, b"not looked at")
        self.front.delete("a")
        figures = Figures(self.front)
        self.assertEqual(
            figures.requests(),
            {
                ("append", "204"): 2,
                ("append", "404"): 1,
                ("create", "200"): 1,
                ("create", "201"): 1,
                ("delete", "204"): 1,
                ("head", "200"): 1,
                ("poll", "200"): 1,
                ("read", "200"): 1,
                ("read", "404"): 1,
                ("request", "204"): 1,
                ("request", "405"): 1,
                ("subscribe", "200"): 1,
            },
        )
        self.assertEqual(figures("appends_total"), 2)
        self.assertEqual(figures("appended_bytes_total"), len(b"first" + b"one" + b"two"))

    def test_read_bytes_are_counted_for_every_kind_of_read(self) -> None:
        self.front.create("a", body=b"x" * 1000)
        self.assertEqual(Figures(self.front)("read_bytes_total"), 0)
        self.front.ask("GET", BASE + "a")
        self.front.ask("GET", BASE + "none")
        self.assertEqual(Figures(self.front)("read_bytes_total"), 1000)
        tail = self.front.follow(BASE + "a?offset=-1&live=sse")
        self.front.append("a", b"more")
        self.assertEqual(Figures(self.front)("read_bytes_total"), 1000 + len(tail.reply.body))
        tail.leave()
        before = Figures(self.front)("read_bytes_total")
        self.front.append("a", b"y" * 1_000_000)
        whole = self.front.follow(BASE + "a")
        self.front.pass_time(1)
        self.assertTrue(whole.reply.complete)
        self.assertEqual(Figures(self.front)("read_bytes_total") - before, 1_001_004)

    def test_live_readers_are_counted_while_they_are_connected(self) -> None:
        def following() -> tuple[float, float]:
            figures = Figures(self.front)
            return figures("live_tails"), figures("live_polls")

        self.front.create("a")
        tails = [self.front.follow(BASE + "a?offset=now&live=sse") for _ in range(3)]
        polls = [self.front.follow(BASE + "a?offset=now&live=long-poll") for _ in range(4)]
        self.front.pass_time(0.1)
        self.assertEqual(following(), (3, 4))
        tails[0].leave()
        polls[0].leave()
        self.front.pass_time(0.1)
        self.assertEqual(following(), (2, 3))
        self.front.append("a", b"one")
        self.front.pass_time(0.1)
        self.assertEqual(following(), (2, 0))
        self.front.follow(BASE + "a?offset=now&live=long-poll")
        self.front.pass_time(0.1)
        self.assertEqual(following(), (2, 1))
        self.front.pass_time(25)
        self.assertEqual(following(), (2, 0))
        self.front.delete("a")
        self.front.pass_time(1)
        self.assertEqual(following(), (0, 0))

    def test_stored_streams_and_bytes_are_exported(self) -> None:
        self.front.create("a", body=b"xxxx")
        self.front.create("b")
        figures = Figures(self.front)
        self.assertEqual((figures("storage_streams"), figures("storage_bytes")), (2, 4))
        self.assertEqual(figures("storage_metadata_bytes"), len("a" + "b") + 2 * len("text/plain"))
        self.assertEqual((figures("storage_queued_bytes"), figures("storage_failed")), (0, 0))
        self.assertEqual(figures("storage_unsynced_changes"), 0)
        self.assertNotIn(("durable_streams_storage_commit_seconds_count", ()), figures.samples)


class Heard(Telemetry):
    """A telemetry that records statuses from a minimum on."""

    def __init__(self, min_status: int) -> None:
        self.min_status = min_status
        self.heard: list[int] = []

    def answered(self, asked: Occasion, number: int, answer: Answer, began_at: float) -> None:
        self.heard.append(answer.status)


def asked(method: str, query: str) -> StreamRequest:
    return stream_request(method.encode(), BASE.encode(), b"a", query.encode(), {}, b"body")


ANSWERS = st.lists(
    st.tuples(
        st.one_of(
            st.just(NOBODY),
            st.builds(
                asked,
                st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE", "BREW"]),
                st.sampled_from(["", "offset=-1", "live=sse&offset=now", "offset=now&live=long-poll", "live=", "&&="]),
            ),
        ),
        st.sampled_from([200, 201, 204, 304, 400, 404, 409, 413, 500, 503]),
        st.floats(min_value=0, max_value=100),
    ),
    max_size=20,
)


class CountTests(SynchronousTestCase):
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(answers=ANSWERS, least=st.sampled_from([0, 400, 1000]))
    def test_each_answer_is_counted_once_in_its_bucket(self, answers: list[tuple[Any, int, float]], least: int) -> None:
        heard = Heard(least)
        requests = RequestCounts(heard)
        now, counts.perf_counter = 1000.0, lambda: now  # type: ignore[attr-defined]
        try:
            for request, status, took in answers:
                requests.answered(request, 1, Answer(status, b""), now - took)
        finally:
            counts.perf_counter = perf_counter  # type: ignore[attr-defined]
        tallies = requests.operations.values()
        self.assertEqual(sum(count for tally in tallies for _, count in tally.statuses()), len(answers))
        for tally in tallies:
            self.assertEqual(sum(tally.durations()), sum(count for _, count in tally.statuses()))
        for place, bound in enumerate(DURATIONS):
            within = sum(sum(tally.durations()[: place + 1]) for tally in tallies)
            self.assertEqual(within, sum(now - (now - took) <= bound for _, _, took in answers))
        self.assertAlmostEqual(sum(tally.seconds for tally in tallies), sum(took for _, _, took in answers), 3)
        self.assertEqual(heard.heard, [status for _, status, _ in answers if status >= least])


class ChannelMetricsTests(ChannelTestCase):
    def test_connections_are_counted(self) -> None:
        first, _ = self.front.connect(), self.front.connect()
        figures = Figures(self.front)
        self.assertEqual((figures("connections"), figures("connections_accepted_total")), (2, 2))
        first.leave()
        figures = Figures(self.front)
        self.assertEqual((figures("connections"), figures("connections_accepted_total")), (1, 2))

    def test_each_pause_for_a_slow_reader_is_counted_once(self) -> None:
        self.front.create("a")
        self.front.append_directly("a", b"x" * 1_000_000, "text/plain")
        peer = self.front.connect(room=1000)
        peer.send(get("a"), "GET")
        self.assertEqual(Figures(self.front)("slow_reader_pauses_total"), 1)
        peer.take_piece(1000)
        peer.take_piece(1000)
        self.assertEqual(Figures(self.front)("slow_reader_pauses_total"), 1)
        peer.read_freely()
        self.front.pass_time(1)
        self.assertTrue(peer.reply.complete)
        peer.limit(1000)
        peer.send(get("a"), "GET")
        self.assertGreaterEqual(Figures(self.front)("slow_reader_pauses_total"), 2)

    def test_probes_are_counted_as_health_and_readiness(self) -> None:
        self.front.is_healthy()
        self.front.ask("GET", "/readyz")
        self.front.ask("GET", "/metrics")
        self.front.connect().send(b"rubbish\r\n\r\n")
        self.assertEqual(
            Figures(self.front).requests(),
            {("health", "200"): 1, ("readiness", "200"): 1, ("request", "200"): 1, ("request", "400"): 1},
        )


class RefusedConnectionTests(ChannelTestCase):
    settings = settings_with(max_connections=1)

    def test_connections_over_the_limit_are_counted(self) -> None:
        for _ in range(3):
            self.front.connect()
        figures = Figures(self.front)
        self.assertEqual((figures("connections"), figures("connections_refused_total")), (1, 2))


@each_way
class QuotaTests(FrontTestCase):
    settings = Settings.from_mapping({"quotas.address.requests_per_sec": 1, "quotas.address.request_burst": 2})

    def test_refusals_are_counted_by_scope_and_quota(self) -> None:
        statuses = [self.front.ask("GET", BASE + "a").status for _ in range(5)]
        self.assertEqual([404, 404, 429, 429, 429], statuses)
        figures = Figures(self.front)
        self.assertEqual(3, figures("quota_refusals_total", scope="address", quota="requests"))
        self.assertEqual(3, figures.requests()["read", "429"])


class ScrapeTests(FrontTestCase):
    def test_metrics_are_served_at_their_path(self) -> None:
        self.front.create("a")
        reply = self.front.ask("GET", "/metrics")
        self.assertEqual((reply.status, reply.get("cache-control")), (200, "no-store"))
        self.assertEqual(reply.get("content-type"), "text/plain; version=0.0.4; charset=utf-8")
        samples = read(bytes(reply.body))
        self.assertEqual(samples["durable_streams_storage_streams", ()], 1)
        self.assertIn(("process_resident_memory_bytes", ()), samples)
        [build] = [dict(labels) for name, labels in samples if name == "durable_streams_build_info"]
        self.assertEqual((build["storage"], set(build)), ("memory", {"python", "storage", "version"}))

    def test_figures_are_rendered_once_a_second_at_most(self) -> None:
        self.patch(self.front.metrics, "_seconds", stopwatch := Stopwatch())

        def streams() -> float:
            return read(bytes(self.front.ask("GET", "/metrics").body))["durable_streams_storage_streams", ()]

        self.assertEqual(streams(), 0)
        self.front.create("a")
        stopwatch.spend(MAX_AGE / 2)
        self.assertEqual(streams(), 0)
        stopwatch.spend(MAX_AGE / 2)
        self.assertEqual(streams(), 1)

    def test_a_head_has_no_body(self) -> None:
        reply = self.front.ask("HEAD", "/metrics")
        self.assertEqual((reply.status, bytes(reply.body)), (200, b""))
        self.assertEqual(reply.get("content-type"), "text/plain; version=0.0.4; charset=utf-8")

    def test_a_post_to_metrics_is_405(self) -> None:
        self.assertEqual(self.front.ask("POST", "/metrics", TEXT, b"x").status, 405)

    def test_every_operation_has_a_histogram_from_the_start(self) -> None:
        samples = read(bytes(self.front.ask("GET", "/metrics").body))
        for operation in OPERATIONS:
            key = ("durable_streams_request_duration_seconds_count", (("operation", operation),))
            self.assertIn(key, samples)

    def test_a_large_answer_arrives_whole(self) -> None:
        assert isinstance(self.front.telemetry, RequestCounts)
        tally = self.front.telemetry.operations["request"]
        for status in range(100_000, 120_000):
            tally[status][0] += 1
        reply = self.front.ask("GET", "/metrics")
        self.assertGreater(len(reply.body), 1_000_000)
        self.assertEqual(read(bytes(reply.body))["durable_streams_storage_streams", ()], 0)

    def test_exactly_the_documented_metrics_exist(self) -> None:
        text = (Path(__file__).parents[2] / "docs" / "operations.rst").read_text()
        documented = re.findall(r"^``(durable_streams_[a-z_]+)``", text, re.MULTILINE)
        front = ChannelFront(storage=file_storage_at_once)
        self.addCleanup(front.stop)
        assert front.metrics is not None
        happened = SubscriptionCounts()
        happened.deliveries["webhook", "done"] = happened.claims["claimed"] = 1
        subscriptions = {("webhook", "active"): 1}
        figures = SubscriptionFigures(subscriptions, 1, 0, 0.0, 0, 0, happened, {"timeout": 2}, 32)
        front.metrics.watch_subscriptions(lambda: figures)
        audit = AuditLog(clock_of(front.clock), Lines())
        audit.denials["rule", "append"] = 4
        front.metrics.watch_access(
            lambda: access_metrics({("token", "refused"): 5}, audit, lambda: {"auth.rules_file": True})
        )
        of_files = front.streams.figures()
        self.patch(
            front.streams, "figures", lambda: replace(of_files, database=DatabaseFigures(misses=3, notify_queue=0.5))
        )
        for line in (b"durable_streams_database_misses_total 3.0", b"durable_streams_database_notify_queue_usage 0.5"):
            self.assertIn(b"\n" + line + b"\n", front.metrics.render())
        self.assertIn(b'durable_streams_subscription_failures_total{reason="timeout"} 2.0\n', front.metrics.render())
        self.assertIn(b"durable_streams_subscription_partitions 32.0\n", front.metrics.render())
        self.assertIn(b'durable_streams_denials_total{operation="append",reason="rule"} 4.0\n', front.metrics.render())
        self.assertIn(b'durable_streams_access_file_stale{setting="auth.rules_file"} 1.0\n', front.metrics.render())
        self.assertIn(
            b'durable_streams_authentications_total{method="token",outcome="refused"} 5.0\n', front.metrics.render()
        )
        # Several workers have some more.
        rendered = combine({1: front.metrics.render().decode()}, {1: 0}).encode()
        families = re.findall(rb"^# TYPE (durable_streams_[a-z_]+) ([a-z]+)$", rendered, re.MULTILINE)
        self.assertEqual(sorted(documented), sorted(name.decode() for name, _ in families))
        for name, kind in families:
            self.assertRegex(text, rf"(?m)^``{name.decode()}`` +{kind.decode()} ")

    def test_the_default_registry_is_not_used(self) -> None:
        self.assertFalse([family.name for family in REGISTRY.collect() if family.name.startswith("durable")])


@each_way
class OffTests(FrontTestCase):
    settings = replace(Settings(), observability=ObservabilitySettings(metrics=False))

    def test_metrics_can_be_switched_off(self) -> None:
        self.assertIsNone(self.front.metrics)
        reply = self.front.ask("GET", "/metrics")
        self.assertEqual((reply.status, reply.code), (404, "NOT_FOUND"))


class RootTests(SynchronousTestCase):
    def test_metrics_are_served_if_streams_are_at_the_root(self) -> None:
        settings = replace(Settings(), http=HttpSettings(stream_base_path="/"))
        for front in (ChannelFront(settings), SiteFront(settings)):
            self.addCleanup(front.stop)
            self.assertEqual(front.ask("PUT", "/metrics", TEXT).status, 405)
            self.assertIn(("durable_streams_storage_streams", ()), read(bytes(front.ask("GET", "/metrics").body)))
            self.assertEqual(front.ask("PUT", "/metrics/a", TEXT).status, 201)


class StorageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.front = ChannelFront(storage=file_storage_at_once)
        self.addCleanup(self.front.stop)

    def post(self, *bodies: bytes) -> None:
        peers = [self.front.connect() for _ in bodies]
        for peer, body in zip(peers, bodies, strict=True):
            peer._socket.inbound += (
                b"POST /v1/stream/a HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
        self.front.pass_time(0.1)

    def create(self) -> None:
        peer = self.front.connect()
        peer.send_request("PUT", BASE + "a", TEXT)
        self.front.pass_time(0.1)
        self.assertEqual(peer.statuses, [201])

    def test_commit_sizes_and_durations_are_exported(self) -> None:
        self.create()
        before = Figures(self.front)
        self.assertEqual((before("storage_commit_changes_sum"), before("storage_commit_changes_count")), (1, 1))
        self.post(b"one", b"two", b"three")
        figures = Figures(self.front)
        self.assertEqual(figures("storage_commit_changes_sum"), 4)
        commits = figures("storage_commit_changes_count")
        self.assertLess(commits, 5)
        self.assertEqual(figures("storage_commit_changes_bucket", le="+Inf"), commits)
        self.assertEqual(figures("storage_commit_seconds_count"), commits)
        self.assertEqual(figures("storage_bytes"), 11)

    def test_a_storage_that_has_failed_makes_the_server_not_ready_and_says_why(self) -> None:
        self.create()
        self.assertEqual(self.front.ask("GET", "/readyz").status, 200)
        self.front.storage._queue.stop(Failure(OSError(5, "Input/output error")))
        reply = self.front.ask("GET", "/readyz")
        self.assertEqual((reply.status, reply.code, reply.get("retry-after")), (503, "UNAVAILABLE", "1"))
        self.assertIn("failed to write", reply.json()["detail"])
        self.assertTrue(self.front.is_healthy())
        self.assertEqual(readiness(self.front.metrics), (1, 0))


def readiness(metrics: Metrics | None) -> tuple[float, float]:
    """Return the metrics of the storage's failure and readiness."""
    assert metrics is not None
    samples = read(metrics.render())
    return samples["durable_streams_storage_failed", ()], samples["durable_streams_ready", ()]


class ReadinessTests(SynchronousTestCase):
    def test_a_storage_that_is_not_open_has_not_failed(self) -> None:
        clock = Clock()
        streams = Streams(MemoryStorage(), clock)
        metrics = metrics_from(Settings(), operations_from(streams, Settings(), clock, telemetry_from(Settings())))
        self.assertEqual(readiness(metrics), (0, 0))
        streams.startService()
        self.assertEqual(readiness(metrics), (0, 1))
        streams.drain()
        self.assertEqual(readiness(metrics), (0, 0))
        streams.stopService()
        self.assertEqual(readiness(metrics), (0, 0))
