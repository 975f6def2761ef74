"""URLs of streams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from ..protocol.names import quote_name
from .errors import InvalidUse

#: The default ports of the schemes that the client speaks.
_PORTS: Final = {"http": 80, "https": 443}

#: The parameter of a signed URL that must not be shown.
_SIGNATURE: Final = "ds_sig="


def check_url(url: str) -> str:
    """
    Return a URL as it can be sent: percent-encoded, without a fragment.

    :raises InvalidUse: it is not an ``http:`` or ``https:`` URL with a host, or has a user name or a query.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidUse(f"{url!r} is not a URL: {error}.") from None
    if parts.scheme not in _PORTS or not parts.hostname or port == 0:
        raise InvalidUse(f"{url!r} is not a URL such as http://localhost:4437/v1/stream/NAME.")
    if parts.username is not None or parts.password is not None:
        raise InvalidUse("A URL must not have a user name or password. Use a token.")
    if _SIGNATURE in parts.query:
        # The message must not have the signature.
        raise InvalidUse(
            f"The URL of {parts.path!r} is signed: it is for clients such as browsers and curl. Use the URL without "
            "its query, and a token."
        )
    if parts.query or parts.fragment:
        raise InvalidUse(f"{url!r} must not have a query or a fragment. Write ? as %3F and # as %23 in a name.")
    try:
        host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode()
    except UnicodeError:
        raise InvalidUse(f"The host name of {url!r} is not valid.") from None
    return f"{parts.scheme}://{host}{quote(parts.path, safe='/%-._~!$&()*+,;=:@' + chr(39))}"


def stream_url(base: str, name: str) -> str:
    """
    Return the URL of a stream.

    :param base: the URL below which the streams are, such as ``http://localhost:4437/v1/stream``.
    :param name: the stream's name, not percent-encoded.
    """
    return f"{check_url(base).rstrip('/')}/{quote_name(name).decode()}"


def origin_of(url: str) -> tuple[str, str, int]:
    """Return scheme, host and port of a checked URL."""
    parts = urlsplit(url)
    return parts.scheme, parts.hostname or "", parts.port or _PORTS[parts.scheme]


def path_of(url: str) -> str:
    """Return the path of a checked URL."""
    return urlsplit(url).path


def with_query(url: str, query: Mapping[str, str] | Sequence[tuple[str, str]]) -> str:
    """Return a checked URL with the parameters of a query; as it is if there are none."""
    return f"{url}?{urlencode(query)}" if query else url
