"""The records of static tokens: one JSON object on each line of the file."""

from __future__ import annotations

import re
import secrets
import string
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec import Struct

from .hashes import DEFAULT_COST, HashError, ScryptCost, SecretHash, hash_secret, parse_hash

#: What static tokens begin with.
STATIC_PREFIX: Final = b"dst_"

#: The longest id, subject, group or claim, in characters.
MAX_TEXT: Final = 256

_ID: Final = re.compile(r"[A-Za-z0-9]{1,32}")
_TOKEN: Final = re.compile(rb"dst_([A-Za-z0-9]{1,32})_([A-Za-z0-9_-]{16,128})")

_ALPHABET: Final = string.ascii_letters + string.digits
_ID_LENGTH: Final = 12
#: 43 of 62 characters are 256 bits.
_SECRET_LENGTH: Final = 43


class RecordError(Exception):
    """A line is not a record of a token; the message says why, without the line's values."""


class TokenRecord(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """
    What the file has of a token, which is everything but its secret.

    :ivar id: the part of the token that is not secret.
    :ivar subject: who uses it.
    :ivar hash: of its secret.
    :ivar groups: of the subject.
    :ivar claims: what else rules may ask for, by name.
    :ivar created_at: with a time zone.
    :ivar expires_at: with a time zone; None for never.
    """

    id: str
    subject: str
    hash: str
    groups: tuple[str, ...] = ()
    claims: dict[str, str] = {}
    created_at: datetime | None = None
    expires_at: datetime | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.id!r}, {self.subject!r})"


class LoadedRecord(Struct, frozen=True):
    """A record whose fields were checked, with its hash."""

    record: TokenRecord
    hash: SecretHash


def parse_record(line: bytes) -> LoadedRecord:
    """
    Read a line.

    :raises RecordError: it is not a record.
    """
    try:
        record = msgspec.json.decode(line, type=TokenRecord)
    except msgspec.ValidationError as error:
        raise RecordError(f"is not a token: {error}") from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RecordError("is not a JSON object") from None
    if _ID.fullmatch(record.id) is None:
        raise RecordError("has an id that is not 1 to 32 letters and digits")
    check_texts(record)
    for name, moment in (("created_at", record.created_at), ("expires_at", record.expires_at)):
        if moment is not None and moment.tzinfo is None:
            raise RecordError(f"has a {name} without a time zone; write Z after it")
    try:
        return LoadedRecord(record, parse_hash(record.hash))
    except HashError as error:
        raise RecordError(f"has a hash that {error}") from None


def check_texts(record: TokenRecord) -> None:
    """
    Check the subject, the groups and the claims of a record.

    :raises RecordError: one is empty, too long, or has characters that are not printable.
    """
    texts = [("the subject", record.subject), *(("a group", group) for group in record.groups)]
    texts += [("a claim", part) for claim in record.claims.items() for part in claim]
    for what, text in texts:
        if not text or len(text) > MAX_TEXT or not text.isprintable() or text != text.strip():
            raise RecordError(f"has {what} that is not 1 to {MAX_TEXT} printable characters without blanks at its ends")


def render_record(record: TokenRecord) -> bytes:
    """Return the line of a record, without the end of line."""
    return msgspec.json.encode(record)


def new_token(
    subject: str,
    groups: tuple[str, ...] = (),
    claims: dict[str, str] | None = None,
    now: float = 0.0,
    expires_in: float | None = None,
    cost: ScryptCost = DEFAULT_COST,
) -> tuple[str, TokenRecord]:
    """
    Make a token.

    :param now: UNIX seconds.
    :param expires_in: how long it is valid, in seconds; None for ever.
    :returns: the token, which is not stored anywhere, and its record.
    :raises RecordError: the subject, a group or a claim is not a text that a record may have.
    :raises OverflowError: the expiry is after the year 9999.
    """
    token_id, secret = _random_text(_ID_LENGTH), _random_text(_SECRET_LENGTH)
    record = TokenRecord(
        id=token_id,
        subject=subject,
        hash=str(hash_secret(secret.encode(), cost)),
        groups=groups,
        claims=claims or {},
        created_at=_moment(now),
        expires_at=None if expires_in is None else _moment(now + expires_in),
    )
    check_texts(record)
    return f"{STATIC_PREFIX.decode()}{token_id}_{secret}", record


def parse_token(token: bytes) -> tuple[str, bytes] | None:
    """Return the id and the secret of a token; None if it is not of the form of static tokens."""
    found = _TOKEN.fullmatch(token)
    return None if found is None else (found[1].decode("ascii"), found[2])


def _random_text(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))


def _moment(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(int(seconds), UTC)
    except (ValueError, OSError):
        raise OverflowError("a date after the year 9999") from None
