"""Cache of the keys of a JWKS URL, refreshed periodically and when a token names an unknown key."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...clocks import IClock
from ...interfaces import NowOrLater
from .errors import KeysUnavailable, KeysUnusable
from .fetching import FetchFailed, shown_url
from .jwk import ParsedKeys, parse_jwk_set
from .keys import NO_KEYS, KeySet
from .settings import JwtSettings, objection_to_url
from .strict_json import StrictJsonError, parse_object

#: The shortest interval between two fetches for keys that are not known, in seconds.
MISS_INTERVAL: Final = 60.0

#: How many requests may wait for a fetch.
MAX_WAITING: Final = 1000

#: How many of them are answered in one turn of the reactor: each verifies a token and begins an operation, 0.2 ms.
_MAX_ANSWERED: Final = 64

#: The longest interval between two attempts while the URL fails, in seconds; the first is a second.
_MAX_RETRY: Final = 30.0

#: The default of a look-up among key ids, of which None is one.
_GONE: Final = object()

_log = Logger()


class RemoteKeys:
    """
    The keys of a JWKS URL.

    They are fetched at the start, each ``refresh_secs``, and at most once a minute for a token whose key id is not
    known. While the URL fails, the keys stay in use for ``max_stale_secs``, and the fetch is repeated each 30 seconds.

    :param fetch: fetches a URL; fails with :class:`FetchFailed`.
    """

    def __init__(self, settings: JwtSettings, fetch: Callable[[str], Deferred[bytes]], clock: IClock) -> None:
        self._settings = settings
        self.setting = "auth.jwt.discovery_url" if settings.jwks_url is None else "auth.jwt.jwks_url"
        self._accepted = frozenset(settings.algorithms)
        self._fetch = fetch
        self._clock = clock
        self._keys = NO_KEYS
        self._fetched_at: float | None = None
        self._missed_at: float | None = None
        self._failures = 0
        self._defects: tuple[str, ...] = ()
        self._timer: IDelayedCall | None = None
        self._fetching: Deferred[Any] | None = None
        # Requests that wait for the fetch, and those that wait for a turn after it; each with its key id.
        self._waiting: dict[Deferred[KeySet], str | None] = {}
        self._ready: dict[Deferred[KeySet], str | None] = {}
        self._is_started = False
        self._listeners: list[Callable[[], None]] = []

    @property
    def keys(self) -> KeySet:
        """The keys that are in use; none before the first fetch, and when they are too old."""
        fetched_at = self._fetched_at
        if fetched_at is None or self._clock.seconds() - fetched_at >= self._settings.max_stale_secs:
            return NO_KEYS
        return self._keys

    @property
    def stale(self) -> bool:
        """Whether the last fetch failed."""
        return self._failures > 0

    @property
    def files(self) -> tuple[str, ...]:
        """None: the file of authorities is read at each fetch."""
        return ()

    def on_change(self, call: Callable[[], None]) -> None:
        """Register a call for each change of the keys."""
        self._listeners.append(call)

    def start(self) -> None:
        """Begin to fetch the keys."""
        if not self._is_started:
            self._is_started = True
            self._failures = 0
            self._begin()

    def stop(self) -> None:
        """Stop fetching. Requests that wait fail with :class:`KeysUnavailable`."""
        self._is_started = False
        self._stop_timer()
        if self._fetching is not None:
            self._fetching.cancel()
        self._end_waiting()
        while self._ready:
            self._answer_some()

    def reload(self) -> None:
        """Fetch the keys now."""
        if self._is_started:
            self._begin()

    def lookup(self, key_id: str | None) -> NowOrLater[KeySet]:
        """
        Return the keys, at once if they have the key id.

        If not, they are fetched again, at most once a minute; all requests of that time wait for the same fetch.

        :param key_id: ``kid`` of a token; None for one without.
        :raises KeysUnavailable: there are no keys, or the key is not known while the URL fails, or too many wait.
        """
        keys = self.keys
        if keys is not NO_KEYS and keys.knows(key_id):
            return keys
        if self._fetching is None:
            if not self._may_fetch(keys):
                return self._found(key_id)
            self._missed_at = self._clock.seconds()
            self._begin()
            if self._fetching is None:
                return self._found(key_id)
        if len(self._waiting) + len(self._ready) >= MAX_WAITING:
            raise KeysUnavailable("Too many requests wait for the keys of the token issuer. Try again later.")
        waiting: Deferred[KeySet] = Deferred(self._forget)
        self._waiting[waiting] = key_id
        return waiting

    def _may_fetch(self, keys: KeySet) -> bool:
        """Return whether a token may cause a fetch now. Without keys, the retries are frequent enough."""
        if not self._is_started or keys is NO_KEYS:
            return False
        return self._missed_at is None or self._clock.seconds() - self._missed_at >= MISS_INTERVAL

    def _found(self, key_id: str | None) -> KeySet:
        """
        Return the keys after a fetch, or without one.

        :raises KeysUnavailable: there are none, or the key is not known while the URL fails.
        """
        keys = self.keys
        if keys is NO_KEYS or (self._failures and not keys.knows(key_id)):
            raise KeysUnavailable("The keys of the token issuer cannot be fetched. Try again later.")
        return keys

    def _forget(self, waiting: Deferred[KeySet]) -> None:
        self._waiting.pop(waiting, None)
        self._ready.pop(waiting, None)

    def _begin(self) -> None:
        """Fetch the keys, unless that is being done."""
        if self._fetching is not None:
            return
        self._stop_timer()
        fetching = Deferred.fromCoroutine(self._fetched())
        if fetching.called:
            self._fetching = None
        else:
            self._fetching = fetching
        fetching.addCallbacks(self._succeeded, self._failed)

    async def _fetched(self) -> ParsedKeys:
        """
        Fetch the keys.

        :raises FetchFailed: that failed; the message is the end of a sentence.
        """
        url, setting = self._settings.jwks_url, "auth.jwt.jwks_url"
        if url is None:
            url = await self._discovered(self._settings.discovery_url or "")
            setting = "jwks_uri of auth.jwt.discovery_url"
        data = await self._part(setting, url)
        try:
            found = parse_jwk_set(data, self._accepted, False)
        except KeysUnusable as error:
            raise FetchFailed(f"The document at {shown_url(url)} {error}.") from None
        if not found.keys.keys:
            algorithms = ", ".join(sorted(self._accepted))
            defects = "".join(f" {defect}" for defect in found.defects[:3])
            raise FetchFailed(
                f"The JWK set at {shown_url(url)} has no key for {algorithms} (auth.jwt.algorithms).{defects}"
            )
        return found

    async def _discovered(self, url: str) -> str:
        """
        Return the URL of the JWK set by the metadata of the issuer (OpenID Connect Discovery, RFC 8414).

        :raises FetchFailed: that failed, or the metadata are of another issuer.
        """
        data = await self._part("auth.jwt.discovery_url", url)
        try:
            metadata = parse_object(data)
        except StrictJsonError as error:
            raise FetchFailed(f"The document at {shown_url(url)} {error}.") from None
        if metadata.get("issuer") != self._settings.issuer:
            raise FetchFailed(f"The metadata at {shown_url(url)} are of another issuer than auth.jwt.issuer.")
        found = metadata.get("jwks_uri")
        if not isinstance(found, str) or (objection := objection_to_url(found)):
            reason = objection if isinstance(found, str) else "is missing."
            raise FetchFailed(f"The jwks_uri in the metadata at {shown_url(url)} {reason}")
        return found

    async def _part(self, setting: str, url: str) -> bytes:
        try:
            return await self._fetch(url)
        except FetchFailed as error:
            raise FetchFailed(f"The fetch of {shown_url(url)} ({setting}) {error}.") from None

    def _succeeded(self, found: ParsedKeys) -> None:
        self._fetching = None
        if not self._is_started:
            return
        has_changed = self._fetched_at is None or not found.keys.equals(self._keys)
        if has_changed or self._failures:
            _log.info("Fetched the keys of the token issuer; number of keys: {count}.", count=len(found.keys.keys))
        for defect in found.defects:
            if defect not in self._defects:
                _log.warn("The JWK set of the token issuer: {defect}", defect=defect)
        self._defects = found.defects
        self._keys = found.keys
        self._fetched_at = self._clock.seconds()
        self._failures = 0
        self._schedule(self._settings.refresh_secs * random.uniform(0.9, 1.0))
        if has_changed:
            for call in self._listeners:
                call()
        self._answer()

    def _failed(self, failure: Failure) -> None:
        self._fetching = None
        if not self._is_started:
            return
        if not failure.check(FetchFailed):
            _log.failure("The fetch of the keys of the token issuer failed.", failure)
        self._failures += 1
        # Log the first failure, then one each 5 minutes.
        if self._failures == 1 or not self._failures % 10:
            _log.warn("{reason} {state}", reason=failure.getErrorMessage(), state=self._state())
        self._schedule(min(2.0 ** (self._failures - 1), _MAX_RETRY) * random.uniform(0.9, 1.0))
        self._answer()

    def _state(self) -> str:
        if self.keys is NO_KEYS:
            return "Until a fetch succeeds, requests with a JWT get 503."
        assert self._fetched_at is not None
        left = self._settings.max_stale_secs - (self._clock.seconds() - self._fetched_at)
        return f"The keys that were fetched before stay in use for {left:.0f} seconds (auth.jwt.max_stale_secs)."

    def _end_waiting(self) -> None:
        self._ready |= self._waiting
        self._waiting = {}

    def _answer(self) -> None:
        """Answer the requests that wait for the fetch: the first at once, many in several turns of the reactor."""
        is_answering = bool(self._ready)
        self._end_waiting()
        if not is_answering:
            self._answer_turn()

    def _answer_turn(self) -> None:
        self._answer_some()
        if self._ready:
            self._clock.callLater(0, self._answer_turn)

    def _answer_some(self) -> None:
        for waiting, key_id in list(islice(self._ready.items(), _MAX_ANSWERED)):
            if self._ready.pop(waiting, _GONE) is _GONE:
                # It was cancelled by what another one did.
                continue
            try:
                found = self._found(key_id)
            except KeysUnavailable as error:
                waiting.errback(error)
            else:
                waiting.callback(found)

    def _schedule(self, delay: float) -> None:
        self._timer = self._clock.callLater(delay, self._begin)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None
