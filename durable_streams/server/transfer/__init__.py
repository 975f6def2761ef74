"""Export, import, backup and restore of streams.

The document of an export is JSON that the Rust server reads and writes, too. :mod:`.archive` keeps what it cannot.
"""

from .document import FORMAT_VERSION
from .errors import (
    Conflict,
    ExportFailed,
    InvalidBase64,
    InvalidDocument,
    InvalidJsonMessage,
    MessageTooLarge,
    PartialImport,
    SpoolFailed,
    TransferError,
    UnsupportedVersion,
)
from .exporting import Destination, DocumentExport, export_streams
from .importing import POLICIES, ConflictPolicy, Source, import_streams
from .limits import ImportLimits
from .progress import ExportStats, ImportStats, Progress, ProgressCallback

__all__ = [
    "FORMAT_VERSION",
    "POLICIES",
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
    "Progress",
    "ProgressCallback",
    "Source",
    "SpoolFailed",
    "TransferError",
    "UnsupportedVersion",
    "export_streams",
    "import_streams",
]
