"""The checker of signed URLs for a portal of twisted.cred."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from twisted.cred.checkers import ICredentialsChecker
from zope.interface import implementer

from .challenges import invalid_token
from .credentials import ISignedUrl, SignedUrlCredentials
from .principal import SIGNED_URL, Grant, Principal
from .revocation import IRevocations
from .signed_urls import (
    CLOCK_SKEW,
    MAX_VALIDITY,
    InvalidSignedUrl,
    SignedUrl,
    SigningKey,
    is_signed_by,
    read_operations,
    read_signed_url,
)
from .signing_keys import fingerprint_of

#: The claim with the fingerprint of the key: a key whose secret was replaced is another one.
_KEY_CLAIM: Final = "key"

#: How many URLs are remembered, so that repeated requests, such as long-polls, have the same principal.
_REMEMBERED: Final = 1024

#: Checks a signature of an unknown key, so that it takes the time of one of a known key.
_NO_KEY: Final = SigningKey("-", bytes(32))


@implementer(ICredentialsChecker, IRevocations)
class SignedUrlChecker:
    """
    Checks signed URLs by signing keys, and returns principals of kind ``signed-url``.

    The subject of such a principal is that of the URL, empty if it has none. Its one grant allows the operations of the
    URL on its stream.

    :param seconds: returns the wall-clock time, in UNIX seconds.
    :param keys: the keys, until :meth:`set_keys` replaces them.
    """

    credentialInterfaces = (ISignedUrl,)
    kinds = (SIGNED_URL,)

    def __init__(self, seconds: Callable[[], float], keys: Iterable[SigningKey] = ()) -> None:
        self._seconds = seconds
        self._principals: dict[SignedUrl, Principal] = {}
        self.set_keys(keys)

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """The id of each key -> a text that differs for each secret."""
        return self._fingerprints

    def set_keys(self, keys: Iterable[SigningKey]) -> None:
        """Replace the keys."""
        self._keys: dict[str, SigningKey] = {key.id: key for key in keys}
        self._fingerprints: dict[str, str] = {key.id: fingerprint_of(key) for key in self._keys.values()}
        self._principals.clear()

    def requestAvatarId(self, credentials: SignedUrlCredentials) -> Principal:  # type: ignore[override]
        """
        Return the principal of a signed URL.

        :raises NotAuthenticated: the URL is malformed, expired, or not signed by one of the keys.
        """
        try:
            url = read_signed_url(credentials.query, credentials.name)
        except InvalidSignedUrl as error:
            raise invalid_token(str(error)) from None
        principal = self._principals.get(url)
        if principal is None:
            self._check_signature(url)
            principal = self._principal(url)
            if len(self._principals) >= _REMEMBERED:
                del self._principals[next(iter(self._principals))]
            self._principals[url] = principal
        assert principal.expires_at is not None
        if principal.expires_at <= self._seconds():
            raise invalid_token("The signed URL has expired. Get a new one from who has issued it.")
        return principal

    def is_current(self, principal: Principal) -> bool:
        """Return whether the key that has signed a principal's URL is still there, with the same secret."""
        fingerprint = self._fingerprints.get(principal.credential)
        return fingerprint is not None and principal.claims.get(_KEY_CLAIM) == fingerprint

    def _check_signature(self, url: SignedUrl) -> None:
        key = self._keys.get(url.key_id)
        valid = is_signed_by(key or _NO_KEY, url)
        if key is None or not valid:
            raise invalid_token(
                "The URL was changed after it was signed, is for another stream, or its key is not one of the server's."
            )
        if int(url.expires) > self._seconds() + MAX_VALIDITY + CLOCK_SKEW:
            raise invalid_token(
                f"The signed URL expires more than {MAX_VALIDITY // 86_400} days from now. Sign a shorter one."
            )

    def _principal(self, url: SignedUrl) -> Principal:
        operations = read_operations(url.operations)
        return Principal(
            subject=url.subject,
            kind=SIGNED_URL,
            claims={_KEY_CLAIM: self._fingerprints[url.key_id]},
            expires_at=float(url.expires),
            grants=(Grant(operations, url.name, literal=True),),
            credential=url.key_id,
        )
