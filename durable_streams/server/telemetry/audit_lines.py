"""The lines of the audit log: JSON objects in ASCII, put together from parts that are encoded once."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import unquote_to_bytes

import msgspec

from ..web.access_parts import Access
from ..web.callers import RUN
from ..web.pages import PageRequest
from ..web.redaction import redacted_name
from ..web.requests import READS, StreamRequest
from ..web.telemetry import request_id

#: The longest value, in characters.
_LONGEST: Final = 2048

#: The characters that are escaped besides those that JSON requires: they could end a line in some readers.
_UNPRINTABLE: Final = re.compile("[^\x20-\x7e]")

#: How many decisions, and addresses, are kept encoded: repeated requests of a principal for a stream share a decision.
_REMEMBERED: Final = 4096

#: The operations whose decisions are shared by the requests for the same.
_SHARED: Final = READS | {"append"}


def encoded(fields: Mapping[str, object]) -> bytes:
    """
    Return fields as the inside of a JSON object, in ASCII.

    :param fields: those that are None are left out. Values over 2,048 characters are cut, and end with ``...``.
    """
    part = msgspec.json.encode({key: _bounded(value) for key, value in fields.items() if value is not None})[1:-1]
    if part.isascii() and b"\x7f" not in part:
        return part
    return _UNPRINTABLE.sub(_escape, part.decode()).encode()


def _bounded(value: object) -> object:
    """Return a value with its text truncated, and without lone surrogates."""
    if not isinstance(value, str):
        return value
    if len(value) > _LONGEST:
        value = value[:_LONGEST] + "..."
    return value if value.isascii() else value.encode("utf-8", "backslashreplace").decode()


def _escape(found: re.Match[str]) -> str:
    if found[0] == "\x7f":
        return "\\u007f"
    return json.dumps(found[0])[1:-1]


class AuditLines:
    """Encodes lines. What depends only on the second, or only on a decision, is encoded once for it."""

    def __init__(self) -> None:
        self._second = -1
        self._moment = b""
        self._decisions: dict[int, tuple[Access, bytes]] = {}
        self._addresses: dict[str, bytes] = {}

    def line(self, time: float, event: bytes, part: bytes) -> bytes:
        """
        Return a line.

        :param time: in UNIX seconds.
        :param event: what has happened.
        :param part: the other fields, as :func:`encoded` returns them.
        """
        second = int(time // 1)
        if second != self._second:
            self._moment = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()
            self._second = second
        milliseconds = int((time - second) * 1000)
        comma = b"," if part else b""
        return b'{"time":"%b.%03dZ","event":"%b"%b%b}' % (self._moment, milliseconds, event, comma, part)

    def decided(self, request: StreamRequest | PageRequest, access: Access) -> bytes:
        """Return the fields of a request and the decision about it."""
        known = self._decisions.get(id(access))
        if known is None:
            decision = encoded(_of_target(request) | _of_access(access, request))
            if isinstance(request, StreamRequest) and request.operation in _SHARED:
                if len(self._decisions) >= _REMEMBERED:
                    self._decisions.clear()
                self._decisions[id(access)] = access, decision
        else:
            decision = known[1]
        return b"%b%b" % (self._of_sender(request), decision)

    def not_authenticated(self, request: StreamRequest | PageRequest) -> bytes:
        """Return the fields of a request whose principal is not known."""
        return b'%b%b,"allowed":false' % (self._of_sender(request), encoded(_of_target(request)))

    def _of_sender(self, request: StreamRequest | PageRequest) -> bytes:
        """Return the fields that differ for each request, and a comma."""
        caller = request.caller
        if caller.client is not None:
            number = request_id(request.number, caller).decode("latin-1")
            return encoded({"request_id": number, "address": caller.client_address or None}) + b","
        address = self._addresses.get(caller.address)
        if address is None:
            if len(self._addresses) >= _REMEMBERED:
                self._addresses.clear()
            part = encoded({"address": caller.address or None})
            address = self._addresses[caller.address] = part and part + b","
        return b'"request_id":"%b-%x",%b' % (RUN, request.number, address)


def _of_target(request: StreamRequest | PageRequest) -> dict[str, object]:
    is_stream = isinstance(request, StreamRequest)
    name = unquote_to_bytes(request.path if is_stream else request.mount + request.path)
    return {
        "method": request.method.decode("latin-1"),
        "stream" if is_stream else "page": redacted_name(name.decode("utf-8", "backslashreplace")),
    }


def _of_access(access: Access, request: StreamRequest | PageRequest) -> dict[str, object]:
    principal, decision, operations = access.principal, access.decision, access.operations
    known = unquote_to_bytes(request.path).decode("utf-8", "backslashreplace")
    return {
        "subject": principal.subject,
        "kind": principal.kind,
        "credential": principal.credential or None,
        "operation": access.operation or None,
        "operations": operations if len(operations) > 1 else None,
        "source": None if access.source is None else redacted_name(access.source),
        "on": None if access.name in ("", known) else redacted_name(access.name),
        "allowed": access.allowed,
        "rule": None if decision is None else decision.rule,
    }
