"""The exceptions of archives."""

from __future__ import annotations

from ..errors import PartialTransfer, TransferError, shown


class ArchiveInvalid(TransferError):
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


class BackupFailed(TransferError):
    """A stream cannot be read; the archive is incomplete. ``stream`` is its name, ``source`` the error."""

    def __init__(self, stream: str, source: BaseException) -> None:
        super().__init__(f"stream {shown(stream)} cannot be read: {source} The archive is incomplete.")
        self.stream = stream
        self.source = source


class RestoreConflict(TransferError):
    """A stream of the archive exists already, and the policy forbids to go on. Nothing was written."""

    def __init__(self, stream: str, reason: str, remedy: str) -> None:
        super().__init__(f"restore conflict: stream {shown(stream)} {reason}. Nothing was written. {remedy}")
        self.stream = stream


class RestoreInProgress(TransferError):
    """Another restore into the same streams has not ended. Nothing was written."""

    def __init__(self) -> None:
        super().__init__("another restore is in progress. Wait for its end, then start this one again.")


class PartialRestore(PartialTransfer):
    """A restore failed after its archive was found valid. Each stream is whole: as it was, or as in the archive."""

    action = "restore"
    done = "restored"
    document = "archive"
    result = "Every stream is whole. "
