"""Who hears of every answer, to count, log and trace it; and the id by which the client has it too."""

from __future__ import annotations

from .answers import Answer
from .callers import RUN
from .requests import StreamRequest
from .tree import TreeRequest


class Telemetry:
    """Hears of every answer when its head goes out; this one forgets."""

    def answered(self, asked: StreamRequest | TreeRequest | None, number: int, answer: Answer, began_at: float) -> None:
        """
        Take note of an answer.

        :param asked: the request; None where what came was none.
        :param number: the request's.
        :param began_at: when the request was there, as :func:`time.perf_counter` has it.
        """


def request_id(number: int) -> bytes:
    """Write the id of a request, as it is answered and logged."""
    return b"%b-%x" % (RUN, number)
