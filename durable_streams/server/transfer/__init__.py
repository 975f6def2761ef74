"""Export, import, backup and restore of streams.

The document of an export is JSON that the Rust server reads and writes, too. :mod:`.archive` keeps what it cannot.
"""

from .archive.backup import ArchiveBackup, backup_streams
from .archive.entries import ArchiveHeader
from .archive.errors import (
    ArchiveInvalid,
    ArchiveTooLarge,
    ArchiveUnsupported,
    BackupFailed,
    PartialRestore,
    RestoreConflict,
    RestoreInProgress,
)
from .archive.packing import ArchiveTotals
from .archive.reader import ArchiveLimits, verify_archive
from .archive.restore import RestoreStats, restore_streams
from .document import FORMAT_VERSION
from .errors import (
    Conflict,
    ExportFailed,
    InvalidBase64,
    InvalidDocument,
    InvalidJsonMessage,
    MessageTooLarge,
    PartialImport,
    PartialTransfer,
    SpoolFailed,
    TransferError,
    UnsupportedVersion,
)
from .exporting import DocumentExport, export_streams
from .importing import import_streams
from .limits import ImportLimits
from .pieces import Destination, Source
from .policies import POLICIES, ConflictPolicy
from .progress import ExportStats, ImportStats, Progress, ProgressCallback

__all__ = [
    "FORMAT_VERSION",
    "POLICIES",
    "ArchiveBackup",
    "ArchiveHeader",
    "ArchiveInvalid",
    "ArchiveLimits",
    "ArchiveTooLarge",
    "ArchiveTotals",
    "ArchiveUnsupported",
    "BackupFailed",
    "Conflict",
    "ConflictPolicy",
    "Destination",
    "DocumentExport",
    "ExportFailed",
    "ExportStats",
    "ImportLimits",
    "ImportStats",
    "InvalidBase64",
    "InvalidDocument",
    "InvalidJsonMessage",
    "MessageTooLarge",
    "PartialImport",
    "PartialRestore",
    "PartialTransfer",
    "Progress",
    "ProgressCallback",
    "RestoreConflict",
    "RestoreInProgress",
    "RestoreStats",
    "Source",
    "SpoolFailed",
    "TransferError",
    "UnsupportedVersion",
    "backup_streams",
    "export_streams",
    "import_streams",
    "restore_streams",
    "verify_archive",
]
