"""A TCP proxy that delivers everything late."""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import deque


class DelayingProxy(threading.Thread):
    """
    Passes connections on to a port, in both directions late.

    :ivar port: where it listens.

    :param target: the port at 127.0.0.1.
    :param delay: of each delivery, in seconds.
    """

    def __init__(self, target: int, delay: float) -> None:
        super().__init__(daemon=True)
        self._target = target
        self._delay = delay
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._peers: dict[socket.socket, socket.socket] = {}
        # When, to which socket, and what; no bytes for the end.
        self._late: deque[tuple[float, socket.socket, bytes]] = deque()
        self._is_over = threading.Event()
        self.start()

    def close(self) -> None:
        """End all connections."""
        self._is_over.set()
        self.join(5)

    def run(self) -> None:
        """Pass on until the end."""
        while not self._is_over.is_set():
            for key, _ in self._selector.select(0.002):
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket):
                    self._read(key.fileobj)
            while self._late and self._late[0][0] <= time.monotonic():
                _, peer, data = self._late.popleft()
                self._deliver(peer, data)
        for end in [*self._peers, self._listener]:
            end.close()

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        try:
            server = socket.create_connection(("127.0.0.1", self._target), 5)
        except OSError:
            client.close()
            return
        self._peers |= {client: server, server: client}
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._selector.register(end, selectors.EVENT_READ)

    def _read(self, end: socket.socket) -> None:
        try:
            data = end.recv(65_536)
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(end)
        self._late.append((time.monotonic() + self._delay, self._peers[end], data))

    def _deliver(self, peer: socket.socket, data: bytes) -> None:
        try:
            if data:
                peer.sendall(data)
            else:
                peer.shutdown(socket.SHUT_WR)
        except OSError:
            # The other side has gone; what it sent before is still on its way.
            return
