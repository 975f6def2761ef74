"""Tests of streamed answers that are made after their client has gone, on each front."""

from __future__ import annotations

from twisted.internet.defer import Deferred

from durable_streams.server.web.answers import Answer, Sink
from tests.support.cases import FrontTestCase, each_way
from tests.support.fronts import BASE


class Body:
    """A body that records what is called."""

    length: int | None = None

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self, sink: Sink) -> None:
        self.calls.append("start")

    def pauseProducing(self) -> None:
        self.calls.append("pause")

    def resumeProducing(self) -> None:
        self.calls.append("resume")

    def stopProducing(self) -> None:
        self.calls.append("stop")


@each_way
class UnsentBodyTests(FrontTestCase):
    def test_a_streamed_body_of_a_client_that_has_gone_is_stopped_and_never_started(self) -> None:
        body = Body()

        def answer(cancelled: Deferred[Answer]) -> None:
            cancelled.callback(Answer(200, b"", body))

        self.front.operations._by_operation["read"] = lambda request: Deferred(answer)
        peer = self.front.follow(BASE + "a")
        peer.reset()
        self.front.pass_time(2)
        self.assertEqual(["stop"], body.calls)
