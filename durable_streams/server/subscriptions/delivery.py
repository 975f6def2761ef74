"""One delivery attempt of a webhook: an HTTP POST to a checked address, with limits on time and sizes.

No redirect is followed, no proxy of the environment is used, no cookie is kept, no connection is used twice, and
nothing is decompressed: ``twisted.web.client.Agent`` does none of this by itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from io import BytesIO
from typing import Any, Final

import msgspec
from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.task import Cooperator
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import Agent, FileBodyProducer
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IResponse

from ..answer_bodies import BodyReader
from ..guarded_endpoints import EndpointFactory, GuardedEndpoint
from ..release import DISTRIBUTION, version_of_server
from .addresses import Address, AddressPolicy, WebhookUrl, parse_webhook_url
from .authorities import Authorities
from .delivery_failures import AnswerTooLarge, DeliveryFailed, FailureReason, explained
from .errors import WebhookUrlRejected
from .model import Outcome
from .pinning import PinnedEndpoints
from .resolving import Resolve
from .tracing import TraceContext

_log = Logger()

_USER_AGENT: Final = f"{DISTRIBUTION}/{version_of_server()}"


class DeliveryLimits(Struct, frozen=True):
    """
    Limits of a delivery attempt, in seconds and bytes.

    :ivar total: of the whole attempt, with the look-up (subscriptions.request_timeout_ms).
    :ivar max_head: of the head of the answer, with interim ones before it.
    """

    total: float = 5.0
    lookup: float = 3.0
    max_head: int = 16_384
    max_body: int = 65_536


class WebhookRequest(Struct, frozen=True):
    """
    A webhook request to send.

    :ivar subscription_id: for the log.
    :ivar url: as stored with the subscription.
    :ivar body: the same bytes for each attempt of a wake.
    :ivar trace: the trace context of the attempt, or None.
    """

    subscription_id: str
    url: str
    body: bytes
    trace: TraceContext | None = None


class DeliveryResult(Struct, frozen=True):
    """
    The result of a delivery attempt.

    :ivar outcome: for :meth:`.Machine.outcome`.
    :ivar seconds: the duration of the attempt.
    :ivar status: the HTTP status; None without an answer.
    :ivar reason: why the attempt failed, or None.
    :ivar detail: a sentence about the failure, without the URL's query and without the token; or empty.
    """

    outcome: Outcome
    seconds: float
    status: int | None = None
    reason: FailureReason | None = None
    detail: str = ""


class HttpSender:
    """
    Checks webhook URLs, and sends webhook requests over the network: the :class:`.WebhookSender` of a server.

    :param reactor: for connections and time.
    :param policy: which addresses may be called.
    :param resolve: looks up host names, anew for each check and each attempt.
    :param sign: returns the header Webhook-Signature of a body, as of now.
    :param authorities: those that are trusted besides the system's.
    :ivar failures: failed attempts by reason (:class:`.FailureReason`).
    """

    def __init__(
        self,
        reactor: Any,
        policy: AddressPolicy,
        resolve: Resolve,
        sign: Callable[[bytes], str],
        limits: DeliveryLimits | None = None,
        authorities: Authorities | None = None,
    ) -> None:
        self.reactor = reactor
        self.policy = policy
        self.limits = DeliveryLimits() if limits is None else limits
        self.sign = sign
        self.endpoints = PinnedEndpoints(reactor, authorities or Authorities())
        self.failures: Counter[str] = Counter()
        self._resolve = resolve

    async def check(self, url: str) -> None:
        """
        Check that a URL may be called, as of now. For the creation of a subscription.

        :raises WebhookUrlRejected: it is malformed, its host can't be found, or has an address that is not allowed.
        """
        parsed = parse_webhook_url(url)
        try:
            await self.checked_addresses(parsed)
        except DeliveryFailed as error:
            raise WebhookUrlRejected(f"The host {parsed.host} of webhook.url can't be found. {error}") from None

    async def send(self, subscription_id: str, url: str, body: bytes, trace: TraceContext) -> Outcome:
        """Make one delivery attempt, and return its outcome."""
        return (await self.deliver(WebhookRequest(subscription_id, url, body, trace))).outcome

    async def checked_addresses(self, url: WebhookUrl) -> Sequence[Address]:
        """
        Return the addresses of a URL's host; all of them are allowed.

        :raises WebhookUrlRejected: the scheme or an address is not allowed.
        :raises DeliveryFailed: the look-up failed, or took too long.
        """
        self.policy.check_url(url)
        if url.literal is not None:
            return (url.literal,)
        is_late = False

        def expire() -> None:
            nonlocal is_late
            is_late = True
            looked_up.cancel()

        looked_up = self._resolve(url.host)
        timer = self.reactor.callLater(self.limits.lookup, expire)
        try:
            addresses = await looked_up
        except (DNSLookupError, CancelledError) as error:
            if is_late:
                raise DeliveryFailed(
                    FailureReason.DNS, f"The look-up of {url.host} took more than {self.limits.lookup:g} seconds."
                ) from None
            if isinstance(error, CancelledError):
                raise
            raise DeliveryFailed(FailureReason.DNS, f"The look-up of {url.host} failed.") from None
        finally:
            if timer.active():
                timer.cancel()
        self.policy.check_addresses(url, addresses)
        return addresses

    def deliver(self, request: WebhookRequest) -> Deferred[DeliveryResult]:
        """
        Send a webhook request once.

        A failed attempt is a result, and is logged. If the Deferred is cancelled, the connection is aborted and the
        Deferred fails with CancelledError: the attempt has no result then.
        """
        return _Attempt(self, request).start()


class _Attempt:
    """A delivery attempt that runs."""

    def __init__(self, sender: HttpSender, request: WebhookRequest) -> None:
        self._sender = sender
        self._reactor = sender.reactor
        self._limits = sender.limits
        self._request = request
        self._begun = self._reactor.seconds()
        self._endpoint: GuardedEndpoint | None = None
        self._phase = "The look-up of the host"
        self._shown = "a URL that is not valid"
        self._status: int | None = None
        self._running: Deferred[DeliveryResult] | None = None
        self._finished: Deferred[DeliveryResult] = Deferred(self._cut)
        self._is_over = False

    def start(self) -> Deferred[DeliveryResult]:
        """Begin the attempt."""
        timer = self._reactor.callLater(self._limits.total, self._expire)
        self._finished.addBoth(_passing(lambda: timer.cancel() if timer.active() else None))
        self._running = Deferred.fromCoroutine(self._run())
        self._running.addCallbacks(self._finish, self._fail)
        return self._finished

    def _cut(self, _: Deferred[DeliveryResult]) -> None:
        """Abort the attempt, which has no result then."""
        self._is_over = True
        if self._running is not None:
            self._running.cancel()

    def _expire(self) -> None:
        text = f"{self._phase} took more than {self._limits.total:g} seconds."
        self._finish(self._failed(DeliveryFailed(FailureReason.TIMEOUT, text)))
        if self._running is not None:
            self._running.cancel()

    def _fail(self, failure: Failure) -> None:
        """Finish with a failure. Those that follow the end of the attempt are the consequences of its abort."""
        if self._is_over:
            return
        error = explained(failure)
        if isinstance(failure.value, WebhookUrlRejected):
            error = DeliveryFailed(FailureReason.ADDRESS, str(failure.value))
        if error is None:
            _log.failure(
                "The webhook delivery for subscription {id} failed.", failure, id=self._request.subscription_id
            )
            error = DeliveryFailed(FailureReason.INTERNAL, "An internal error; the log has it.")
        self._finish(self._failed(error))

    def _finish(self, result: DeliveryResult) -> None:
        if not self._is_over:
            self._is_over = True
            self._finished.callback(result)

    async def _run(self) -> DeliveryResult:
        try:
            response = await self._answer()
            self._check_head(response)
            self._phase = "The body of the answer"
            body = await self._read(response)
        except BaseException:
            if self._endpoint is not None:
                self._endpoint.abort()
            raise
        return self._result(Outcome.DONE if _is_done(body) else Outcome.ACCEPTED)

    async def _answer(self) -> IResponse:
        """Send the request. Return the answer once its head has arrived."""
        url = parse_webhook_url(self._request.url)
        self._shown = url.shown
        addresses = await self._sender.checked_addresses(url)
        self._phase = "The connection, or the answer,"
        pinned = self._sender.endpoints.endpoint(url, addresses, self._limits.total)
        endpoint = GuardedEndpoint(self._reactor, pinned, self._limits.max_head, AnswerTooLarge)
        self._endpoint = endpoint
        agent = Agent.usingEndpointFactory(self._reactor, EndpointFactory(lambda _: endpoint))
        cooperator = Cooperator(scheduler=partial(self._reactor.callLater, 0))
        body = FileBodyProducer(BytesIO(self._request.body), cooperator)
        response: IResponse = await agent.request(b"POST", url.text.encode("ascii"), self._headers(), body)
        return response

    def _headers(self) -> Headers:
        """Return the headers besides those that the agent adds: Host, Content-Length and Connection."""
        headers = Headers()
        headers.setRawHeaders("Content-Type", ["application/json"])
        headers.setRawHeaders("Webhook-Signature", [self._sender.sign(self._request.body)])
        headers.setRawHeaders("User-Agent", [_USER_AGENT])
        trace = self._request.trace
        if trace is not None:
            headers.setRawHeaders("traceparent", [trace.traceparent])
            if trace.tracestate:
                headers.setRawHeaders("tracestate", [trace.tracestate])
        return headers

    def _check_head(self, response: IResponse) -> None:
        """
        Check the status and the length of the answer.

        :raises DeliveryFailed: it is no success, or too large.
        """
        self._status = response.code
        if 300 <= response.code < 400:
            raise DeliveryFailed(
                FailureReason.REDIRECT, f"The receiver answered {response.code}; redirects are not followed."
            )
        if not 200 <= response.code < 300:
            raise DeliveryFailed(FailureReason.STATUS, f"The receiver answered {response.code}.")
        if response.length is not UNKNOWN_LENGTH and response.length > self._limits.max_body:
            raise self._too_large()

    def _read(self, response: IResponse) -> Deferred[bytes]:
        reader = BodyReader(self._limits.max_body, self._too_large)
        response.deliverBody(reader)
        return reader.done

    def _too_large(self) -> AnswerTooLarge:
        return AnswerTooLarge(f"The body of the answer is larger than {self._limits.max_body} bytes.")

    def _failed(self, error: DeliveryFailed) -> DeliveryResult:
        """Return the result of an attempt that failed; log and count it."""
        self._sender.failures[error.reason.value] += 1
        _log.warn(
            "Webhook delivery for subscription {id} to {url} failed: {detail}",
            id=self._request.subscription_id,
            url=self._shown,
            detail=str(error),
        )
        return self._result(Outcome.FAILED, error.reason, str(error))

    def _result(self, outcome: Outcome, reason: FailureReason | None = None, detail: str = "") -> DeliveryResult:
        return DeliveryResult(outcome, self._reactor.seconds() - self._begun, self._status, reason, detail)


def _passing(call: Callable[[], object]) -> Callable[[Any], Any]:
    """Return a callback that calls a function, and passes its result on."""

    def passing(result: Any) -> Any:
        call()
        return result

    return passing


def _is_done(body: bytes) -> bool:
    """Return whether the body of an answer is a JSON object whose ``done`` is true."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return isinstance(value, dict) and value.get("done") is True
