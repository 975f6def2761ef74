"""Broken connections: reads without a gap or a repeat, and appends that are stored once."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.client import ClientError, ConnectionBroken, Refusal
from durable_streams.server.client.backoff import Backoff
from tests.client.test_hostile import EVENTS, JSON_HEAD, ScriptedTestCase
from tests.support.scripted_server import ScriptedConnection, answer


def cut(data: bytes) -> Any:
    """Return a script that sends data and closes the connection."""

    def script(connection: ScriptedConnection) -> None:
        connection.write(data)
        connection.close()

    return script


def whole(data: bytes) -> Any:
    """Return a script that sends data."""
    return lambda connection: connection.write(data)


def found(body: bytes, content_type: str = "text/plain", **headers: str) -> bytes:
    """Return the answer to a read."""
    fields = {"stream_next_offset": "1_9", "stream_up_to_date": "true", "stream_closed": "true"} | headers
    return answer("200 OK", body, content_type=content_type, **fields)


class ReadTests(ScriptedTestCase):
    async def test_a_read_goes_on_after_each_cut_of_its_answer(self) -> None:
        full = found(b"0123456789" * 20_000)
        self.serve([cut(full[:size]) for size in (50_000, 300, 60_000, 150_000)] + [whole(full)])
        errors: list[ClientError] = []
        batches = await self.read(give_up_after=60, notice=errors.append)
        self.assertEqual(b"0123456789" * 20_000, b"".join(batch.data for batch in batches))
        self.assertEqual([ConnectionBroken] * 4, [type(error) for error in errors])
        self.assertTrue(all("offset=-1" in head for head in self.server.heads[1:]))

    async def test_messages_are_neither_missed_nor_repeated_after_a_cut(self) -> None:
        messages = [b'{"n":%d,"filling":"%b"}' % (n, b"x" * 100) for n in range(5_000)]
        full = found(b"[" + b",".join(messages) + b"]", "application/json")
        self.serve([cut(full[: size * 100_000]) for size in (1, 3, 2, 5)] + [whole(full)], JSON_HEAD)
        batches = await self.read("long-poll", give_up_after=60)
        self.assertEqual(messages, [message for batch in batches for message in batch.messages])

    async def test_a_resumed_answer_that_ends_earlier_is_continued(self) -> None:
        full = found(b"0123456789" * 20_000)
        first = found(b"01234", stream_next_offset="1_5", stream_up_to_date="false", stream_closed="false")
        rest = found((b"0123456789" * 20_000)[5:])
        self.serve([cut(full[:100_000]), whole(first), whole(rest)])
        batches = await self.read(give_up_after=60)
        self.assertEqual(b"0123456789" * 20_000, b"".join(batch.data for batch in batches))
        self.assertIn("offset=1_5", self.server.heads[-1])

    async def test_events_without_their_control_event_are_read_again(self) -> None:
        one = b'event: data\ndata:["a"]\n\n'
        control = b'event: control\ndata:{"streamNextOffset":"%b","streamCursor":"7"}\n\n'
        end = b'event: control\ndata:{"streamNextOffset":"1_9","streamClosed":true}\n\n'
        self.serve(
            [
                cut(EVENTS + one + control % b"1_1" + one),
                cut(EVENTS + one + control[:-20] % b"1_2"),
                cut(EVENTS + one + control % b"1_2" + one + end),
            ],
            JSON_HEAD,
        )
        batches = await self.read("sse", give_up_after=60)
        self.assertEqual(
            [([b'"a"'], "1_1"), ([b'"a"'], "1_2"), ([b'"a"'], "1_9")],
            [(batch.messages, batch.next_offset) for batch in batches],
        )
        for offset, head in zip(("-1", "1_1", "1_1"), self.server.heads[1:], strict=True):
            self.assertIn(f"offset={offset}", head)
        self.assertIn("cursor=7", self.server.heads[-1])

    async def test_a_read_gives_up_when_the_time_is_over(self) -> None:
        self.serve(cut(b""))
        await self.fails(self.read(give_up_after=0.3), ConnectionBroken, "the connection broke")
        self.assertGreater(len(self.server.heads), 2)


class WriteTests(ScriptedTestCase):
    async def test_an_append_without_an_answer_is_sent_again_unchanged(self) -> None:
        unavailable = answer("503 Service Unavailable", retry_after="0")
        accepted = answer("200 OK", stream_next_offset="1_1", producer_epoch="4", producer_seq="0")
        self.serve([cut(b""), cut(b"HTTP/1.1 200"), whole(unavailable), whole(answer("500 Oops")), whole(accepted)])
        writer = await self.client.writer(self.server.url, "me", 4)
        result = await writer.append(b"x")
        self.assertEqual(("1_1", False, 1), (result.next_offset, result.duplicate, writer.next_seq))
        appends = [head.partition("\r\n")[2] for head in self.server.heads[1:]]
        self.assertEqual(5, len(appends))
        self.assertEqual(1, len(set(appends)))
        self.assertIn("producer-epoch: 4", appends[0].lower())

    async def test_a_duplicate_without_an_offset_is_accepted(self) -> None:
        # As the reference server of the protocol answers it.
        self.serve(whole(answer("204 No Content", producer_epoch="0", producer_seq="3")))
        writer = await self.client.writer(self.server.url, "me")
        result = await writer.append(b"x")
        self.assertEqual((None, True, 3), (result.next_offset, result.duplicate, result.last_seq))

    async def test_a_refused_append_is_not_sent_again(self) -> None:
        for status in ("400 Bad", "404 None", "409 Conflict", "413 Large", "507 Full", "501 Never"):
            self.serve(whole(answer(status)))
            writer = await self.client.writer(self.server.url, "me")
            error = await self.fails(writer.append(b"x"), Refusal, self.server.url)
            self.assertEqual(int(status[:3]), getattr(error, "status", None))
            self.assertEqual((2, 0), (len(self.server.heads), writer.next_seq))

    async def test_a_plain_append_is_sent_once(self) -> None:
        self.serve(cut(b""))
        await self.fails(self.client.append(self.server.url, b"x", "text/plain"), ConnectionBroken, "broke")
        self.assertEqual(1, len(self.server.heads))

    async def test_a_server_that_ignores_producers_is_named(self) -> None:
        self.serve(whole(answer("204 No Content", stream_next_offset="1_1")))
        writer = await self.client.writer(self.server.url, "me")
        await self.fails(writer.append(b"x"), ClientError, "does not support idempotent producers")


class BackoffTests(SynchronousTestCase):
    def wait(self, clock: Clock, backoff: Backoff, error: ClientError | None) -> float:
        """Return how long a wait takes."""
        begun = clock.seconds()
        waiting = Deferred.fromCoroutine(backoff.wait(error))
        while not waiting.called:
            [call] = clock.getDelayedCalls()
            clock.advance(call.getTime() - clock.seconds())
        self.successResultOf(waiting)
        return clock.seconds() - begun

    def test_delays_grow_up_to_a_limit_and_begin_again_after_a_success(self) -> None:
        clock = Clock()
        backoff = Backoff(clock, None)
        delays = [self.wait(clock, backoff, ConnectionBroken("x")) for _ in range(20)]
        self.assertTrue(0.1 <= delays[0] <= 0.2, delays)
        self.assertTrue(all(5 <= delay <= 10 for delay in delays[7:]), delays)
        self.assertGreater(len(set(delays)), 15)
        backoff.reset()
        self.assertLessEqual(self.wait(clock, backoff, ConnectionBroken("x")), 0.2)

    def test_a_delay_is_not_shorter_than_retry_after(self) -> None:
        clock = Clock()
        self.assertEqual(42, self.wait(clock, Backoff(clock, None), Refusal("x", 503, retry_after=42)))

    def test_errors_that_are_not_temporary_are_raised_at_once(self) -> None:
        clock = Clock()
        for error in (Refusal("x", 404), Refusal("x", 500, "DATA_DAMAGED"), ClientError("x")):
            waiting = Deferred.fromCoroutine(Backoff(clock, None).wait(error))
            self.assertIs(error, self.failureResultOf(waiting).value)

    @given(st.floats(0, 100), st.integers(1, 30))
    @settings(max_examples=30)
    def test_no_wait_ends_after_the_time_to_give_up(self, give_up_after: float, count: int) -> None:
        clock = Clock()
        backoff = Backoff(clock, give_up_after)
        for _ in range(count):
            try:
                self.wait(clock, backoff, ConnectionBroken("x"))
            except self.failureException:
                break
            self.assertLessEqual(clock.seconds(), give_up_after)
