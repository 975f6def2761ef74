"""Heads of HTTP/2 requests (RFC 9113 section 8.3.1): fields to method, target and headers."""

from __future__ import annotations

from collections.abc import Iterable

from .errors import ErrorCode, Http2Error
from .fields import AUTHORITY, CONTENT_LENGTH, COOKIE, HOST, MALFORMED, METHOD, PATH, REGULAR, SCHEME, Field


class Head:
    """
    The head of a request. Requests whose blocks are equal may share one.

    :ivar method: CONNECT has no path; of all others the path is not empty.
    :ivar fields: the headers, with ``host`` last, which is what ``:authority`` says; cookies are one.
    :ivar size: as SETTINGS_MAX_HEADER_LIST_SIZE counts it.
    :ivar length: what ``content-length`` says.
    """

    __slots__ = ("fields", "length", "method", "size", "target")

    def __init__(
        self, method: bytes, target: bytes, fields: list[tuple[bytes, bytes]], size: int, length: int | None
    ) -> None:
        self.method = method
        self.target = target
        self.fields = fields
        self.size = size
        self.length = length


def _malformed(message: str) -> Http2Error:
    return Http2Error(ErrorCode.PROTOCOL_ERROR, message)


def read_head(fields: Iterable[Field]) -> Head:
    """
    Read the head of a request.

    :raises Http2Error: it is malformed.
    """
    headers: list[tuple[bytes, bytes]] = []
    pseudo: dict[int, bytes] = {}
    special: dict[int, list[bytes]] = {}
    size = 0
    for name, value, kind, field_size in fields:
        size += field_size
        if kind == REGULAR:
            headers.append((name, value))
        elif kind >= METHOD:
            if headers or special:
                raise _malformed(f"{name!r} comes after a header.")
            if kind in pseudo:
                raise _malformed(f"{name!r} comes twice.")
            pseudo[kind] = value
        elif kind == MALFORMED:
            raise _malformed(f"{name!r} has a name or a value that no request may have.")
        else:
            special.setdefault(kind, []).append(value)
            if kind == CONTENT_LENGTH:
                headers.append((name, value))
    method = pseudo.get(METHOD)
    path = pseudo.get(PATH)
    if method is None:
        raise _malformed("There is no :method.")
    if method == b"CONNECT":
        if SCHEME in pseudo or path is not None:
            raise _malformed("CONNECT has a :scheme or a :path.")
    elif SCHEME not in pseudo or path is None:
        raise _malformed("There is no :scheme or no :path.")
    if COOKIE in special:
        # Clients may cut them up for compression (RFC 9113 section 8.2.3).
        headers.append((b"cookie", b"; ".join(special[COOKIE])))
    headers.append((b"host", _read_host(pseudo.get(AUTHORITY), special.get(HOST, []))))
    return Head(method, path or b"", headers, size, _read_length(special.get(CONTENT_LENGTH, [])))


def _read_host(authority: bytes | None, hosts: list[bytes]) -> bytes:
    if len(hosts) > 1:
        raise _malformed("The request has two host fields.")
    host = hosts[0] if hosts else authority
    if host is None:
        raise _malformed("There is no :authority and no host.")
    if authority not in (None, host):
        raise _malformed(":authority and host differ.")
    return host


def _read_length(lengths: list[bytes]) -> int | None:
    stated = {int(length) for length in lengths}
    if len(stated) > 1:
        raise _malformed("There are two values of content-length.")
    return stated.pop() if stated else None


def check_trailers(fields: Iterable[Field]) -> None:
    """
    Check the fields after a body.

    :raises Http2Error: they are malformed.
    """
    for name, _, kind, _ in fields:
        if kind == MALFORMED or kind >= METHOD:
            raise _malformed(f"There is {name!r} among the trailers.")
