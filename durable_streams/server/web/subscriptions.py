"""The subscription APIs: all paths below the reserved segment ``__ds`` (PROTOCOL sections 6 and 7)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias
from urllib.parse import unquote, unquote_to_bytes

import msgspec
from msgspec.structs import force_setattr
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.web.http import parse_qs

from ..errors import BodyTooLarge, StreamNotFound, StreamsError, Unavailable
from ..subscriptions import (
    MAX_BODY_BYTES,
    InvalidOrigin,
    InvalidSubscriptionId,
    SubscriptionError,
    SubscriptionNotFound,
    SubscriptionService,
    SubscriptionsUnavailable,
    TokenInvalid,
    bearer_token,
    check_id,
    normal_path,
    read_ack,
    read_added_streams,
    read_config,
    read_worker,
)
from .answers import Answer, Answers
from .origins import WritingOrigins
from .problems import ErrorReport, InternalError, MethodNotAllowed, problem
from .requests import StreamRequest
from .telemetry import request_name

_JSON: Final = b"Content-Type: application/json\r\n"
_NO_STORE: Final = b"Cache-Control: no-store\r\n"
_JWKS: Final = b"Content-Type: application/jwk-set+json\r\nCache-Control: public, max-age=300\r\n"

#: The name of the requests in logs and metrics.
_OPERATION: Final = "subscription"

_SUBSCRIPTION_METHODS: Final = b"DELETE, GET, HEAD, PUT"

#: An action of a subscription: called with the request and the subscription's id.
_Action: TypeAlias = Callable[[StreamRequest, str], Awaitable[Answer]]

_log = Logger()


class SubscriptionRoutes:
    """
    Answers the requests for paths below ``__ds``, as all fronts get them.

    :param answers: renders what all answers have in common.
    :param origins: the origins whose pages may write.
    """

    def __init__(self, service: SubscriptionService, answers: Answers, origins: WritingOrigins) -> None:
        self._service = service
        self._answers = answers
        self._origins = origins
        self._actions: dict[str, _Action] = {
            "streams": self._add_streams,
            "claim": self._claim,
            "ack": self._ack,
            "callback": self._ack,
            "release": self._release,
        }

    def perform(self, request: StreamRequest) -> Answer | Deferred[Answer]:
        """Answer a request; every error becomes an answer."""
        # It was taken for an operation on a stream, which is what its counters and log lines would say.
        force_setattr(request, "operation", _OPERATION)
        if request.method == b"OPTIONS":
            return self._answers.options(request)
        return Deferred.fromCoroutine(self._perform(request))

    async def _perform(self, request: StreamRequest) -> Answer:
        try:
            if request.method not in (b"GET", b"HEAD"):
                self._origins.check(request)
            if len(request.body) > MAX_BODY_BYTES:
                raise BodyTooLarge(MAX_BODY_BYTES)
            return await self._route(request)
        except StreamsError as error:
            return self._error(request, error)
        except CancelledError:
            return self._error(
                request, Unavailable("The request was cancelled, as its client has closed the connection.")
            )
        except Exception:
            _log.failure(
                "{method} {path} failed.",
                method=request.method.decode("latin-1"),
                path=(request.mount + request.path).decode("latin-1"),
                **request_name(request.number, request.caller),
            )
            return self._error(request, InternalError())

    async def _route(self, request: StreamRequest) -> Answer:
        # Segments are split before they are decoded, so that %2F separates none.
        first, *rest = request.path.split(b"/")
        segments = [unquote(segment, errors="surrogateescape") for segment in rest]
        if unquote_to_bytes(first) != b"__ds":
            raise _NoSuchRoute
        match segments:
            case ["jwks.json"]:
                _check_method(request, b"GET", b"HEAD")
                return Answer(200, self._head(request) + _JWKS, await self._service.jwks())
            case ["subscriptions", subscription_id]:
                return await self._subscription(request, subscription_id)
            case ["subscriptions", subscription_id, action] if action in self._actions:
                _check_method(request, b"POST")
                _check_known_id(subscription_id)
                return await self._actions[action](request, subscription_id)
            case ["subscriptions", subscription_id, "streams", *path] if path != [""]:
                _check_method(request, b"DELETE")
                _check_known_id(subscription_id)
                return await self._remove_stream(request, subscription_id, "/".join(path))
        raise _NoSuchRoute

    # One subscription

    async def _subscription(self, request: StreamRequest, subscription_id: str) -> Answer:
        match request.method:
            case b"PUT":
                return await self._put(request, subscription_id)
            case b"GET" | b"HEAD":
                _check_known_id(subscription_id)
                after = parse_qs(request.query).get(b"after", [b""])[0].decode("utf-8", "replace")
                return self._json(request, 200, await self._service.describe(subscription_id, after))
            case b"DELETE":
                _check_known_id(subscription_id)
                await self._service.delete(subscription_id)
                return self._nothing(request)
        raise MethodNotAllowed(f"Subscriptions support {_SUBSCRIPTION_METHODS.decode()}.", _SUBSCRIPTION_METHODS)

    async def _put(self, request: StreamRequest, subscription_id: str) -> Answer:
        check_id(subscription_id)
        config = read_config(request.body, self._service.names)
        origin = request.caller.origin(request.headers.get(b"host"))
        if not origin and self._service.settings.public_url is None:
            raise InvalidOrigin
        base_url = (origin + request.mount.rstrip(b"/")).decode("latin-1")
        is_new = await self._service.create(subscription_id, config, base_url)
        return self._json(request, 201 if is_new else 200, await self._service.describe(subscription_id))

    async def _add_streams(self, request: StreamRequest, subscription_id: str) -> Answer:
        await self._service.check_exists(subscription_id)
        await self._service.add_streams(subscription_id, read_added_streams(request.body, self._service.names))
        return self._nothing(request)

    async def _remove_stream(self, request: StreamRequest, subscription_id: str, path: str) -> Answer:
        await self._service.check_exists(subscription_id)
        await self._service.remove_stream(subscription_id, normal_path(path, self._service.names))
        return self._nothing(request)

    async def _claim(self, request: StreamRequest, subscription_id: str) -> Answer:
        await self._service.check_action(subscription_id, "claim")
        return self._json(request, 200, await self._service.claim(subscription_id, read_worker(request.body)))

    async def _ack(self, request: StreamRequest, subscription_id: str) -> Answer:
        action = "callback" if request.path.endswith(b"callback") else "ack"
        await self._service.check_action(subscription_id, action)
        claims = self._service.verify(subscription_id, _bearer_token(request))
        return self._json(request, 200, await self._service.ack(subscription_id, claims, read_ack(request.body)))

    async def _release(self, request: StreamRequest, subscription_id: str) -> Answer:
        await self._service.check_action(subscription_id, "release")
        claims = self._service.verify(subscription_id, _bearer_token(request))
        await self._service.release(subscription_id, claims, read_ack(request.body))
        return self._nothing(request)

    # Answers

    def _head(self, request: StreamRequest) -> bytes:
        return self._answers.common(request.headers.get(b"origin"))

    def _json(self, request: StreamRequest, status: int, value: object) -> Answer:
        return Answer(status, self._head(request) + _NO_STORE + _JSON, msgspec.json.encode(value))

    def _nothing(self, request: StreamRequest) -> Answer:
        return Answer(204, self._head(request) + _NO_STORE)

    def _error(self, request: StreamRequest, error: StreamsError) -> Answer:
        """Answer with an error as a JSON object ``{"error": {"code", "message", ...}}``."""
        # The frames of the traceback hold the request's body.
        error.__traceback__ = None
        details: dict[str, object] = {}
        if isinstance(error, SubscriptionError):
            status, lines, report = error.status, b"", ErrorReport(error.code, type(error).__name__, str(error))
            details = dict(error.details)
            if isinstance(error, TokenInvalid):
                lines = b"WWW-Authenticate: Bearer\r\n"
            elif isinstance(error, SubscriptionsUnavailable):
                lines = b"Retry-After: 1\r\n"
        else:
            status, lines, _, report = problem(error, "")
            lines = b"".join(line for line in lines.splitlines(True) if not line.startswith(b"Content-Type:"))
        body = msgspec.json.encode({"error": {"code": report.code, "message": report.message, **details}})
        return Answer(status, self._head(request) + _NO_STORE + _JSON + lines, body, report)


class _NoSuchRoute(StreamNotFound):
    """There is nothing at a path below ``__ds``."""

    def __init__(self) -> None:
        StreamsError.__init__(
            self, "There is nothing at this path. Subscriptions are at __ds/subscriptions/ID, keys at __ds/jwks.json."
        )


def _check_method(request: StreamRequest, *methods: bytes) -> None:
    if request.method not in methods:
        allowed = b", ".join(methods)
        raise MethodNotAllowed(f"This path supports {allowed.decode()}.", allowed)


def _check_known_id(subscription_id: str) -> None:
    """
    Check that an id is one that a subscription may have.

    :raises SubscriptionNotFound: it is not.
    """
    try:
        check_id(subscription_id)
    except InvalidSubscriptionId:
        raise SubscriptionNotFound(ascii(subscription_id[:256])) from None


def _bearer_token(request: StreamRequest) -> str:
    """
    Return the token in Authorization.

    :raises TokenInvalid: there is none.
    """
    return bearer_token(request.headers.get(b"authorization", b"").strip().decode("latin-1"))
