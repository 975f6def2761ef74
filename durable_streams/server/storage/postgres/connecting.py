"""Opening connections: the connection string, libpq's handshake in a thread, and the session's settings."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from .connection import Connection
from .failures import describe_failure
from .queries import one_line

#: libpq's parameters that the connection string may replace. An attempt to connect ends after 10 s; a connection whose
#: peer is silent, after about a minute.
_DEFAULTS: Final = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "fallback_application_name": "durable-streams-server",
}

#: Those that it may not: streams are read and written on a primary only, and text is UTF-8.
_FIXED: Final = {"target_session_attrs": "read-write", "client_encoding": "UTF8"}

#: The settings of each session, in units of PostgreSQL's. Plans: see docs/postgres.rst. A session that holds locks ends
#: when its client is silent. Those that a version does not have are left out.
_SESSION: Final = {
    "jit": "off",
    "enable_seqscan": "off",
    "plan_cache_mode": "force_generic_plan",
    "idle_in_transaction_session_timeout": "5000",
    "tcp_keepalives_idle": "30",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "client_connection_check_interval": "5000",
}

_APPLY: Final = """
SELECT count(set_config(name, wanted, false)) FROM unnest(%s::text[], %s::text[]) AS u(name, wanted)
JOIN pg_catalog.pg_settings USING (name) WHERE setting IS DISTINCT FROM wanted
"""
_DIFFERENT: Final = """
SELECT name FROM unnest(%s::text[], %s::text[]) AS u(name, wanted)
JOIN pg_catalog.pg_settings USING (name) WHERE setting IS DISTINCT FROM wanted ORDER BY name
"""

#: Not each system has client_connection_check_interval, for example.
_REFUSED: Final = (psycopg.errors.InvalidParameterValue, psycopg.errors.InsufficientPrivilege)

_log = Logger()


class ConnectFailed(Exception):
    """No connection could be opened. The message says why, without the password."""


def check_dsn(dsn: str) -> None:
    """
    Check the form of a connection string.

    libpq's own message could contain a part of the password, so it is not used.

    :raises ValueError: it is not one of libpq's. The message is a sentence without any part of the string.
    """
    try:
        if "\0" in dsn:
            raise ValueError("NUL")
        pq.Conninfo.parse(dsn.encode())
    except (psycopg.Error, ValueError):
        raise ValueError(
            "The connection string is neither a URL like postgresql://user@host:5432/database nor a list of libpq's "
            "keywords like host=... dbname=... . Write special characters in URLs as %XX, and put values that have "
            "spaces or quotes between single quotes."
        ) from None


def session_settings(*, lock_timeout: float, statement_timeout: float) -> dict[str, str]:
    """
    Return the settings of a session.

    :param lock_timeout: how long a statement waits for a lock, in seconds.
    :param statement_timeout: how long a statement may take, in seconds: as long as the client waits, so that a
        statement whose client is gone does not go on.
    """
    times = {"lock_timeout": lock_timeout, "statement_timeout": statement_timeout}
    return _SESSION | {name: str(max(1, round(1000 * seconds))) for name, seconds in times.items()}


def connect(dsn: str, reactor: Any, settings: Mapping[str, str], deadline: float) -> Deferred[Connection]:
    """
    Open a connection, in a thread: names are looked up, certificates and service files read there.

    :param dsn: a connection string of libpq; what it leaves out comes from PG* variables, service files and ~/.pgpass.
    :param reactor: an ``IReactorFDSet``, ``IReactorTime`` and ``IReactorFromThreads``.
    :param settings: of the session. They are not applied through a pooler, whose sessions belong to others too; it
        needs them as ALTER ROLE ... SET.
    :param deadline: see :class:`.connection.Connection`.
    :returns: fails with :class:`ConnectFailed`. If it is cancelled, the connection is closed once it is open.
    """
    is_cancelled = threading.Event()
    opened: Deferred[Connection] = Deferred(lambda _: is_cancelled.set())

    def work() -> None:
        try:
            driver = _open(dsn, settings)
        except BaseException:
            reactor.callFromThread(fail, Failure())
        else:
            reactor.callFromThread(succeed, driver)

    def fail(failure: Failure) -> None:
        if not is_cancelled.is_set():
            opened.errback(failure)

    def succeed(driver: psycopg.Connection[Any]) -> None:
        if is_cancelled.is_set() or driver.closed:
            driver.close()
            return
        opened.callback(Connection(driver, reactor, deadline))

    # Not of the reactor's pool: it may wait for a name server for a minute, and must not keep the process from ending.
    thread = threading.Thread(target=work, name="postgres-connect", daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        opened.errback(ConnectFailed(f"The system refused a thread: {error}."))
    return opened


def _open(dsn: str, settings: Mapping[str, str]) -> psycopg.Connection[Any]:
    """
    Connect, and apply the settings. Blocks.

    :raises ConnectFailed: see :func:`connect`.
    """
    driver = None
    parameters = _parameters(dsn)
    try:
        driver = psycopg.Connection.connect(make_conninfo("", **parameters), autocommit=True)
        driver.prepare_threshold = None
        _apply(driver, settings)
    except psycopg.Error as error:
        if driver is not None:
            driver.close()
        raise ConnectFailed(f"{describe_failure(str(error), parameters).reason}.") from None
    return driver


def _parameters(dsn: str) -> dict[str, str]:
    """
    Return all parameters of a connection string, with those of service files and variables.

    psycopg looks up the host in Python, without holding the interpreter's lock, only if it is among the parameters.
    libpq reads all sources, and gives up before it connects, when one parameter is invalid.

    :raises ConnectFailed: the string is malformed, or its service is not defined.
    """
    try:
        check_dsn(dsn)
    except ValueError as error:
        raise ConnectFailed(str(error)) from None
    invalid = make_conninfo(dsn, target_session_attrs="none-yet")
    probe = pq.PGconn.connect_start(invalid.encode())
    try:
        message = probe.get_error_message()
        if "none-yet" not in message:
            raise ConnectFailed(one_line(message))
        # libpq's own defaults stay its own.
        options = {
            option.keyword.decode(): option.val.decode()
            for option in probe.info
            if option.val is not None and option.val != option.compiled
        }
    finally:
        probe.finish()
    options.pop("service", None)
    return _DEFAULTS | options | _FIXED


def _apply(driver: psycopg.Connection[Any], settings: Mapping[str, str]) -> None:
    """
    Apply the session's settings, unless there is a pooler in between, which shares its sessions.

    :raises psycopg.Error: the connection was lost.
    """
    values = [list(settings), list(settings.values())]
    if _is_pooled(driver):
        different = [name for (name,) in driver.execute(_DIFFERENT, values).fetchall()]
        if different:
            _log_pooler(", ".join(different))
        return
    try:
        driver.execute(_APPLY, values)
    except _REFUSED:
        for name, value in settings.items():
            try:
                driver.execute(_APPLY, [[name], [value]])
            except _REFUSED as error:
                _log.info("The database refuses the setting {name}: {reason}", name=name, reason=one_line(str(error)))


@cache
def _log_pooler(names: str) -> None:
    """Log which settings are missing; once, as each connection misses the same ones."""
    _log.warn(
        "The connections to the database go through a pooler, so these settings are not applied: {names}. Set them "
        "with ALTER ROLE, or connect directly.",
        names=names,
    )


def _is_pooled(driver: psycopg.Connection[Any]) -> bool:
    """Return whether a pooler is in between: these give clients numbers of their own, for cancelling."""
    return driver.execute("SELECT pg_backend_pid()").fetchone() != (driver.pgconn.backend_pid,)
