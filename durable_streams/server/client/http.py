"""HTTP requests to a server, on treq, with the server's problems as exceptions.

Redirects are not followed, cookies are not kept, and compressed answers are refused: a token goes to one origin only,
and an answer is not larger than what was received.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final

import msgspec
from msgspec import Struct
from treq.client import HTTPClient
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import Agent, HTTPConnectionPool
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from ..release import DISTRIBUTION, version_of_server
from .bodies import AnswerBody, BytesBody, Patience, StreamedBody
from .connections import Endpoints
from .errors import (
    AnswerTimeout,
    ClientError,
    InvalidAnswer,
    InvalidUse,
    RedirectRefused,
    Refusal,
    RefusedAsClosed,
    RefusedAsGone,
    RefusedAsMissing,
    RefusedEpoch,
    RefusedGap,
    printable,
)
from .failures import explain
from .options import ClientOptions
from .values import media_type

#: The largest problem that is read, in bytes.
_MAX_PROBLEM: Final = 16_384

#: How long an idle connection is kept for the next request, in seconds: less than servers keep it.
_KEEP: Final = 3.0

#: The longest Retry-After that is honoured, in seconds.
_MAX_RETRY_AFTER: Final = 300.0

#: The messages for answers without a body, such as those to HEAD: {0} is the URL, {1} the status.
_NO_REASON: Final = "{0}: the server answered {1} without a reason."
_REASONS: Final = {
    401: "{0}: the server asks for authentication. Give a token or a client certificate.",
    403: "{0}: the server does not allow this to these credentials.",
    404: "There is no stream at {0}. Create it first, or correct the URL.",
    429: "{0}: this client has sent too many requests. Try again later.",
    410: "The stream at {0} was deleted.",
    503: "{0}: the server is not available. Try again later.",
}


#: The sentence in a challenge (RFC 6750 section 3).
_DESCRIPTION: Final = re.compile(r'error_description="([^"\\]+)"')

_UNAUTHORIZED: Final = 401


class _Problem(Struct):
    """The fields of an ``application/problem+json`` body that are read."""

    code: str = ""
    title: str = ""
    detail: str = ""


class _Closing(Protocol):
    """Closes the connection of an answer that is not read."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.loseConnection()


@implementer(IAgent)
class _PlainAgent:
    """An agent that asks for uncompressed answers, and refuses others before anything decompresses them."""

    def __init__(self, agent: IAgent) -> None:
        self._agent = agent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,  # noqa: N803
    ) -> Deferred[IResponse]:
        headers = Headers() if headers is None else headers
        headers.setRawHeaders(b"accept-encoding", [b"identity"])
        answer: Deferred[IResponse] = self._agent.request(method, uri, headers, bodyProducer)
        return answer.addCallback(self._check)

    @staticmethod
    def _check(response: IResponse) -> IResponse:
        codings = response.headers.getRawHeaders(b"content-encoding", [])
        if any(coding.strip().lower() not in (b"", b"identity") for coding in codings):
            response.deliverBody(_Closing())
            raise InvalidAnswer("The server sent a compressed answer, which was not asked for.")
        return response


class Answer:
    """
    An answer with a status of less than 300, or 304.

    :ivar status: the HTTP status.
    :ivar body: the body, which must be read to its end or closed.
    """

    def __init__(self, response: IResponse, body: AnswerBody) -> None:
        self.status: int = response.code
        self.body = body
        self._headers: Headers = response.headers

    def header(self, name: str) -> str | None:
        """Return a header's value, or None; the last one, if it was sent several times."""
        values = self._headers.getRawHeaders(name.encode())
        return None if not values else bytes(values[-1]).decode("latin-1")

    def number(self, name: str, digits: int = 16) -> int | None:
        """Return a header's value as a number of at most so many decimal digits; None if it is not one."""
        value = self.header(name)
        # isdigit alone is true for the digit U+00B2, which int refuses.
        if value is None or not value.isascii() or not value.isdigit() or len(value) > digits:
            return None
        return int(value)

    def is_true(self, name: str) -> bool:
        """Return whether a header's value is ``true``."""
        return self.header(name) == "true"

    async def drop(self) -> None:
        """Read the rest of a short body, so that the connection can be used again."""
        try:
            await self.body.read(_MAX_PROBLEM)
        except ClientError:
            self.body.close()


