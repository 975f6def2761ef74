"""One stream of the acid storage."""

from __future__ import annotations

from ...model import Lifetime, StreamConfig, StreamFacts
from ..logged.stream import LoggedStream


class AcidStream(LoggedStream):
    """
    One stream in the database.

    :ivar stored: up to where its bytes are in the database.
    :ivar counted: how many of its bytes in memory were counted.
    """

    __slots__ = ("counted", "stored")

    def __init__(self, facts: StreamFacts, config: StreamConfig, lifetime: Lifetime, base: int, now: float) -> None:
        super().__init__(facts, config, lifetime, base, now)
        self.stored = base
        self.counted = 0
