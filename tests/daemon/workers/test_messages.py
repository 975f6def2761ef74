"""Messages arrive as they were sent, however the pipe divides them."""

from __future__ import annotations

import io
from typing import cast

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.config.settings import Settings
from durable_streams.server.daemon.workers.messages import (
    MAX_LENGTH,
    Abort,
    Assignment,
    Channel,
    Failed,
    FromWorker,
    Leaving,
    Message,
    MetricsAnswer,
    MetricsRequest,
    Ping,
    Pong,
    Reload,
    Reloaded,
    Serving,
    Stop,
    ToWorker,
    encode,
    read_assignment,
)

TO_WORKER = st.one_of(
    st.just(Stop()),
    st.just(Abort()),
    st.just(Ping()),
    st.builds(Reload, st.one_of(st.none(), st.text()), st.booleans()),
    st.builds(MetricsRequest, st.integers(0, 2**53)),
    st.builds(MetricsAnswer, st.integers(0, 2**53), st.text()),
)
FROM_WORKER = st.one_of(
    st.just(Serving()),
    st.just(Reloaded()),
    st.just(Leaving()),
    st.just(Pong()),
    st.builds(Failed, st.text(), st.text()),
    st.builds(MetricsRequest, st.integers(0, 2**53)),
    st.builds(MetricsAnswer, st.integers(0, 2**53), st.text()),
)


class ChannelTests(SynchronousTestCase):
    def check(self, kind: object, messages: list[Message], size: int) -> None:
        received: list[Message] = []
        channel = Channel(kind, received.append, lambda: None)
        channel.makeConnection(StringTransport())
        data = b"".join(map(encode, messages))
        for begin in range(0, len(data), size):
            channel.dataReceived(data[begin : begin + size])
        self.assertEqual(received, messages)

    @given(st.lists(TO_WORKER), st.integers(1, 100))
    def test_a_worker_receives_what_was_sent(self, messages: list[Message], size: int) -> None:
        self.check(ToWorker, messages, size)

    @given(st.lists(FROM_WORKER), st.integers(1, 100))
    def test_the_supervisor_receives_what_was_sent(self, messages: list[Message], size: int) -> None:
        self.check(FromWorker, messages, size)

    def test_sent_messages_are_written(self) -> None:
        channel = Channel(ToWorker, lambda _: None, lambda: None)
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.send(Serving())
        self.assertEqual(transport.value(), encode(Serving()))

    def test_a_message_that_is_too_long_ends_the_connection(self) -> None:
        channel = Channel(ToWorker, self.fail, lambda: None)
        transport = StringTransport()
        channel.makeConnection(transport)
        channel.dataReceived((MAX_LENGTH + 1).to_bytes(4, "big"))
        self.assertTrue(transport.disconnecting)

    def test_the_end_of_the_pipe_is_reported(self) -> None:
        ended: list[bool] = []
        channel = Channel(ToWorker, self.fail, lambda: ended.append(True))
        channel.makeConnection(StringTransport())
        channel.connectionLost()
        self.assertEqual(ended, [True])


class OneByte(io.RawIOBase):
    """A pipe from which each read returns one byte."""

    def __init__(self, data: bytes) -> None:
        self.rest = data

    def read(self, size: int = -1) -> bytes:
        data, self.rest = self.rest[: min(size, 1)], self.rest[min(size, 1) :]
        return data


class AssignmentTests(SynchronousTestCase):
    assignment = Assignment(
        2,
        Settings.from_mapping({"limits.max_streams": 7, "http.cors_origins": ["https://a.example"]}),
        [5, 3],
        "/srv",
        "debug",
    )

    def test_an_assignment_is_read_without_what_follows(self) -> None:
        pipe = OneByte(encode(self.assignment) + encode(Stop()))
        self.assertEqual(read_assignment(cast(io.BufferedReader, pipe)), self.assignment)
        self.assertEqual(pipe.rest, encode(Stop()))

    def test_a_pipe_that_ends_early_has_no_assignment(self) -> None:
        whole = encode(self.assignment)
        for length in (0, 3, 4, len(whole) - 1):
            self.assertIsNone(read_assignment(cast(io.BufferedReader, OneByte(whole[:length]))))
