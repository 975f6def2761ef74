"""The SQL scripts that create and upgrade the tables, and grant rights on them. This module does not import psycopg."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .schema import SCHEMA_VERSION, check_schema_name, migrations

#: The table that has a row for each version of the tables that was installed.
VERSIONS: Final = "schema_versions"

_CREATE_SCHEMA: Final = "CREATE SCHEMA IF NOT EXISTS {schema};\n"

_CREATE_VERSIONS: Final = """CREATE TABLE {schema}.{versions} (
    version integer PRIMARY KEY,
    installed_at timestamptz NOT NULL DEFAULT now()
);
"""

#: The rights on each kind of object that a server needs: (words of GRANT, kind, rights).
RIGHTS: Final = (
    ("ALL TABLES IN SCHEMA {schema}", ("SELECT", "INSERT", "UPDATE", "DELETE")),
    ("ALL SEQUENCES IN SCHEMA {schema}", ("USAGE", "SELECT", "UPDATE")),
    ("ALL FUNCTIONS IN SCHEMA {schema}", ("EXECUTE",)),
)


def steps(schema: str, version: int, create_schema: bool = True) -> Iterator[tuple[int, str]]:
    """
    Yield each version that a schema does not have yet, with the script that installs it.

    :param version: the version that the schema has; 0 for none.
    :param create_schema: whether the first script creates the schema if there is none.
    """
    check_schema_name(schema)
    for number, script in enumerate(migrations(schema, version), version + 1):
        begins = ""
        if number == 1:
            begins = (_CREATE_SCHEMA if create_schema else "") + _CREATE_VERSIONS
        recorded = f"INSERT INTO {schema}.{VERSIONS} (version) VALUES ({number});\n"
        yield number, begins.format(schema=schema, versions=VERSIONS) + script.lstrip("\n") + recorded


def grants(schema: str, role: str) -> Iterator[str]:
    """
    Yield the statements that give a role the rights that a server needs, without a semicolon.

    :param role: any name; it is quoted.
    """
    check_schema_name(schema)
    to = '"' + role.replace('"', '""') + '"'
    yield f"GRANT USAGE ON SCHEMA {schema} TO {to}"
    for objects, rights in RIGHTS:
        yield f"GRANT {', '.join(rights)} ON {objects.format(schema=schema)} TO {to}"


def whole_script(schema: str, version: int, role: str | None) -> str:
    """
    Return a script for psql that does all of an upgrade in one transaction.

    :param version: the version that the schema has; 0 for none.
    :param role: the role of the servers, which gets rights; None if it owns the schema.
    """
    lines = [f"-- The tables of durable-streams-server in the schema {schema}: version {version} to {SCHEMA_VERSION}."]
    lines += ["BEGIN;", *(script.rstrip("\n") for _, script in steps(schema, version))]
    if role is None:
        lines.append("-- If the servers have a role of their own, replace ROLE by it and run these statements, too:")
        lines += [f"-- {grant};".replace('"ROLE"', "ROLE") for grant in grants(schema, "ROLE")]
    else:
        lines += [f"{grant};" for grant in grants(schema, role)]
    return "\n".join([*lines, "COMMIT;", ""])
