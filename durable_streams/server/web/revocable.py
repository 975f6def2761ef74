"""Requests for pages and their bodies, which end when their principal has lost the right to use the page."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred

from ..errors import NotAllowed
from .answers import Answer, AnswerBody, Sink
from .live_access import ReadPermit
from .relayed_bodies import ABORTED, RelayedBody


class _Running:
    """A request that is being performed."""

    def __init__(self, performed: Deferred[Answer]) -> None:
        self._performed = performed
        self.is_revoked = False

    def revoke(self) -> None:
        """Cancel it: its principal may not use the page any more."""
        self.is_revoked = True
        self._performed.cancel()


class RevocableBody(RelayedBody):
    """
    The body of an answer, which is aborted when its permit is revoked.

    :param permit: of the request.
    """

    __slots__ = ("_permit",)

    def __init__(self, body: AnswerBody, permit: ReadPermit) -> None:
        super().__init__(body)
        self._permit = permit

    def start(self, sink: Sink) -> None:
        self._permit.begin(self)
        super().start(sink)

    def ended(self, outcome: str) -> None:
        self._permit.end(self)

    def revoke(self) -> None:
        """Abort the answer: its principal may not use the page any more."""
        sink = self.end(ABORTED)
        self.body.stopProducing()
        if sink is not None:
            sink.abort()


async def perform_revocable(call: Callable[[], Coroutine[Any, Any, Answer]], permit: ReadPermit) -> Answer:
    """
    Perform a request. When its permit is revoked meanwhile, it is cancelled; later, its streamed body is aborted.

    :param permit: of the request, which has not begun.
    :raises NotAllowed: the permit was revoked before there was an answer.
    """
    performed = Deferred.fromCoroutine(call())
    if performed.called:
        answer = await performed
    else:
        running = _Running(performed)
        permit.begin(running)
        try:
            answer = await performed
        except CancelledError:
            if not running.is_revoked:
                raise
            raise NotAllowed(
                "The right to use this page has ended during the request: the credentials have expired or were "
                "revoked, or the rules have changed. Changes that were complete before remain."
            ) from None
        finally:
            permit.end(running)
    if isinstance(answer.body, bytes):
        return answer
    return replace(answer, body=RevocableBody(answer.body, permit))
