"""The access log: one line for each request, written when its answer begins."""

from __future__ import annotations

from time import perf_counter
from typing import Final

from twisted.logger import Logger, LogLevel

from ..web.answers import Answer
from ..web.telemetry import NEVER, Occasion, Telemetry
from .describing import fields_of, line_of

#: ``observability.access_log`` -> the lowest status that is logged.
MIN_STATUSES: Final = {"none": NEVER, "failures": 400, "all": 0}

#: The maximum number of failures that are logged in one second, so that a failing client cannot fill the disk.
MAX_FAILURES: Final = 200

_log = Logger(namespace="durable_streams.server.access")


class AccessLog(Telemetry):
    """
    Logs answers: at level info, from status 400 on at warn, from 500 on at error.

    :param requests: which requests are logged: a key of :data:`MIN_STATUSES`.
    :param backend: the storage mode, for the field ``ds.storage.backend``.
    """

    headers = frozenset([b"user-agent"])

    def __init__(self, requests: str, backend: str) -> None:
        self.min_status = MIN_STATUSES[requests]
        self._bounded = requests == "failures"
        self._backend = backend
        self._second = 0
        self._lines = 0

    def answered(self, asked: Occasion, number: int, answer: Answer, began_at: float) -> None:
        status = answer.status
        if status < self.min_status:
            return
        now = perf_counter()
        if self._bounded and not self._has_room(int(now)):
            return
        took = now - began_at
        level = LogLevel.info if status < 400 else LogLevel.warn if status < 500 else LogLevel.error
        fields = fields_of(asked, number, answer, took, self._backend)
        # The line is a field: text that a client sent must not be used as a format.
        _log.emit(level, "{log_line}", log_line=line_of(asked, answer, took), **fields)

    def _has_room(self, second: int) -> bool:
        if second != self._second:
            left_out = self._lines - MAX_FAILURES
            self._second = second
            self._lines = 0
            if left_out > 0:
                _log.warn(
                    "{count} more failed requests in one second were not logged (at most {limit} are).",
                    count=left_out,
                    limit=MAX_FAILURES,
                )
        self._lines += 1
        return self._lines <= MAX_FAILURES
