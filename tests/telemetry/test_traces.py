"""A span for each request, as OpenTelemetry gets it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from time import perf_counter, time_ns
from typing import Any

from msgspec.structs import replace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import DEFAULT_OFF, DEFAULT_ON, Sampler
from opentelemetry.trace import SpanKind, StatusCode
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from durable_streams.server.config.sections import ObservabilitySettings, ProxySettings
from durable_streams.server.config.settings import Settings
from durable_streams.server.startup import StartupError
from durable_streams.server.telemetry import metrics_from, telemetry_from
from durable_streams.server.telemetry.traces import SPAN, Traces, exported_traces
from durable_streams.server.web.answers import Answer
from durable_streams.server.web.callers import NOBODY
from tests.support.cases import TEXT
from tests.support.fronts import BASE, ChannelFront, Front, SiteFront

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
TRUSTING = replace(Settings(), proxy=ProxySettings(True, "x-forwarded", ("192.0.2.1",)))
TRACED = replace(Settings(), observability=ObservabilitySettings(traces=True))


class SpanTests(SynchronousTestCase):
    front_type: type[Front] = ChannelFront

    def setUp(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.front = self.serve()

    def serve(self, settings: Settings = Settings(), sampler: Sampler = DEFAULT_ON) -> Front:  # noqa: B008 (frozen)
        provider = TracerProvider(sampler, shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        front = self.front_type(settings, telemetry=Traces(provider, "memory"))
        self.addCleanup(front.stop)
        return front

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        return self.exporter.get_finished_spans()

    def test_each_request_has_a_span(self) -> None:
        before = time_ns()
        reply = self.front.ask("PUT", BASE + "a", {**TEXT, "User-Agent": "me", "Authorization": "hush"})
        [span] = self.spans
        self.assertEqual((span.name, span.kind), (SPAN, SpanKind.SERVER))
        said = dict(span.attributes or {})
        self.assertEqual(
            (said["ds.operation"], said["ds.stream_id"], said["http.response.status_code"], said["request.id"]),
            ("create", "a", 201, reply.get("x-request-id")),
        )
        self.assertEqual((said["http.route"], said["user_agent.original"]), ("/v1/stream/{name}", "me"))
        self.assertNotIn("hush", repr(said))
        assert span.start_time is not None
        assert span.end_time is not None
        self.assertEqual(span.end_time - span.start_time, said["event.duration"])
        self.assertTrue(before - 1_000_000_000 < span.start_time < span.end_time <= time_ns())
        self.assertIsNone(span.parent)
        self.assertEqual(span.status.status_code, StatusCode.UNSET)

    def test_a_trusted_proxys_traceparent_is_the_parent(self) -> None:
        self.serve(TRUSTING).ask("GET", BASE + "a", {"Traceparent": PARENT})
        [span] = self.spans
        assert span.parent is not None
        self.assertEqual(f"{span.parent.trace_id:032x}", TRACE)
        self.assertTrue(span.parent.is_remote)
        self.assertEqual(len(span.links), 0)

    def test_another_clients_traceparent_is_a_link(self) -> None:
        self.front.ask("GET", BASE + "a", {"Traceparent": PARENT})
        [span] = self.spans
        self.assertIsNone(span.parent)
        assert span.context is not None
        self.assertNotEqual(f"{span.context.trace_id:032x}", TRACE)
        self.assertEqual([f"{link.context.trace_id:032x}" for link in span.links], [TRACE])

    def test_a_malformed_traceparent_is_ignored(self) -> None:
        for front in (self.front, self.serve(TRUSTING)):
            for parent in ("rubbish", "", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", PARENT + ", " + PARENT, "\u00e9"):
                self.assertEqual(front.ask("GET", BASE + "a", {"traceparent": parent}).status, 404)
        self.assertEqual([(span.parent, len(span.links)) for span in self.spans], [(None, 0)] * 10)

    def test_only_a_trusted_proxy_decides_whether_a_span_is_sampled(self) -> None:
        for settings, kept in ((Settings(), 0), (TRUSTING, 2)):
            front = self.serve(settings, DEFAULT_OFF)
            for target in (BASE + "a", "/healthz"):
                front.ask("GET", target, {"Traceparent": PARENT})
            self.assertEqual(len(self.spans), kept)

    def test_only_a_server_error_sets_the_spans_status(self) -> None:
        self.front.ask("GET", BASE + "none")
        self.front.streams.drain()
        self.front.streams._owned.append = self.refuse  # type: ignore[method-assign, assignment]
        self.front.ask("POST", BASE + "a", TEXT, b"x")
        self.assertEqual([span.status.status_code for span in self.spans], [StatusCode.UNSET, StatusCode.ERROR])
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def refuse(self, *_: Any) -> Any:
        raise ZeroDivisionError


class SiteSpanTests(SpanTests):
    front_type = SiteFront


class _Collector(BaseHTTPRequestHandler):
    """An exporter that records spans."""

    received: list[bytes]

    def do_POST(self) -> None:
        self.received.append(self.path.encode() + self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class ExportTests(TestCase):
    def collector(self) -> type[_Collector]:
        kept = type("Kept", (_Collector,), {"received": []})
        server = HTTPServer(("127.0.0.1", 0), kept)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 10)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.set("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        return kept

    def set(self, name: str, value: str) -> None:
        before = os.environ.get(name)
        os.environ[name] = value
        self.addCleanup(lambda: os.environ.update({name: before}) if before else os.environ.pop(name))

    async def test_remaining_spans_are_exported_when_the_server_stops(self) -> None:
        collector = self.collector()
        telemetry = telemetry_from(TRACED)
        telemetry.answered(NOBODY, 7, Answer(400, b""), perf_counter())
        stopped = telemetry.stop()
        assert stopped is not None
        await stopped.addTimeout(30, self.reactor)
        [sent] = collector.received
        self.assertTrue(sent.startswith(b"/v1/traces"))
        self.assertIn(SPAN.encode(), sent)
        self.assertIn(b"durable-streams-server", sent)

    async def test_a_configured_service_name_is_kept(self) -> None:
        collector = self.collector()
        self.set("OTEL_SERVICE_NAME", "orders")
        traces = exported_traces("memory")
        traces.answered(NOBODY, 7, Answer(400, b""), perf_counter())
        await traces.stop().addTimeout(30, self.reactor)
        [sent] = collector.received
        self.assertIn(b"orders", sent)
        self.assertNotIn(b"durable-streams-server", sent)

    @property
    def reactor(self) -> Any:
        from twisted.internet import reactor  # noqa: PLC0415 (trial chooses it)

        return reactor


class ChoiceTests(SynchronousTestCase):
    def test_without_traces_opentelemetry_is_not_imported(self) -> None:
        code = (
            "import sys\n"
            "from durable_streams.server.config.settings import Settings\n"
            "from durable_streams.server.telemetry import telemetry_from\n"
            "assert telemetry_from(Settings()).stop() is None\n"
            "sys.exit(any(name.partition('.')[0] == 'opentelemetry' for name in sys.modules))"
        )
        self.assertEqual(subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode, 0)

    def test_traces_without_opentelemetry_fail_with_the_package_to_install(self) -> None:
        self.addCleanup(sys.modules.update, dict(sys.modules))
        sys.modules["opentelemetry.sdk.trace"] = None  # type: ignore[assignment]
        del sys.modules["durable_streams.server.telemetry.traces"]
        error = self.assertRaises(StartupError, telemetry_from, TRACED)
        self.assertEqual(error.phase, "validate_config")
        self.assertIn("observability.traces is true, but OpenTelemetry is not installed", error.cause)
        self.assertIn("pip install 'durable-streams-server[otel]'", error.cause)

    def test_telemetry_that_is_switched_off_does_not_exist(self) -> None:
        silent = replace(Settings(), observability=ObservabilitySettings(access_log="none", metrics=False))
        front = ChannelFront(silent)
        self.addCleanup(front.stop)
        self.assertIsNone(metrics_from(silent, front.operations))
        self.assertEqual((front.telemetry.headers, front.telemetry.stop()), (frozenset(), None))

    def test_metrics_access_log_and_traces_work_together(self) -> None:
        wanted = replace(Settings(), observability=ObservabilitySettings(access_log="all", traces=True))
        telemetry = telemetry_from(wanted)
        self.assertEqual(telemetry.headers, {b"user-agent", b"traceparent"})
        self.assertEqual(telemetry.min_status, 0)
        stopped = telemetry.stop()
        self.assertIsInstance(stopped, Deferred)
        return stopped  # type: ignore[return-value]
