"""The limits of an import."""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from ..protocol.names import NameLimits


class ImportLimits(Struct, frozen=True):
    """
    What an import accepts.

    :ivar names: the limits of stream names.
    :ivar message_bytes: the largest message, in bytes. A longer one, or any other longer value, is refused while it
        arrives. An import takes about five times as much memory.
    :ivar depth: how deeply values may be nested under keys that are ignored.
    """

    names: NameLimits = NameLimits()
    message_bytes: int = 10_485_760
    depth: int = 128

    @property
    def text_bytes(self) -> int:
        """The longest value of a document, in bytes: a message in base64."""
        return (self.message_bytes + 2) // 3 * 4


#: The limits of the settings' defaults.
DEFAULT_LIMITS: Final = ImportLimits()
