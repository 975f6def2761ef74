"""Trace context of webhook deliveries: which ``traceparent`` and ``tracestate`` a wake is delivered with (W3C)."""

from __future__ import annotations

import re
from collections import OrderedDict
from hashlib import sha256
from secrets import token_hex
from typing import Final

from msgspec import Struct

from .model import DeliverWebhook

#: The maximum number of writes whose trace is remembered until their wake is delivered, and of bytes of their names.
MAX_WRITES: Final = 4096
MAX_NAMES: Final = 1 << 20

_TRACEPARENT: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
)

#: A member of a tracestate: a key, perhaps with the name of a system, and a value.
_MEMBER: Final = re.compile(
    rb"[a-z0-9][a-z0-9_*/-]{0,255}(?:@[a-z][a-z0-9_*/-]{0,13})?=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[!-+\x2d-<>-~]"
)

#: The maximum number of members of a tracestate.
_MAX_MEMBERS: Final = 32

#: The maximum size of a tracestate that is passed on, in bytes.
_MAX_TRACESTATE: Final = 512

#: The flags that are passed on: sampled, and random trace-id. The others have no meaning in version 00.
_KNOWN_FLAGS: Final = 0x03


def parse_traceparent(value: bytes) -> str | None:
    """
    Return the ``traceparent`` to pass on for a received one; None if it is malformed, or two were joined.

    That of a later version is passed on as one of version 00, without what that version does not have.
    """
    match = _TRACEPARENT.fullmatch(value)
    if match is None or (match[1] == b"00" and match[5] is not None):
        return None
    trace_id, parent_id, flags = match[2].decode(), match[3].decode(), int(match[4], 16) & _KNOWN_FLAGS
    return f"00-{trace_id}-{parent_id}-{flags:02x}"


def parse_tracestate(value: bytes) -> str:
    """Return the ``tracestate`` to pass on for a received one, unchanged; empty if it is malformed or too long."""
    if len(value) > _MAX_TRACESTATE:
        return ""
    members = value.split(b",")
    if len(members) > _MAX_MEMBERS:
        return ""
    for member in members:
        # Empty members are allowed.
        if (trimmed := member.strip(b" \t")) and _MEMBER.fullmatch(trimmed) is None:
            return ""
    return value.decode("ascii")


class TraceContext(Struct, frozen=True):
    """
    The trace context of a request.

    :ivar tracestate: empty if there is none.
    """

    traceparent: str
    tracestate: str = ""


class DeliveryTraces:
    """
    Chooses the trace context of webhook deliveries.

    If all that is pending in a wake was written by one request, the delivery continues the trace of that request. Else
    it begins a trace, the same one for all attempts of a wake, with the flag ``sampled``: receivers whose sampler
    follows its parent would record nothing without it.

    The traces of the last writes are kept in memory.
    """

    def __init__(self) -> None:
        #: Stream, incarnation and end of a write -> its begin and its context, in the order of writes.
        self._writes: OrderedDict[tuple[str, int, int], tuple[int, TraceContext]] = OrderedDict()
        self._names = 0

    def __len__(self) -> int:
        return len(self._writes)

    def note(self, name: str, incarnation: int, begin: int, end: int, parent: bytes, state: bytes = b"") -> None:
        """
        Remember the trace of a write.

        :param begin: the position of its first byte in the stream.
        :param end: the position after its last byte.
        :param parent: the ``traceparent`` of the request. A malformed one is ignored.
        :param state: its ``tracestate``.
        """
        traceparent = parse_traceparent(parent)
        key = name, incarnation, end
        if traceparent is None or begin >= end or key in self._writes:
            return
        self._writes[key] = begin, TraceContext(traceparent, parse_tracestate(state))
        self._names += len(name)
        while len(self._writes) > MAX_WRITES or self._names > MAX_NAMES:
            (oldest, _, _), _ = self._writes.popitem(last=False)
            self._names -= len(oldest)

    def context(self, delivery: DeliverWebhook) -> TraceContext:
        """Return the trace context of a delivery attempt."""
        pending = [entry for entry in delivery.snapshot.entries if entry.has_pending]
        if len(pending) == 1:
            (entry,) = pending
            found = self._writes.get((entry.path, entry.incarnation, entry.tail))
            if found is not None and found[0] == entry.cursor:
                return found[1]
        return TraceContext(f"00-{sha256(delivery.wake_id.encode()).hexdigest()[:32]}-{_span_id()}-01")


def _span_id() -> str:
    """Return a random id of a span, which is not zero."""
    while not int(drawn := token_hex(8), 16):
        pass
    return drawn
