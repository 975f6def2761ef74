"""The connection string of libpq (DSN): a check that never repeats a part of it that may be a password."""

from __future__ import annotations

import re
from typing import Final

from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from ...errors import StorageError

_URL: Final = re.compile(r"postgres(?:ql)?://")
_PORTS: Final = re.compile(r"[0-9,]*")

_INVALID: Final = (
    "storage.postgres.dsn is not a connection string of libpq. Write a URL such as "
    "postgresql://user:password@host:5432/database, in which %40, %2F, %3A and %3F stand for @, /, : and ?; or "
    "host=... dbname=..., with values that have spaces in single quotes."
)


def parse_dsn(dsn: str) -> dict[str, str]:
    """
    Return the parameters of a connection string. Those of service files and ``PG*`` variables are not in it.

    :param dsn: as in the settings; empty for libpq's defaults.
    :raises StorageError: it is not a connection string; the message has no part of it.
    """
    try:
        parameters = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value is not None}
    except (ProgrammingError, ValueError):
        # libpq's message quotes a part of the string, which is one of the password if that is not escaped.
        raise StorageError(_INVALID) from None
    names = parameters.get("host", "") + parameters.get("dbname", "") + parameters.get("user", "")
    ports = parameters.get("port", "")
    # With an unescaped @ or / in the password of a URL, the rest of it becomes the host, the port or the database.
    if _PORTS.fullmatch(ports) is None or (_URL.match(dsn) and ("@" in names or "@" in dsn.partition("@")[2])):
        raise StorageError(_INVALID)
    return parameters


def without_password(text: str, parameters: dict[str, str]) -> str:
    """Return a text with ``***`` instead of the passwords of a connection string."""
    for name in ("password", "sslpassword"):
        secret = parameters.get(name)
        if secret:
            text = text.replace(secret, "***")
    return text