class HttpClient:
    """
    Sends requests to a server. Connections are kept for a few seconds for the next request.

    :param reactor: for connections and time.
    :param agent: sends the requests, instead of an agent of the reactor.
    :raises InvalidUse: a certificate or key of the options cannot be used, or the token has characters that no header
        may have.
    """

    def __init__(self, reactor: Any, options: ClientOptions | None = None, agent: IAgent | None = None) -> None:
        self.reactor = reactor
        self.options = ClientOptions() if options is None else options
        self._pool = HTTPConnectionPool(reactor, persistent=True)
        self._pool.retryAutomatically = False
        self._pool.maxPersistentPerHost = self.options.kept_connections
        self._pool.cachedConnectionTimeout = _KEEP  # type: ignore[assignment]
        if agent is None:
            agent = Agent.usingEndpointFactory(reactor, Endpoints(reactor, self.options), self._pool)
        jar: Any = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
        self._treq = HTTPClient(_PlainAgent(agent), jar)
        self._common = {"User-Agent": f"{DISTRIBUTION}/{version_of_server()}"}
        if self.options.token is not None:
            self._use_token(self.options.token)

    async def close(self) -> None:
        """Close the connections that are kept."""
        # An answer that is being received right now may be complete in this turn, and its connection kept.
        await deferLater(self.reactor, 0)
        await self._pool.closeCachedConnections()

    async def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        body: bytes | AsyncIterable[bytes] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """
        Send a request and return the answer once its head has arrived.

        :param url: an ``http:`` or ``https:`` URL.
        :param body: the request's body; an iterator is sent in chunks, as fast as the server reads.
        :param timeout: how long the server may be silent, in seconds; None for that of the options.
        :raises Refusal: the status is 400 or more.
        :raises RedirectRefused: the status is 300 or more, except 304.
        :raises ClientError: there is no valid answer; see :mod:`.errors`.
        """
        try:
            return await self._request(method, url, headers or {}, body, timeout)
        except Refusal as error:
            if error.status != _UNAUTHORIZED or not (body is None or isinstance(body, bytes)) or not self._refresh():
                raise
        return await self._request(method, url, headers or {}, body, timeout)

    def _use_token(self, token: str) -> None:
        self._common["Authorization"] = f"Bearer {_checked_token(token)}"

    def _refresh(self) -> bool:
        """Get the present token, and return whether it is another one."""
        if self.options.refresh_token is None:
            return False
        before = self._common.get("Authorization")
        self._use_token(self.options.refresh_token())
        return self._common["Authorization"] != before

    async def _request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        body: bytes | AsyncIterable[bytes] | None,
        timeout: float | None,
    ) -> Answer:
        patience = self.options.timeout if timeout is None else timeout
        response = await self._send(method, url, self._common | dict(headers), body, patience)
        answer = Answer(response, AnswerBody(self.reactor, response, patience, url))
        if answer.status < 300 or answer.status == 304:
            return answer
        try:
            raise await _refusal(answer, url)
        finally:
            answer.body.close()

    async def _send(
        self, method: str, url: str, headers: dict[str, str], body: bytes | AsyncIterable[bytes] | None, seconds: float
    ) -> IResponse:
        producer: BytesBody | StreamedBody | None = None
        sent: list[Deferred[Any]] = []
        patience = Patience(self.reactor, seconds, lambda: sent[0].cancel())  # noqa: PLW0108
        if isinstance(body, bytes):
            producer = BytesBody(body)
        elif body is not None:
            producer = StreamedBody(self.reactor, body, patience.restart)
        try:
            asked: Deferred[Any] = self._treq.request(
                method,
                url,
                headers=_header_lines(headers),
                data=producer,
                allow_redirects=False,
                unbuffered=True,
                reactor=self.reactor,
            )
            sent.append(asked)
            patience.restart()
            return await _cancellable(asked)
        except CancelledError:
            if patience.is_over:
                raise _no_answer(url, seconds) from None
            raise
        except Exception as error:
            if isinstance(producer, StreamedBody) and producer.error is not None:
                raise producer.error from None
            if patience.is_over:
                raise _no_answer(url, seconds) from None
            raise explain(Failure(error), url) from None
        finally:
            patience.stop()
            if producer is not None:
                # After an answer that came early, such as a refusal, the rest of the body is not sent.
                producer.stopProducing()


