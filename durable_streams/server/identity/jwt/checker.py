"""The credentials checker of JWTs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

from twisted.cred.checkers import ICredentialsChecker
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from ...clocks import IClock, clock_of
from ...errors import NotAuthenticated, Unavailable
from ...interfaces import NowOrLater
from ..credentials import BearerToken, IBearerToken
from ..principal import Principal
from ..revocation import IRevocations
from .errors import KeysUnavailable, KeysUnusable, TokenRefused
from .fetching import Fetcher, load_authorities
from .grants import grants_of
from .key_sources import FileKeys, KeySource
from .keys import VerificationKey
from .remote_keys import RemoteKeys
from .settings import JwtSettings
from .verifying import TokenVerifier, VerifiedToken

#: The kind of the principals.
_KIND: Final = "jwt"


@implementer(ICredentialsChecker, IRevocations)
class JwtChecker:
    """
    Makes principals of JWTs.

    :param settings: must have no problems (:meth:`.JwtSettings.problems`).
    :param keys: the issuer's keys, which :meth:`start` begins to fetch.
    :param clock: its wall clock is compared with the dates of tokens.
    :ivar kinds: ``jwt`` alone.
    :ivar setting: the name of the setting that has the file or the URL of the keys.
    """

    credentialInterfaces = (IBearerToken,)
    kinds = frozenset({_KIND})

    def __init__(self, settings: JwtSettings, keys: KeySource, clock: IClock) -> None:
        self._verifier = TokenVerifier(settings, keys.lookup, clock)
        self._keys = keys
        self.setting = keys.setting
        self._signed_by: WeakKeyDictionary[Principal, VerificationKey] = WeakKeyDictionary()

    @property
    def files(self) -> tuple[str, ...]:
        """The files to call :meth:`reload` for when they change."""
        return self._keys.files

    @property
    def stale(self) -> bool:
        """Whether the file or the URL of the keys could not be used the last time."""
        return self._keys.stale

    def start(self) -> None:
        """Begin to fetch the keys of a URL."""
        self._keys.start()

    def stop(self) -> None:
        """Stop fetching keys, or reading their file. Requests that wait for a fetch get 503."""
        self._keys.stop()

    def reload(self) -> NowOrLater[object]:
        """
        Load or fetch the keys again. If they cannot be used, the present ones stay, and the log has the reason.

        :returns: False if a file could not be used, so that it is to be read again.
        """
        return self._keys.reload()

    def on_change(self, call: Callable[[], None]) -> None:
        """Call a function after each change of the keys: what was made of the old ones must be checked again."""
        self._keys.on_change(call)

    def requestAvatarId(self, credentials: BearerToken) -> NowOrLater[Principal]:  # type: ignore[override]
        """
        Return the principal of a token, at once if the token's key is known.

        :raises NotAuthenticated: the token is not valid.
        :raises Unavailable: the keys cannot be fetched now.
        """
        try:
            found = self._verifier.verify(credentials.token)
            if isinstance(found, Deferred):
                return found.addCallback(self._principal).addErrback(_refused)
            return self._principal(found)
        except (TokenRefused, KeysUnavailable) as error:
            raise _answer_of(error) from None

    def is_current(self, principal: Principal) -> bool:
        """Return whether the key that signed the principal's token is still one of the issuer's."""
        key = self._signed_by.get(principal)
        return key is None or self._keys.keys.has(key)

    def _principal(self, token: VerifiedToken) -> Principal:
        principal = Principal(
            subject=token.subject,
            kind=_KIND,
            groups=token.groups,
            claims=token.claims,
            expires_at=token.expires_at,
            grants=grants_of(token.claims),
            credential=token.token_id,
        )
        self._signed_by[principal] = token.key
        return principal


def jwt_checker(settings: JwtSettings, reactor: Any) -> JwtChecker:
    """
    Return the checker for settings; :meth:`JwtChecker.start` must be called before the first request.

    :param settings: must have no problems (:meth:`.JwtSettings.problems`).
    :raises KeysUnusable: a file cannot be used; the message has its setting and what to change.
    """
    problem = next(settings.problems(), None)
    if problem is not None:
        raise KeysUnusable(problem)
    clock = clock_of(reactor)
    if settings.keys_file is not None:
        return JwtChecker(settings, FileKeys(settings.keys_file, frozenset(settings.algorithms), reactor), clock)
    if settings.ca_file is not None:
        load_authorities(settings.ca_file)
    fetcher = Fetcher(reactor, settings.ca_file)
    return JwtChecker(settings, RemoteKeys(settings, fetcher.fetch, clock), clock)


def _answer_of(error: TokenRefused | KeysUnavailable) -> NotAuthenticated | Unavailable:
    return NotAuthenticated(str(error)) if isinstance(error, TokenRefused) else Unavailable(str(error))


def _refused(failure: Failure) -> Principal:
    failure.trap(TokenRefused, KeysUnavailable)
    error: Any = failure.value
    raise _answer_of(error) from None
