"""A server in a thread that answers every request with the same bytes, for commands in processes of their own."""

from __future__ import annotations

import socket
import threading
from types import TracebackType
from typing import Self


class CannedServer:
    """
    Answers each connection's request with the same answer, and closes it.

    :param head: the status line and the headers, without the empty line.
    :ivar requests: the heads of the requests.
    """

    def __init__(self, head: str, body: bytes = b"") -> None:
        self._answer = head.strip().replace("\n", "\r\n").encode() + b"\r\nConnection: close\r\n\r\n" + body
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.requests: list[bytes] = []
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/admin/streams"
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            connection.settimeout(10)
            head = b""
            try:
                while b"\r\n\r\n" not in head and (data := connection.recv(65536)):
                    head += data
                self.requests.append(head)
                connection.sendall(self._answer)
            except OSError:
                # The command went away.
                pass
            connection.close()
