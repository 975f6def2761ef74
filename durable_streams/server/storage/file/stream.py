"""One stream of the file storage."""

from __future__ import annotations

from ...model import Lifetime, StreamConfig, StreamFacts
from ..logged.stream import LoggedStream
from .places import Piece


class FileStream(LoggedStream):
    """
    One stream in files.

    :ivar filed: how many of its own bytes are in its own file, from ``base`` on.
    :ivar pieces: the appends after those, in packs; what comes then is in memory, and in the journal.
    :ivar begun: there may be such a file, though nothing in it counts yet.
    :ivar gone: it was removed and cannot be read any more.
    """

    __slots__ = ("begun", "filed", "filed_appends", "gone", "pieces")

    def __init__(self, facts: StreamFacts, config: StreamConfig, lifetime: Lifetime, base: int, now: float) -> None:
        super().__init__(facts, config, lifetime, base, now)
        self.filed = self.filed_appends = 0
        self.pieces: tuple[Piece, ...] = ()
        self.begun = False
        self.gone = False

    @property
    def settled(self) -> int:
        """The position up to which its bytes are in packs or its own file."""
        return self.pieces[-1].end if self.pieces else self.base + self.filed

    def forget(self) -> None:
        super().forget()
        self.gone = True
