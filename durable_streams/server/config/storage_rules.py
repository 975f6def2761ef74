"""The rules for the storage: its data directory, and the database of ``storage.mode`` ``postgres``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from .choices import STORAGE_MODES, has_directory
from .rules import BrokenRule, SettingsWithSources, check_path
from .sections import Sections, value_of

_DSN: Final = "storage.postgres.dsn"
_DSN_FILE: Final = "storage.postgres.dsn_file"

#: A name that needs no quotes in SQL. PostgreSQL cuts names at 63 bytes, and reserves those that begin with ``pg_``.
_SCHEMA: Final = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")

#: The settings that only storages in a directory use.
_OF_DIRECTORIES: Final = ("storage.data_dir", "storage.acid_backend")


def check_storage(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield violations of the storage's rules."""
    storage = config.settings.storage
    if has_directory(storage.mode) and not storage.data_dir.strip():
        yield BrokenRule(
            "EmptyStorageDataDir",
            "storage.data_dir",
            f"the path of a directory while {config.describe('storage.mode')}",
        )
    shards = storage.acid_shard_count
    if not 1 <= shards <= 256 or shards & (shards - 1):
        yield BrokenRule("InvalidAcidShardCount", "storage.acid_shard_count", "a power of two from 1 to 256")


def check_postgres(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield violations of the rules for the database."""
    storage = config.settings.storage
    postgres = storage.postgres
    if STORAGE_MODES.get(storage.mode) != "postgres":
        # A server with a database and without the mode would keep streams in memory, which is the default.
        for name in (_DSN, _DSN_FILE):
            if value_of(config.settings, name):
                yield BrokenRule(
                    "DatabaseRequiresPostgresMode",
                    name,
                    f"left out, or storage.mode set to postgres, while {config.describe('storage.mode')}",
                )
    yield from check_path(config, _DSN_FILE, "the path of a file with a connection string")
    if postgres.dsn and postgres.dsn_file is not None:
        yield BrokenRule("DsnConflictsWithDsnFile", _DSN_FILE, f"left out while {config.describe(_DSN)}")
    if _SCHEMA.fullmatch(postgres.schema) is None:
        yield BrokenRule(
            "InvalidPostgresSchema",
            "storage.postgres.schema",
            "a name of lower-case letters, digits and _, of at most 63 characters, that begins neither with a digit "
            "nor with pg_",
        )
    if postgres.commit_deadline_ms <= postgres.lock_timeout_ms:
        yield BrokenRule(
            "CommitDeadlineTooSmall",
            "storage.postgres.commit_deadline_ms",
            f"more than the lock timeout while {config.describe('storage.postgres.lock_timeout_ms')}",
        )
    if postgres.cache_bytes < 0:
        yield BrokenRule("CacheBytesTooSmall", "storage.postgres.cache_bytes", "0 (no cache) or more")


def unused_by_postgres(settings: Sections, sources: Mapping[str, str]) -> Iterator[str]:
    """
    Yield the settings that a layer other than a profile has set although a storage in a database does not use them.

    :param sources: dotted name -> the layer that set it.
    """
    if STORAGE_MODES.get(settings.storage.mode) != "postgres":
        return
    for name in _OF_DIRECTORIES:
        if name in sources and not sources[name].startswith("profile "):
            yield name
