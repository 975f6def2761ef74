"""The subscription APIs: all paths below the reserved segment ``__ds`` (PROTOCOL sections 6 and 7)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.web.http import parse_qs

from ..errors import BodyTooLarge, NotAllowed, StreamsError
from ..interfaces import NowOrLater
from ..subscriptions import (
    MAX_BODY_BYTES,
    InvalidOrigin,
    SubscriptionError,
    SubscriptionNotFound,
    SubscriptionService,
    SubscriptionsUnavailable,
    TokenClaims,
    TokenInvalid,
    bearer_token,
    normal_path,
    read_ack,
    read_added_streams,
    read_config,
    read_worker,
)
from .access_parts import PUBLIC as PUBLIC_ACCESS
from .answers import Answer, Answers, Perform
from .origins import WritingOrigins
from .problems import ErrorReport, InternalError, client_gone, problem
from .requests import StreamRequest
from .subscription_paths import ROUTES, SUBSCRIBE, SubscriptionCall, call_of
from .telemetry import log_fields

if TYPE_CHECKING:
    from .page_access import PageAccess, RequestRights

_JSON: Final = b"Content-Type: application/json\r\n"
_NO_STORE: Final = b"Cache-Control: no-store\r\n"
_JWKS: Final = b"Content-Type: application/jwk-set+json\r\nCache-Control: public, max-age=300\r\n"

#: The name of the requests in logs and metrics.
_OPERATION: Final = "subscription"

_log = Logger()


class SubscriptionRoutes:
    """
    Answers the requests for paths below ``__ds``, as all fronts get them.

    :param answers: renders what all answers have in common.
    :param origins: the origins whose pages may write.
    :param access: authenticates and authorizes requests; None without access control.
    """

    def __init__(
        self,
        service: SubscriptionService,
        answers: Answers,
        origins: WritingOrigins,
        access: PageAccess | None = None,
    ) -> None:
        self._service = service
        self._answers = answers
        self._origins = origins
        self._access = access
        self._routes: dict[str, Callable[[SubscriptionCall], Awaitable[Answer]]] = {
            "jwks.json": self._jwks,
            "subscriptions/ID": self._subscription,
            "subscriptions/ID/streams": self._add_streams,
            "subscriptions/ID/streams/NAME": self._remove_stream,
            "subscriptions/ID/claim": self._claim,
            "subscriptions/ID/ack": self._ack,
            "subscriptions/ID/callback": self._ack,
            "subscriptions/ID/release": self._release,
        }

    def perform(self, request: StreamRequest) -> Answer | Deferred[Answer]:
        """Answer a request; every error becomes an answer."""
        # It was taken for an operation on a stream, which is what its counters and log lines would say.
        request.operation = _OPERATION
        if request.method == b"OPTIONS":
            return self._answers.options(request)
        return Deferred.fromCoroutine(self._perform(request))

    def admit(self, request: StreamRequest, perform: Perform) -> NowOrLater[Answer]:
        """Perform a request that the gate has passed on: its route decides what it needs."""
        request.access = PUBLIC_ACCESS
        return perform(request)

    def early(self, request: StreamRequest) -> Answer | None:
        """Return the refusal of a request whose body has not arrived; None if it cannot be refused now."""
        if self._access is None:
            return None
        rights = self._access.rights(request)
        try:
            call = call_of(request)
            if ROUTES[call.route].needs != SUBSCRIBE or not rights.authenticate_now():
                return None
            _check_subscribe(call, rights, self._access)
        except SubscriptionNotFound:
            # The body of a request for a subscription that does not exist is read, too.
            return None
        except StreamsError as error:
            return rights.answered(self._error(request, error))
        return None

    async def _perform(self, request: StreamRequest) -> Answer:
        rights = None if self._access is None else self._access.rights(request)
        try:
            call = call_of(request)
            if rights is not None and ROUTES[call.route].needs == SUBSCRIBE:
                await rights.authenticate()
                call = replace(call, rights=rights)
            if self._access is None:
                answer = await self._answer(call)
            else:
                subject = "" if rights is None else rights.principal.subject
                answer = await self._access.perform(request, subject, partial(self._answer, call))
        except StreamsError as error:
            answer = self._error(request, error)
        except CancelledError:
            answer = self._error(request, client_gone())
        except Exception:
            _log.failure("{method} {path} failed.", **log_fields(request))
            answer = self._error(request, InternalError())
        return answer if rights is None else rights.answered(answer)

    async def _answer(self, call: SubscriptionCall) -> Answer:
        request = call.request
        if call.rights is not None:
            _check_subscribe(call, call.rights, self._access)
        if request.method not in (b"GET", b"HEAD"):
            self._origins.check(request)
        if len(request.body) > MAX_BODY_BYTES:
            raise BodyTooLarge(MAX_BODY_BYTES)
        return await self._routes[call.route](call)

    async def _jwks(self, call: SubscriptionCall) -> Answer:
        return Answer(200, self._head(call.request) + _JWKS, await self._service.jwks())

    # One subscription

    async def _subscription(self, call: SubscriptionCall) -> Answer:
        request, subscription_id = call.request, call.subscription_id
        if request.method == b"PUT":
            return await self._put(call)
        if request.method == b"DELETE":
            await self._service.delete(subscription_id)
            return self._nothing(request)
        after = parse_qs(request.query).get(b"after", [b""])[0].decode("utf-8", "replace")
        return self._json(request, 200, await self._service.describe(subscription_id, after))

    async def _put(self, call: SubscriptionCall) -> Answer:
        request, subscription_id = call.request, call.subscription_id
        config = read_config(request.body, self._service.names)
        if call.rights is not None:
            _check_streams(call.rights, config.streams)
            if config.pattern is not None:
                call.rights.require_pattern("subscribe", config.pattern)
            if config.wake_stream is not None:
                call.rights.require("append", config.wake_stream)
        origin = request.caller.origin(request.headers.get(b"host"))
        if not origin and self._service.settings.public_url is None:
            raise InvalidOrigin
        base_url = (origin + request.mount.rstrip(b"/")).decode("latin-1")
        is_new = await self._service.create(subscription_id, config, base_url)
        return self._json(request, 201 if is_new else 200, await self._service.describe(subscription_id))

    async def _add_streams(self, call: SubscriptionCall) -> Answer:
        if call.rights is None:
            await self._service.check_exists(call.subscription_id)
        streams = read_added_streams(call.request.body, self._service.names)
        if call.rights is not None:
            _check_streams(call.rights, streams)
        await self._service.add_streams(call.subscription_id, streams)
        return self._nothing(call.request)

    async def _remove_stream(self, call: SubscriptionCall) -> Answer:
        await self._service.check_exists(call.subscription_id)
        await self._service.remove_stream(call.subscription_id, normal_path(call.path, self._service.names))
        return self._nothing(call.request)

    async def _claim(self, call: SubscriptionCall) -> Answer:
        await self._service.check_action(call.subscription_id, "claim")
        worker = read_worker(call.request.body)
        return self._json(call.request, 200, await self._service.claim(call.subscription_id, worker))

    async def _ack(self, call: SubscriptionCall) -> Answer:
        claims = await self._claims(call)
        answer = await self._service.ack(call.subscription_id, claims, read_ack(call.request.body))
        return self._json(call.request, 200, answer)

    async def _release(self, call: SubscriptionCall) -> Answer:
        claims = await self._claims(call)
        await self._service.release(call.subscription_id, claims, read_ack(call.request.body))
        return self._nothing(call.request)

    async def _claims(self, call: SubscriptionCall) -> TokenClaims:
        """
        Return the claims of the token that a request has in Authorization.

        Where requests are authenticated, the token is verified first: without a valid one, the answer does not tell
        whether the subscription exists.

        :raises TokenInvalid: it has none, or it is not valid for the subscription.
        """
        subscription_id = call.subscription_id
        action = call.route.rpartition("/")[2]
        if self._access is None:
            await self._service.check_action(subscription_id, action)
            return self._service.verify(subscription_id, _bearer_token(call.request))
        claims = await self._service.verify_first(subscription_id, _bearer_token(call.request))
        await self._service.check_action(subscription_id, action)
        return claims

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


def _check_subscribe(call: SubscriptionCall, rights: RequestRights, access: PageAccess | None) -> None:
    """
    Check that a principal may use a subscription.

    :raises NotAuthenticated: it may not, and has no credentials.
    :raises NotAllowed: it may not.
    :raises SubscriptionNotFound: it may not, and is not told whether the subscription exists (``auth.hide_forbidden``).
    """
    try:
        rights.require("subscribe", f"__ds/subscriptions/{call.subscription_id}")
    except NotAllowed:
        if access is not None and access.hide_forbidden and call.request.method != b"PUT":
            raise SubscriptionNotFound(call.subscription_id) from None
        raise


def _check_streams(rights: RequestRights, names: Iterable[str]) -> None:
    """
    Check that a principal may subscribe to each stream.

    :raises NotAuthenticated: it may not, and has no credentials.
    :raises NotAllowed: it may not.
    """
    for name in names:
        rights.require("subscribe", name)


def _bearer_token(request: StreamRequest) -> str:
    """
    Return the token in Authorization.

    :raises TokenInvalid: there is none.
    """
    return bearer_token(request.headers.get(b"authorization", b"").strip().decode("latin-1"))
