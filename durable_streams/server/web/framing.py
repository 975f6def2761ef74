"""Framing of answers: the status line and the header fields that all answers have, and the record for telemetry."""

from __future__ import annotations

from typing import Final

from .answers import Answer
from .callers import RUN, Caller, next_number
from .telemetry import Occasion, Telemetry, request_id
from .wire import BODILESS, STATUS_LINES

_ANY_IDENTITY: Final = b"X-Request-Id: %b\r\n"

#: The X-Request-Id of a request that no trusted proxy has given an id; see :func:`.request_id`.
_IDENTITY: Final = b"X-Request-Id: %b-%%x\r\n" % RUN


class Framer:
    """
    Adds the status line, Date, X-Request-Id and Content-Length to answers, and passes each answer to telemetry.

    :ivar date_line: the Date header of this second; empty if the transport adds its own.
    :ivar record: :meth:`.Telemetry.answered`.
    """

    __slots__ = ("date_line", "record")

    def __init__(self, telemetry: Telemetry) -> None:
        self.date_line = b""
        self.record = telemetry.answered

    def http1(self, answer: Answer, asked: Occasion, began_at: float, connection: bytes = b"") -> bytes:
        """
        Return the bytes of an HTTP/1.1 answer: the head, and the body if it is whole.

        It is written out for speed; :meth:`fields` does the same.

        :param began_at: when the request had arrived, as :func:`time.perf_counter` has it.
        :param connection: header lines about the connection and the framing of a body without length.
        """
        if type(asked) is Caller:
            number, caller, method = next_number(), asked, b""
        else:
            number, caller, method = asked.number, asked.caller, asked.method  # type: ignore[union-attr]
        self.record(asked, number, answer, began_at)
        client = caller.client
        identity = _IDENTITY % number if client is None else _ANY_IDENTITY % request_id(number, caller)
        status, body = answer.status, answer.body
        if status == 204:
            end = b"\r\n"
        elif isinstance(body, bytes) and status not in BODILESS and method != b"HEAD":
            end = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        else:
            length = length_of(answer, method)
            end = b"\r\n" if length is None else b"Content-Length: %d\r\n\r\n" % length
        return b"".join((STATUS_LINES[status], self.date_line, answer.head, identity, connection, end))

    def fields(self, answer: Answer, asked: Occasion, began_at: float) -> list[tuple[bytes, bytes]]:
        """
        Return the header fields of an answer, for twisted.web; HTTP/2 encodes the same.

        :param began_at: when the request had arrived, as :func:`time.perf_counter` has it.
        """
        identity, length = self.identify(answer, asked, began_at)
        fields = [(b"Date", self.date_line[6:-2])] if self.date_line else []
        fields += answer.fields()
        fields.append((b"X-Request-Id", identity))
        if length is not None:
            fields.append((b"Content-Length", b"%d" % length))
        return fields

    def identify(self, answer: Answer, asked: Occasion, began_at: float) -> tuple[bytes, int | None]:
        """
        Pass an answer to telemetry.

        :param began_at: when the request had arrived, as :func:`time.perf_counter` has it.
        :returns: the values of X-Request-Id and Content-Length; None for no Content-Length.
        """
        if isinstance(asked, Caller):
            number, caller, method = next_number(), asked, b""
        else:
            number, caller, method = asked.number, asked.caller, asked.method
        self.record(asked, number, answer, began_at)
        return request_id(number, caller), length_of(answer, method)


def length_of(answer: Answer, method: bytes) -> int | None:
    """
    Return the Content-Length of an answer; None if it has none.

    An answer to a HEAD without a body to measure has none: 0 would be the length of the answer to a GET.
    """
    body = answer.body
    if answer.status in BODILESS:
        return None
    if not isinstance(body, bytes):
        return body.length
    return None if method == b"HEAD" and not body else len(body)
