"""A TCP proxy that cuts connections after random amounts of data."""

from __future__ import annotations

import random
import select
import socket
import threading
from types import TracebackType


class CuttingProxy:
    """
    Passes connections on to a port, and cuts them.

    :ivar port: where it listens.
    :ivar target: the port to which new connections are passed on.
    :ivar cuts: how many connections it has cut.
    :ivar is_cutting: whether it cuts.
    :ivar sizes: see below.

    :param sizes: a connection is cut after a random number of bytes between these, in both directions together. Every
        third one is cut after 20 times as much, so that also a large event arrives at last.
    """

    def __init__(self, target: int, sizes: tuple[int, int], seed: int = 1) -> None:
        self.target = target
        self.cuts = 0
        self.is_cutting = True
        self.sizes = sizes
        self._random = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._is_over = False
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def __enter__(self) -> CuttingProxy:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over = True
        self._listener.close()
        for thread in self._threads:
            thread.join(5)

    def _accept(self) -> None:
        accepted = 0
        while not self._is_over:
            if not select.select([self._listener], [], [], 0.1)[0]:
                continue
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            accepted += 1
            size = self._random.randint(*self.sizes) * (1 if accepted % 3 else 20)
            thread = threading.Thread(target=self._relay, args=(client, size), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _relay(self, client: socket.socket, size: int) -> None:
        with client:
            try:
                server = socket.create_connection(("127.0.0.1", self.target), 5)
            except OSError:
                return
            with server:
                others = {client: server, server: client}
                while not self._is_over:
                    for ready in select.select([client, server], [], [], 0.1)[0]:
                        try:
                            data = ready.recv(65_536)
                            others[ready].sendall(data if not self.is_cutting else data[:size])
                        except OSError:
                            return
                        size -= len(data) if self.is_cutting else 0
                        if not data:
                            return
                        if self.is_cutting and size <= 0:
                            self.cuts += 1
                            return
