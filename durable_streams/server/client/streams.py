"""A client of streams: one method for each operation of the protocol."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable
from typing import Any

from twisted.web.iweb import IAgent

from .errors import ClientError, InvalidAnswer, InvalidUse
from .http import HttpClient
from .options import ClientOptions
from .reading import Live, StreamReader, check_offset
from .urls import check_url, origin_of, path_of
from .values import AppendResult, CreateResult, StreamInfo
from .writing import IdempotentWriter, append_headers, append_result

#: The content type of a stream that is created without one.
_DEFAULT_TYPE = "application/octet-stream"


class StreamClient:
    """
    A client of the Durable Streams protocol.

    Each method takes the URL of a stream, and raises :class:`.Refusal` if the server refuses the request, or another
    :class:`.ClientError` if there is no valid answer. The token of the options is sent with each request: use one
    client for each server.

    :param reactor: for connections and time.
    :param agent: sends the requests, instead of an agent of the reactor.
    :raises InvalidUse: a certificate, key or token of the options cannot be used.
    """

    def __init__(self, reactor: Any, options: ClientOptions | None = None, agent: IAgent | None = None) -> None:
        self.http = HttpClient(reactor, options, agent)

    async def disconnect(self) -> None:
        """Close the connections that are kept for further requests."""
        await self.http.close()

    async def create(
        self,
        url: str,
        content_type: str | None = None,
        data: bytes | AsyncIterable[bytes] | None = None,
        *,
        ttl: int | None = None,
        expires_at: str | None = None,
        closed: bool = False,
    ) -> CreateResult:
        """
        Create a stream (PROTOCOL section 5.1).

        :param content_type: the content type; None for the server's default, ``application/octet-stream``.
        :param data: the stream's first data.
        :param ttl: the time to live, in seconds since the last read or append.
        :param expires_at: when the stream expires, as an RFC 3339 timestamp; not together with ``ttl``.
        :param closed: whether the stream is closed from the beginning, with ``data`` as all of it.
        :raises Refusal: a stream of this name exists with another configuration (409).
        """
        headers = _creation_headers(content_type, ttl, expires_at, closed)
        return await self._put(check_url(url), headers, data)

    async def fork(
        self,
        source: str,
        url: str,
        *,
        offset: str | None = None,
        sub_offset: int = 0,
        content_type: str | None = None,
        ttl: int | None = None,
        expires_at: str | None = None,
        closed: bool = False,
    ) -> CreateResult:
        """
        Create a stream that begins with the data of another one, without copying it.

        :param source: the URL of the other stream, on the same server.
        :param offset: up to which offset of the source; None for its tail, ``-1`` for its start.
        :param sub_offset: how many bytes, or messages of a JSON stream, of the append after ``offset`` belong to the
            fork as well.
        :raises InvalidUse: the source is on another server.
        """
        source, url = check_url(source), check_url(url)
        if origin_of(source) != origin_of(url):
            raise InvalidUse("A fork and its source must be on the same server.")
        headers = _creation_headers(content_type, ttl, expires_at, closed)
        headers["Stream-Forked-From"] = path_of(source)
        if offset is not None:
            headers["Stream-Fork-Offset"] = offset
        if sub_offset:
            headers["Stream-Fork-Sub-Offset"] = str(sub_offset)
        return await self._put(url, headers, None)

    async def _put(self, url: str, headers: dict[str, str], data: bytes | AsyncIterable[bytes] | None) -> CreateResult:
        answer = await self.http.request("PUT", url, headers, data)
        await answer.drop()
        next_offset = answer.header("stream-next-offset")
        if next_offset is None:
            raise InvalidAnswer(f"{url}: the answer has no Stream-Next-Offset. Check that the URL is one of a stream.")
        content_type = answer.header("content-type") or headers.get("Content-Type", _DEFAULT_TYPE)
        return CreateResult(answer.status == 201, content_type, next_offset, answer.is_true("stream-closed"))

    async def append(
        self,
        url: str,
        data: bytes,
        content_type: str,
        *,
        close: bool = False,
        sequence: str | None = None,
        expected_offset: str | None = None,
    ) -> AppendResult:
        """
        Append data once (PROTOCOL section 5.2).

        It is not repeated: after :class:`.ConnectionBroken` or :class:`.AnswerTimeout` it is unknown whether the data
        was stored. :meth:`writer` has appends that are repeated safely.

        :param content_type: the stream's content type.
        :param close: whether to close the stream after it, in the same step.
        :param sequence: the Stream-Seq, which must be greater than that of the last append.
        :param expected_offset: the tail that the stream must have; an extension of this server.
        :raises RefusedAsClosed: the stream is closed.
        """
        headers = append_headers(content_type, data, close)
        if sequence is not None:
            headers["Stream-Seq"] = sequence
        if expected_offset is not None:
            headers["Stream-Expected-Offset"] = expected_offset
        answer = await self.http.request("POST", check_url(url), headers, data)
        await answer.drop()
        return append_result(answer)

    async def close(self, url: str) -> AppendResult:
        """Close a stream. Closing it again is no error."""
        answer = await self.http.request("POST", check_url(url), {"Stream-Closed": "true"}, b"")
        await answer.drop()
        return append_result(answer)

    async def delete(self, url: str) -> None:
        """
        Delete a stream (PROTOCOL section 5.3).

        :raises RefusedAsMissing: there is no such stream.
        """
        answer = await self.http.request("DELETE", check_url(url))
        await answer.drop()

    async def head(self, url: str) -> StreamInfo:
        """
        Return a stream's metadata (PROTOCOL section 5.4).

        :raises RefusedAsMissing: there is no such stream.
        """
        url = check_url(url)
        answer = await self.http.request("HEAD", url)
        await answer.drop()
        next_offset = answer.header("stream-next-offset")
        if next_offset is None:
            raise InvalidAnswer(f"{url}: the answer has no Stream-Next-Offset. Check that the URL is one of a stream.")
        return StreamInfo(
            answer.header("content-type") or _DEFAULT_TYPE,
            next_offset,
            answer.is_true("stream-closed"),
            answer.number("stream-ttl", 19),
            answer.header("stream-expires-at"),
        )

    async def read(
        self, url: str, offset: str = "-1", *, give_up_after: float | None = 60.0, **options: Any
    ) -> StreamReader:
        """
        Return an iterator over the data of a stream, from an offset up to the tail.

        :param offset: ``-1`` for the start, ``now`` for the tail, or a Stream-Next-Offset.
        :param give_up_after: how long to try again without success, in seconds; None for no end.
        :param options: ``skip`` and ``notice`` of :class:`.StreamReader`; ``info``, what :meth:`head` has returned.
        """
        return await self._reader(url, offset, None, give_up_after, **options)

    async def tail(
        self,
        url: str,
        offset: str = "-1",
        live: Live | None = None,
        *,
        give_up_after: float | None = None,
        **options: Any,
    ) -> StreamReader:
        """
        Return an iterator over the data of a stream from an offset, and over what is appended, until it is closed.

        :param offset: ``-1`` for the start, ``now`` for the tail, or a Stream-Next-Offset.
        :param live: how to wait for data. None is ``sse`` for JSON streams and ``long-poll`` for all others, since
            events carry no carriage return of a ``text/*`` stream, and cut characters at the end of an append.
        :param give_up_after: how long to try again without success, in seconds; None for no end.
        :param options: ``skip`` and ``notice`` of :class:`.StreamReader`; ``info``, what :meth:`head` has returned.
        """
        return await self._reader(url, offset, live or "auto", give_up_after, **options)

    async def _reader(
        self, url: str, offset: str, live: str | None, give_up_after: float | None, **options: Any
    ) -> StreamReader:
        url = check_url(url)
        check_offset(offset)
        info = options.pop("info", None) or await self.head(url)
        if offset == "now":
            # The tail by its offset: if the first connection breaks, nothing that was appended meanwhile is missed.
            offset = info.next_offset
        chosen: Live | None
        if live == "auto":
            chosen = "sse" if info.is_json else "long-poll"
        else:
            chosen = "sse" if live == "sse" else "long-poll" if live is not None else None
        return StreamReader(self.http, url, info, offset, live=chosen, give_up_after=give_up_after, **options)

    async def writer(
        self,
        url: str,
        producer_id: str,
        epoch: int = 0,
        *,
        content_type: str | None = None,
        next_seq: int = 0,
        give_up_after: float | None = 60.0,
        notice: Callable[[ClientError], object] = lambda error: None,
    ) -> IdempotentWriter:
        """
        Return an idempotent writer; see :class:`.IdempotentWriter` for the parameters.

        :param content_type: the stream's content type; None to ask for it.
        """
        url = check_url(url)
        if content_type is None:
            content_type = (await self.head(url)).content_type
        return IdempotentWriter(
            self.http,
            url,
            content_type,
            producer_id,
            epoch,
            next_seq=next_seq,
            give_up_after=give_up_after,
            notice=notice,
        )


def _creation_headers(
    content_type: str | None, ttl: int | None, expires_at: str | None, closed: bool
) -> dict[str, str]:
    headers = {}
    if content_type is not None:
        headers["Content-Type"] = content_type
    if ttl is not None:
        headers["Stream-TTL"] = str(ttl)
    if expires_at is not None:
        headers["Stream-Expires-At"] = expires_at
    if closed:
        headers["Stream-Closed"] = "true"
    return headers
