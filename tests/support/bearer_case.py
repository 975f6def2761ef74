"""A test case whose requests to a daemon have bearer tokens."""

from __future__ import annotations

import socket
import time
from typing import Final

from .daemon import Daemon, read_until
from .process_case import ProcessTestCase

#: The path of the stream of these tests.
STREAM: Final = "/v1/stream/reports/today"


class BearerTestCase(ProcessTestCase):
    """Requests about one stream, or another one that is named, with a token."""

    def ask(self, daemon: Daemon, method: str, token: str | None, path: str = STREAM, body: bytes | None = None) -> int:
        """Send a request and return the status."""
        headers = {"content_type": "text/plain"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        return daemon.request(method, path, body, **headers)[0]

    def get(self, daemon: Daemon, token: str, path: str = STREAM) -> socket.socket:
        """Send a GET on a connection of its own, which ends with the test, and leave the answer to the test."""
        connection = daemon.get(path, token=token)
        self.addCleanup(connection.close)
        return connection

    def tail(self, daemon: Daemon, token: str) -> socket.socket:
        """Begin to follow the stream by SSE, from its tail."""
        connection = self.get(daemon, token, f"{STREAM}?offset=now&live=sse")
        read_until(connection, b"event: control")
        return connection

    def wait_for_end(self, connection: socket.socket, seconds: float) -> bytes:
        """Return what arrives until the answer ends, which must be within some seconds."""
        deadline = time.monotonic() + seconds
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            data = connection.recv(65_536)
            assert data, "the connection broke"
            received += data
        return received
