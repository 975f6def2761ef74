"""A TCP proxy that holds back what clients have sent, and delivers it after they have gone."""

from __future__ import annotations

import select
import socket
import threading
from types import TracebackType


class _Relay(threading.Thread):
    """One connection of a client, and the one to the target."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        super().__init__(daemon=True)
        self.client = client
        self.server = server
        self.is_holding = threading.Event()
        self.held = bytearray()
        self.has_gone = threading.Event()
        self.is_over = threading.Event()

    def run(self) -> None:
        with self.client, self.server:
            try:
                while not self.is_over.is_set() and self._pass_on():
                    pass
            except OSError:
                pass
            self.is_over.set()

    def _pass_on(self) -> bool:
        """Pass on what has come; return False when the target has closed the connection."""
        has_gone = self.has_gone.is_set()
        if self.held and not self.is_holding.is_set():
            self.server.sendall(self.held)
            self.held.clear()
        if has_gone and not self.is_holding.is_set():
            self.server.shutdown(socket.SHUT_WR)
            while self.server.recv(65_536):
                pass
            return False
        for ready in select.select([self.server] if has_gone else [self.client, self.server], [], [], 0.02)[0]:
            data = ready.recv(65_536)
            if ready is self.client:
                if not data:
                    self.has_gone.set()
                self.held += data
            elif not data:
                return False
            elif not has_gone:
                self.client.sendall(data)
        return True


class HoldingProxy:
    """
    Passes connections on to a port.

    :ivar port: where it listens.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._relays: list[_Relay] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> HoldingProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join(5)
        self._listener.close()
        for relay in self._relays:
            relay.is_over.set()
            relay.join(5)

    def _accept(self) -> None:
        while not self._is_over.is_set():
            if select.select([self._listener], [], [], 0.05)[0]:
                client, _ = self._listener.accept()
                relay = _Relay(client, socket.create_connection(("127.0.0.1", self._target), 5))
                self._relays.append(relay)
                relay.start()

    def hold(self) -> None:
        """Hold back from now on what the clients of all present connections send."""
        for relay in self._relays:
            relay.is_holding.set()

    @property
    def held(self) -> int:
        """The number of bytes that are held back."""
        return sum(len(relay.held) for relay in self._relays)

    def release(self) -> None:
        """Deliver what was held back, and wait until the target has used what came from clients that have gone."""
        for relay in self._relays:
            relay.is_holding.clear()
        for relay in self._relays:
            if relay.has_gone.is_set():
                assert relay.is_over.wait(20)
