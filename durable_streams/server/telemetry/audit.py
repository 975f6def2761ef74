"""The audit log: who did what to which stream, allowed or not, as JSON lines of a stable form."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, Protocol
from urllib.parse import unquote_to_bytes

import msgspec
from msgspec.structs import replace
from twisted.internet.interfaces import IDelayedCall

from ..clocks import IClock
from ..errors import Unavailable
from ..identity.policy import NO_RULE, NOT_GRANTED
from ..web.access_parts import Access
from ..web.answers import Answer
from ..web.observed_bodies import DISCONNECTED, ObservedBody
from ..web.pages import PageRequest
from ..web.requests import StreamRequest
from ..web.telemetry import request_id
from .audit_file import AuditFile

#: The operations of requests that change something; ``subscribe`` and ``admin`` by the method.
CHANGES: Final = frozenset({"create", "append", "close", "delete", "fork-from"})

_READING_METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})

#: How many denials have a line in a second: of one address, and of all.
MAX_DENIALS_OF_ADDRESS: Final = 20
MAX_DENIALS: Final = 200

#: The fields of a request that the line of its end has, too.
_OF_END: Final = ("request_id", "address", "stream", "page", "subject", "kind", "credential", "operation")

#: The longest value, in characters.
_LONGEST: Final = 2048

#: The characters that are escaped besides those that JSON requires: they could end a line in some readers.
_UNPRINTABLE: Final = re.compile("[^\x20-\x7e]")


class AccessCounts:
    """
    Counters of decisions, as plain ints.

    :ivar denials: (reason, operation) -> number. The reasons are ``credentials`` (missing or invalid), ``anonymous``
        (nobody may do that without credentials), ``rule``, ``default`` (no rule allows it) and ``grants``.
    """

    def __init__(self) -> None:
        self.denials: Counter[tuple[str, str]] = Counter()


class AuditSink(Protocol):
    """Receives lines: an :class:`.AuditFile`."""

    @property
    def lines(self) -> int:
        """How many lines were written."""

    @property
    def lost(self) -> int:
        """How many lines were lost."""

    @property
    def obstacle(self) -> str | None:
        """Why lines cannot be written now; None if they can."""

    def open(self) -> None:
        """
        Begin to write.

        :raises OSError: the file cannot be opened.
        """

    def write(self, line: bytes) -> None:
        """Write a line, which has no line break."""

    def reopen(self) -> None:
        """Go on in a new file of the same path."""

    def close(self) -> None:
        """Write what waits, and end."""


class AuditLog:
    """
    Records the decisions of the gate.

    A line has no secret, no header, no query and no body. Denials over :data:`MAX_DENIALS` in a second are counted in
    one line instead.

    :param sink: where lines are written; None to count only.
    :param events: ``none``, ``denied``, ``changes`` (denials and allowed changes) or ``all``.
    :param required: whether allowed requests that would be recorded are refused while lines cannot be written.
    :ivar counts: the counters of denials.
    :ivar sink: where lines are written; None to count only.
    :ivar seconds: the time for durations.
    """

    def __init__(
        self,
        clock: IClock,
        counts: AccessCounts,
        sink: AuditSink | None = None,
        events: str = "none",
        required: bool = False,
    ) -> None:
        self.counts = counts
        self.sink = sink
        self.seconds = clock.seconds
        self._clock = clock
        self._denials = sink is not None and events != "none"
        self._changes = sink is not None and events in ("changes", "all")
        self._all = sink is not None and events == "all"
        self.records_allowed = self._changes or self._all
        self._required = required
        # The denials of this second: the number of lines, those of each address, and what was left out.
        self._lines = 0
        self._of_address: Counter[str] = Counter()
        self._left_out: Counter[str] = Counter()
        self._second: IDelayedCall | None = None

    def decided(self, request: StreamRequest | PageRequest, access: Access) -> AuditEntry | None:
        """
        Return the entry for a decision, or None if it is not recorded.

        :raises Unavailable: the request is allowed, but must be recorded, and cannot be now.
        """
        if access.allowed:
            if not access.operations or not (self._all or (self._changes and is_change(request, access.operations))):
                return None
            if self._required and self.sink is not None and self.sink.obstacle is not None:
                raise Unavailable("The audit log cannot be written, and audit.required is true. Try again later.")
            return AuditEntry(self, _of(request, access), {})
        reason = reason_of(access)
        self.counts.denials[reason, access.operation] += 1
        if not self._denials or not self._has_room(request, reason):
            return None
        return AuditEntry(self, _of(request, access), {"reason": reason})

    def not_authenticated(self, request: StreamRequest | PageRequest, reason: str) -> AuditEntry | None:
        """
        Return the entry for a request whose credentials are missing or invalid, or None if it is not recorded.

        :param reason: a sentence without secrets, as the client is sent it.
        """
        self.counts.denials["credentials", "authenticate"] += 1
        if not self._denials or not self._has_room(request, "credentials"):
            return None
        return AuditEntry(self, _of_request(request) | {"allowed": False}, {"reason": "credentials", "detail": reason})

    def record(self, event: str, fields: Mapping[str, object]) -> None:
        """
        Write a line that is not about a request, such as a change of the tokens, if changes are recorded.

        :param event: what has happened.
        :param fields: further fields, without secrets.
        """
        if self._changes:
            self.write(event, fields)

    def write(self, event: str, fields: Mapping[str, object]) -> None:
        """Write a line. Fields that are None are left out."""
        if self.sink is not None:
            self.sink.write(audit_line(event, fields, self._clock.wall()))

    def _has_room(self, request: StreamRequest | PageRequest, reason: str) -> bool:
        """Return whether a denial of this second has a line of its own; if not, count it."""
        if self._second is None:
            self._second = self._clock.callLater(1, self._end_second)
        address = request.caller.client_address
        if self._lines >= MAX_DENIALS or self._of_address[address] >= MAX_DENIALS_OF_ADDRESS:
            self._left_out[reason] += 1
            return False
        self._lines += 1
        self._of_address[address] += 1
        return True

    def _end_second(self) -> None:
        self._second = None
        self._lines = 0
        self._of_address.clear()
        if self._left_out:
            self.write("denials_left_out", {"count": self._left_out.total(), "reasons": dict(self._left_out)})
            self._left_out.clear()

    def open(self) -> None:
        """
        Open the file.

        :raises OSError: it cannot be opened.
        """
        if self.sink is not None:
            self.sink.open()
            self.record("opened", {"process": os.getpid()})

    def reopen(self) -> None:
        """Open the file by its path again, as after a rotation."""
        if self.sink is not None:
            self.sink.reopen()

    def close(self) -> None:
        """Write what is still to be written, and close the file."""
        if self._second is not None:
            self._second.cancel()
            self._end_second()
        if self.sink is not None:
            self.record("closed", {"process": os.getpid()})
            self.sink.close()


class AuditEntry:
    """A request that is recorded when its answer is known, and when a streamed answer has ended."""

    __slots__ = ("_audit", "_began_at", "_fields", "_reason")

    def __init__(self, audit: AuditLog, fields: dict[str, object], reason: dict[str, str]) -> None:
        self._audit = audit
        self._fields = fields
        self._reason = reason
        self._began_at = 0.0

    def answered(self, answer: Answer) -> Answer:
        """
        Write the record.

        :returns: the answer to send: its body, if it is streamed, has its end recorded, too.
        """
        body = answer.body
        fields = self._fields | {"status": answer.status} | self._reason
        if answer.error is not None:
            fields["error"] = answer.error.code
        if isinstance(body, bytes):
            self._audit.write("request", fields | {"bytes": len(body)})
            return answer
        self._audit.write("request", fields | {"streamed": True})
        self._began_at = self._audit.seconds()
        return replace(answer, body=ObservedBody(body, self._ended))

    def failed(self) -> None:
        """
        Write the record of a request that has no answer, because its client has gone.

        What it has changed may be stored nevertheless.
        """
        self._audit.write("request", self._fields | self._reason | {"outcome": DISCONNECTED})

    def _ended(self, sent: int, outcome: str) -> None:
        fields = {key: self._fields[key] for key in _OF_END if key in self._fields}
        seconds = round(self._audit.seconds() - self._began_at, 3)
        self._audit.write("ended", fields | {"bytes": sent, "seconds": seconds, "outcome": outcome})


def _of(request: StreamRequest | PageRequest, access: Access) -> dict[str, object]:
    """Return the fields of a request and the decision about it."""
    principal, decision, operations = access.principal, access.decision, access.operations
    fields = _of_request(request)
    return fields | {
        "subject": principal.subject,
        "kind": principal.kind,
        "credential": principal.credential or None,
        "operation": access.operation or None,
        "operations": operations if len(operations) > 1 else None,
        "source": access.source,
        "on": None if access.name in ("", fields.get("stream")) else access.name,
        "allowed": access.allowed,
        "rule": None if decision is None else decision.rule,
    }


def is_change(request: StreamRequest | PageRequest, operations: tuple[str, ...]) -> bool:
    """Return whether a request changes something, if it is allowed."""
    if not CHANGES.isdisjoint(operations):
        return True
    return request.method not in _READING_METHODS


def reason_of(access: Access) -> str:
    """Return the reason of a denial, a word of :attr:`AccessCounts.denials`."""
    if access.principal.kind == "anonymous":
        return "anonymous"
    decision = access.decision
    if decision is None or decision is NO_RULE:
        return "default"
    return "grants" if decision is NOT_GRANTED else "rule"


def _of_request(request: StreamRequest | PageRequest) -> dict[str, object]:
    fields: dict[str, object] = {
        "request_id": request_id(request.number, request.caller).decode("latin-1"),
        "address": request.caller.client_address or None,
        "method": request.method.decode("latin-1"),
    }
    path = request.path if isinstance(request, StreamRequest) else request.mount + request.path
    name = unquote_to_bytes(path).decode("utf-8", "backslashreplace")
    fields["stream" if isinstance(request, StreamRequest) else "page"] = name
    return fields


def audit_line(event: str, fields: Mapping[str, object], time: float) -> bytes:
    """
    Return a line of the audit log, in ASCII: a JSON object.

    :param fields: its fields after ``time`` and ``event``. Those that are None are left out.
    :param time: in UNIX seconds.
    """
    moment = datetime.fromtimestamp(time, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    record: dict[str, Any] = {"time": moment, "event": event}
    record |= {key: _bounded(value) for key, value in fields.items() if value is not None}
    line = msgspec.json.encode(record)
    if line.isascii() and b"\x7f" not in line:
        return line
    return _UNPRINTABLE.sub(_escape, line.decode()).encode()


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


def audit_file(path: str, clock: IClock) -> AuditFile:
    """Return the file of an audit log, which is not open yet."""
    return AuditFile(path, clock, lambda lost: audit_line("lines_lost", {"count": lost}, clock.wall()))
