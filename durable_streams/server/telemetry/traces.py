"""A span for each request, by OpenTelemetry, whose own environment variables say what is kept and where it goes.

It is imported by nobody who has not asked for traces: the packages that it needs are an extra.
"""

from __future__ import annotations

import logging
import os
from time import perf_counter, time_ns
from typing import Final

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from ..web.answers import Answer
from ..web.requests import StreamRequest
from ..web.telemetry import Asked, Telemetry
from ..web.tree import TreeRequest
from .describing import fields_of

#: What every span is called.
SPAN: Final = "durable_streams.server"

_PARENT: Final = b"traceparent"

_log = Logger()


class Traces(Telemetry):
    """
    Makes a span of each answer, from the request's arrival until the answer begins.

    :param provider: where spans go.
    :param backend: what the streams are kept in.
    """

    least_status = 0
    headers = frozenset([b"user-agent", _PARENT])

    def __init__(self, provider: TracerProvider, backend: str) -> None:
        self._provider = provider
        self._backend = backend
        self._tracer = provider.get_tracer("durable_streams.server")
        self._propagator = TraceContextTextMapPropagator()

    def answered(self, asked: Asked, number: int, answer: Answer, began_at: float) -> None:
        took = perf_counter() - began_at
        fields = fields_of(asked, number, answer, took, self._backend)
        ended_at = time_ns()
        parent = _traceparent(asked)
        span = self._tracer.start_span(
            SPAN,
            None if parent is None else self._propagator.extract({"traceparent": parent}),
            SpanKind.SERVER,
            fields,  # type: ignore[arg-type]
            start_time=ended_at - int(took * 1_000_000_000),
        )
        if answer.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended_at)

    def stop(self) -> Deferred[None]:
        """Send what is left, in a thread; that may take some seconds."""
        return deferToThread(self._provider.shutdown)


def _traceparent(asked: Asked) -> str | None:
    value = None
    if isinstance(asked, StreamRequest):
        value = asked.headers.get(_PARENT)
    elif isinstance(asked, TreeRequest):
        value = asked.header(_PARENT)
    return None if value is None else value.decode("latin-1")


class _ToOurLog(logging.Handler):
    """Puts into the server's log what OpenTelemetry has to say, from whichever thread."""

    def emit(self, record: logging.LogRecord) -> None:
        _log.warn("OpenTelemetry: {said}", said=record.getMessage())


def exported_traces(backend: str) -> Traces:
    """
    Make traces that are sent by OTLP over HTTP, in batches, by a thread of OpenTelemetry's.

    :param backend: what the streams are kept in.
    """
    said = logging.getLogger("opentelemetry")
    if not any(isinstance(handler, _ToOurLog) for handler in said.handlers):
        said.addHandler(_ToOurLog())
        said.propagate = False
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {"service.name": "durable-streams-server"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider, backend)
