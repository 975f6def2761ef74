"""The findings of a check."""

from __future__ import annotations

from msgspec import Struct


class Finding(Struct, frozen=True):
    """
    Damage, or a note for the operator of the storage.

    :ivar serious: something that was acknowledged may be lost.
    :ivar where: the file, and the position in it.
    :ivar advice: what can be done.
    """

    serious: bool
    where: str
    what: str
    advice: str


class Counts(Struct):
    """The amount of data that was checked."""

    streams: int = 0
    appends: int = 0
    bytes: int = 0
    frames: int = 0
