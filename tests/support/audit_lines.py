"""A sink of the audit log that keeps its lines."""

from __future__ import annotations

import json
from typing import Any


class Lines:
    """A sink that keeps its lines."""

    lost = 0

    def __init__(self) -> None:
        self.obstacle: str | None = None
        self.written: list[bytes] = []
        self.calls: list[str] = []

    @property
    def lines(self) -> int:
        return len(self.written)

    def open(self) -> None:
        self.calls.append("open")

    def write(self, line: bytes) -> None:
        self.written.append(line)

    def reopen(self) -> None:
        self.calls.append("reopen")

    def close(self) -> None:
        self.calls.append("close")

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.written]
