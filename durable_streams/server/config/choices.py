"""The settings whose value is one of a few words, with the accepted spellings of each word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

#: ``storage.mode``: accepted spelling -> mode.
STORAGE_MODES: Final = {
    "memory": "memory",
    "file": "file-durable",
    "file-durable": "file-durable",
    "file-fast": "file-fast",
    "acid": "acid",
    "sqlite": "acid",
    "redb": "acid",
    "postgres": "postgres",
    "postgresql": "postgres",
}

#: The modes whose storage several processes can use at once.
SHARED_MODES: Final = frozenset({"postgres"})

#: ``storage.acid_backend``: accepted spelling -> backend.
ACID_BACKENDS: Final = {"file": "file", "in-memory": "in-memory", "memory": "in-memory", "inmemory": "in-memory"}

_TLS_VERSIONS: Final = {
    alias: version
    for version in ("1.2", "1.3")
    for alias in (version, f"tls{version}", f"tls-{version}", f"tls_{version}", f"tlsv{version}")
}


def _words(*words: str) -> dict[str, str]:
    return {word: word for word in words}


#: Dotted name of a setting -> (accepted spelling -> word). If the setting is a list, this holds for each item.
CHOICES: Final[dict[str, Mapping[str, str]]] = {
    "storage.mode": STORAGE_MODES,
    "storage.acid_backend": ACID_BACKENDS,
    "http.cache": _words("no-store", "private", "public"),
    "auth.methods": _words("token", "jwt", "certificate", "header", "signed-url"),
    "auth.certificate_name": _words("subject", "cn", "dns", "uri", "email"),
    "transport.mode": _words("http", "tls", "mtls"),
    "transport.http.versions": {
        **dict.fromkeys(("http1", "1.1", "http1.1", "http/1.1", "h1"), "http1"),
        **dict.fromkeys(("http2", "2", "h2"), "http2"),
    },
    "transport.tls.min_version": _TLS_VERSIONS,
    "transport.tls.max_version": _TLS_VERSIONS,
    "transport.tls.alpn_protocols": {
        **dict.fromkeys(("http/1.1", "http1", "h1"), "http/1.1"),
        **dict.fromkeys(("h2", "http2"), "h2"),
    },
    "proxy.forwarded_headers": {**_words("none", "x-forwarded", "forwarded"), "xforwarded": "x-forwarded"},
    "proxy.identity.mode": _words("none", "header"),
    "observability.log_level": _words("debug", "info", "warn", "error"),
    "observability.log_format": _words("text", "json"),
    "observability.access_log": _words("none", "failures", "all"),
    "audit.events": _words("none", "denied", "changes", "all"),
}


def is_shared(mode: str) -> bool:
    """Return whether several processes can use one storage of a ``storage.mode`` at once."""
    return STORAGE_MODES.get(mode, mode) in SHARED_MODES


def has_directory(mode: str) -> bool:
    """Return whether the storage of a ``storage.mode`` is in a data directory."""
    return STORAGE_MODES.get(mode, mode) not in ("memory", "postgres")


def words_of(name: str) -> str:
    """Return the words that a setting may have as text for a message: ``a, b or c``."""
    *first, last = dict.fromkeys(CHOICES[name].values())
    return f"{', '.join(first)} or {last}"
