"""Preparing the database at a start: connect, check the server, create or upgrade the tables, and check rights."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import psycopg
from msgspec import Struct
from psycopg import Connection
from twisted.logger import Logger

from ...errors import StorageError
from .dsn import parse_dsn, without_password
from .failures import ConnectionFailure, describe_failure
from .migrating import check_rights, check_version, found_version, upgrade
from .schema import SCHEMA_VERSION
from .settings import PostgresSettings

#: The versions of PostgreSQL that are supported: the first and the last that is tested.
_FIRST_VERSION: Final = 14
_LAST_VERSION: Final = 18

#: How long a start waits for a database that answers that it is starting, in seconds.
_STARTING_WAIT: Final = 600.0

#: The time between two attempts to connect, in seconds.
_PAUSE: Final = 0.5

#: The time between two log lines about that, in seconds.
_LOG_INTERVAL: Final = 10.0

_log = Logger()


class Preparation(Struct, frozen=True):
    """
    A database that is ready.

    :ivar place: where it is, for the log.
    :ivar installed: the versions of the tables that were installed now.
    :ivar promise: what an acknowledged append survives, in a sentence.
    :ivar risky: whether a crash of the database can lose acknowledged appends.
    """

    place: str
    installed: list[int]
    promise: str
    risky: bool


class Patience(Struct, frozen=True):
    """
    The waiting between attempts to connect.

    :ivar seconds: a monotonic time.
    :ivar sleep: blocks for a number of seconds.
    """

    seconds: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


def prepare(settings: PostgresSettings, patience: Patience = Patience()) -> Preparation:  # noqa: B008 (frozen)
    """
    Connect to the database and bring its tables to the version of this server. Blocks; it is for a thread.

    :raises StorageError: the database cannot be used; the message says why and what to do.
    """
    with connected(settings, patience) as connection:
        schema = settings.schema
        check_server(connection)
        version = found_version(connection, schema)
        check_version(version, schema)
        installed: list[int] = []
        if version < SCHEMA_VERSION:
            if not settings.migrate:
                raise StorageError(_not_migrated(version, schema))
            installed = upgrade(connection, schema)
        check_rights(connection, schema)
        promise, risky = _promise(connection)
        return Preparation(place_of(connection, schema), installed, promise, risky)


def log_preparation(prepared: Preparation) -> None:
    """Log where the streams are, and what an acknowledged append survives."""
    for version in prepared.installed:
        _log.info("Database: installed version {version} of the tables.", version=version)
    _log.info("Database: {place}.", place=prepared.place)
    if prepared.risky:
        _log.warn("{promise}", promise=prepared.promise)
    else:
        _log.info("{promise}", promise=prepared.promise)


@contextmanager
def connected(
    settings: PostgresSettings,
    patience: Patience = Patience(),  # noqa: B008 (frozen)
) -> Iterator[Connection[Any]]:
    """
    Connect for blocking statements, each of which is a transaction; close the connection at the end.

    A database that cannot be reached is tried again for ``wait_ms``, one that is starting for ten minutes.

    :raises StorageError: there is no connection, or it was lost; the message says why and what to do.
    """
    parameters = parse_dsn(settings.dsn)
    connection = _connect(settings, parameters, patience)
    try:
        with connection:
            yield connection
    except psycopg.Error as error:
        text = without_password(error.diag.message_primary or str(error), parameters)
        raise StorageError(
            f"The database failed: {' '.join(text.split()).rstrip('.')}. Read its log, and try again."
        ) from None


def _connect(settings: PostgresSettings, parameters: dict[str, str], patience: Patience) -> Connection[Any]:
    began_at, logged_at = patience.seconds(), -_LOG_INTERVAL
    wait = settings.wait_ms / 1000
    # Streams are never read from a standby.
    options: dict[str, Any] = {"application_name": "durable-streams-server", "target_session_attrs": "read-write"}
    if "connect_timeout" not in parameters and "PGCONNECT_TIMEOUT" not in os.environ:
        options["connect_timeout"] = max(2, round(wait))
    while True:
        try:
            return psycopg.connect(settings.dsn, autocommit=True, prepare_threshold=None, **options)
        except (psycopg.Error, OSError, UnicodeError) as error:
            failure = describe_failure(str(error), parameters)
        waited = patience.seconds() - began_at
        if failure.lasting or waited >= (_STARTING_WAIT if failure.starting else wait):
            raise StorageError(_not_connected(failure, parameters, waited)) from None
        if patience.seconds() - logged_at >= _LOG_INTERVAL:
            logged_at = patience.seconds()
            _log.warn("Cannot connect to the database, trying again: {reason}.", reason=failure.reason)
        patience.sleep(_PAUSE)


def _not_connected(failure: ConnectionFailure, parameters: dict[str, str], waited: float) -> str:
    tried = f" for {waited:.0f} s" if waited >= 1 else ""
    source = "" if parameters else " storage.postgres.dsn is not set, so libpq's defaults and PG* variables were used."
    return f"Cannot connect to the database{tried}: {failure}{source}"


def check_server(connection: Connection[Any]) -> None:
    """
    Check the version of PostgreSQL, and the encoding.

    :raises StorageError: the database cannot be used.
    """
    info = connection.info
    major, minor = divmod(info.server_version, 10_000)
    if major < _FIRST_VERSION:
        raise StorageError(
            f"The database is PostgreSQL {major}.{minor}; this server needs {_FIRST_VERSION} or later. Upgrade it."
        )
    if major > _LAST_VERSION:
        _log.warn(
            "The database is PostgreSQL {major}; this server is tested with {first} to {last}.",
            major=major,
            first=_FIRST_VERSION,
            last=_LAST_VERSION,
        )
    encoding = _setting(connection, "server_encoding")
    if encoding != "UTF8":
        raise StorageError(
            f"The database {info.dbname} has the encoding {encoding}, and names of streams need UTF8. Create another: "
            f"createdb --encoding=UTF8 --template=template0 NAME"
        )


def _promise(connection: Connection[Any]) -> tuple[str, bool]:
    """Return what an acknowledged append survives, and whether a crash of the database can lose some."""
    commit, standbys = _setting(connection, "synchronous_commit"), _setting(connection, "synchronous_standby_names")
    begins = f"synchronous_commit is {commit} and synchronous_standby_names is '{standbys}':"
    if _setting(connection, "fsync") == "off":
        return "fsync is off in the database: a crash of its machine loses acknowledged appends. Set it to on.", True
    if commit == "off":
        return (
            (
                f"{begins} a crash of the database loses the acknowledged appends of the last moments. Set "
                "synchronous_commit to on for the role."
            ),
            True,
        )
    if not standbys or commit == "local":
        return (
            (
                f"{begins} acknowledged appends survive a crash of the database, and not the loss of its disk or a "
                "promotion of a standby."
            ),
            False,
        )
    if commit == "remote_write":
        return (
            (
                f"{begins} acknowledged appends survive the loss of the primary, unless the standby's machine crashes "
                "then, too."
            ),
            False,
        )
    return f"{begins} acknowledged appends survive the loss of the primary.", False


def _setting(connection: Connection[Any], name: str) -> str:
    row = connection.execute("SELECT current_setting(%s)", [name]).fetchone()
    assert row is not None
    return str(row[0])


def _address(connection: Connection[Any]) -> str:
    info = connection.info
    return info.host if info.host.startswith("/") else f"{info.host}:{info.port}"


def place_of(connection: Connection[Any], schema: str) -> str:
    """Return where the tables are, for messages."""
    info = connection.info
    major, minor = divmod(info.server_version, 10_000)
    return f"PostgreSQL {major}.{minor} at {_address(connection)}, database {info.dbname}, schema {schema}"


def _not_migrated(version: int, schema: str) -> str:
    found = f"have version {version}, and this server needs {SCHEMA_VERSION}" if version else "do not exist"
    return (
        f"The tables in the schema {schema} {found}, and storage.postgres.migrate is false. Run: "
        "durable-streams-server migrate"
    )
