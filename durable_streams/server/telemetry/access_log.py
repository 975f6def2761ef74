"""The access log: a line for a request, when its answer begins."""

from __future__ import annotations

from time import perf_counter
from typing import Final

from twisted.logger import Logger, LogLevel

from ..web.answers import Answer
from ..web.telemetry import NEVER, Asked, Telemetry
from .describing import fields_of, line_of

#: From which status on there is a line, by what ``observability.access_log`` says.
LEAST_STATUSES: Final = {"none": NEVER, "failures": 400, "all": 0}

#: How many failures have a line in one second: who asks for nothing but errors is not to fill the disk.
MOST_FAILURES: Final = 200

_log = Logger(namespace="durable_streams.server.access")


class AccessLog(Telemetry):
    """
    Logs answers: at level info, from status 400 on at warn, from 500 on at error.

    :param requests: which ones, one of :data:`LEAST_STATUSES`.
    :param backend: what the streams are kept in.
    """

    headers = frozenset([b"user-agent"])

    def __init__(self, requests: str, backend: str) -> None:
        self.least_status = LEAST_STATUSES[requests]
        self._bounded = requests == "failures"
        self._backend = backend
        self._second = 0
        self._lines = 0

    def answered(self, asked: Asked, number: int, answer: Answer, began_at: float) -> None:
        status = answer.status
        if status < self.least_status:
            return
        now = perf_counter()
        if self._bounded and not self._has_room(int(now)):
            return
        took = now - began_at
        level = LogLevel.info if status < 400 else LogLevel.warn if status < 500 else LogLevel.error
        fields = fields_of(asked, number, answer, took, self._backend)
        # A name with points in it is no place in a format, and what a client sent is no format.
        _log.emit(level, "{log_line}", log_line=line_of(asked, answer, took), **fields)

    def _has_room(self, second: int) -> bool:
        if second != self._second:
            left_out = self._lines - MOST_FAILURES
            self._second = second
            self._lines = 0
            if left_out > 0:
                _log.warn("{count} more requests failed in one second.", count=left_out)
        self._lines += 1
        return self._lines <= MOST_FAILURES
