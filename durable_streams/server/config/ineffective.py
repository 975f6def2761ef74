"""Settings that are accepted for the configurations of other servers and have no effect in this one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from .sections import Sections, value_of

#: Dotted name of a setting without effect -> why it has none.
INEFFECTIVE: Final = {
    "limits.max_storage_jobs": "pending writes are limited by limits.max_queued_bytes",
    "storage.acid_shard_count": "all streams are in one database",
    "proxy.identity.require_tls": "proxy.identity.mode = 'header' requires transport.mode = 'mtls' in any case",
}


def changed_ineffective_settings(settings: Sections) -> Iterator[str]:
    """Yield the names of the settings without effect that are not at their defaults."""
    return (name for name in INEFFECTIVE if value_of(settings, name) != value_of(Sections(), name))


def ineffective_warnings(names: Iterable[str]) -> Iterator[str]:
    """Yield a warning for each of the names that is a setting without effect."""
    return (f"{name} has no effect: {INEFFECTIVE[name]}. Remove it." for name in names if name in INEFFECTIVE)
