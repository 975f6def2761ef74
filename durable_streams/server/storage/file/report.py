"""Reports of damage: a start stops at the first damage, a check goes on and reports all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from ..disk import Disk, File
from ..findings import Counts, Finding
from ..ownership import StorageDamaged
from .recovery import whole_file

_RESTORE: Final = (
    "Restore the data directory from a backup; what the check does not complain of can be read until then."
)


class Report:
    """
    The findings of a check.

    :param found: is called with each finding.
    :param looked_at: is called with the numbers of bytes that were read.
    :ivar damaged: how much damage was found so far.
    :ivar thorough: whether to verify the checksums of single appends beside those of the frames that they are in.
    """

    thorough = True

    def __init__(self, disk: Disk, found: Callable[[Finding], None], looked_at: Callable[[int], None]) -> None:
        self.disk = disk
        self.looked_at = looked_at
        self.counts = Counts()
        self.damaged = 0
        self._found = found

    def damage(self, where: str, what: str, advice: str = "") -> None:
        """
        Report damage.

        :param advice: what to do; empty for a restore from a backup.
        """
        self.damaged += 1
        self._found(Finding(True, where, what, advice or _RESTORE))

    def note(self, where: str, what: str, advice: str) -> None:
        """Report a finding that is not damage."""
        self._found(Finding(False, where, what, advice))

    def open(self, path: str, what_is_lost: str) -> File | None:
        """Open a file, or report that it cannot be opened."""
        try:
            return self.disk.open(path)
        except PermissionError:
            raise
        except FileNotFoundError:
            self.damage(path, f"The file is missing. {what_is_lost}")
        except OSError as error:
            self.unreadable(path, error)
        return None

    def whole(self, path: str) -> bytes:
        """Read a file. If it cannot be read, report that and return nothing."""
        try:
            data = whole_file(self.disk, path)
        except OSError as error:
            self.unreadable(path, error)
            return b""
        self.looked_at(len(data))
        return data

    def unreadable(self, path: str, error: OSError) -> None:
        """
        Report a file that cannot be read.

        :raises PermissionError: it may not be read.
        """
        if isinstance(error, PermissionError):
            raise error
        why = error.strerror or str(error)
        self.damage(path, f"The file can't be read: {why}.", "See to the disk first. " + _RESTORE)


class StrictReport(Report):
    """A report that raises the first damage as an exception, and ignores notes."""

    thorough = False

    def __init__(self, disk: Disk) -> None:
        super().__init__(disk, lambda finding: None, lambda size: None)

    def damage(self, where: str, what: str, advice: str = "") -> None:
        """
        Report damage.

        :raises StorageDamaged: always.
        """
        raise StorageDamaged(f"{where}: {what} {advice or 'Restore the data directory from a backup.'}")

    def unreadable(self, path: str, error: OSError) -> None:
        """
        Report a file that cannot be read.

        :raises OSError: always.
        """
        raise error


def some(items: Sequence[object]) -> str:
    """Join the first items for a message, with the number of the others."""
    shown = ", ".join(str(item) for item in items[:8])
    return f"{shown} and {len(items) - 8} more" if len(items) > 8 else shown
