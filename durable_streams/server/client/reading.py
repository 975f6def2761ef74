"""Reads that survive broken connections: catch-up, long-poll, and Server-Sent Events.

Data between two offsets never changes. So if a connection breaks inside of an answer, the reader asks again from the
answer's offset and drops as much as it has passed on already: nothing is missing, and nothing comes twice.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final, Literal

import msgspec
from msgspec import Struct

from .arrays import ArraySplitter, split_array
from .backoff import Backoff
from .errors import ClientError, InvalidAnswer, InvalidUse
from .events import EventParser
from .http import Answer, HttpClient
from .urls import with_query
from .values import Batch, StreamInfo, media_type

#: How data that is appended later is received.
Live = Literal["sse", "long-poll"]

#: A live request that ends sooner than this, in seconds, and without data, is followed by a pause.
_TOO_SOON: Final = 0.5

_MAX_OFFSET: Final = 1024


class _Control(Struct, rename="camel"):
    """The data of a control event."""

    stream_next_offset: str
    stream_cursor: str | None = None
    up_to_date: bool = False
    stream_closed: bool = False


class StreamReader:
    """
    An asynchronous iterator over the data of a stream: :class:`.Batch` after batch.

    Without ``live`` it ends at the tail; with it, it ends when the stream is closed. It raises

    - :class:`.Refusal` if the server refuses the read: no such stream (404), an offset of an earlier stream of the
      name, or a deleted one (410), an offset that the stream never had (400);
    - other errors of :mod:`.errors` if the first attempt fails, or if there was no success for ``give_up_after``.

    Call :meth:`aclose` after leaving the loop early.

    :param info: the stream, as a HEAD answered.
    :param offset: where to begin: ``-1`` for the start, or a Stream-Next-Offset.
    :param skip: how many bytes, or messages of a JSON stream, to drop after ``offset``.
    :param live: how to wait for new data; None for not at all.
    :param give_up_after: how long to try again without success, in seconds; None for no end.
    :param notice: called with each error before another attempt.
    :ivar offset: the last offset that is known.
    :ivar skip: how many bytes or messages after ``offset`` were passed on.
    """

    def __init__(
        self,
        http: HttpClient,
        url: str,
        info: StreamInfo,
        offset: str = "-1",
        *,
        skip: int = 0,
        live: Live | None = None,
        give_up_after: float | None = None,
        notice: Callable[[ClientError], object] = lambda error: None,
    ) -> None:
        self.offset = check_offset(offset)
        self.skip = skip
        self._http = http
        self._url = url
        self._is_json = info.is_json
        self._live = live
        self._notice = notice
        self._cursor: str | None = None
        self._backoff = Backoff(http.reactor, give_up_after)
        self._batches = self._run()

    def __aiter__(self) -> StreamReader:
        return self

    async def __anext__(self) -> Batch:
        return await anext(self._batches)

    async def aclose(self) -> None:
        """Stop reading and close the connection."""
        await self._batches.aclose()

    async def _run(self) -> AsyncGenerator[Batch, None]:
        """Send one request after the other."""
        request = self._subscribe if self._live == "sse" else self._poll
        while True:
            begun = self._http.reactor.seconds()
            has_data = False
            try:
                async with aclosing(request()) as batches:
                    async for batch in batches:
                        has_data = has_data or bool(batch.data or batch.messages)
                        self._backoff.reset()
                        yield batch
                        if batch.closed or (batch.up_to_date and self._live is None):
                            return
            except ClientError as error:
                self._notice(error)
                await self._backoff.wait(error)
                continue
            if self._live is not None and not has_data and self._http.reactor.seconds() - begun < _TOO_SOON:
                await self._backoff.wait()

    async def _ask(self, live: Live | None) -> Answer:
        query = {"offset": self.offset}
        timeout = self._http.options.timeout
        headers = {}
        if live is not None:
            query["live"] = live
            timeout = self._http.options.live_timeout
            if self._cursor is not None:
                query["cursor"] = self._cursor
        if live == "sse":
            headers["Accept"] = "text/event-stream"
        return await self._http.request("GET", with_query(self._url, query), headers, timeout=timeout)

    # Catch-up and long-poll

    async def _poll(self) -> AsyncGenerator[Batch, None]:
        """Read one answer: pieces without an offset, then the last one with it."""
        answer = await self._ask(self._live)
        try:
            next_offset = _checked_answer(answer.header("stream-next-offset"))
            up_to_date = answer.is_true("stream-up-to-date")
            closed = answer.is_true("stream-closed")
            self._cursor = answer.header("stream-cursor")
            # The last piece is passed on together with the offset.
            rest, end = Batch(), 0
            if answer.status == 200:
                if self._is_json != (media_type(answer.header("content-type") or "") == "application/json"):
                    raise InvalidAnswer(f"{self._url}: the answer's content type is not the stream's.")
                async with aclosing(self._pieces(answer)) as pieces:
                    async for piece in pieces:
                        if rest.data or rest.messages:
                            self.skip = end
                            yield rest
                        rest = self._after_skip(piece, end)
                        end += len(piece.data) + len(piece.messages)
            else:
                up_to_date = True
            self.skip = max(0, self.skip - end)
            self.offset = next_offset
            yield Batch(rest.data, rest.messages, next_offset, up_to_date, closed)
        finally:
            answer.body.close()

    async def _pieces(self, answer: Answer) -> AsyncGenerator[Batch, None]:
        if not self._is_json:
            async for piece in answer.body:
                yield Batch(piece)
            return
        splitter = ArraySplitter(self._http.options.max_message_bytes)
        async for piece in answer.body:
            messages = splitter.feed(piece)
            if messages:
                yield Batch(messages=messages)
        yield Batch(messages=splitter.finish())

    def _after_skip(self, batch: Batch, seen: int) -> Batch:
        """Return a batch without what was passed on before; ``seen`` is how much came before it."""
        drop = self.skip - seen
        if drop <= 0:
            return batch
        return Batch(batch.data[drop:], batch.messages[drop:])

    # Server-Sent Events

    async def _subscribe(self) -> AsyncGenerator[Batch, None]:
        """Read events until the server ends the answer. Data is passed on with the offset of its control event."""
        answer = await self._ask("sse")
        try:
            if media_type(answer.header("content-type") or "") != "text/event-stream":
                raise InvalidAnswer(f"{self._url}: the answer to live=sse is not text/event-stream. Use long-poll.")
            in_base64 = (answer.header("stream-sse-data-encoding") or "").lower() == "base64"
            limit = self._http.options.max_message_bytes
            parser = EventParser(limit)
            waiting: list[bytes] = []
            async for piece in answer.body:
                for event in parser.feed(piece):
                    if event.name == "data":
                        waiting.append(_from_base64(event.data) if in_base64 else event.data)
                        if sum(map(len, waiting)) > limit:
                            raise InvalidAnswer(f"{self._url}: more than {limit} bytes came without a control event.")
                    elif event.name == "control":
                        batch = self._controlled(waiting, event.data)
                        waiting = []
                        yield batch
                        if batch.closed:
                            return
        finally:
            answer.body.close()

    def _controlled(self, waiting: list[bytes], text: bytes) -> Batch:
        """Return the batch of data events and their control event."""
        try:
            control = msgspec.json.decode(text, type=_Control)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise InvalidAnswer(f"{self._url}: a control event is not the JSON object of the protocol.") from None
        next_offset = _checked_answer(control.stream_next_offset)
        data = b"" if self._is_json else b"".join(waiting)
        messages = [message for array in waiting for message in split_array(array)] if self._is_json else []
        size = len(data) + len(messages)
        batch = self._after_skip(Batch(data, messages), 0)
        self.skip = max(0, self.skip - size)
        self.offset = next_offset
        self._cursor = control.stream_cursor
        return Batch(batch.data, batch.messages, next_offset, control.up_to_date, control.stream_closed)


def _from_base64(data: bytes) -> bytes:
    try:
        return b64decode(data.replace(b"\n", b""), validate=True)
    except ValueError:
        raise InvalidAnswer("The server sent an event that is not base64, as it had announced.") from None


def check_offset(offset: str) -> str:
    """
    Return an offset if it can be sent.

    :raises InvalidUse: it is empty, very long, or not printable ASCII.
    """
    if not _is_offset(offset):
        raise InvalidUse("An offset is -1, or the Stream-Next-Offset of an answer.")
    return offset


def _checked_answer(offset: str | None) -> str:
    """Return an offset that a server sent, if it can be sent back."""
    if offset is None or not _is_offset(offset):
        raise InvalidAnswer("The answer has no valid Stream-Next-Offset. Check that the URL is one of a stream.")
    return offset


def _is_offset(text: str) -> bool:
    return 0 < len(text) <= _MAX_OFFSET and text.isascii() and text.isprintable()
