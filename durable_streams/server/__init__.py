"""A Durable Streams server for Twisted.

Modules, in the order in which an append passes through them:

- :mod:`.listening` accepts connections: string endpoints, listeners, the shared epoll port, TLS.
- :mod:`.web` is the only code that uses HTTP. :mod:`.web.http1` and :mod:`.web.http2` frame the daemon's connections;
  :mod:`.web.site` is the resource for a twisted.web Site, with the pages that are not streams.
  :mod:`.web.requests` parses a request, :mod:`.web.operations` calls the service, :mod:`.web.answers` renders the
  answer.
- :mod:`.streams` is the service that all callers use.
- :mod:`.storage` stores streams by the rules of :mod:`.protocol`.
- :mod:`.waiting` wakes waiting readers, in slices of time (:mod:`.run_queue`); :mod:`.web.live` reads for them.

:mod:`.model` has the values that these pass to each other, :mod:`.interfaces` the zope interfaces, :mod:`.errors` the
exceptions, :mod:`.clocks` the steady and the wall clock. :mod:`.daemon` composes the server for twistd, which
:mod:`.tap` starts; :mod:`.embedding` does so for other programs, which import their public names from this module.
:mod:`.config` has the settings, :mod:`.telemetry` metrics, access log and traces.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from . import errors
    from .config.settings import Settings
    from .config.validation import ConfigError
    from .daemon.storages import storage_from
    from .embedding import (
        DEFAULT_STREAM_BASE_PATH,
        PendingStream,
        Reading,
        StreamServer,
        StreamService,
        StreamWriter,
        Subscriptions,
        Tail,
        Work,
        build_access_control,
        build_admin_resource,
        build_resource,
        build_service,
    )
    from .errors import StorageError, StorageOwned, StreamError, StreamsError
    from .identity.control import AccessControl
    from .identity.credentials import IBearerToken
    from .identity.policy import Policy, parse_rules
    from .identity.principal import Grant, IPrincipal, Principal
    from .identity.realm import PrincipalRealm
    from .identity.revocation import IRevocations
    from .identity.rules import RuleError
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
    "AccessControl",
    "AcidStorage",
    "Appended",
    "ConfigError",
    "Created",
    "FileSettings",
    "FileStorage",
    "Fork",
    "Grant",
    "IBearerToken",
    "ICommitListener",
    "IPrincipal",
    "IRevocations",
    "IStorage",
    "Lifetime",
    "MemoryStorage",
    "Offset",
    "PendingStream",
    "Policy",
    "Principal",
    "PrincipalRealm",
    "Reading",
    "RuleError",
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
    "Subscriptions",
    "Tail",
    "Work",
    "Writer",
    "build_access_control",
    "build_admin_resource",
    "build_resource",
    "build_service",
    "errors",
    "parse_rules",
    "storage_from",
]

#: Public name -> the module that defines it. It is imported when the name is first used, so that a command that needs
#: no server, such as ``durable-streams-server --help``, does not wait 0.3 s for all of it.
_PLACES: Final = {
    "AccessControl": ".identity.control",
    "AcidStorage": ".storage.acid",
    "Appended": ".model",
    "ConfigError": ".config.validation",
    "Created": ".model",
    "DEFAULT_STREAM_BASE_PATH": ".embedding",
    "FileSettings": ".storage.file",
    "FileStorage": ".storage.file",
    "Fork": ".model",
    "Grant": ".identity.principal",
    "IBearerToken": ".identity.credentials",
    "ICommitListener": ".interfaces",
    "IPrincipal": ".identity.principal",
    "IRevocations": ".identity.revocation",
    "IStorage": ".interfaces",
    "Lifetime": ".model",
    "MemoryStorage": ".storage.memory",
    "Offset": ".model",
    "PendingStream": ".embedding",
    "Policy": ".identity.policy",
    "Principal": ".identity.principal",
    "PrincipalRealm": ".identity.realm",
    "Reading": ".embedding",
    "RuleError": ".identity.rules",
    "Settings": ".config.settings",
    "StorageError": ".errors",
    "StorageLimits": ".model",
    "StorageOwned": ".errors",
    "StreamError": ".errors",
    "StreamFacts": ".model",
    "StreamServer": ".embedding",
    "StreamService": ".embedding",
    "StreamStatus": ".model",
    "StreamWriter": ".embedding",
    "StreamsError": ".errors",
    "Subscriptions": ".embedding",
    "Tail": ".embedding",
    "Work": ".embedding",
    "Writer": ".model",
    "build_access_control": ".embedding",
    "build_admin_resource": ".embedding",
    "build_resource": ".embedding",
    "build_service": ".embedding",
    "errors": ".errors",
    "parse_rules": ".identity.policy",
    "storage_from": ".daemon.storages",
}


def __getattr__(name: str) -> Any:
    """
    Import a public name.

    :raises AttributeError: the package has no such name.
    """
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(_PLACES[name], __name__)
    value = globals()[name] = module if name == "errors" else getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
