"""Requests for pages and their bodies, which end when their principal has lost the right to use the page."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from ..errors import NotAllowed
from .answers import Answer, AnswerBody, Sink
from .live_access import ReadPermit


class _Running:
    """A request that is being performed."""

    def __init__(self, performed: Deferred[Answer]) -> None:
        self._performed = performed
        self.is_revoked = False

    def revoke(self) -> None:
        """Cancel it: its principal may not use the page any more."""
        self.is_revoked = True
        self._performed.cancel()


@implementer(IPushProducer)
class RevocableBody:
    """
    The body of an answer, which is aborted when its permit is revoked.

    :param permit: of the request.
    """

    def __init__(self, body: AnswerBody, permit: ReadPermit) -> None:
        self.length = body.length
        self._body = body
        self._permit = permit
        self._sink: Sink | None = None

    def start(self, sink: Sink) -> None:
        self._sink = sink
        self._permit.begin(self)
        self._body.start(self)

    def pauseProducing(self) -> None:
        self._body.pauseProducing()

    def resumeProducing(self) -> None:
        self._body.resumeProducing()

    def stopProducing(self) -> None:
        self._end()
        self._body.stopProducing()

    def revoke(self) -> None:
        """Abort the answer: its principal may not use the page any more."""
        sink = self._end()
        self._body.stopProducing()
        if sink is not None:
            sink.abort()

    # The body's sink

    def write(self, data: bytes) -> None:
        """Send a piece of the body."""
        if self._sink is not None:
            self._sink.write(data)

    def finish(self) -> None:
        sink = self._end()
        if sink is not None:
            sink.finish()

    def abort(self) -> None:
        sink = self._end()
        if sink is not None:
            sink.abort()

    def _end(self) -> Sink | None:
        sink, self._sink = self._sink, None
        self._permit.end(self)
        return sink


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
                "revoked, or the rules have changed. What was complete until then is done."
            ) from None
        finally:
            permit.end(running)
    if isinstance(answer.body, bytes):
        return answer
    return replace(answer, body=RevocableBody(answer.body, permit))
