"""The version of the tables: finding it, upgrading it, and the rights of the present role."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from psycopg import Connection, Error, errors

from ...errors import StorageError
from .schema import SCHEMA_VERSION
from .scripts import VERSIONS, grants, steps

#: How long an upgrade waits for that of another node, and for statements on the tables.
_LOCK_TIMEOUT: Final = "60s"

_MISSING: Final = """
SELECT p.privilege || ' on ' || c.oid::regclass FROM pg_class c,
    unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS p(privilege)
    WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relkind IN ('r', 'p') AND c.relname <> %(versions)s
        AND NOT has_table_privilege(c.oid, p.privilege)
UNION ALL SELECT p.privilege || ' on ' || c.oid::regclass FROM pg_class c,
    unnest(ARRAY['USAGE', 'UPDATE']) AS p(privilege)
    WHERE c.relnamespace = to_regnamespace(%(schema)s) AND c.relkind = 'S'
        AND NOT has_sequence_privilege(c.oid, p.privilege)
UNION ALL SELECT 'EXECUTE on ' || f.oid::regprocedure FROM pg_proc f
    WHERE f.pronamespace = to_regnamespace(%(schema)s) AND NOT has_function_privilege(f.oid, 'EXECUTE')
ORDER BY 1
"""


def found_version(connection: Connection[Any], schema: str) -> int:
    """
    Return the version of the tables in a schema; 0 if there are none.

    :raises StorageError: the role may not see it.
    """
    if not _has_schema(connection, schema):
        return 0
    if not _value(connection, "SELECT has_schema_privilege(%s, 'USAGE')", schema):
        raise _no_right(connection, f"USAGE on the schema {schema}")
    table = _value(
        connection,
        "SELECT oid FROM pg_class WHERE relname = %s AND relnamespace = to_regnamespace(%s)",
        VERSIONS,
        schema,
    )
    if table is None:
        return 0
    if not _value(connection, "SELECT has_table_privilege(%s::oid, 'SELECT')", table):
        raise _no_right(connection, f"SELECT on {schema}.{VERSIONS}")
    version: int = _value(connection, f"SELECT coalesce(max(version), 0) FROM {schema}.{VERSIONS}")
    return version


def check_version(version: int, schema: str) -> None:
    """
    Check that the tables are not those of a later server.

    :raises StorageError: they are.
    """
    if version > SCHEMA_VERSION:
        raise StorageError(
            f"The tables in the schema {schema} have version {version}; this server knows versions up to "
            f"{SCHEMA_VERSION}. Upgrade this server, or set storage.postgres.schema to another schema."
        )


def upgrade(connection: Connection[Any], schema: str, role: str | None = None) -> list[int]:
    """
    Create the tables, or upgrade those of an earlier version, in one transaction. Concurrent upgrades wait.

    :param connection: in autocommit mode.
    :param role: a role that gets the rights that a server needs; None for no change of rights.
    :returns: the versions that were installed; empty if the tables were up to date.
    :raises StorageError: the upgrade was not possible. Nothing was changed.
    """
    with _explained(connection, schema), connection.transaction():
        connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT}'")
        # A standby that is away would hold this up without end. It gets this before any later commit that waits for it.
        connection.execute("SET LOCAL synchronous_commit = local")
        _value(connection, "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", f"durable-streams-server {schema}")
        version = found_version(connection, schema)
        check_version(version, schema)
        # CREATE SCHEMA IF NOT EXISTS needs a right on the database also if the schema exists.
        create_schema = not _has_schema(connection, schema)
        installed = []
        for number, script in steps(schema, version, create_schema):
            connection.execute(script)
            installed.append(number)
        for statement in grants(schema, role) if role is not None else ():
            connection.execute(statement)
    return installed


def check_rights(connection: Connection[Any], schema: str) -> None:
    """
    Check that the role may use the tables.

    :raises StorageError: it lacks a right; the message names it.
    """
    missing = [row[0] for row in connection.execute(_MISSING, {"schema": schema, "versions": VERSIONS})]
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise _no_right(connection, f"{missing[0]}{more}")


def _has_schema(connection: Connection[Any], schema: str) -> bool:
    """
    Return whether a schema exists.

    The query reads a table: to_regnamespace() alone uses what the session knew before it waited for an upgrade.
    """
    found: bool = _value(connection, "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = %s)", schema)
    return found


def _value(connection: Connection[Any], statement: str, *parameters: object) -> Any:
    row: Sequence[Any] | None = connection.execute(statement, parameters or None).fetchone()
    return None if row is None else row[0]


def _no_right(connection: Connection[Any], what: str) -> StorageError:
    return StorageError(
        f"The role {connection.info.user} lacks a right: {what}. Run as the owner of the tables: "
        f"durable-streams-server migrate --grant-to {connection.info.user}"
    )


@contextmanager
def _explained(connection: Connection[Any], schema: str) -> Iterator[None]:
    """
    Explain the errors of an upgrade.

    :raises StorageError: instead of those.
    """
    user = connection.info.user
    try:
        yield
    except errors.InsufficientPrivilege as error:
        raise StorageError(
            f"The role {user} may not create or upgrade the tables in the schema {schema}: {_reason(error)}. Run "
            "durable-streams-server migrate as a role that may, or have an administrator run: CREATE SCHEMA "
            f"{schema} AUTHORIZATION {user}"
        ) from None
    except (errors.DuplicateTable, errors.DuplicateObject, errors.DuplicateFunction) as error:
        raise StorageError(
            f"The schema {schema} is used by something else: {_reason(error)}. Set storage.postgres.schema to another "
            "schema."
        ) from None
    except errors.UndefinedObject as error:
        raise StorageError(f"{_reason(error)}. Create the role first, or correct its name.") from None
    except (errors.LockNotAvailable, errors.QueryCanceled) as error:
        raise StorageError(
            f"The tables in the schema {schema} are in use: {_reason(error)} after {_LOCK_TIMEOUT}. Wait for the other "
            "upgrade, end transactions that are open for long (pg_stat_activity), and try again."
        ) from None
    except errors.ReadOnlySqlTransaction as error:
        raise StorageError(f"The database is read-only: {_reason(error)}. Connect to the primary.") from None


def _reason(error: Error) -> str:
    text = error.diag.message_primary or str(error)
    return " ".join(text.split()).rstrip(".")
