"""A span for each request, by OpenTelemetry, whose own environment variables say what is kept and where it goes.

It is imported by nobody who has not asked for traces: the packages that it needs are an extra.
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
from ..web.requests import StreamRequest
from ..web.site.tree import TreeRequest
from ..web.telemetry import Asked, Telemetry
from .describing import fields_of

#: What every span is called.
SPAN: Final = "durable_streams.server"

_PARENT: Final = b"traceparent"

_log = Logger()


class Traces(Telemetry):
    """
    Makes a span of each answer, from the request's arrival until the answer begins.

    To be the parent of a span is to decide whether it is kept, so that only a trusted proxy names one. What others name
    is linked to.

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
        context, links = self._belonging(asked)
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

    def _belonging(self, asked: Asked) -> tuple[Context | None, list[Link]]:
        """Say what a span belongs to, and what it is linked to."""
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
