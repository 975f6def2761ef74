"""Failures of connecting to the database: the reason in one line, and what to change."""

from __future__ import annotations

import re
from typing import Final

from msgspec import Struct

from .dsn import without_password

_STARTING: Final = "the database system is starting up"

_ACCESS: Final = (
    "Correct user and password in the connection string (storage.postgres.dsn), the file of passwords (~/.pgpass), or "
    "pg_hba.conf of the database"
)

#: Texts of libpq and PostgreSQL -> what to change. The first that is found counts.
_ADVICE: Final = tuple(
    (re.compile(pattern), advice)
    for pattern, advice in (
        (_STARTING, "Wait until it has started, or read its log"),
        ("system is (?:shutting down|in recovery)|not (?:yet )?accepting connections", "Read the database's log"),
        (
            "too many (?:clients|connections)|remaining connection slots|connection limit",
            (
                "Raise max_connections of the database or the role's connection limit, or lower "
                "storage.postgres.connections"
            ),
        ),
        ("definition of service .* not found", "Add it to the service file (~/.pg_service.conf), or correct its name"),
        (
            "resolve host|translate host name",
            "Correct the host in the connection string (storage.postgres.dsn)",
        ),
        (
            "certificate|SSL|TLS|private key",
            (
                "Correct sslmode, sslrootcert and the other ssl parameters in the connection string "
                "(storage.postgres.dsn), or the certificate of the database"
            ),
        ),
        (
            "no pg_hba.conf entry|pg_hba.conf rejects",
            "Add a line to pg_hba.conf of the database, and reload it: SELECT pg_reload_conf()",
        ),
        (
            "(?i)password|authentication failed|role .* does not exist|not permitted to log in",
            _ACCESS,
        ),
        (
            "database .* does not exist",
            (
                "Create it, for example: createdb --encoding=UTF8 --template=template0 NAME; or correct its name in "
                "the connection string (storage.postgres.dsn)"
            ),
        ),
        ("permission denied for database", "Run: GRANT CONNECT ON DATABASE ... TO the role"),
        (
            "hot standby mode|session is read-only",
            (
                "It is a standby: name the primary in the connection string (storage.postgres.dsn). If it is none, set "
                "default_transaction_read_only to off for the role and the database"
            ),
        ),
        (
            "refused|No such file|timeout|timed out|unreachable|No route|closed the connection|reset",
            "Start the database, or correct host and port in the connection string (storage.postgres.dsn)",
        ),
    )
)

_ADVICE_WITHOUT_PATTERN: Final = "Correct the connection string (storage.postgres.dsn), or read the database's log"

#: The failures that only a change of the settings or of the database ends.
_LASTING: Final = re.compile(
    "definition of service|certificate|private key|support SSL|SSL error|pg_hba.conf|(?i:password)|"
    "authentication failed|does not exist|not permitted to log in|permission denied|"
    "invalid (?:value|integer|connection|response)"
)

_PREFIX: Final = re.compile(r"connection (?:failed|is bad): ")
_ATTEMPT: Final = re.compile(r"^- host: [^\n]*?: (?=connection failed|connection is bad|failed)", re.MULTILINE)
_QUOTED: Final = re.compile("\"[^\"]*\"|'[^']*'")
_HINT: Final = re.compile(r"\n(?:\t|DETAIL:|HINT:)[^\n]*")


class ConnectionFailure(Struct, frozen=True):
    """
    A failure to connect.

    :ivar reason: in one line, without a full stop and without the password.
    :ivar advice: a sentence.
    :ivar lasting: whether another attempt fails for the same reason unless somebody changes something.
    :ivar starting: whether the database has answered that it is starting.
    """

    reason: str
    advice: str
    lasting: bool
    starting: bool

    def __str__(self) -> str:
        return f"{self.reason}. {self.advice}"


def describe_failure(text: str, parameters: dict[str, str]) -> ConnectionFailure:
    """
    Explain the error of an attempt to connect.

    :param text: the message of libpq or psycopg.
    :param parameters: those of the connection string.
    """
    text = _HINT.sub("", without_password(text, parameters))
    attempts = _ATTEMPT.split(text.partition("All failures were:")[2])[1:] or [text]
    reasons = dict.fromkeys(_in_one_line(attempt) for attempt in attempts)
    reason = "; ".join(reasons)
    # Names of hosts, roles and databases may be any words.
    texts = [_QUOTED.sub('""', each) for each in reasons]
    advice = next(
        (advice for pattern, advice in _ADVICE if any(map(pattern.search, texts))),
        _ADVICE_WITHOUT_PATTERN,
    )
    starting = any(_STARTING in each for each in texts)
    lasting = not starting and all(map(_LASTING.search, texts))
    return ConnectionFailure(reason, f"{advice}.", lasting, starting)


def _in_one_line(text: str) -> str:
    return " ".join(_PREFIX.sub("", text).replace("FATAL: ", "").split()).rstrip(".")
