"""Tests that need real sockets: buffering in the kernel, and resets."""

from __future__ import annotations

import random
import socket
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import Daemon, read_to_end
from tests.support.fronts import BASE, chunked, request
from tests.support.replies import ReplyReader, read_replies

TEXT = {"Content-Type": "text/plain"}


class ConnectionTests(SynchronousTestCase):
    def dial(self, daemon: Daemon, receive_buffer: int | None = None) -> socket.socket:
        connection = daemon.dial(receive_buffer)
        self.addCleanup(connection.close)
        return connection

    def test_the_last_answer_reaches_a_slow_reader(self) -> None:
        size = 1_500_000
        with Daemon(transport__connection__stall_timeout_secs=10) as daemon:
            daemon.create("large", "application/octet-stream", b"x" * size)
            connection = self.dial(daemon, 16_384)
            connection.sendall(request("GET", BASE + "large", {"Connection": "close"}))
            # Longer than the server waits for a client that is still sending
            time.sleep(4)
            (reply,) = read_replies(read_to_end(connection))
            self.assertTrue(reply.complete)
            self.assertEqual(len(reply.body), size)

    def test_a_refusal_reaches_a_client_that_is_still_sending(self) -> None:
        with Daemon(limits__max_request_body_bytes=1_000) as daemon:
            daemon.create("a")
            for head, body in (
                (request("POST", BASE + "a", {**TEXT, "Content-Length": "5000000"}), b"x" * 5_000_000),
                (request("POST", BASE + "a", {**TEXT, "Transfer-Encoding": "chunked"}), chunked([b"x" * 50_000] * 100)),
                (b"", b"\x16\x03\x01 this is not HTTP" * 100_000),
            ):
                connection = self.dial(daemon)
                connection.sendall(head)
                connection.sendall(body)
                (reply,) = read_replies(read_to_end(connection))
                self.assertIn(reply.status, (400, 413))
                self.assertEqual(reply.get("connection"), "close")

    def test_a_connection_over_the_limit_is_answered_with_503(self) -> None:
        with Daemon(limits__max_connections=2) as daemon:
            daemon.request("GET", "/healthz")
            # Its connection has to be gone before others are counted.
            time.sleep(0.2)
            held = [self.dial(daemon) for _ in range(2)]
            for connection in held:
                connection.sendall(b"GET ")
            time.sleep(0.2)
            for _ in range(5):
                connection = self.dial(daemon)
                connection.sendall(request("POST", BASE + "a", TEXT, b"x" * 10_000))
                (reply,) = read_replies(read_to_end(connection), "POST")
                self.assertEqual((reply.status, reply.get("retry-after")), (503, "1"))
            held[0].close()
            time.sleep(0.2)
            self.assertEqual(daemon.request("GET", "/healthz")[0], 200)

    def test_pipelined_answers_of_all_sizes_stay_in_order(self) -> None:
        sizes = [0, 1, 1_000, 65_536, 131_072, 131_073, 200_000, 1_000_000]
        dice = random.Random(7)
        with Daemon() as daemon:
            for number, size in enumerate(sizes):
                daemon.create(f"s{number}", "application/octet-stream", bytes([65 + number]) * size)
            for receive_buffer in (4_096, 65_536):
                connection = self.dial(daemon, receive_buffer)
                reader = ReplyReader()
                asked: list[int] = []
                while len(asked) < 60 or len(reader.replies) < 60 or not reader.replies[-1].complete:
                    if len(asked) < 60:
                        number = dice.randrange(len(sizes))
                        asked.append(number)
                        connection.sendall(request("GET", BASE + f"s{number}"))
                    if dice.random() < 0.7 or len(asked) == 60:
                        reader.feed(connection.recv(dice.choice([100, 10_000, 300_000])))
                for number, reply in zip(asked, reader.replies, strict=True):
                    self.assertEqual(bytes(reply.body), bytes([65 + number]) * sizes[number])

    def test_random_bytes_do_not_affect_the_daemon(self) -> None:
        dice = random.Random(11)
        with Daemon() as daemon:
            daemon.create("a", body=b"hello")
            sound = request("POST", BASE + "a", {**TEXT, "Transfer-Encoding": "chunked"}, chunked([b"one", b"two"]))
            for turn in range(300):
                noise = bytearray(sound * 3 if turn % 2 else dice.randbytes(200))
                for _ in range(3):
                    noise[dice.randrange(len(noise))] = dice.randrange(256)
                connection = self.dial(daemon)
                connection.sendall(noise)
                if turn % 3:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                connection.close()
            self.assertEqual(daemon.request("GET", "/healthz")[0], 200)
            self.assertTrue(daemon.request("GET", BASE + "a")[2].startswith(b"hello"))
            self.assertEqual(daemon.stop(), 0)
            for word in ("Traceback", "Unhandled", "CRITICAL"):
                self.assertNotIn(word, daemon.log())
