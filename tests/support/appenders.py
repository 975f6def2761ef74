"""Clients that append to a daemon in threads, and know what its streams must hold."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException

from .daemon import Daemon


class Appender:
    """A client that appends numbers as an idempotent producer, each until it is acknowledged."""

    def __init__(self, daemon: Daemon, number: int) -> None:
        self._daemon = daemon
        self.name = f"s{number}"
        self.acknowledged = 0
        self.outcomes: Counter[object] = Counter()
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.is_set():
            # It is sent until it is acknowledged, also after the end, so that what is stored is known.
            while not self._append(self.acknowledged):
                time.sleep(0.02)
            self.acknowledged += 1

    def _append(self, number: int) -> bool:
        try:
            status, _, _ = self._daemon.request(
                "POST",
                f"/v1/stream/{self.name}",
                b"%d;" % number,
                content_type="text/plain",
                producer_id="p",
                producer_epoch="0",
                producer_seq=str(number),
            )
        except (ConnectionError, HTTPException):
            self.outcomes[ConnectionError] += 1
            return False
        self.outcomes[status] += 1
        return status in (200, 204)

    def expected(self) -> bytes:
        """Return what the stream holds."""
        return b"".join(b"%d;" % number for number in range(self.acknowledged))


@contextmanager
def appending(appenders: Sequence[Appender]) -> Iterator[None]:
    """Let clients append at the same time, each in a thread; at the end, wait until all have stopped."""
    threads = [threading.Thread(target=appender.run) for appender in appenders]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for appender in appenders:
            appender.done.set()
        for thread in threads:
            thread.join()
