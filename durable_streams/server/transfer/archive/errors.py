"""The exceptions of archives."""

from __future__ import annotations

from ...errors import StreamsError


class ArchiveInvalid(StreamsError):
    """The archive is damaged, incomplete or of another format. Nothing was written."""


class ArchiveUnsupported(ArchiveInvalid):
    """The archive has a format version that this server cannot read; ``version`` is that version."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"The archive has format version {version}; this server reads version 1. Use a newer version of the server."
        )
        self.version = version


class ArchiveTooLarge(ArchiveInvalid):
    """The archive, or a part of it, exceeds a limit that the caller has set."""
