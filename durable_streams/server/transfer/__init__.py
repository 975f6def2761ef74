"""Export, import, backup and restore of streams.

The document of an export is JSON that the Rust server reads and writes, too. :mod:`.archive` keeps what it cannot.
"""

from .document import FORMAT_VERSION
from .errors import ExportFailed, SpoolFailed, TransferError
from .exporting import DocumentExport, export_streams
from .progress import ExportStats, Progress, ProgressCallback

__all__ = [
    "FORMAT_VERSION",
    "DocumentExport",
    "ExportFailed",
    "ExportStats",
    "Progress",
    "ProgressCallback",
    "SpoolFailed",
    "TransferError",
    "export_streams",
]
