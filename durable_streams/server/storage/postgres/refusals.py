"""Statements that the database refuses although it serves: log lines with what to change, and the error for callers."""

from __future__ import annotations

from math import inf
from typing import Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from ...clocks import clock_of
from ...errors import InsufficientStorage, Unavailable
from ..repeated_logs import RepeatedLogs
from .queries import DISK_FULL, LOCK_TIMEOUT, QueryFailed

#: How long a node without its tables is not ready after the last refusal, in seconds. Totals are read each second.
_OBSTACLE_SECONDS: Final = 5.0

_TABLES: Final = (
    "The tables were removed or changed. Restore them, or run: durable-streams-server migrate; and restart the nodes"
)

#: SQLSTATE -> what to change, where nothing can be read until then.
_LASTING: Final = {
    "3F000": _TABLES,
    "42P01": _TABLES,
    "42703": _TABLES,
    "42883": _TABLES,
    "42501": "Run as the owner of the tables: durable-streams-server migrate --grant-to ROLE",
}

#: SQLSTATE -> what to change, where the reason may pass.
_PASSING: Final = {
    DISK_FULL: "Make room on the database's disk",
    "53200": "Give the database more memory, or lower its work_mem and max_connections",
    LOCK_TIMEOUT: "Another transaction holds a lock: see pg_locks and pg_stat_activity, and end it",
    "57014": "It took longer than storage.postgres.commit_deadline_ms, or was cancelled: see pg_stat_activity",
}

_log = Logger()


class Refusals:
    """Logs each reason once a minute, and remembers why nothing can be read."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock_of(clock)
        self._logs = RepeatedLogs(clock)
        self._problem = ""
        self._noted_at = -inf

    def obstacle(self) -> str | None:
        """Return why nothing can be read, as a sentence for operators, or None."""
        return self._problem if self._clock.seconds() - self._noted_at < _OBSTACLE_SECONDS else None

    def note(self, error: QueryFailed) -> Unavailable | None:
        """
        Log a refusal.

        :returns: the error for callers, or None if the statement itself is wrong.
        """
        lasting = _LASTING.get(error.sqlstate)
        if lasting is None and not error.is_transient:
            return None
        advice = lasting or _PASSING.get(error.sqlstate, "Read its log")
        sentence = f"The database refused a statement: {error}. {advice}."
        if lasting is not None:
            self._problem, self._noted_at = sentence, self._clock.seconds()
        if self._logs.is_due(error.sqlstate):
            _log.error("{sentence}", sentence=sentence)
        return Unavailable("The database cannot answer at present. Retry later.")


def refusal_of(error: BaseException | None) -> BaseException:
    """Return the error for callers whose statement has failed."""
    if isinstance(error, QueryFailed):
        if error.sqlstate == DISK_FULL:
            return InsufficientStorage(
                "The database's disk is full. Nothing can be written before its operator has made room."
            )
        return Unavailable("The database refuses writes at present. Retry later.")
    assert error is not None
    return error
