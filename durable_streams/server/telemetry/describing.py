"""The fields of a request in the access log and in traces: only those listed here, no other header, body or token."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from ..web.answers import Answer
from ..web.callers import Caller
from ..web.pages import PageRequest
from ..web.requests import StreamRequest
from ..web.telemetry import Occasion, request_name

#: Path -> operation, for pages.
_BY_PATH: Final = {b"/healthz": "health", b"/readyz": "readiness"}

#: All of the operations.
OPERATIONS: Final = (
    "create",
    "append",
    "read",
    "poll",
    "subscribe",
    "head",
    "delete",
    "health",
    "readiness",
    "request",
    "subscription",
)

#: The query parameters that are logged; all others may be secrets.
_PARAMETERS: Final = frozenset([b"offset", b"live", b"cursor"])

_ERROR_CLASSES: Final = {503: "unavailable", 507: "insufficient_storage"}
_PORT: Final = re.compile(rb":[0-9]*\Z")

#: The maximum length of a value, in characters.
_LONGEST: Final = 2048


def text(value: bytes | str) -> str:
    """Return a client's value for a log: truncated to :data:`_LONGEST`, with unprintable characters escaped."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if len(value) > _LONGEST:
        value = value[:_LONGEST] + "..."
    if value.isprintable():
        return value
    return "".join(each if each.isprintable() else ascii(each)[1:-1] for each in value)


def operation_of(asked: Occasion) -> str:
    """Return the operation of a request, one of :data:`OPERATIONS`."""
    if isinstance(asked, StreamRequest):
        return asked.operation
    if isinstance(asked, PageRequest):
        return _BY_PATH.get(asked.path, "request")
    return "request"


def line_of(asked: Occasion, answer: Answer, took: float) -> str:
    """
    Return the access log's line for an answer: method, path, status, problem code, duration and client.

    :param took: seconds from the request's arrival until the answer began.
    """
    if isinstance(asked, Caller):
        what, caller = "No request", asked
    else:
        what, caller = f"{text(asked.method)} {text(_path_and_query(asked)[0])}", asked.caller
    code = "" if answer.error is None else f" {answer.error.code}"
    client = f" from {caller.client_address}" if caller.client_address else ""
    return f"{what} {answer.status}{code} in {took * 1000:.1f} ms{client}"


def _path_and_query(asked: StreamRequest | PageRequest) -> tuple[bytes, bytes]:
    if isinstance(asked, StreamRequest):
        return asked.mount + asked.path, asked.query
    return asked.path, asked.query


def fields_of(asked: Occasion, number: int, answer: Answer, took: float, backend: str) -> dict[str, object]:
    """
    Return the fields of a request and its answer, for the access log and for traces.

    :param took: seconds from the request's arrival until the answer began.
    :param backend: the storage mode.
    """
    caller = asked if isinstance(asked, Caller) else asked.caller
    fields: dict[str, object] = {"ds.operation": operation_of(asked), **request_name(number, caller)}
    if not isinstance(asked, Caller):
        fields |= _of_request(asked)
    if isinstance(asked, StreamRequest):
        fields["ds.stream_id"] = text(unquote_to_bytes(asked.path))
        fields["ds.storage.backend"] = backend
        if asked.view.live is not None:
            fields["ds.live_mode"] = text(asked.view.live)
        if asked.access is not None and asked.access.principal.subject:
            fields["user.id"] = text(asked.access.principal.subject)
    fields |= _of_caller(caller)
    fields["http.response.status_code"] = answer.status
    fields["event.duration"] = int(took * 1_000_000_000)
    return fields | _of_failure(answer)


def _of_request(asked: StreamRequest | PageRequest) -> dict[str, object]:
    path, query = _path_and_query(asked)
    fields: dict[str, object] = {
        "http.request.method": text(asked.method),
        "url.path": text(path),
        "network.protocol.version": asked.version,
    }
    told = b"&".join(pair for pair in query.split(b"&") if pair.partition(b"=")[0] in _PARAMETERS)
    if told:
        fields["url.query"] = text(told)
    if isinstance(asked, StreamRequest):
        fields["http.route"] = text(asked.mount) + "{name}"
        host, agent = asked.headers.get(b"host"), asked.headers.get(b"user-agent")
    else:
        if path in _BY_PATH:
            fields["http.route"] = text(path)
        host, agent = asked.header(b"host"), asked.header(b"user-agent")
    if host:
        fields["server.address"] = text(_PORT.sub(b"", host))
    if agent:
        fields["user_agent.original"] = text(agent)
    return fields


def _of_caller(caller: Caller) -> dict[str, object]:
    fields: dict[str, object] = {}
    if caller.client_address:
        fields["client.address"] = caller.client_address
    if caller.subject is not None:
        fields["client.subject"] = text(caller.subject)
    if caller.client is not None and caller.client.identity is not None:
        fields["client.identity"] = text(caller.client.identity)
    if caller.trusted:
        fields["ds.proxy.trusted"] = True
        fields["ds.proxy.peer_ip"] = caller.address
    return fields


def _of_failure(answer: Answer) -> dict[str, object]:
    if answer.status < 400:
        return {}
    fields: dict[str, object] = {}
    if answer.status >= 500:
        fields["ds.error_class"] = _ERROR_CLASSES.get(answer.status, "internal")
    if answer.error is not None:
        fields["ds.error_code"] = answer.error.code
        fields["error.type"] = answer.error.kind
        fields["error.message"] = text(answer.error.message)
        if answer.error.retry_after is not None:
            fields["http.response.header.retry_after"] = str(answer.error.retry_after)
    return fields
