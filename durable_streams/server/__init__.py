"""A Durable Streams server for Twisted.

The map, in the order in which an append passes through it:

- :mod:`.listening` accepts connections: string endpoints, listeners, the shared epoll port, TLS.
- :mod:`.web` is all that touches HTTP. :mod:`.web.http1` and :mod:`.web.http2` frame the daemon's connections,
  :mod:`.web.site` is the front for any twisted.web Site and has the pages that are no streams.
  :mod:`.web.requests` reads a request, :mod:`.web.operations` calls the service, :mod:`.web.answers` writes the answer.
- :mod:`.streams` is the service that all callers use.
- :mod:`.storage` keeps streams by the rules of :mod:`.protocol`.
- :mod:`.waiting` wakes waiting readers, in slices of time (:mod:`.run_queue`); :mod:`.web.live` reads on for them.

:mod:`.model` has the values that pass between these, :mod:`.interfaces` the contracts, :mod:`.errors` the exceptions,
:mod:`.clocks` the two clocks. :mod:`.daemon` is the composition root and the process under twistd, which
:mod:`.tap` starts; :mod:`.embedding` is the same for other programs, which find here what they need. :mod:`.config` has
the settings, :mod:`.telemetry` metrics, access log and traces.
"""

from . import errors
from .config.settings import Settings
from .config.validation import ConfigError
from .daemon.assembly import storage_from
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
from .model import (
    Appended,
    Created,
    Fork,
    Lifetime,
    Offset,
    StorageLimits,
    StreamFacts,
    StreamStatus,
    Writer,
)
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
