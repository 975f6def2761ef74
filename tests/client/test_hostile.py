"""Servers that send what no server should: the client ends with a sentence, in bounded memory and time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import repeat
from typing import Any, Final

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from durable_streams.server.client import (
    AnswerTimeout,
    ClientError,
    ClientOptions,
    ConnectFailed,
    ConnectionBroken,
    InvalidAnswer,
    RedirectRefused,
    Refusal,
    StreamClient,
    StreamReader,
    backoff,
)
from tests.support.daemon import free_port
from tests.support.scripted_server import ScriptedConnection, ScriptedServer, answer

#: The answer to HEAD.
JSON_HEAD: Final = answer("200 OK", content_type="application/json", stream_next_offset="1_0")
TEXT_HEAD: Final = answer("200 OK", content_type="text/plain", stream_next_offset="1_0")
EVENTS: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"

Script = Callable[[ScriptedConnection], object]


async def drain(reader: StreamReader) -> None:
    """Read to the end."""
    async for _ in reader:
        pass


class ScriptedTestCase(TestCase):
    """A test case with a scripted server and a client with a small patience."""

    def serve(self, script: Script | list[Script], head: bytes = TEXT_HEAD, **options: Any) -> None:
        """Start a server; a list of scripts has one for each request but HEAD, the last of which is repeated."""
        scripts = script if isinstance(script, list) else [script]

        def respond(connection: ScriptedConnection, request: str) -> None:
            if request.startswith("HEAD"):
                connection.write(head)
            else:
                (scripts.pop(0) if len(scripts) > 1 else scripts[0])(connection)

        self.server = ScriptedServer(reactor, respond)
        self.client = StreamClient(reactor, ClientOptions(**({"timeout": 5.0, "live_timeout": 5.0} | options)))
        self.addCleanup(self.close, self.server, self.client)

    async def close(self, server: ScriptedServer, client: StreamClient) -> None:
        await client.disconnect()
        await server.stop()
        # Both sides notice it.
        await deferLater(reactor, 0.01)

    async def get(self, offset: str = "-1") -> None:
        await self.client.http.request("GET", f"{self.server.url}?offset={offset}")

    async def fails(self, work: Any, kind: type[ClientError], text: str) -> ClientError:
        """Return the error of a coroutine, which has a kind and a text."""
        with self.assertRaises(kind) as caught:
            await work
        self.assertIn(text, str(caught.exception))
        self.assertTrue(str(caught.exception).endswith((".", "...")), str(caught.exception))
        error: ClientError = caught.exception
        return error

    async def read(self, live: Any = None, **options: Any) -> list[Any]:
        """Read or tail to the end."""
        options.setdefault("give_up_after", 0.0)
        if live is None:
            reader = await self.client.read(self.server.url, **options)
        else:
            reader = await self.client.tail(self.server.url, live=live, **options)
        return [batch async for batch in reader]


class HeadTests(ScriptedTestCase):
    async def test_endless_headers_are_refused(self) -> None:
        def flood(connection: ScriptedConnection) -> None:
            self.flooded = connection
            connection.write(b"HTTP/1.1 200 OK\r\n")
            connection.flood(repeat(b"X-Filling: " + b"x" * 1000 + b"\r\n"))

        self.serve(flood)
        error = await self.fails(self.get(), InvalidAnswer, "is larger than 65536 bytes")
        self.assertFalse(error.temporary)
        await self.until(lambda: self.flooded.is_lost)

    async def until(self, condition: Callable[[], bool]) -> None:
        for _ in range(500):
            if condition():
                return
            await deferLater(reactor, 0.01)
        self.fail("It did not happen within 5 seconds")

    async def test_endless_interim_answers_are_refused(self) -> None:
        self.serve(lambda connection: connection.flood(repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)))
        await self.fails(self.get(), InvalidAnswer, "more than 16 interim answers")

    async def test_an_endless_header_line_is_refused(self) -> None:
        self.serve(lambda connection: connection.flood(repeat(b"x" * 1000)))
        await self.fails(self.get(), InvalidAnswer, "a line of more than 16 KiB")

    async def test_large_bodies_and_interim_answers_do_not_count_as_heads(self) -> None:
        body = b"\r\n\r\nHTTP/1.1 100\r\n\r\n" + b"x" * 200_000
        good = b"HTTP/1.1 103 Early\r\n\r\n" + answer(
            "200 OK",
            body,
            content_type="text/plain",
            stream_next_offset="1_1",
            stream_up_to_date="true",
            via="HTTP/1.1 x",
        )
        self.serve(lambda connection: connection.write(good))
        for _ in range(3):
            self.assertEqual(body, b"".join([batch.data for batch in await self.read()]))

    async def test_a_number_of_other_digits_than_ascii_is_no_number(self) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nStream-Next-Offset: 1_1\r\nProducer-Seq: \xb2\r\n\r\n"
        self.serve(lambda connection: connection.write(head))
        appended = await self.client.append(self.server.url, b"x", "text/plain")
        self.assertEqual((appended.next_offset, appended.last_seq), ("1_1", None))
        writer = await self.client.writer(self.server.url, "p", content_type="text/plain")
        await self.fails(writer.append(b"x"), InvalidAnswer, "does not support idempotent producers")

    async def test_what_is_not_http_is_refused(self) -> None:
        for text in (b"SSH-2.0-OpenSSH\r\n\r\n", b"HTTP/1.1 what\r\n\r\n", b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n"):
            self.serve(lambda connection, text=text: connection.write(text))  # type: ignore[misc]
            await self.fails(self.get(), InvalidAnswer, "is not valid HTTP")

    async def test_two_lengths_are_refused(self) -> None:
        two = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"
        self.serve(lambda connection: connection.write(two))
        await self.fails(self.get(), InvalidAnswer, "is not valid HTTP")

    async def test_compressed_answers_are_refused(self) -> None:
        self.serve(lambda connection: connection.write(answer("200 OK", b"x", content_encoding="gzip")))
        await self.fails(self.get(), InvalidAnswer, "compressed")
        self.assertIn("accept-encoding: identity", self.server.heads[0].lower())

    async def test_cookies_are_not_kept(self) -> None:
        self.serve(lambda connection: connection.write(answer("204 No Content", set_cookie="a=b; Path=/")))
        await self.get()
        await self.get()
        self.assertNotIn("cookie", self.server.heads[1].lower())


class RedirectTests(ScriptedTestCase):
    async def test_a_redirect_is_not_followed_and_its_target_gets_no_request(self) -> None:
        other = ScriptedServer(reactor, lambda connection, head: connection.write(answer("204 No Content")))
        self.addCleanup(other.stop)
        for status in ("301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent", "300 Choices"):
            redirect = answer(status, location=other.url)
            self.serve(lambda connection, redirect=redirect: connection.write(redirect), token="secret")  # type: ignore[misc]
            error = await self.fails(self.get(), RedirectRefused, f"redirects to {other.url}")
            assert isinstance(error, RedirectRefused)
            self.assertEqual(other.url, error.location)
            self.assertIn("Bearer secret", self.server.heads[0])
            self.assertNotIn("secret", str(error))
        self.assertEqual([], other.heads)


class ProblemTests(ScriptedTestCase):
    async def refused(self, body: bytes, content_type: str = "application/problem+json") -> Refusal:
        self.serve(lambda connection: connection.write(answer("400 Bad Request", body, content_type=content_type)))
        error = await self.fails(self.get(), Refusal, "")
        assert isinstance(error, Refusal)
        return error

    async def test_control_characters_of_a_server_do_not_reach_the_message(self) -> None:
        error = await self.refused(b'{"detail":"\\u001b[31mred\\u202e\\u0007 text.","code":"A\\nB"}')
        self.assertEqual((" [31mred   text.", "A B"), (str(error), error.code))

    async def test_a_long_sentence_is_cut(self) -> None:
        error = await self.refused(b'{"detail":"' + b"x" * 10_000 + b'"}')
        self.assertEqual(1000, len(str(error)))

    async def test_a_problem_that_is_none_has_a_sentence_with_the_status(self) -> None:
        for body in (b"", b"{", b"[]", b'{"detail": 5}', b"\xff", b"x" * 100_000):
            error = await self.refused(body)
            self.assertIn("the server answered 400 without a reason", str(error))
        self.assertIn("answered 400", str(await self.refused(b"<html>", "text/html")))
        self.assertEqual("Plain text.", str(await self.refused(b"Plain text.\n", "text/plain")))


class SilenceTests(ScriptedTestCase):
    async def test_no_answer_is_a_timeout(self) -> None:
        self.serve(lambda connection: None, timeout=0.1)
        error = await self.fails(self.get(), AnswerTimeout, "no answer within 0.1 seconds")
        self.assertTrue(error.temporary)

    async def test_a_body_that_stops_is_a_timeout(self) -> None:
        begun = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nStream-Next-Offset: 1_1\r\nContent-Length: 9\r\n\r\nx"
        self.serve(lambda connection: connection.write(begun), timeout=0.1)
        await self.fails(self.read(), AnswerTimeout, "the server sent nothing for 0.1 seconds")

    async def test_a_tail_without_comments_is_a_timeout(self) -> None:
        self.serve(lambda connection: connection.write(EVENTS), live_timeout=0.1)
        await self.fails(self.read("sse"), AnswerTimeout, "the server sent nothing")

    async def test_a_server_that_does_not_run_is_named(self) -> None:
        port = free_port()
        client = StreamClient(reactor)
        error = await self.fails(client.head(f"http://127.0.0.1:{port}/x"), ConnectFailed, "connection refused")
        self.assertIn(f"127.0.0.1:{port}", str(error))
        await self.fails(client.head("http://nowhere.invalid/x"), ConnectFailed, "Cannot find the host")

    async def test_a_cancelled_request_closes_its_connection(self) -> None:
        self.serve(lambda connection: None)
        asked: Deferred[Any] = Deferred.fromCoroutine(self.get())
        await deferLater(reactor, 0.05)
        self.assertEqual(1, len(self.server.connections))
        asked.addErrback(lambda reason: reason.value)
        asked.cancel()
        self.assertIsInstance(await asked, CancelledError)
        await deferLater(reactor, 0.05)
        self.assertEqual(0, len(self.server.connections))


class CancelTests(ScriptedTestCase):
    async def test_a_tail_that_is_cancelled_at_any_moment_ends(self) -> None:
        def end(connection: ScriptedConnection) -> None:
            connection.write(EVENTS + b'event: control\ndata:{"streamNextOffset":"1_0","upToDate":true}\n\n')
            connection.close()

        self.patch(backoff, "_FIRST", 0.002)
        self.serve(end)
        for number in range(100):
            reader = await self.client.tail(self.server.url, live="sse")
            tailing: Deferred[Any] = Deferred.fromCoroutine(drain(reader))
            await deferLater(reactor, number * 0.0001)
            tailing.addErrback(lambda reason: reason.value)
            tailing.cancel()
            self.assertIsInstance(await tailing, CancelledError)


class EventTests(ScriptedTestCase):
    async def test_an_endless_line_is_refused(self) -> None:
        def flood(connection: ScriptedConnection) -> None:
            connection.write(EVENTS + b"event: data\ndata:")
            connection.flood(repeat(b"x" * 65_536))

        self.serve(flood, max_message_bytes=1_000_000)
        await self.fails(self.read("sse"), InvalidAnswer, "an event of more than 1000000 bytes")

    async def test_endless_events_without_an_offset_are_refused(self) -> None:
        def flood(connection: ScriptedConnection) -> None:
            connection.write(EVENTS)
            connection.flood(repeat(b"event: data\ndata:" + b"x" * 10_000 + b"\n\n"))

        self.serve(flood, max_message_bytes=1_000_000)
        await self.fails(self.read("sse"), InvalidAnswer, "more than 1000000 bytes came without a control event")

    async def test_what_is_no_control_event_is_refused(self) -> None:
        for text in (
            b"{",
            b"[]",
            b'{"streamNextOffset":5}',
            b'{"streamNextOffset":""}',
            b'{"streamNextOffset":"a\\nb"}',
        ):
            events = EVENTS + b"event: control\ndata:" + text + b"\n\n"
            self.serve(lambda connection, events=events: connection.write(events))  # type: ignore[misc]
            await self.fails(self.read("sse"), InvalidAnswer, "")

    async def test_an_answer_that_is_not_events_is_refused(self) -> None:
        self.serve(lambda connection: connection.write(answer("200 OK", b"<html>", content_type="text/html")))
        await self.fails(self.read("sse"), InvalidAnswer, "not text/event-stream")

    async def test_invalid_base64_is_refused(self) -> None:
        events = (
            EVENTS.replace(b"\r\n\r\n", b"\r\nStream-SSE-Data-Encoding: base64\r\n\r\n") + b"event: data\ndata:!!!!\n\n"
        )
        self.serve(lambda connection: connection.write(events))
        await self.fails(self.read("sse"), InvalidAnswer, "is not base64")

    async def test_a_server_that_ends_every_tail_at_once_is_not_asked_in_a_tight_loop(self) -> None:
        def end(connection: ScriptedConnection) -> None:
            connection.write(EVENTS + b'event: control\ndata:{"streamNextOffset":"1_0","upToDate":true}\n\n')
            connection.close()

        self.serve(end)
        reader = await self.client.tail(self.server.url, live="sse")
        tailing = Deferred.fromCoroutine(drain(reader))
        await deferLater(reactor, 0.5)
        tailing.addErrback(lambda _: None)
        tailing.cancel()
        await tailing
        self.assertLess(len(self.server.heads), 10)


class AnswerTests(ScriptedTestCase):
    async def test_an_answer_without_an_offset_is_refused(self) -> None:
        self.serve(lambda connection: connection.write(answer("200 OK", b"x", content_type="text/plain")))
        await self.fails(self.read(), InvalidAnswer, "no valid Stream-Next-Offset")

    async def test_an_answer_of_another_type_is_refused(self) -> None:
        page = answer("200 OK", b"<html>", content_type="text/html", stream_next_offset="1_1")
        self.serve(lambda connection: connection.write(page), JSON_HEAD)
        await self.fails(self.read(), InvalidAnswer, "content type")

    async def test_an_endless_json_message_is_refused(self) -> None:
        def flood(connection: ScriptedConnection) -> None:
            connection.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nStream-Next-Offset: 1_1\r\n"
                b'Transfer-Encoding: chunked\r\n\r\n2\r\n["\r\n'
            )
            connection.flood(repeat(b"10000\r\n" + b"x" * 65_536 + b"\r\n"))

        self.serve(flood, JSON_HEAD, max_message_bytes=1_000_000)
        await self.fails(self.read(), InvalidAnswer, "a JSON message of more than 1000000 bytes")

    async def test_a_slow_reader_pauses_the_server(self) -> None:
        def flood(connection: ScriptedConnection) -> None:
            self.flooded = connection
            connection.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nStream-Next-Offset: 1_1\r\n"
                b"Content-Length: 1000000000\r\n\r\n"
            )
            connection.flood(repeat(b"x" * 65_536))

        self.serve(flood)
        reader = await self.client.read(self.server.url)
        await anext(reader)
        await deferLater(reactor, 0.2)
        sent = self.flooded.sent
        await deferLater(reactor, 0.2)
        # What waits is in the buffers of both sockets.
        self.assertEqual(sent, self.flooded.sent)
        self.assertLess(sent, 32 * 2**20)
        await reader.aclose()

    async def test_a_body_without_a_length_is_taken_as_broken(self) -> None:
        def end(connection: ScriptedConnection) -> None:
            connection.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nStream-Next-Offset: 1_1\r\n\r\nhello")
            connection.close()

        self.serve(end)
        await self.fails(self.read(), ConnectionBroken, "the connection broke")
