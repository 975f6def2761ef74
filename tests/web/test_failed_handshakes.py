"""TLS handshakes that fail: they are counted and logged, and plain HTTP is answered."""

from __future__ import annotations

from typing import Any

from OpenSSL import SSL
from twisted.logger import LogLevel, capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.web.handshakes import MAX_LINES
from tests.support.tls import TLSFront
from tests.support.wire import Network, Socket

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: streams.example\r\n\r\n"


class FailedHandshakeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.front = TLSFront()

    @property
    def count(self) -> int:
        return self.front.channels.handshake_failures.count

    def connect(self) -> tuple[Socket, Any]:
        return self.network.accept(self.front.factory)

    @property
    def network(self) -> Network:
        return self.front.network

    def send(self, data: bytes) -> Socket:
        skt, _ = self.connect()
        skt.inbound += data
        self.network.settle()
        return skt

    def lines(self, act: Any, *arguments: Any) -> list[str]:
        with capturedLogs() as events:
            act(*arguments)
        return [formatEvent(event) for event in events if event["log_level"] is LogLevel.info]

    def test_plain_http_is_answered_with_a_sentence_counted_and_logged(self) -> None:
        for number, request in enumerate((REQUEST, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), 1):
            skt, _ = self.connect()
            skt.inbound += request
            lines = self.lines(self.network.settle)
            answer = bytes(skt.outbound)
            self.assertTrue(answer.startswith(b"HTTP/1.1 400 Bad Request\r\n"), answer)
            self.assertTrue(answer.endswith(b"\r\n\r\nThis port speaks TLS: use https://\n"), answer)
            self.assertTrue(skt.ended)
            self.assertEqual(len(lines), 1, lines)
            self.assertRegex(lines[0], r"^TLS handshake with 192\S+:\d+ failed: the client speaks plain HTTP; ")
            self.assertEqual(self.count, number)

    def test_bytes_that_are_not_tls_are_counted_and_get_no_http_answer(self) -> None:
        lines = self.lines(self.send, b"\x00\x01nonsense" * 10)
        self.assertEqual((len(lines), self.count), (1, 1), lines)

    def test_a_client_without_a_common_version_is_named_with_the_reason(self) -> None:
        context = SSL.Context(SSL.TLS_CLIENT_METHOD)
        context.set_max_proto_version(SSL.TLS1_1_VERSION)
        context.set_cipher_list(b"ALL:@SECLEVEL=0")
        client = SSL.Connection(context, None)
        client.set_connect_state()
        self.assertRaises(SSL.WantReadError, client.do_handshake)
        lines = self.lines(self.send, client.bio_read(65_536))
        self.assertEqual((len(lines), self.count), (1, 1), lines)
        self.assertIn("the client speaks no TLS version", lines[0])

    def test_a_handshake_that_is_not_finished_in_time_is_counted(self) -> None:
        client = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), None)
        client.set_connect_state()
        self.assertRaises(SSL.WantReadError, client.do_handshake)
        self.send(client.bio_read(65_536))
        lines = self.lines(self.front.pass_time, 20)
        self.assertEqual((len(lines), self.count), (1, 1), lines)
        self.assertIn("was not finished in transport.connection.header_timeout_secs", lines[0])

    def test_a_connection_without_a_byte_is_not_a_failed_handshake(self) -> None:
        skt, _ = self.connect()
        skt.inbound_ended = True
        self.assertEqual(self.lines(self.network.settle), [])
        self.assertEqual(self.count, 0)

    def test_a_finished_handshake_is_not_counted(self) -> None:
        peer = self.front.connect()
        peer.send_request("GET", "/healthz")
        peer.leave()
        self.assertEqual((peer.statuses, self.count), ([200], 0))

    def test_lines_are_limited_a_second_and_the_next_one_says_how_many_were_left_out(self) -> None:
        def fail(times: int) -> None:
            for _ in range(times):
                self.send(REQUEST)

        self.assertEqual(len(self.lines(fail, MAX_LINES + 7)), MAX_LINES)
        self.front.pass_time(1)
        lines = self.lines(fail, 2)
        self.assertTrue(lines[0].endswith(" 7 more failures were not logged."), lines)
        self.assertFalse(lines[1].endswith("logged."), lines)
        self.assertEqual(self.count, MAX_LINES + 9)
