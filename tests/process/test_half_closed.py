"""Clients of a real daemon that shut down their sending half behind their last request."""

from __future__ import annotations

import re
import socket
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import PATIENCE, Daemon, free_port, read_to_end

LARGE = b"x" * 8_388_608


class DurableTests(SynchronousTestCase):
    """Answers wait for the disk, so the client's half-close arrives before them."""

    mode = "file-durable"

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        port = free_port()
        self.daemon = self.enterContext(
            Daemon(
                port,
                server__listen=f"tcp:{port}:interface=127.0.0.1, unix:{self.folder}/socket",
                storage__mode=self.mode,
                storage__data_dir=self.folder / "data",
                transport__connection__stall_timeout_secs=2,
                limits__max_stream_bytes=64 << 20,
            )
        )

    def dial(self) -> socket.socket:
        return self.daemon.dial()

    def exchange(self, *requests: bytes) -> bytes:
        """Send requests and the end, and read to the end."""
        with self.dial() as connection:
            connection.sendall(b"".join(requests))
            connection.shutdown(socket.SHUT_WR)
            return read_to_end(connection)

    def request(self, method: str, target: str, body: bytes = b"") -> bytes:
        head = f"{method} /v1/stream/{target} HTTP/1.1\r\nHost: test\r\nContent-Type: text/plain\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body

    def statuses(self, received: bytes) -> list[int]:
        return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", received)]

    def test_appends_before_a_half_close_are_answered(self) -> None:
        self.assertEqual(self.statuses(self.exchange(self.request("PUT", "a"))), [201])
        for number in range(50):
            self.assertEqual(self.statuses(self.exchange(self.request("POST", "a", b"%02d" % number))), [204])
        several = [self.request("POST", "a", b"%02d" % number) for number in range(50, 60)]
        self.assertEqual(self.statuses(self.exchange(*several)), [204] * 10)
        self.assertEqual(self.statuses(self.exchange(self.request("POST", "a", LARGE))), [204])
        found = self.exchange(self.request("GET", "a"))
        self.assertEqual(found.partition(b"\r\n\r\n")[2], b"".join(b"%02d" % number for number in range(60)) + LARGE)

    def test_writes_with_a_live_query_before_a_half_close_are_answered(self) -> None:
        self.assertEqual(self.statuses(self.exchange(self.request("PUT", "a?olive=1"))), [201])
        for query in ("live=x", "live=sse", "offset=now&live=long-poll"):
            for _ in range(5):
                self.assertEqual(self.statuses(self.exchange(self.request("POST", f"a?{query}", b"x"))), [204], query)
        self.assertEqual(self.statuses(self.exchange(self.request("GET", "a?offset=-1&xlive=1"))), [200])
        self.assertEqual(self.statuses(self.exchange(self.request("DELETE", "a?live=1"))), [204])

    def test_live_reads_end_at_once_after_a_half_close(self) -> None:
        self.exchange(self.request("PUT", "a", b"one"))
        poll = self.exchange(self.request("GET", "a?offset=now&live=long-poll"))
        tail = self.exchange(self.request("GET", "a?offset=-1&live=sse"))
        self.assertEqual((self.statuses(poll), self.statuses(tail)), ([204], [200]))
        self.assertTrue(tail.endswith(b"0\r\n\r\n"), tail)

    def test_a_reader_that_takes_nothing_is_ended_by_the_stall_timeout(self) -> None:
        self.exchange(self.request("PUT", "a", LARGE))
        with self.dial() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.sendall(self.request("GET", "a"))
            connection.shutdown(socket.SHUT_WR)
            # The connection that asks is one of them.
            self.assertEqual(self.connections(), 2)
            deadline = time.monotonic() + PATIENCE
            while self.connections() > 1:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.2)

    def connections(self) -> int:
        _, _, body = self.daemon.request("GET", "/metrics")
        found = re.search(rb"^durable_streams_connections ([0-9.]+)$", body, re.MULTILINE)
        assert found is not None, body
        return int(float(found[1]))


class AcidTests(DurableTests):
    mode = "acid"


class UnixTests(DurableTests):
    """By a UNIX socket."""

    def dial(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(PATIENCE)
        connection.connect(str(self.folder / "socket"))
        return connection
