"""Creation of the telemetry that the settings enable."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ..config.settings import Settings
from ..startup import StartupError
from ..web.answers import Answer
from ..web.operations import Operations
from ..web.telemetry import Occasion, Telemetry
from .access_log import AccessLog
from .counts import RequestCounts
from .metrics import Metrics


class _TelemetryPair(Telemetry):
    """Passes every answer to two telemetries."""

    def __init__(self, one: Telemetry, other: Telemetry) -> None:
        self._one = one
        self._other = other
        self.min_status = min(one.min_status, other.min_status)
        self.headers = one.headers | other.headers

    def answered(self, asked: Occasion, number: int, answer: Answer, began_at: float) -> None:
        self._one.answered(asked, number, answer, began_at)
        self._other.answered(asked, number, answer, began_at)

    def stop(self) -> Deferred[None] | None:
        # The second one is traces; only these have data left to send.
        return self._other.stop()


def telemetry_from(settings: Settings) -> Telemetry:
    """
    Create the telemetry for :class:`.Operations`. Call its ``stop`` after the server has stopped.

    :raises StartupError: ``observability.traces`` is true and OpenTelemetry is not installed.
    """
    wanted = settings.observability
    backend = settings.storage.mode
    telemetry: Telemetry = Telemetry() if wanted.access_log == "none" else AccessLog(wanted.access_log, backend)
    if wanted.traces:
        telemetry = _TelemetryPair(telemetry, _traces(backend))
    return RequestCounts(telemetry) if wanted.metrics else telemetry


def _traces(backend: str) -> Telemetry:
    try:
        from .traces import exported_traces  # noqa: PLC0415 (an extra, and half a second)
    except ImportError as error:
        raise StartupError(
            "validate_config",
            f"observability.traces is true, but OpenTelemetry is not installed ({error}): "
            "pip install 'durable-streams-server[otel]'",
        ) from None
    return exported_traces(backend)


def metrics_from(settings: Settings, operations: Operations) -> Metrics | None:
    """
    Create the metrics of ``/metrics``; None if ``observability.metrics`` is false.

    :param operations: the operations that were created with the result of :func:`telemetry_from`.
    """
    counts = operations.telemetry
    return Metrics(counts, operations, settings.storage.mode) if isinstance(counts, RequestCounts) else None
