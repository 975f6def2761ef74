"""The exceptions of archives."""

from __future__ import annotations

from ..errors import TransferError, except_for, shown


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


class PartialRestore(TransferError):
    """
    A restore failed after its archive was found valid. Each stream is whole: as it was, or as it is in the archive.

    :ivar stream: the name of the stream that could not be restored.
    :ivar completed: the number of streams that were restored.
    :ivar source: the error.
    :ivar later: the names of streams after it that are done nevertheless: many are restored at the same time.
    """

    def __init__(
        self, stream: str, completed: int, source: BaseException, policy: str, later: tuple[str, ...] = ()
    ) -> None:
        reason = (str(source) or type(source).__name__).rstrip(".")
        again = "again" if policy != "fail" else "again with the policy skip"
        super().__init__(
            f"restore stopped at stream {shown(stream)}, after {completed} stream(s) were restored: {reason}. This "
            f"stream and those after it are unchanged{except_for(later)}. Every stream is whole. Remove the cause, and "
            f"restore the same archive {again}."
        )
        self.stream = stream
        self.completed = completed
        self.later = later
        self.source = source
