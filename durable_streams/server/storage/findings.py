"""The findings of a check."""

from __future__ import annotations

from msgspec import Struct


class Finding(Struct, frozen=True):
    """
    Something that is not as it should be, or that whoever keeps the storage should know.

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
