"""Authentication of requests: the checkers of a twisted.cred portal turn credentials into principals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from typing import Final, Protocol

from msgspec import Struct
from twisted.cred.error import LoginFailed, UnauthorizedLogin
from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..clocks import IClock
from ..errors import NotAuthenticated, StreamsError, Unavailable
from ..interfaces import NowOrLater
from .challenges import BEARER, invalid_request, invalid_token
from .credentials import Presented
from .methods import MAX_AUTHORIZATION, Credential, Methods
from .principal import ANONYMOUS, IPrincipal, Principal
from .principal_cache import PrincipalCache, RefusalCache
from .realm import principal_from
from .revocation import revocations_of

_log = Logger()

#: The challenge of an error whose checker has not given one.
_DEFAULT_CHALLENGES: Final = frozenset({"Bearer", BEARER})


class CacheLimits(Struct, frozen=True):
    """
    The bounds of the caches.

    :ivar principals: how many principals are kept.
    :ivar bytes: about how much memory they may take.
    :ivar seconds: how long a principal is kept whose checker cannot revoke it. The others are kept until they expire.
    :ivar refusals: how many refusals are kept.
    :ivar refusal_bytes: about how much memory they may take.
    :ivar refusal_seconds: how long a refusal is kept.
    """

    principals: int = 50_000
    bytes: int = 67_108_864
    seconds: float = 60.0
    refusals: int = 4_096
    refusal_bytes: int = 4_194_304
    refusal_seconds: float = 5.0


class FailedAttempts(Protocol):
    """
    A limit of failed attempts for each address. Only verifications of credentials that are in no cache are attempts.

    An attempt counts from its beginning, and is uncounted if it succeeds: so those that run at once are limited, too.
    """

    def begin_attempt(self, address: str) -> float:
        """
        Count an attempt.

        :returns: when it began, for :meth:`succeeded`.
        :raises StreamsError: the address has failed too often; the error is the answer.
        """

    def succeeded(self, address: str, began: float) -> None:
        """Uncount an attempt: it has not failed."""


class Authentication:
    """
    Authenticates requests: returns the principal of the credentials that a request has.

    The first method whose credential the request has decides, in the configured order. A credential that is present and
    not valid is an error, and never passed over for the next method or for anonymous.

    :param portal: its checkers are complete, and its realm returns principals for :class:`IPrincipal`.
    :param methods: names of :data:`.methods.METHODS`, in their order.
    :param allow_anonymous: whether a request without credentials becomes :data:`ANONYMOUS`, or is an error.
    :param clock: gives wall time and steady time.
    :param limits: of the caches.
    :ivar challenge: the value of WWW-Authenticate for requests without credentials.
    :ivar cached: the hot path: ``cached(authorization)`` returns the principal of a value of Authorization that was
        verified before and that alone decides; None if :meth:`principal_of` has to be asked. It is the look-up of a
        dictionary, so that it takes less than 0.1 us.
    :ivar verifications: (method, ``accepted``, ``refused`` or ``unavailable``) -> their number, for metrics.
    :raises ValueError: a method is not known.
    """

    def __init__(
        self,
        portal: Portal,
        methods: Sequence[str],
        allow_anonymous: bool,
        clock: IClock,
        limits: CacheLimits = CacheLimits(),  # noqa: B008 (it is frozen)
    ) -> None:
        self._methods = Methods(methods)
        self.challenge = self._methods.challenge
        self._portal = portal
        self._allow_anonymous = allow_anonymous
        self._attempts: FailedAttempts | None = None
        self._listeners: list[Callable[[Principal], None]] = []
        self._cache = PrincipalCache(clock, limits.principals, limits.bytes, limits.seconds, self._removed)
        self._refusals = RefusalCache(clock, limits.refusals, limits.refusal_bytes, limits.refusal_seconds)
        self._wall = clock.wall
        self._verifications: dict[Hashable, _Verification] = {}
        self._generation = 0
        self.verifications: Counter[tuple[str, str]] = Counter()
        self._current = revocations_of(portal.checkers.values())
        by_header: dict[Hashable, Principal] = {}
        if self._methods.authorization_first:
            by_header = self._cache.principals
        self.cached: Callable[[bytes | None], Principal | None] = by_header.get

    def principal_of(self, presented: Presented) -> NowOrLater[Principal]:
        """
        Return the principal of a request, or a Deferred of it.

        :raises NotAuthenticated: the credentials are not valid, or there are none and they are required.
        :raises Unavailable: the credentials cannot be checked now.
        """
        credential = self._methods.find(presented)
        if credential is None:
            if self._allow_anonymous:
                return ANONYMOUS
            raise self.missing()
        principal = self._cache.principals.get(credential.key)
        return self._verify(credential, presented) if principal is None else principal

    def on_removal(self, call: Callable[[Principal], None]) -> None:
        """
        Register a call for each principal that expires or has to make room for others.

        It may be used yet by the requests under way. :meth:`forget` does not make the call.
        """
        self._listeners.append(call)

    def _removed(self, principal: Principal) -> None:
        for call in self._listeners:
            call(principal)

    def limit_attempts(self, attempts: FailedAttempts | None) -> None:
        """Limit failed attempts from now on; None for no limit."""
        self._attempts = attempts

    def is_current(self, principal: Principal, now: float) -> bool:
        """
        Return whether a principal is still valid: it has not expired, and its credential was not revoked.

        :param now: the wall clock's time.
        """
        if principal.expires_at is not None and principal.expires_at <= now:
            return False
        check = self._current.get(principal.kind)
        return check is None or check(principal)

    def forget(self) -> None:
        """Empty the caches, after tokens or keys have changed. Results of verifications in progress are not cached."""
        self._generation += 1
        self._cache.clear()
        self._refusals.clear()

    def close(self) -> None:
        """Empty the caches, so that no delayed call is left."""
        self.forget()

    def missing(self) -> NotAuthenticated:
        """Return the error for a request that has no credentials where they are required."""
        return NotAuthenticated(f"The request has no credentials. {self._methods.advice}".rstrip(), self.challenge)

    def _verify(self, credential: Credential, presented: Presented) -> NowOrLater[Principal]:
        """Ask the portal about a credential that is not in the cache, unless it was refused just now."""
        if presented.authorization is not None and len(presented.authorization) > MAX_AUTHORIZATION:
            raise invalid_request(f"Authorization is longer than {MAX_AUTHORIZATION} bytes. Use a shorter token.")
        key = credential.key
        refusal = self._refusals.get(key)
        if refusal is not None:
            raise NotAuthenticated(*refusal)
        running = self._verifications.get(key)
        if running is not None:
            return running.wait()
        began = 0.0 if self._attempts is None else self._attempts.begin_attempt(presented.address)
        attempt = _Attempt(key, presented.address, self._generation, self._methods.label(credential), began)
        login = self._portal.login(self._methods.read(credential, presented), None, IPrincipal)
        result: Deferred[Principal] = login.addCallbacks(self._accept, self._refuse, (attempt,), {}, (attempt,), {})
        outcome = _result_now(result)
        if outcome is not None:
            return outcome
        if key is None:
            return result
        running = self._verifications[key] = _Verification(result)
        first = running.wait()
        result.addBoth(self._finish, key)
        return first

    def _finish(self, outcome: Principal | Failure, key: Hashable) -> None:
        self._verifications.pop(key).finish(outcome)

    def _accept(self, avatar: tuple[object, object, object], attempt: _Attempt) -> Principal:
        principal = principal_from(avatar[1])
        if not self.is_current(principal, self._wall()):
            return self._reject(self._invalid("The credentials have expired. Send new ones."), attempt)
        self.verifications[attempt.method, "accepted"] += 1
        if self._attempts is not None:
            self._attempts.succeeded(attempt.address, attempt.began)
        if attempt.key is not None and attempt.generation == self._generation:
            self._cache.add(attempt.key, principal, has_lifetime=principal.kind not in self._current)
        return principal

    def _refuse(self, failure: Failure, attempt: _Attempt) -> Principal:
        error = failure.value
        if isinstance(error, NotAuthenticated):
            message, challenge = str(error), error.challenge
            is_default = challenge in _DEFAULT_CHALLENGES
            return self._reject(self._invalid(message) if is_default else NotAuthenticated(message, challenge), attempt)
        if isinstance(error, LoginFailed | UnauthorizedLogin):
            return self._reject(self._invalid("The credentials are not valid."), attempt)
        if isinstance(error, Unavailable):
            self.verifications[attempt.method, "unavailable"] += 1
            if self._attempts is not None:
                self._attempts.succeeded(attempt.address, attempt.began)
        if isinstance(error, StreamsError | CancelledError):
            raise error
        _log.failure("A credentials checker failed; the request was refused.", failure)
        raise Unavailable("The server cannot check credentials now. Its log says why.")

    def _invalid(self, message: str) -> NotAuthenticated:
        """Return the error for credentials that are not valid. Only a challenge of Basic has a browser ask again."""
        if self._methods.is_basic:
            return NotAuthenticated(message, self.challenge)
        return invalid_token(message)

    def _reject(self, error: NotAuthenticated, attempt: _Attempt) -> Principal:
        self.verifications[attempt.method, "refused"] += 1
        if attempt.key is not None and attempt.generation == self._generation:
            self._refusals.add(attempt.key, str(error), error.challenge)
        raise error


class _Attempt(Struct, frozen=True):
    """A verification: what it is about, who asked for it, the state of the caches when it began, and when that was."""

    key: Hashable | None
    address: str
    generation: int
    method: str
    began: float

    def __repr__(self) -> str:
        return f"{type(self).__name__}(address={self.address!r})"


class _Verification:
    """
    A verification that has not ended, with the requests that wait for it.

    :param result: its Deferred.
    """

    def __init__(self, result: Deferred[Principal]) -> None:
        self._result = result
        self._waiting: list[Deferred[Principal]] = []

    def wait(self) -> Deferred[Principal]:
        """Return a Deferred of the result. When the last one is cancelled, the verification is, too."""
        waiter: Deferred[Principal] = Deferred(self._leave)
        self._waiting.append(waiter)
        return waiter

    def finish(self, outcome: Principal | Failure) -> None:
        """Fire the Deferreds."""
        # One of them may cancel another.
        while self._waiting:
            waiter = self._waiting.pop(0)
            if not isinstance(outcome, Failure):
                waiter.callback(outcome)
            elif isinstance(outcome.value, NotAuthenticated):
                # Each has an exception of its own: they are raised in several requests.
                waiter.errback(NotAuthenticated(str(outcome.value), outcome.value.challenge))
            else:
                waiter.errback(outcome.value)

    def _leave(self, waiter: Deferred[Principal]) -> None:
        self._waiting.remove(waiter)
        if not self._waiting and not self._result.called:
            self._result.cancel()


def _result_now(result: Deferred[Principal]) -> Principal | None:
    """
    Return the result of a Deferred if it has one, else None.

    :raises StreamsError: it has failed.
    """
    outcome: list[Principal | Failure] = []
    if result.called and not result.paused:
        result.addBoth(outcome.append)
    if not outcome:
        return None
    if isinstance(outcome[0], Failure):
        raise outcome[0].value  # type: ignore[misc]
    return outcome[0]
