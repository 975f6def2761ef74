"""One line a request, for those who ask for it."""

from __future__ import annotations

from time import perf_counter

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from ..interfaces import NowOrLater
from .answers import Answer
from .operations import Operations
from .requests import StreamRequest

_log = Logger()


class LoggedOperations(Operations):
    """
    Operations that say what they did.

    Of a request, its method and path are logged, of its answer the status and how long it took to begin: no header, no
    query and no body, where secrets could be.
    """

    def perform(self, request: StreamRequest) -> NowOrLater[Answer]:
        began_at = perf_counter()
        answer = super().perform(request)
        if isinstance(answer, Deferred):
            return answer.addCallback(self._note, request, began_at)
        return self._note(answer, request, began_at)

    def _note(self, answer: Answer, request: StreamRequest, began_at: float) -> Answer:
        _log.debug(
            "{method} {path} {status} in {milliseconds:.1f} ms",
            method=request.method.decode("latin-1"),
            path=(request.mount + request.path).decode("latin-1"),
            status=answer.status,
            milliseconds=(perf_counter() - began_at) * 1000,
        )
        return answer
