"""Traces: an OpenTelemetry span for each request. OpenTelemetry's own environment variables configure the export.

This module is imported only if ``observability.traces`` is true, since the packages that it needs are an extra.
"""

from __future__ import annotations

import logging
import os
from time import perf_counter, time_ns
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, Status, StatusCode, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.logger import Logger

from ..web.answers import Answer
from ..web.callers import Caller
from ..web.pages import PageRequest
from ..web.requests import StreamRequest
from ..web.telemetry import Occasion, Telemetry
from .describing import fields_of

#: The name of every span.
SPAN: Final = "durable_streams.server"

_PARENT: Final = b"traceparent"

_log = Logger()


class Traces(Telemetry):
    """
    Creates a span for each answer, from the request's arrival until the answer begins.

    A parent decides whether its spans are sampled, so the ``traceparent`` of a trusted proxy becomes the parent, and
    that of any other client becomes a link.

    :param provider: the provider that exports the spans.
    :param backend: the storage mode.
    """

    min_status = 0
    headers = frozenset([b"user-agent", _PARENT])

    def __init__(self, provider: TracerProvider, backend: str) -> None:
        self._provider = provider
        self._backend = backend
        self._tracer = provider.get_tracer("durable_streams.server")
        self._propagator = TraceContextTextMapPropagator()

    def answered(self, asked: Occasion, number: int, answer: Answer, began_at: float) -> None:
        took = perf_counter() - began_at
        fields = fields_of(asked, number, answer, took, self._backend)
        ended_at = time_ns()
        context, links = self._parent_and_links(asked)
        span = self._tracer.start_span(
            SPAN,
            context,
            SpanKind.SERVER,
            fields,  # type: ignore[arg-type]
            links,
            start_time=ended_at - int(took * 1_000_000_000),
        )
        if answer.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended_at)

    def _parent_and_links(self, asked: Occasion) -> tuple[Context | None, list[Link]]:
        """Return the parent context and the links of a span."""
        named = _traceparent(asked)
        if named is None:
            return None, []
        context = self._propagator.extract({"traceparent": named})
        caller = asked if isinstance(asked, Caller) else asked.caller
        if caller.trusted:
            return context, []
        remote = get_current_span(context).get_span_context()
        return None, [Link(remote)] if remote.is_valid else []

    def stop(self) -> Deferred[None]:
        """Export the remaining spans in a thread, which may take some seconds."""
        return deferToThread(self._provider.shutdown)


def _traceparent(asked: Occasion) -> str | None:
    value = None
    if isinstance(asked, StreamRequest):
        value = asked.headers.get(_PARENT)
    elif isinstance(asked, PageRequest):
        value = asked.header(_PARENT)
    return None if value is None else value.decode("latin-1")


class _TwistedLogHandler(logging.Handler):
    """Logs OpenTelemetry's messages, from any thread, in the server's log."""

    def emit(self, record: logging.LogRecord) -> None:
        _log.warn("OpenTelemetry: {said}", said=record.getMessage())


def exported_traces(backend: str) -> Traces:
    """
    Create traces that an OpenTelemetry thread exports in batches by OTLP over HTTP.

    :param backend: the storage mode.
    """
    said = logging.getLogger("opentelemetry")
    if not any(isinstance(handler, _TwistedLogHandler) for handler in said.handlers):
        said.addHandler(_TwistedLogHandler())
        said.propagate = False
    named = "OTEL_SERVICE_NAME" in os.environ or "service.name" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    resource = Resource.create({} if named else {"service.name": "durable-streams-server"})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return Traces(provider, backend)
