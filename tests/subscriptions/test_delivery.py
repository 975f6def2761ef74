"""Delivery attempts over real sockets: each answer, and each bad receiver, has its outcome."""

from __future__ import annotations

from itertools import repeat
from typing import Any
from unittest.mock import patch

from twisted.internet.defer import CancelledError
from twisted.logger import capturedLogs, formatEvent
from twisted.web.server import Request

from durable_streams.server.subscriptions.delivery import DeliveryResult, WebhookRequest
from durable_streams.server.subscriptions.delivery_failures import FailureReason
from durable_streams.server.subscriptions.model import Outcome
from durable_streams.server.subscriptions.tracing import TraceContext
from tests.support.daemon import free_port
from tests.support.scripted_server import ScriptedConnection, answer

from .receivers import DeliveryTestCase, Hook

OK = "200 OK"
TRACE = TraceContext("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "rojo=1")


class AnsweredDeliveryTests(DeliveryTestCase):
    async def outcome_of(self, *pieces: bytes, close: bool = False) -> DeliveryResult:
        """Return the result of a delivery that is answered by pieces."""

        def script(connection: ScriptedConnection, _: str) -> None:
            for piece in pieces:
                connection.write(piece)
            if close:
                connection.close()

        server = self.serve(script)
        result = await self.deliver(server.url, sender=self.sender(total=2.0))
        self.assertEqual(1, len(server.heads))
        return result

    async def test_the_request_has_its_headers_and_exactly_the_body(self) -> None:
        hook = Hook(b'{"done":true}')
        origin = self.serve_hook(hook).replace("127.0.0.1", "localhost")
        body = b'{"wake_id":"w_1","text":"\xc3\xa4"}' * 10_000
        request = WebhookRequest("s1", f"{origin}/hook%20a?key=1", body, trace=TRACE)
        result = await self.sender().deliver(request)
        self.assertEqual((Outcome.DONE, 200, None, ""), (result.outcome, result.status, result.reason, result.detail))
        self.assertGreater(result.seconds, 0)
        [(received, sent)] = hook.requests
        assert isinstance(received, Request)
        self.assertEqual(body, sent)
        self.assertEqual(b"/hook%20a?key=1", received.uri)
        headers = dict(received.requestHeaders.getAllRawHeaders())
        self.assertEqual([origin.removeprefix("http://").encode()], headers.pop(b"Host"))
        [agent] = headers.pop(b"User-Agent")
        self.assertRegex(agent.decode(), r"^durable-streams-server/\S+$")
        self.assertEqual(
            {
                b"Content-Type": [b"application/json"],
                b"Content-Length": [str(len(body)).encode()],
                b"Webhook-Signature": [b"t=1,kid=ds_x,ed25519=x"],
                b"Traceparent": [TRACE.traceparent.encode()],
                b"Tracestate": [b"rojo=1"],
                b"Connection": [b"close"],
            },
            headers,
        )

    async def test_a_json_object_whose_done_is_true_is_done(self) -> None:
        for body in (b'{"done":true}', b' {"a":[1],"done":false,"done":true}\n'):
            result = await self.outcome_of(answer(OK, body))
            self.assertEqual((Outcome.DONE, None), (result.outcome, result.reason), body)
        result = await self.outcome_of(answer("202 Accepted", b'{"done":true}'))
        self.assertEqual((Outcome.DONE, 202), (result.outcome, result.status))

    async def test_every_other_success_is_accepted(self) -> None:
        for body in (
            *(b"", b"OK", b"{}", b"null", b"true", b'[{"done":true}]', b'{"done":1}', b'{"done":"true"}'),
            *(b'{"done":true', b'{"done":true}}', b'{"\xff":1,"done":true}', b"[" * 60_000, b'{"a":{"done":true}}'),
        ):
            result = await self.outcome_of(answer(OK, body))
            self.assertEqual((Outcome.ACCEPTED, 200, None), (result.outcome, result.status, result.reason), body[:20])
        for status in ("201 Created", "204 No Content", "299 Other"):
            result = await self.outcome_of(answer(status))
            self.assertEqual(Outcome.ACCEPTED, result.outcome, status)

    async def test_a_body_that_ends_with_its_connection_is_complete(self) -> None:
        result = await self.outcome_of(b'HTTP/1.0 200 OK\r\n\r\n{"done":true}', close=True)
        self.assertEqual(Outcome.DONE, result.outcome)

    async def test_interim_answers_are_skipped(self) -> None:
        result = await self.outcome_of(b"HTTP/1.1 103 Early Hints\r\n\r\n" * 3, answer(OK, b'{"done":true}'))
        self.assertEqual(Outcome.DONE, result.outcome)

    async def test_more_than_16_interim_answers_fail(self) -> None:
        interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"
        for count, outcome in ((16, Outcome.DONE), (17, Outcome.FAILED)):
            result = await self.outcome_of(interim * count, answer(OK, b'{"done":true}'))
            self.assertEqual(outcome, result.outcome, result.detail)
        self.assertEqual(FailureReason.TOO_LARGE, result.reason)

    async def test_other_statuses_fail_with_the_status(self) -> None:
        for status in ("400 Bad Request", "404 Not Found", "410 Gone", "500 Error", "503 Unavailable", "999 Other"):
            result = await self.outcome_of(answer(status, b'{"done":true}'))
            self.assertEqual((Outcome.FAILED, FailureReason.STATUS), (result.outcome, result.reason), status)
            self.assertEqual(int(status[:3]), result.status)
            self.assertEqual(f"The receiver answered {status[:3]}.", result.detail)

    async def test_redirects_are_not_followed(self) -> None:
        other = self.serve(lambda connection, _: connection.write(answer(OK, b'{"done":true}')))
        for status in ("301 Moved", "302 Found", "303 Other", "307 Temporary", "308 Permanent", "304 Not Modified"):
            result = await self.outcome_of(answer(status, b"", location=other.url))
            self.assertEqual((Outcome.FAILED, FailureReason.REDIRECT), (result.outcome, result.reason), status)
        self.assertEqual([], other.heads)

    async def test_a_body_of_64_kib_is_accepted_and_one_byte_more_fails(self) -> None:
        body = b"x" * 65_536
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n"
        unlimited = b"HTTP/1.0 200 OK\r\n\r\n"
        for pieces in ((answer(OK, body),), (chunked % (65_536, body),), (unlimited, body)):
            result = await self.outcome_of(*pieces, close=True)
            self.assertEqual((Outcome.ACCEPTED, ""), (result.outcome, result.detail))
        body += b"x"
        for pieces in ((answer(OK, body),), (chunked % (65_537, body),), (unlimited, body)):
            result = await self.outcome_of(*pieces, close=True)
            self.assertEqual((Outcome.FAILED, FailureReason.TOO_LARGE), (result.outcome, result.reason))

    async def test_a_large_body_is_refused_before_it_is_received(self) -> None:
        result = await self.outcome_of(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n")
        self.assertEqual(FailureReason.TOO_LARGE, result.reason)

    async def test_half_an_answer_fails(self) -> None:
        for piece in (b"", b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Type: a", answer(OK, b'{"done":true}')[:-1]):
            result = await self.outcome_of(piece, close=True)
            self.assertEqual((Outcome.FAILED, FailureReason.INCOMPLETE), (result.outcome, result.reason), piece)
        chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nd\r\n" + b'{"done":true}\r\n'
        result = await self.outcome_of(chunked, close=True)
        self.assertEqual((Outcome.FAILED, FailureReason.INCOMPLETE), (result.outcome, result.reason))

    async def test_only_interim_answers_fail(self) -> None:
        result = await self.outcome_of(b"HTTP/1.1 100 Continue\r\n\r\n", close=True)
        self.assertEqual((Outcome.FAILED, FailureReason.INCOMPLETE), (result.outcome, result.reason))
        result = await self.outcome_of(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h\r\n\r\n", close=True)
        self.assertEqual(Outcome.FAILED, result.outcome)

    async def test_an_answer_that_is_no_http_fails(self) -> None:
        for piece in (
            b"SSH-2.0-OpenSSH_9.2\r\n\r\n\r\n",
            b"HTTP/1.1 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: other\r\n\r\nab",
        ):
            result = await self.outcome_of(piece, close=True)
            self.assertEqual(Outcome.FAILED, result.outcome, piece)
            self.assertIn(result.reason, (FailureReason.INVALID, FailureReason.INCOMPLETE), piece)


class HostileReceiverTests(DeliveryTestCase):
    async def failure_of(self, script: Any, body: bytes = b"{}", **limits: Any) -> DeliveryResult:
        """Return the result of a failed delivery. Its connection is closed afterwards."""
        server = self.serve(script)
        result = await self.deliver(server.url, body, self.sender(**limits))
        self.assertEqual(Outcome.FAILED, result.outcome)
        for _ in range(100):
            if not server.connections:
                break
            await self.wait(0.02)
        self.assertEqual(set(), server.connections)
        return result

    async def test_a_receiver_that_never_answers_is_given_up(self) -> None:
        result = await self.failure_of(lambda connection, _: None, total=0.3)
        self.assertEqual(FailureReason.TIMEOUT, result.reason)
        self.assertEqual("The connection, or the answer, took more than 0.3 seconds.", result.detail)
        self.assertGreaterEqual(result.seconds, 0.3)

    async def test_a_receiver_that_never_reads_is_given_up(self) -> None:
        def script(connection: ScriptedConnection, _: str) -> None:
            transport: Any = connection.transport
            transport.pauseProducing()

        server = self.serve(script)
        result = await self.deliver(server.url, b"x" * 50_000_000, self.sender(total=0.5))
        self.assertEqual(FailureReason.TIMEOUT, result.reason)

    async def test_a_body_that_never_ends_is_given_up(self) -> None:
        def script(connection: ScriptedConnection, _: str) -> None:
            connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")

        result = await self.failure_of(script, total=0.3)
        self.assertEqual(FailureReason.TIMEOUT, result.reason)
        self.assertEqual("The body of the answer took more than 0.3 seconds.", result.detail)
        self.assertEqual(200, result.status)

    async def test_endless_headers_and_interim_answers_are_cut_at_16_kib(self) -> None:
        for head, piece in (
            (b"HTTP/1.1 200 OK\r\n", b"A: b\r\n" * 1000),
            (b"HTTP/1.1 200 OK\r\nA: ", b"b" * 10_000),
            (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
            (b"HTTP/1.1 200 OK\r\nA: b\r\n", b" folded\r\n" * 1000),
        ):

            def script(connection: ScriptedConnection, _: str, head: bytes = head, piece: bytes = piece) -> None:
                connection.write(head)
                connection.flood(repeat(piece))

            result = await self.failure_of(script)
            self.assertEqual(FailureReason.TOO_LARGE, result.reason, piece[:20])

    async def test_an_endless_body_is_cut(self) -> None:
        def script(connection: ScriptedConnection, _: str) -> None:
            connection.write(b"HTTP/1.1 200 OK\r\n\r\n")
            connection.flood(repeat(b"x" * 65_536))

        result = await self.failure_of(script)
        self.assertEqual(FailureReason.TOO_LARGE, result.reason)

    async def test_a_cookie_and_a_compressed_body_have_no_effect(self) -> None:
        # A gzip header: nothing decompresses it.
        server = self.serve(
            lambda connection, _: connection.write(
                answer(OK, b"\x1f\x8b" + b"0" * 100, set_cookie="a=b", content_encoding="gzip")
            )
        )
        sender = self.sender()
        for _ in range(2):
            result = await self.deliver(server.url, sender=sender)
            self.assertEqual(Outcome.ACCEPTED, result.outcome)
        self.assertEqual(2, len(server.heads))
        for head in server.heads:
            self.assertNotIn("cookie", head.lower())
            self.assertNotIn("accept-encoding", head.lower())

    async def test_proxies_of_the_environment_are_not_used(self) -> None:
        hook, proxy = Hook(), self.serve(lambda connection, _: connection.close())
        origin = self.serve_hook(hook)
        where = proxy.url.removesuffix("/v1/stream/it")
        with patch.dict("os.environ", {"http_proxy": where, "HTTP_PROXY": where, "ALL_PROXY": where}):
            result = await self.deliver(origin)
        self.assertEqual((Outcome.ACCEPTED, 1, []), (result.outcome, len(hook.requests), proxy.heads))

    async def test_a_refused_connection_fails(self) -> None:
        result = await self.deliver(f"http://127.0.0.1:{free_port()}/")
        self.assertEqual((Outcome.FAILED, FailureReason.CONNECT), (result.outcome, result.reason))

    async def test_failed_attempts_are_counted_by_their_reason(self) -> None:
        sender = self.sender()
        server = self.serve(lambda connection, _: connection.write(answer("500 Error", b"")))
        for url in (server.url, server.url, f"http://127.0.0.1:{free_port()}/"):
            self.assertEqual(Outcome.FAILED, await sender.send("s1", url, b"{}", TRACE))
        origin = self.serve_hook(Hook(b'{"done":true}'))
        self.assertEqual(Outcome.DONE, await sender.send("s1", f"{origin}/hook", b"{}", TRACE))
        self.assertEqual({"status": 2, "connect": 1}, sender.failures)

    async def test_a_cancelled_attempt_has_no_result_and_closes_its_connection(self) -> None:
        server = self.serve(lambda connection, _: connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"))
        with capturedLogs() as events:
            for seconds in (0.0, 0.1):
                attempt = self.sender().deliver(WebhookRequest("s1", server.url, b"{}"))
                await self.wait(seconds)
                attempt.cancel()
                with self.assertRaises(CancelledError):
                    await attempt
                await self.wait(0.05)
        self.assertEqual(set(), server.connections)
        self.assertEqual([], [formatEvent(event) for event in events if "ebhook" in formatEvent(event)])

    async def test_a_connection_to_a_receiver_logs_nothing(self) -> None:
        origin = self.serve_hook(Hook(b'{"done":true}'))
        with capturedLogs() as events:
            result = await self.deliver(f"{origin}/hook")
        self.assertEqual(Outcome.DONE, result.outcome)
        lines = [formatEvent(event) for event in events]
        self.assertEqual([], [line for line in lines if "ClientFactory" in line or "WrappingFactory" in line])

    async def test_log_lines_and_details_have_no_query_and_no_token(self) -> None:
        server = self.serve(lambda connection, _: connection.write(answer("302 Found", location="/?secret")))
        url = server.url.replace("127.0.0.1", "localhost")
        with capturedLogs() as events:
            result = await self.deliver(f"{url}?key=secret", b'{"callback_token":"secret"}')
        lines = [formatEvent(event) for event in events]
        expected = (
            f"Webhook delivery for subscription s1 to {url} failed: The receiver answered 302; redirects are not "
            "followed."
        )
        self.assertIn(expected, lines)
        self.assertEqual([], [line for line in [*lines, result.detail] if "secret" in line])
