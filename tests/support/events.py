"""Log events recorded for assertions."""

from __future__ import annotations

from typing import cast

from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

#: The namespace of the access log.
ACCESS = "durable_streams.server.access"


class Events:
    """
    The events that are logged while a test runs.

    :ivar all: the events.
    """

    def __init__(self, case: SynchronousTestCase) -> None:
        self.all: list[LogEvent] = []
        observer = cast(ILogObserver, self.all.append)
        globalLogPublisher.addObserver(observer)
        case.addCleanup(globalLogPublisher.removeObserver, observer)

    @property
    def access(self) -> list[LogEvent]:
        """The events of the access log."""
        return [event for event in self.all if event.get("log_namespace") == ACCESS]

    @property
    def lines(self) -> list[str]:
        """The lines of the access log, without durations and clients."""
        return [formatEvent(event).partition(" in ")[0] for event in self.access]


def fields(event: LogEvent) -> dict[str, object]:
    """Return the fields of an event without its message."""
    return {key: value for key, value in event.items() if "." in key}
