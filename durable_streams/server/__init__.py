"""A Durable Streams server for Twisted.

The map, in the order in which an append goes through it:

- :mod:`.web.channel` (or :mod:`.web.resource`, inside another Site) frames HTTP,
- :mod:`.web.requests` reads it, :mod:`.web.operations` calls the service, :mod:`.web.answers` writes the answer,
- :mod:`.streams` is that service,
- :mod:`.storage` keeps streams by the rules of :mod:`.protocol`,
- :mod:`.waiting` wakes who waits, a slice of time after another (:mod:`.run_queue`), and :mod:`.web.live` reads on for
  them.

:mod:`.model` has the values that pass between these, :mod:`.interfaces` the contracts, :mod:`.errors` what can go
wrong. :mod:`.assembly` makes the parts out of the settings, and :mod:`.fronts` what is served out of the parts. On it
:mod:`.service` puts the ports of :mod:`.listeners` (:mod:`.transport` has their TLS) for the daemon, and
:mod:`.embedding` those of other programs, which find here what they need. :mod:`.tap` and :mod:`.process` make the
daemon a process of twistd's, :mod:`.logs` and :mod:`.telemetry` say what it does.
"""

from . import errors
from .assembly import storage_from
from .config.settings import Settings
from .config.validation import ConfigError
from .embedding import (
    DEFAULT_STREAM_BASE_PATH,
    Reading,
    StreamServer,
    StreamService,
    StreamWriter,
    Tail,
    build_resource,
    build_service,
)
from .errors import StorageError, StorageOwned, StreamError, StreamsError
from .interfaces import ICommitListener, IStorage
from .model import Appended, Created, Fork, Lifetime, Offset, StorageLimits, StreamFacts, StreamStatus, Writer
from .storage.acid import AcidStorage
from .storage.file import FileSettings, FileStorage
from .storage.memory import MemoryStorage

__all__ = [
    "DEFAULT_STREAM_BASE_PATH",
    "AcidStorage",
    "Appended",
    "ConfigError",
    "Created",
    "FileSettings",
    "FileStorage",
    "Fork",
    "ICommitListener",
    "IStorage",
    "Lifetime",
    "MemoryStorage",
    "Offset",
    "Reading",
    "Settings",
    "StorageError",
    "StorageLimits",
    "StorageOwned",
    "StreamError",
    "StreamFacts",
    "StreamServer",
    "StreamService",
    "StreamStatus",
    "StreamWriter",
    "StreamsError",
    "Tail",
    "Writer",
    "build_resource",
    "build_service",
    "errors",
    "storage_from",
]
