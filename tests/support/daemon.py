"""The daemon as a separate process."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from .forks import ForkedInterpreter

CHECKOUT = Path(__file__).resolve().parents[2]

#: The timeout of the daemon's start and of each exchange with it, in seconds.
PATIENCE = 20.0

TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=", "durable-streams")


def free_port() -> int:
    """Return a free port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(port: int, **settings: object) -> dict[str, str]:
    """Return the environment of a daemon: ``limits__max_streams=3`` sets DS_LIMITS__MAX_STREAMS."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DS_") and name != "RUST_LOG"}
    chosen = {f"DS_{name.upper()}": str(value) for name, value in settings.items()}
    return inherited | {"PYTHONPATH": str(CHECKOUT), "DS_SERVER__BIND_ADDRESS": f"127.0.0.1:{port}"} | chosen


class Daemon:
    """
    A running daemon, with its port and its log.

    :cvar command: what starts it. That of this class is not a new interpreter, but a forked one.
    """

    command: tuple[str, ...] = TWISTD

    def __init__(self, port: int | None = None, **settings: object) -> None:
        self.port = free_port() if port is None else port
        self._folder = tempfile.TemporaryDirectory()
        self._log = Path(self._folder.name, "log")
        with self._log.open("wb") as log, open(os.devnull) as nothing:
            self.process = self._start(nothing.fileno(), log.fileno(), environment(self.port, **settings))

    def _start(self, stdin: int, log: int, variables: dict[str, str]) -> subprocess.Popen[bytes] | ForkedInterpreter:
        folder = self._folder.name
        if self.command == TWISTD:
            return ForkedInterpreter(self.command[1:], stdin, log, log, variables, folder)
        return subprocess.Popen(self.command, env=variables, cwd=folder, stdin=stdin, stdout=log, stderr=log)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if self.request("GET", "/readyz")[0] == 200:
                    return self
            except OSError:
                time.sleep(0.05)
        log = self.log()
        self.close()
        raise AssertionError(f"The daemon did not come up:\n{log}")

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill it if it runs, and remove its files."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._folder.cleanup()

    def log(self) -> str:
        """Return its log."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and return the exit status."""
        self.process.send_signal(number)
        return self.process.wait(40)

    def resident_bytes(self) -> int:
        """Return its resident memory in bytes."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no VmRSS")

    def connection(self) -> http.client.HTTPConnection:
        """Return a connection for several requests."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Ask on a connection of its own: ``content_type="text/plain"`` is a header. Names come in lower case."""
        connection = self.connection()
        try:
            connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
        finally:
            connection.close()

    def create(self, name: str, content_type: str = "text/plain", body: bytes | None = None) -> None:
        """Create a stream."""
        status, _, answer = self.request("PUT", f"/v1/stream/{name}", body, content_type=content_type)
        assert status == 201, answer

    def append(self, name: str, data: bytes, content_type: str = "text/plain") -> None:
        """Append to a stream."""
        status, _, answer = self.request("POST", f"/v1/stream/{name}", data, content_type=content_type)
        assert status == 204, answer

    def dial(self, receive_buffer: int | None = None) -> socket.socket:
        """Return a raw connection."""
        connection = socket.socket()
        connection.settimeout(PATIENCE)
        if receive_buffer is not None:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def get(self, path: str, receive_buffer: int | None = None, token: str | None = None) -> socket.socket:
        """Ask for something on a connection of its own, and leave the answer to the test."""
        connection = self.dial(receive_buffer)
        authorization = "" if token is None else f"Authorization: Bearer {token}\r\n"
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: test\r\n{authorization}\r\n".encode())
        return connection


def read_until(connection: socket.socket, mark: bytes, already: bytes = b"") -> bytes:
    """Read until some bytes have arrived; fail if the connection ends before."""
    received = bytearray(already)
    # Only what is new is searched: of a long answer, searching all of it again takes longer than receiving it.
    begin = 0
    while received.find(mark, begin) < 0:
        begin = max(0, len(received) - len(mark) + 1)
        data = connection.recv(65536)
        assert data, f"The connection ended before {mark!r}; it had {bytes(received[-500:])!r}"
        received += data
    return bytes(received)


def read_to_end(connection: socket.socket) -> bytes:
    """Read until the connection ends."""
    received = bytearray()
    while data := connection.recv(65536):
        received += data
    return bytes(received)