def _cancellable(asked: Deferred[Any]) -> Deferred[IResponse]:
    """Return a Deferred that fails with CancelledError when cancelled; a look-up of a host has another error."""

    def cancel(waiting: Deferred[IResponse]) -> None:
        waiting.errback(CancelledError())
        asked.cancel()

    def answered(response: IResponse) -> None:
        if waiting.called:
            response.deliverBody(_Closing())
        else:
            waiting.callback(response)

    waiting: Deferred[IResponse] = Deferred(cancel)
    asked.addCallbacks(answered, lambda reason: None if waiting.called else waiting.errback(reason))
    return waiting


def _no_answer(url: str, seconds: float) -> AnswerTimeout:
    return AnswerTimeout(f"{url}: no answer within {seconds:g} seconds. Try again, or check the server.")


def _header_lines(headers: dict[str, str]) -> Headers:
    """
    Return headers as twisted.web has them.

    :raises InvalidUse: a value has characters that no header may have.
    """
    lines = Headers()
    for name, value in headers.items():
        try:
            raw = value.encode("latin-1")
        except UnicodeEncodeError:
            raise InvalidUse(f"{name} must not have characters beyond U+00FF.") from None
        if any((byte < 0x20 and byte != 0x09) or byte == 0x7F for byte in raw):
            raise InvalidUse(f"{name} must not have control characters.")
        lines.setRawHeaders(name.encode(), [raw])
    return lines


def _checked_token(token: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidUse("The token must be printable ASCII without spaces. Check for a line break at its end.")
    return token


async def _refusal(answer: Answer, url: str) -> ClientError:
    """Return the exception for an answer with a status of 300 or more."""
    if answer.status < 400:
        location = printable(answer.header("location") or "")
        return RedirectRefused(
            f"{url}: the server redirects to {location or 'nowhere'}. Redirects are not followed; use that URL.",
            location,
        )
    problem = await _read_problem(answer)
    message = problem.detail or problem.title or _described(answer, url)
    # A Retry-After that is a date is ignored: it would need the server's clock.
    seconds = answer.number("retry-after", 9)
    retry_after = None if seconds is None else min(float(seconds), _MAX_RETRY_AFTER)
    kind = _kind(answer, problem.code)
    error = kind(
        printable(message), answer.status, printable(problem.code), retry_after, answer.header("stream-next-offset")
    )
    if isinstance(error, RefusedEpoch):
        error.epoch = answer.number("producer-epoch") or 0
    elif isinstance(error, RefusedGap):
        error.expected = answer.number("producer-expected-seq") or 0
    return error


def _described(answer: Answer, url: str) -> str:
    """Return the message for an answer without a body, such as one to HEAD."""
    described = _DESCRIPTION.search(answer.header("www-authenticate") or "")
    return described[1] if described else _REASONS.get(answer.status, _NO_REASON).format(url, answer.status)


def _kind(answer: Answer, code: str) -> type[Refusal]:
    if answer.status == 404:
        return RefusedAsMissing
    if answer.status == 410:
        return RefusedAsGone
    if answer.status == 403 and answer.header("producer-epoch") is not None:
        return RefusedEpoch
    if answer.status == 409 and answer.header("producer-expected-seq") is not None:
        return RefusedGap
    if answer.status == 409 and (code == "STREAM_CLOSED" or answer.is_true("stream-closed")):
        return RefusedAsClosed
    return Refusal


async def _read_problem(answer: Answer) -> _Problem:
    try:
        body = await answer.body.read(_MAX_PROBLEM)
    except ClientError:
        return _Problem()
    media = media_type(answer.header("content-type") or "")
    if media in ("application/problem+json", "application/json"):
        try:
            return msgspec.json.decode(body, type=_Problem)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return _Problem()
    if media == "text/plain":
        return _Problem(detail=body.decode("utf-8", "replace").strip())
    return _Problem()
