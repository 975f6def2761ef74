"""The settings of a storage in a database, with its connection string read from its file."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any, Final

from ..config.settings import Settings
from ..config.validation import ConfigError, unusable
from ..interfaces import IStorage
from ..model import StorageLimits
from ..regular_files import NotAFileError
from ..secret_files import SharedFileError, read_secret_file
from ..storage.postgres.settings import PostgresSettings

_DSN_FILE: Final = "storage.postgres.dsn_file"

#: The largest size of the file with the connection string, in bytes.
_MAX_SIZE: Final = 65_536


def postgres_settings_from(settings: Settings) -> PostgresSettings:
    """
    Return the settings of the PostgreSQL storage.

    :raises ConfigError: psycopg is not installed, or the file with the connection string cannot be used.
    """
    check_driver(settings)
    chosen = settings.storage.postgres
    return PostgresSettings(
        dsn=(chosen.dsn or "") if chosen.dsn_file is None else _dsn_in(os.path.abspath(chosen.dsn_file)),
        schema=chosen.schema,
        connections=chosen.connections,
        lock_timeout_ms=chosen.lock_timeout_ms,
        commit_deadline_ms=chosen.commit_deadline_ms,
        wait_ms=chosen.wait_ms,
        cache_bytes=chosen.cache_bytes,
        migrate=chosen.migrate,
        queued_bytes=settings.limits.max_queued_bytes,
        verify_reads=settings.storage.verify_reads,
    )


def postgres_storage_from(settings: Settings, limits: StorageLimits, reactor: Any) -> IStorage:
    """
    Create the PostgreSQL storage. It is not opened.

    :raises ConfigError: psycopg is not installed, or the file with the connection string cannot be used.
    """
    chosen = postgres_settings_from(settings)
    # Other storages work without psycopg.
    from ..storage.postgres.storage import PostgresStorage  # noqa: PLC0415

    return PostgresStorage(chosen, limits, reactor)


def check_driver(settings: Settings) -> None:
    """
    Check that psycopg can be imported. Without its extra ``binary`` it needs libpq of the system.

    :raises ConfigError: it cannot.
    """
    try:
        import_module("psycopg")
    except ImportError as error:
        reason = "and it is not installed"
        if error.name != "psycopg":
            reason = f"and that cannot be imported ({' '.join(str(error).split())})"
        raise unusable(
            "MissingPostgresExtra",
            f"storage.mode is {settings.storage.mode}, which needs psycopg, {reason}. Run: pip install "
            "'durable-streams-server[postgres]'",
        ) from None


def _dsn_in(path: str) -> str:
    """
    Read a connection string from a file.

    :raises ConfigError: the file cannot be read, other users can read it, or it has not one line of text.
    """
    try:
        data = read_secret_file(path, _MAX_SIZE)
    except OSError as error:
        raise _invalid_file(
            f"cannot read {path}: {error.strerror}. Create it with mode 0600, owned by the server's user."
        ) from None
    except NotAFileError:
        raise _invalid_file(f"{path} is not a file. Name a file that has the connection string.") from None
    except SharedFileError as error:
        raise _invalid_file(f"other users may use {path}: its mode is {error.mode}. Run: chmod 600 {path}") from None
    try:
        text = data.decode().strip()
    except UnicodeDecodeError:
        text = ""
    if not text or len(data) > _MAX_SIZE or not text.isprintable():
        raise _invalid_file(f"{path} must have one line of text, such as postgresql://user:password@host/database")
    return text


def _invalid_file(reason: str) -> ConfigError:
    return unusable("InvalidDsnFile", f"{_DSN_FILE}: {reason}")
