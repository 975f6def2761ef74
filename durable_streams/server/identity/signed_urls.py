"""
Signed URLs: access to one stream until a time, for clients that cannot send headers, such as a browser's EventSource.

A signed URL has these parameters in its query: ``ds_key``, the id of the key; ``ds_expires``, the end of its validity
in UNIX seconds; ``ds_op``, the operations that it allows; ``ds_subject``, for whom it is, which may be left out; and
``ds_sig``, the signature. This is HMAC-SHA256 over the netstrings (``LENGTH:BYTES,``) of :data:`VERSION`, ``ds_op``,
the stream's name, ``ds_expires``, ``ds_key`` and ``ds_subject``, all in UTF-8, in base64url without padding. The length
before each field makes sure that no two requests have the same signed bytes.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from msgspec import Struct

from ..errors import InvalidName, StreamsError
from ..protocol.names import NameLimits, parse_name

#: The first signed field: the purpose and the version of the form.
VERSION: Final = "durable-streams-url-1"

#: The operations that a URL may allow. A fork needs a right on a second stream, and pages of operators more than one.
OPERATIONS: Final = frozenset({"append", "close", "create", "delete", "head", "read"})

#: How long a URL may be valid at most, in seconds: 7 days.
MAX_VALIDITY: Final = 604_800

#: How much the clock of who signs may be ahead of the server's, in seconds, for a URL of :data:`MAX_VALIDITY`.
CLOCK_SKEW: Final = 60

#: The parameters that each signed URL has, and the optional one.
PARAMETERS: Final = ("ds_key", "ds_expires", "ds_op", "ds_sig")
SUBJECT: Final = "ds_subject"

#: What the names of all parameters of signed URLs begin with. Others that begin so are refused.
PREFIX: Final = b"ds_"

KEY_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_EXPIRES: Final = re.compile(r"[1-9][0-9]{0,11}")
_SIGNATURE: Final = re.compile(r"[A-Za-z0-9_-]{43}")

#: The longest subject, in characters.
_MAX_SUBJECT: Final = 256

#: A name may be as long as a target; the operations have the configured limits.
_ANY_LENGTH: Final = NameLimits(1_000_000, 1_000_000)


class InvalidSignedUrl(StreamsError):
    """The parameters of a signed URL are malformed, or the name cannot be signed. The message has no signature."""


class SigningKey(Struct, frozen=True, gc=False):
    """
    A key that signs URLs.

    :ivar id: the name of the key, which is part of URLs.
    :ivar secret: the key itself.
    """

    id: str
    secret: bytes

    def __repr__(self) -> str:
        return f"{type(self).__name__}(id={self.id!r}, secret=***)"


class SignedUrl(Struct, frozen=True, gc=False):
    """
    The parameters of a signed URL, and the stream that they are for.

    :ivar key_id: the id of the key.
    :ivar operations: the allowed operations, as in the URL: separated by commas.
    :ivar name: the name of the stream, percent-decoded.
    :ivar expires: the end of its validity, in UNIX seconds, as in the URL.
    :ivar subject: for whom it is; empty if the URL does not say.
    :ivar signature: in base64url; a secret as long as the URL is valid.
    """

    key_id: str
    operations: str
    name: str
    expires: str
    subject: str
    signature: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.operations} {self.name!r}, key {self.key_id!r}, signature ***)"


def is_signed(query: bytes) -> bool:
    """Return whether a query has a parameter of signed URLs, valid or not."""
    if PREFIX not in query and b"%" not in query:
        return False
    return any(unquote_to_bytes(pair.partition(b"=")[0]).startswith(PREFIX) for pair in query.split(b"&"))


def read_signed_url(query: bytes, path: bytes) -> SignedUrl:
    """
    Read the parameters of a signed URL.

    :param query: what follows the question mark; parameters that do not begin with ``ds_`` are ignored.
    :param path: the part of the path after the base path, percent-encoded.
    :raises InvalidSignedUrl: a parameter is missing, malformed, unknown or repeated, or the path is not the name of a
        stream.
    """
    values = _parameters(query)
    key_id, expires, operations, signature = (values[parameter] for parameter in PARAMETERS)
    if KEY_ID.fullmatch(key_id) is None:
        raise InvalidSignedUrl("ds_key is not the id of a key: 1 to 64 letters, digits, - and _.")
    if _EXPIRES.fullmatch(expires) is None:
        raise InvalidSignedUrl("ds_expires is not a time in UNIX seconds.")
    if _SIGNATURE.fullmatch(signature) is None:
        raise InvalidSignedUrl("ds_sig is not a signature: 43 characters of base64url.")
    read_operations(operations)
    subject = values.get(SUBJECT)
    if subject is not None:
        _check_subject(subject)
    return SignedUrl(key_id, operations, signed_name(path), expires, subject or "", signature)


def _check_subject(subject: str) -> None:
    """
    Check the value of ``ds_subject``.

    :raises InvalidSignedUrl: it is empty, too long, or has unprintable characters.
    """
    if not subject or len(subject) > _MAX_SUBJECT or not subject.isprintable():
        raise InvalidSignedUrl(f"The subject of a signed URL has 1 to {_MAX_SUBJECT} printable characters.")


def _parameters(query: bytes) -> dict[str, str]:
    """
    Return the values of all :data:`PARAMETERS`, and of :data:`SUBJECT` if it is there.

    :raises InvalidSignedUrl: one is missing, unknown or repeated.
    """
    values: dict[str, str] = {}
    for pair in query.split(b"&"):
        key, _, value = pair.partition(b"=")
        name = unquote_to_bytes(key)
        if not name.startswith(PREFIX):
            continue
        text = name.decode("ascii", "replace")
        if text not in PARAMETERS and text != SUBJECT:
            raise InvalidSignedUrl(f"The URL has a parameter that begins with ds_ and is none of {_listed()}.")
        if text in values:
            raise InvalidSignedUrl(f"The URL has {text} twice.")
        values[text] = unquote_to_bytes(value.replace(b"+", b" ")).decode("utf-8", "replace")
    for parameter in PARAMETERS:
        if parameter not in values:
            raise InvalidSignedUrl(f"The URL has no {parameter}. A signed URL has {_listed()}.")
    return values


def _listed() -> str:
    return f"{', '.join(PARAMETERS)} and perhaps {SUBJECT}"


def read_operations(text: str) -> frozenset[str]:
    """
    Return the operations of ``ds_op``.

    :raises InvalidSignedUrl: one is unknown, cannot be allowed by a URL, or is there twice.
    """
    operations = text.split(",")
    if not OPERATIONS.issuperset(operations) or len(set(operations)) != len(operations):
        raise InvalidSignedUrl(
            f"The operations of a signed URL are one or more of {', '.join(sorted(OPERATIONS))}, separated by commas, "
            "each once."
        )
    return frozenset(operations)


def signed_name(path: bytes) -> str:
    """
    Return the name of a stream as it is signed: percent-decoded, as the operations read it.

    :param path: the part of the path after the base path, percent-encoded.
    :raises InvalidSignedUrl: it is not the name of a stream.
    """
    try:
        return parse_name(path, _ANY_LENGTH)
    except InvalidName as error:
        raise InvalidSignedUrl(f"The URL is not that of a stream. {error}") from None


def signature_of(key: SigningKey, operations: str, name: str, expires: str, subject: str = "") -> str:
    """Return the signature of a URL, in base64url without padding."""
    fields = [field.encode() for field in (VERSION, operations, name, expires, key.id, subject)]
    signed = b"".join(b"%d:%b," % (len(field), field) for field in fields)
    return urlsafe_b64encode(hmac.digest(key.secret, signed, "sha256")).rstrip(b"=").decode()


def sign(key: SigningKey, operations: str, path: bytes, expires: int, subject: str = "") -> str:
    """
    Return the parameters that make the URL of a stream a signed one.

    :param operations: what it allows, separated by commas.
    :param path: the part of the URL's path after the base path, percent-encoded.
    :param expires: the end of its validity, in UNIX seconds. A server refuses a URL as long as it is valid for more
        than :data:`MAX_VALIDITY` from then on.
    :param subject: for whom it is; empty for nobody in particular.
    :returns: for the query of the URL: ``ds_key=...&ds_expires=...&ds_op=...&ds_sig=...``.
    :raises InvalidSignedUrl: such a URL would be refused.
    """
    read_operations(operations)
    if _EXPIRES.fullmatch(str(expires)) is None:
        raise InvalidSignedUrl("The time at which a URL expires must be positive, in UNIX seconds.")
    if subject:
        _check_subject(subject)
    signature = signature_of(key, operations, signed_name(path), str(expires), subject)
    parts = [f"ds_key={key.id}", f"ds_expires={expires}", f"ds_op={operations}"]
    if subject:
        parts.append(f"{SUBJECT}={quote(subject, safe='')}")
    return "&".join((*parts, f"ds_sig={signature}"))


def is_signed_by(key: SigningKey, url: SignedUrl) -> bool:
    """Return whether a key has made the signature of a URL, in time that does not depend on the signature."""
    expected = signature_of(key, url.operations, url.name, url.expires, url.subject)
    return hmac.compare_digest(expected, url.signature) and key.id == url.key_id
