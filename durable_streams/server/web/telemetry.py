"""Who hears of every answer, to count, log and trace it; and the id by which the client has it too."""

from __future__ import annotations

from typing import Any, Final, TypeAlias

from twisted.internet.defer import Deferred

from .answers import Answer
from .callers import NOBODY, RUN, Caller
from .pages import PageRequest
from .requests import StreamRequest

#: What was answered.
Asked: TypeAlias = StreamRequest | PageRequest | Caller

#: A status that no answer has: nothing is of interest.
NEVER: Final = 1000


class Telemetry:
    """
    Hears of every answer when its head goes out; this one forgets.

    :ivar min_status: the lowest status that is of interest; a caller may leave out answers below it.
    :ivar headers: the headers, in lower case, that are to be read for it besides those that the operations read.
    """

    min_status: int = NEVER
    headers: frozenset[bytes] = frozenset()

    def answered(self, asked: Asked, number: int, answer: Answer, began_at: float) -> None:
        """
        Take note of an answer.

        :param asked: the request; where what came was none, whoever sent it.
        :param number: the request's.
        :param began_at: when the request was there, as :func:`time.perf_counter` has it.
        """

    def stop(self) -> Deferred[None] | None:
        """Pass on what is still to be passed on; nothing is heard after that."""
        return None


def request_id(number: int, caller: Caller = NOBODY) -> bytes:
    """
    Write the id of a request, as it is answered and logged.

    :param caller: whose request it is: a trusted proxy may have given it an id already.
    """
    client = caller.client
    if client is not None and client.request_id is not None:
        return client.request_id
    return b"%b-%x" % (RUN, number)


def request_name(number: int, caller: Caller = NOBODY) -> dict[str, Any]:
    """
    Write the id of a request as a field of a log event.

    :param caller: whose request it is.
    """
    return {"request.id": request_id(number, caller).decode()}
