"""Streamed bodies whose end is reported, with the number of bytes that were sent."""

from __future__ import annotations

from collections.abc import Callable

from .answers import AnswerBody
from .relayed_bodies import RelayedBody


class ObservedBody(RelayedBody):
    """
    The body of an answer, which counts its bytes.

    :param report: is called once, when the body has ended, with the number of its bytes and how it has ended, which is
        :data:`.FINISHED`, :data:`.DISCONNECTED` or :data:`.ABORTED`.
    """

    __slots__ = ("_report", "_sent")

    def __init__(self, body: AnswerBody, report: Callable[[int, str], None]) -> None:
        super().__init__(body)
        self._report = report
        self._sent = 0

    def count(self, size: int) -> None:
        self._sent += size

    def ended(self, outcome: str) -> None:
        self._report(self._sent, outcome)
