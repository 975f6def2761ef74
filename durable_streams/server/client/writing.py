"""An idempotent writer: appends that are repeated until the server has answered, and never stored twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .backoff import Backoff
from .errors import ClientError, InvalidAnswer, InvalidUse
from .http import Answer, HttpClient
from .values import AppendResult

#: The largest epoch and sequence number (PROTOCOL section 5.2.1).
MAX_INTEGER: Final = 2**53 - 1


class IdempotentWriter:
    """
    A producer of one stream (PROTOCOL section 5.2.1), with one append at a time.

    Each append has the next sequence number. If the connection breaks, or the server answers 408, 429, 500, 502, 503 or
    504, the same append is sent again after a delay, Retry-After at least. If it had been stored, the server does not
    store it again.

    :param url: the stream.
    :param content_type: the stream's content type.
    :param producer_id: the producer's name; one producer at a time may use it on a stream.
    :param epoch: the session of the producer. A new one must be higher than those before it.
    :param next_seq: the sequence number of the next append; 0 in a new epoch.
    :param give_up_after: how long an append is sent again without an answer, in seconds; None for no end.
    :param notice: called with each error before another attempt.
    :ivar next_seq: the sequence number of the next append. After an error it is that of the append without an outcome.
    :raises InvalidUse: the producer's name is empty, or a number is out of range.
    """

    def __init__(
        self,
        http: HttpClient,
        url: str,
        content_type: str,
        producer_id: str,
        epoch: int = 0,
        *,
        next_seq: int = 0,
        give_up_after: float | None = 60.0,
        notice: Callable[[ClientError], object] = lambda error: None,
    ) -> None:
        if not producer_id:
            raise InvalidUse("The producer's id must not be empty.")
        if not (0 <= epoch <= MAX_INTEGER and 0 <= next_seq <= MAX_INTEGER):
            raise InvalidUse(f"An epoch and a sequence number are 0 to {MAX_INTEGER}.")
        self.next_seq = next_seq
        self._http = http
        self._url = url
        self._content_type = content_type
        self._identity = {"Producer-Id": producer_id, "Producer-Epoch": str(epoch)}
        self._give_up_after = give_up_after
        self._notice = notice

    async def append(self, data: bytes, close: bool = False) -> AppendResult:
        """
        Append data, exactly once.

        :param data: at least one byte, unless ``close``.
        :param close: whether to close the stream after it, in the same step.
        :raises RefusedEpoch: a producer with a higher epoch has written.
        :raises RefusedGap: the stream expects another sequence number.
        :raises RefusedAsClosed: the stream was closed by somebody else.
        :raises ClientError: there was no answer for ``give_up_after``, or the append was refused. It is unknown whether
            an append without an answer was stored; the next call must have the same data.
        """
        headers = append_headers(self._content_type, data, close) | self._identity
        headers["Producer-Seq"] = str(self.next_seq)
        backoff = Backoff(self._http.reactor, self._give_up_after)
        while True:
            try:
                answer = await self._http.request("POST", self._url, headers, data)
                await answer.drop()
                break
            except ClientError as error:
                self._notice(error)
                await backoff.wait(error)
        result = append_result(answer)
        if result.last_seq is None or result.last_seq < self.next_seq:
            raise InvalidAnswer(f"{self._url}: the server does not support idempotent producers.")
        self.next_seq += 1
        return result


def append_headers(content_type: str, data: bytes, close: bool) -> dict[str, str]:
    """Return the headers of an append."""
    headers = {}
    if data or not close:
        headers["Content-Type"] = content_type
    if close:
        headers["Stream-Closed"] = "true"
    return headers


def append_result(answer: Answer) -> AppendResult:
    """
    Return the outcome of an append.

    :raises InvalidAnswer: the answer has no Stream-Next-Offset.
    """
    next_offset = answer.header("stream-next-offset")
    last_seq = answer.number("producer-seq")
    duplicate = last_seq is not None and answer.status == 204
    if next_offset is None and not duplicate:
        raise InvalidAnswer("The answer has no Stream-Next-Offset. Check that the URL is one of a stream.")
    return AppendResult(next_offset, answer.is_true("stream-closed"), duplicate, last_seq)
