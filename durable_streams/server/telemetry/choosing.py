"""Which telemetry there is, by the settings."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from ..config.settings import Settings
from ..startup import StartupError
from ..web.answers import Answer
from ..web.operations import Operations
from ..web.telemetry import Asked, Telemetry
from .access_log import AccessLog
from .counts import RequestCounts
from .metrics import Metrics


class _Both(Telemetry):
    """Tells two of every answer."""

    def __init__(self, one: Telemetry, other: Telemetry) -> None:
        self._one = one
        self._other = other
        self.least_status = min(one.least_status, other.least_status)
        self.headers = one.headers | other.headers

    def answered(self, asked: Asked, number: int, answer: Answer, began_at: float) -> None:
        self._one.answered(asked, number, answer, began_at)
        self._other.answered(asked, number, answer, began_at)

    def stop(self) -> Deferred[None] | None:
        # Only traces have anything left to send.
        return self._other.stop()


def telemetry_from(settings: Settings) -> Telemetry:
    """
    Make what hears of the answers, for :class:`.Operations`. When the server has stopped, so must this.

    :raises StartupError: traces are asked for, and OpenTelemetry is not installed.
    """
    wanted = settings.observability
    backend = settings.storage.mode
    telemetry: Telemetry = Telemetry() if wanted.access_log == "none" else AccessLog(wanted.access_log, backend)
    if wanted.traces:
        telemetry = _Both(telemetry, _traces(backend))
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
    Make what ``/metrics`` answers; None where requests are not counted.

    :param operations: made with what :func:`telemetry_from` has given.
    """
    counts = operations.telemetry
    return Metrics(counts, operations, settings.storage.mode) if isinstance(counts, RequestCounts) else None
