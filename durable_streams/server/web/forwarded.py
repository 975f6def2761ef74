"""Forwarding headers of proxies: ``X-Forwarded-*`` and ``Forwarded`` (RFC 7239)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from typing import Final

from ..errors import InvalidRequest
from .callers import Client
from .requests import check_host

FORWARDED: Final = b"forwarded"
FOR: Final = b"x-forwarded-for"
HOST: Final = b"x-forwarded-host"
PROTO: Final = b"x-forwarded-proto"
PORT: Final = b"x-forwarded-port"
REQUEST_ID: Final = b"x-request-id"

#: Tells whether an address is that of a trusted proxy.
Trust = Callable[[str], bool]

_NODE: Final = re.compile(
    rb"(?:([0-9]{1,3}(?:\.[0-9]{1,3}){3})|\[([0-9A-Fa-f:.]{2,45})\]|([Uu]nknown|_[A-Za-z0-9._-]{1,64}))"
    rb"(?::(?:[0-9]{1,5}|_[A-Za-z0-9._-]{1,64}))?"
)
_BARE_IPV6: Final = re.compile(rb"[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:.]{1,40}")
_PORT: Final = re.compile(rb"[1-9][0-9]{0,4}")
_ENDS_IN_PORT: Final = re.compile(rb":[0-9]+\Z")
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")

#: One parameter of an element, or none, and what ends it.
_PAIR: Final = re.compile(
    rb"[ \t]*(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)=(?:([!#$%&'*+.^_`|~0-9A-Za-z-]+)"
    rb'|"((?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*)"))?[ \t]*([;,]|\Z)'
)
_QUOTED_PAIR: Final = re.compile(rb"\\(.)")


def _refusal(header: str, wanted: str) -> InvalidRequest:
    return InvalidRequest(f"{header} must be {wanted}. The proxy in front of the server has sent something else.")


def given_id(headers: Mapping[bytes, bytes]) -> bytes | None:
    """Return the id that a proxy gives the request, if it is safe in headers and logs."""
    value = headers.get(REQUEST_ID)
    return value if value is not None and _REQUEST_ID.fullmatch(value) else None


def _node(text: bytes, header: str, bare_ipv6: bool) -> str:
    """Return a node: an address without its port, ``unknown``, or an obfuscated name."""
    if bare_ipv6 and _BARE_IPV6.fullmatch(text):
        address = text
    else:
        match = _NODE.fullmatch(text)
        if match is None:
            raise _refusal(header, "addresses of clients")
        if match[3] is not None:
            return match[3].decode()
        address = match[1] or match[2]
    try:
        found = ip_address(address.decode())
    except ValueError:
        raise _refusal(header, "addresses of clients") from None
    return str(getattr(found, "ipv4_mapped", None) or found)


def _scheme(text: bytes, header: str) -> bytes:
    scheme = text.lower()
    if scheme not in (b"http", b"https"):
        raise _refusal(header, "http or https")
    return scheme


def _authority(text: bytes, header: str) -> bytes:
    try:
        check_host(text)
    except InvalidRequest:
        raise _refusal(header, "the name or address of a host") from None
    if not text or text.startswith(b":"):
        raise _refusal(header, "the name or address of a host")
    return text


def _listed(headers: Mapping[bytes, bytes], name: bytes) -> list[bytes]:
    """Split a list; empty elements are ignored (RFC 9110 section 5.6.1)."""
    value = headers.get(name)
    if value is None:
        return []
    return [element for element in (part.strip(b" \t") for part in value.split(b",")) if element]


def read_x_forwarded(headers: Mapping[bytes, bytes], trusts: Trust) -> Client:
    """
    Read ``X-Forwarded-For``, ``-Host``, ``-Proto`` and ``-Port``.

    The client is the first address from the right that is no trusted proxy's: what stands left of it is what the client
    says itself, and is not read. Of the others the last element counts, which the nearest proxy has set or appended.

    :param headers: by their names in lower case.
    :raises InvalidRequest: what counts of them can't be understood.
    """
    address = None
    for text in reversed(_listed(headers, FOR)):
        address = _node(text, "X-Forwarded-For", True)
        if not trusts(address):
            break
    scheme = authority = None
    if protocols := _listed(headers, PROTO):
        scheme = _scheme(protocols[-1], "X-Forwarded-Proto")
    if hosts := _listed(headers, HOST):
        authority = _authority(hosts[-1], "X-Forwarded-Host")
    if ports := _listed(headers, PORT):
        authority = _with_port(authority or headers.get(b"host"), ports[-1]) or authority
    return Client(address, scheme, authority)


def _with_port(authority: bytes | None, port: bytes) -> bytes | None:
    """Add a port to a host that has none, unless it is the default port of HTTP or HTTPS."""
    if _PORT.fullmatch(port) is None or int(port) > 65535:
        raise _refusal("X-Forwarded-Port", "a port")
    authority = authority and authority.removesuffix(b":")
    if not authority or port in (b"80", b"443") or _ENDS_IN_PORT.search(authority.rpartition(b"]")[2]):
        return None
    return b"%b:%b" % (authority, port)


def read_forwarded(headers: Mapping[bytes, bytes], trusts: Trust) -> Client:
    """
    Read ``Forwarded``.

    The client is what the first element from the right names that is no trusted proxy. Scheme and host are those that
    the client asked for: of that element, or, where it has none, of the next one to its right.

    :param headers: by their names in lower case.
    :raises InvalidRequest: the header is malformed, or what counts of it can't be understood.
    """
    address = scheme = authority = None
    for element in reversed(list(_elements(headers.get(FORWARDED, b"")))):
        if b"proto" in element:
            scheme = _scheme(element[b"proto"], "Forwarded's proto")
        if b"host" in element:
            authority = _authority(element[b"host"], "Forwarded's host")
        if b"for" not in element:
            # No trusted proxy has confirmed the addresses to the left of it.
            break
        address = _node(element[b"for"], "Forwarded's for", False)
        if not trusts(address):
            break
    return Client(address, scheme, authority)


def _elements(value: bytes) -> Iterator[dict[bytes, bytes]]:
    """Split a ``Forwarded`` header: the parameters of each proxy, by their names in lower case."""
    element: dict[bytes, bytes] = {}
    place = 0
    while place < len(value):
        match = _PAIR.match(value, place)
        if match is None:
            raise _refusal("Forwarded", "in the form of RFC 7239, with quotes around values that contain a colon")
        place = match.end()
        name, token, quoted, end = match.groups()
        if name is not None:
            key = name.lower()
            if key in element:
                raise _refusal("Forwarded", f"a list of elements with at most one {key.decode()} each")
            element[key] = token if token is not None else _QUOTED_PAIR.sub(rb"\1", quoted)
        if end != b";" and element:
            yield element
            element = {}
    if element:
        yield element
