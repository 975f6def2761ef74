"""A crowd: two thousand connections, half of them idle, and readers that read as fast as they can beside appends."""

from __future__ import annotations

import resource
import selectors
import socket
import time
from base64 import b64encode
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import Daemon, read_to_end, read_until
from tests.support.fronts import BASE, request
from tests.support.replies import ReplyReader, read_replies

#: How many connections there may be, and what they do; the rest are idle.
LIMIT = 2_000
READERS = 200
WRITERS = 16
WAITING = 784

#: How long the flood lasts, in seconds.
FLOOD = 6.0

#: How much memory all of it may take: some 20 KiB for each connection, and two pieces and a slice for each reader.
ROOM = (2_000 * 20 + READERS * 320) * 1024

LARGE = 1_500_000
BYTES = "application/octet-stream"


class _Caller:
    """Asks for one thing again and again, each time as soon as it is answered."""

    def __init__(self, daemon: Daemon, method: str, name: str, body: bytes = b"") -> None:
        self.method = method
        self.socket = daemon.dial()
        self._request = request(method, BASE + name, {"Content-Type": BYTES} if body else {}, body)
        self._reader: ReplyReader
        self.statuses: list[int] = []
        self.waits = False

    def ask(self) -> None:
        self._reader = ReplyReader()
        self._reader.expect(self.method)
        self.waits = True
        self.socket.sendall(self._request)

    def take(self) -> None:
        """Process the received bytes."""
        data = self.socket.recv(262_144)
        assert data, f"hung up on {self.method}"
        self._reader.feed(data)
        if self._reader.replies and self._reader.replies[0].complete:
            self.waits = False
            self.statuses.append(self._reader.replies[0].status)


def _flood(callers: list[_Caller], seconds: float) -> None:
    """Run all clients for some seconds, and wait for their last answers."""
    with selectors.DefaultSelector() as selector:
        for caller in callers:
            selector.register(caller.socket, selectors.EVENT_READ, caller)
            caller.ask()
        end = time.monotonic() + seconds
        while any(caller.waits for caller in callers):
            for key, _ in selector.select(1):
                caller = key.data
                caller.take()
                if not caller.waits and time.monotonic() < end:
                    caller.ask()
            assert time.monotonic() < end + 20, "not all were answered"


class OverloadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self._limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        hard = self._limits[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8_192) if hard > 0 else 8_192, hard))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, self._limits)

    def hold(self, connection: socket.socket) -> socket.socket:
        self.addCleanup(connection.close)
        return connection

    def test_the_daemon_stays_healthy_under_many_clients_and_floods(self) -> None:
        with Daemon(
            limits__max_connections=LIMIT,
            storage__mode="file-durable",
            storage__data_dir=Path(self.mktemp()).absolute(),
        ) as daemon:
            daemon.create("small", BYTES, b"x" * 1_024)
            daemon.create("large", BYTES, b"x" * LARGE)
            for number in range(WRITERS):
                daemon.create(f"w{number}", BYTES)
            writers = [_Caller(daemon, "POST", f"w{number}", b"y" * 100) for number in range(WRITERS)]
            readers = [_Caller(daemon, "GET", ("small", "large")[number % 2]) for number in range(READERS)]
            for caller in writers + readers:
                self.addCleanup(caller.socket.close)
            quiet = [
                self.hold(daemon.get(f"{BASE}small?offset=now&live={('sse', 'long-poll')[number % 2]}"))
                for number in range(WAITING)
            ]
            idle = [self.hold(daemon.get("/healthz")) for _ in range(LIMIT - WRITERS - READERS - WAITING)]
            for connection in idle:
                read_until(connection, b"\r\n\r\n")
            before = daemon.resident_bytes()

            _flood(writers + readers, FLOOD)
            grown = daemon.resident_bytes() - before
            self.assertLess(grown, ROOM)
            self.assertTrue(all(set(writer.statuses) == {204} for writer in writers))
            self.assertTrue(all(set(reader.statuses) == {200} for reader in readers))

            # As many connections as it takes: one more is told so, and one less is not.
            connection = self.hold(daemon.dial())
            connection.sendall(request("GET", BASE + "small"))
            (refusal,) = read_replies(read_to_end(connection))
            self.assertEqual((refusal.status, refusal.get("retry-after")), (503, "1"))
            for caller in readers:
                caller.socket.close()
            for connection in idle:
                connection.close()
            time.sleep(0.5)

            for number, writer in enumerate(writers):
                status, _, data = daemon.request("GET", f"{BASE}w{number}")
                self.assertEqual((status, data), (200, b"y" * 100 * len(writer.statuses)))
            daemon.append("small", b"news", BYTES)
            for tail in quiet[:8:2]:
                read_until(tail, b64encode(b"news"))
            self.assertEqual(daemon.stop(), 0)
            for word in ("Traceback", "Unhandled", "CRITICAL"):
                self.assertNotIn(word, daemon.log())
