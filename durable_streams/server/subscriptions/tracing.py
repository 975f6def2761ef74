"""Trace context of webhook deliveries: which ``traceparent`` a wake is delivered with (W3C Trace Context)."""

from __future__ import annotations

import re
from collections import OrderedDict
from hashlib import sha256
from secrets import token_hex
from typing import Final

from .model import DeliverWebhook

#: The maximum number of writes whose trace is remembered until their wake is delivered, and of bytes of their names.
MAX_WRITES: Final = 4096
MAX_NAMES: Final = 1 << 20

_TRACEPARENT: Final = re.compile(
    rb"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL
)

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


class DeliveryTraces:
    """
    Chooses the ``traceparent`` of webhook deliveries.

    If all that is pending in a wake was written by one request, the delivery continues the trace of that request. Else
    it begins a trace, the same one for all attempts of a wake, with the flag ``sampled``: receivers whose sampler
    follows its parent would record nothing without it.

    The traces of the last writes are kept in memory.
    """

    def __init__(self) -> None:
        #: Stream, incarnation and end of a write -> its begin and its traceparent, in the order of writes.
        self._writes: OrderedDict[tuple[str, int, int], tuple[int, str]] = OrderedDict()
        self._names = 0

    def __len__(self) -> int:
        return len(self._writes)

    def note(self, name: str, incarnation: int, begin: int, end: int, value: bytes) -> None:
        """
        Remember the trace of a write.

        :param begin: the position of its first byte in the stream.
        :param end: the position after its last byte.
        :param value: the ``traceparent`` of the request. A malformed one is ignored.
        """
        traceparent = parse_traceparent(value)
        key = name, incarnation, end
        if traceparent is None or begin >= end or key in self._writes:
            return
        self._writes[key] = begin, traceparent
        self._names += len(name)
        while len(self._writes) > MAX_WRITES or self._names > MAX_NAMES:
            (oldest, _, _), _ = self._writes.popitem(last=False)
            self._names -= len(oldest)

    def traceparent(self, delivery: DeliverWebhook) -> str:
        """Return the ``traceparent`` of a delivery attempt."""
        pending = [entry for entry in delivery.snapshot.entries if entry.has_pending]
        if len(pending) == 1:
            (entry,) = pending
            begin, caused_by = self._writes.get((entry.path, entry.incarnation, entry.tail), (-1, ""))
            if begin == entry.cursor:
                return caused_by
        return f"00-{sha256(delivery.wake_id.encode()).hexdigest()[:32]}-{_span_id()}-01"


def _span_id() -> str:
    """Return a random id of a span, which is not zero."""
    while not int(drawn := token_hex(8), 16):
        pass
    return drawn
