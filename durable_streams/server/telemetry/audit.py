"""The audit log: who did what to which stream, allowed or not, as JSON lines of a stable form."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import Final, Protocol

from msgspec.structs import replace
from twisted.internet.interfaces import IDelayedCall

from ..clocks import IClock
from ..errors import Unavailable
from ..identity.policy import NO_RULE, NOT_GRANTED
from ..identity.principal import NOBODY
from ..web.access_parts import Access
from ..web.answers import Answer
from ..web.observed_bodies import ObservedBody
from ..web.pages import PageRequest
from ..web.relayed_bodies import DISCONNECTED
from ..web.requests import StreamRequest
from .audit_file import AuditFile
from .audit_lines import AuditLines, encoded

#: The operations of requests that change something; ``subscribe`` and ``admin`` by the method.
CHANGES: Final = frozenset({"create", "append", "close", "delete", "fork-from"})

_READING_METHODS: Final = frozenset({b"GET", b"HEAD", b"OPTIONS"})

#: How many denials have a line in a second: of one address, and of all.
MAX_DENIALS_OF_ADDRESS: Final = 20
MAX_DENIALS: Final = 200


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
    :ivar denials: (reason, operation) -> number. The reasons are ``credentials`` (missing or invalid), ``anonymous``
        (nobody may do that without credentials), ``rule``, ``default`` (no rule allows it) and ``grants``.
    :ivar sink: where lines are written; None to count only.
    :ivar seconds: the time for durations.
    """

    def __init__(
        self,
        clock: IClock,
        sink: AuditSink | None = None,
        events: str = "none",
        required: bool = False,
    ) -> None:
        self.denials: Counter[tuple[str, str]] = Counter()
        self.sink = sink
        self.seconds = clock.seconds
        self._clock = clock
        self._wall = clock.wall
        self._made = AuditLines()
        self._records_denials = sink is not None and events != "none"
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
            return AuditEntry(self, self._made.decided(request, access))
        reason = reason_of(access)
        self.denials[reason, access.operation] += 1
        if not self._records_denials or not self._has_room(request, reason):
            return None
        return AuditEntry(self, b'%b,"reason":"%b"' % (self._made.decided(request, access), reason.encode()))

    def not_authenticated(self, request: StreamRequest | PageRequest, reason: str) -> AuditEntry | None:
        """
        Return the entry for a request whose credentials are missing or invalid, or None if it is not recorded.

        :param reason: a sentence without secrets, as the client is sent it.
        """
        self.denials["credentials", "authenticate"] += 1
        if not self._records_denials or not self._has_room(request, "credentials"):
            return None
        why = encoded({"reason": "credentials", "detail": reason})
        return AuditEntry(self, b"%b,%b" % (self._made.not_authenticated(request), why))

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
        self.write_encoded(event.encode(), encoded(fields))

    def write_encoded(self, event: bytes, part: bytes) -> None:
        """Write a line whose fields are encoded."""
        if self.sink is not None:
            self.sink.write(self._made.line(self._wall(), event, part))

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
    """
    A request that is recorded when its answer is known, and when a streamed answer has ended.

    :param part: the fields of the request and the decision about it, encoded.
    """

    __slots__ = ("_audit", "_began_at", "_part")

    def __init__(self, audit: AuditLog, part: bytes) -> None:
        self._audit = audit
        self._part = part
        self._began_at = 0.0

    def answered(self, answer: Answer) -> Answer:
        """
        Write the record.

        :returns: the answer to send: its body, if it is streamed, has its end recorded, too.
        """
        body, error = answer.body, answer.error
        code = b"" if error is None else b',"error":"%b"' % error.code.encode()
        if isinstance(body, bytes):
            outcome = b'%b,"status":%d%b,"bytes":%d' % (self._part, answer.status, code, len(body))
            self._audit.write_encoded(b"request", outcome)
            return answer
        outcome = b'%b,"status":%d%b,"streamed":true' % (self._part, answer.status, code)
        self._audit.write_encoded(b"request", outcome)
        self._began_at = self._audit.seconds()
        return replace(answer, body=ObservedBody(body, self._ended))

    def failed(self) -> None:
        """
        Write the record of a request that has no answer, because its client has gone.

        What it has changed may be stored nevertheless.
        """
        self._audit.write_encoded(b"request", b'%b,"outcome":"%b"' % (self._part, DISCONNECTED.encode()))

    def _ended(self, sent: int, outcome: str) -> None:
        seconds = round(self._audit.seconds() - self._began_at, 3)
        end = encoded({"bytes": sent, "seconds": seconds, "outcome": outcome})
        self._audit.write_encoded(b"ended", b"%b,%b" % (self._part, end))


def is_change(request: StreamRequest | PageRequest, operations: tuple[str, ...]) -> bool:
    """Return whether a request changes something, if it is allowed."""
    if not CHANGES.isdisjoint(operations):
        return True
    return request.method not in _READING_METHODS


def reason_of(access: Access) -> str:
    """Return the reason of a denial, a word of :attr:`AuditLog.denials`."""
    if access.principal.kind == NOBODY:
        return "anonymous"
    decision = access.decision
    if decision is None or decision is NO_RULE:
        return "default"
    return "grants" if decision is NOT_GRANTED else "rule"


def audit_file(path: str, clock: IClock) -> AuditFile:
    """Return the file of an audit log, which is not open yet."""
    made = AuditLines()
    return AuditFile(path, clock, lambda lost: made.line(clock.wall(), b"lines_lost", encoded({"count": lost})))
