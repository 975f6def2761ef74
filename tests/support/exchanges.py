"""A pipelining HTTP/1.1 client for servers that are killed."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from types import TracebackType

from msgspec import Struct

from .daemon import PATIENCE


class Gone(Exception):
    """The server does not accept the connection, or has closed it."""


class Reply(Struct, frozen=True):
    """A complete answer. Names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def position(self) -> int:
        """The position of Stream-Next-Offset."""
        return int(self.headers["stream-next-offset"].partition("_")[2])

    @property
    def closed(self) -> bool:
        """Whether it has Stream-Closed."""
        return self.headers.get("stream-closed") == "true"


class Exchanges:
    """A connection with pipelined requests."""

    def __init__(self, port: int, patience: float = PATIENCE) -> None:
        try:
            self._socket = socket.create_connection(("127.0.0.1", port), patience)
        except OSError as error:
            raise Gone from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = bytearray()

    def __enter__(self) -> Exchanges:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def send(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> None:
        """
        Send a request.

        :raises Gone: it can't be sent.
        """
        lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = f"{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
        try:
            self._socket.sendall(head.encode() + body)
        except TimeoutError:
            raise AssertionError(f"The server does not take {method} {path}.") from None
        except OSError as error:
            raise Gone from error

    def receive(self, method: str = "GET") -> Reply:
        """
        Read the next answer.

        :raises Gone: it did not come whole.
        """
        while (end := self._received.find(b"\r\n\r\n")) < 0:
            self._receive_more()
        first, *lines = self._received[:end].decode("latin-1").split("\r\n")
        del self._received[: end + 4]
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1", first
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        size = 0
        if status not in ("204", "304") and method != "HEAD":
            size = int(headers["content-length"])
        while len(self._received) < size:
            self._receive_more()
        body = bytes(self._received[:size])
        del self._received[:size]
        return Reply(int(status), headers, body)

    def receive_all(self) -> bytes:
        """
        Yield the data of the answer as it arrives, until the connection ends.

        :raises Gone: it does not do so properly.
        """
        received: list[bytes] = []
        while True:
            try:
                self._receive_more()
            except Gone as gone:
                if gone.__cause__ is not None:
                    raise
                return b"".join(received)
            received.append(bytes(self._received))
            self._received.clear()

    def _receive_more(self) -> None:
        try:
            data = self._socket.recv(1 << 18)
        except TimeoutError:
            raise AssertionError("The server has not answered in time.") from None
        except OSError as error:
            raise Gone from error
        if not data:
            raise Gone
        self._received += data

    def ask(self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Reply:
        """
        Send a request and read the answer.

        :raises Gone: it did not come whole.
        """
        self.send(method, path, body, headers)
        return self.receive(method)
