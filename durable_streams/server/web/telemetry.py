"""Telemetry: an interface that receives every answer, and the ids of requests."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from twisted.internet.defer import Deferred

from .answers import Answer
from .callers import NOBODY, RUN, Caller
from .pages import PageRequest
from .requests import StreamRequest

#: What an answer is for: a request, or a connection on which no request was read.
Occasion: TypeAlias = StreamRequest | PageRequest | Caller

#: A status above those of all answers, for telemetry that needs none.
NEVER: Final = 1000


class Telemetry:
    """
    Receives every answer when its head is sent. This one does nothing.

    :ivar min_status: the lowest status that is recorded; answers below it need not be passed.
    :ivar headers: further headers that it needs of requests, in lower case.
    """

    min_status: int = NEVER
    headers: frozenset[bytes] = frozenset()

    def answered(self, asked: Occasion, number: int, answer: Answer, began_at: float) -> None:
        """
        Record an answer.

        :param asked: the request; the caller, if no request was read.
        :param number: the number of the request.
        :param began_at: when the request had arrived, as :func:`time.perf_counter` has it.
        """

    def stop(self) -> Deferred[None] | None:
        """Export the remaining records; nothing is recorded after that."""
        return None


def request_id(number: int, caller: Caller = NOBODY) -> bytes:
    """
    Return the id of a request, for X-Request-Id and the log.

    :param caller: who sent it: the id that a trusted proxy gives is kept.
    """
    client = caller.client
    if client is not None and client.request_id is not None:
        return client.request_id
    return b"%b-%x" % (RUN, number)


def log_fields(request: StreamRequest | PageRequest) -> dict[str, Any]:
    """Return the method, the path and the id of a request as fields of a log event."""
    path = request.mount + request.path if isinstance(request, StreamRequest) else request.path
    return {
        "method": request.method.decode("latin-1"),
        "path": path.decode("latin-1"),
        **request_name(request.number, request.caller),
    }


def request_name(number: int, caller: Caller = NOBODY) -> dict[str, Any]:
    """
    Return the id of a request as a field of a log event.

    :param caller: who sent it.
    """
    return {"request.id": request_id(number, caller).decode()}
