"""TLS for listeners: read and check PEM files, build contexts from them, and reload them when they change on disk."""

from .certificates import CHECK_INTERVAL, Certificates, TLSFactory, protocols_of
from .contexts import TLS_VERSIONS, TLSContextError, VersionRange
from .files import NamedFile, TLSFileError, TLSFiles

__all__ = [
    "CHECK_INTERVAL",
    "TLS_VERSIONS",
    "Certificates",
    "NamedFile",
    "TLSContextError",
    "TLSFactory",
    "TLSFileError",
    "TLSFiles",
    "VersionRange",
    "protocols_of",
]
