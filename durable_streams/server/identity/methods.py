"""The methods of authentication: which of a request's credentials decides, and how it is read."""

from __future__ import annotations

import re
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Hashable, Sequence
from typing import Final

from msgspec import Struct
from twisted.cred.credentials import ICredentials, UsernamePassword

from .bearer import has_jwt_form, has_static_form
from .challenges import BASIC, BEARER, invalid_request
from .credentials import BearerToken, CertificateCredentials, Presented, ProxyIdentity, SignedUrlCredentials
from .signed_urls import is_signed

#: The longest value of Authorization, in bytes. A longer one is refused before anything is computed of it.
MAX_AUTHORIZATION: Final = 16_384

#: Methods whose credentials are in Authorization.
IN_AUTHORIZATION: Final = ("token", "jwt", "bearer", "basic")

_SEND_TOKEN: Final = "Send a bearer token: Authorization: Bearer TOKEN."  # noqa: S105 (a sentence)

#: Each method, with what a client has to do to use it. ``bearer`` and ``basic`` are for checkers of other programs.
METHODS: Final = {
    "token": _SEND_TOKEN,
    "jwt": _SEND_TOKEN,
    "bearer": _SEND_TOKEN,
    "basic": "Send a user name and a password: Authorization: Basic CREDENTIALS.",
    "certificate": "Connect with a client certificate.",
    "header": "Connect through the proxy that authenticates users.",
    "signed-url": "Use a signed URL.",
}

#: The place of each method's credentials.
_AUTHORIZATION: Final = "authorization"
_PLACES: Final = {name: _AUTHORIZATION if name in IN_AUTHORIZATION else name for name in METHODS}

_BEARER: Final = re.compile(rb"bearer +([A-Za-z0-9._~+/-]+=*) *", re.IGNORECASE)
_BASIC: Final = re.compile(rb"basic +([A-Za-z0-9+/]+=*) *", re.IGNORECASE)


class Credential(Struct, frozen=True):
    """
    A credential that a request has, not yet read.

    :ivar place: where it is: ``authorization``, ``certificate``, ``header`` or ``signed-url``.
    :ivar key: what identifies it in caches; None if it is of one request only.
    """

    place: str
    key: Hashable | None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.place!r})"


class Methods:
    """
    The configured methods, in their order.

    :param names: of :data:`METHODS`.
    :ivar challenge: the value of WWW-Authenticate for requests without credentials.
    :ivar is_basic: whether Authorization is for user names and passwords only.
    :ivar advice: what a client has to do, as a sentence or several.
    :raises ValueError: a name is not known.
    """

    def __init__(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in METHODS:
                raise ValueError(f"There is no authentication method {name!r}. There are: {', '.join(METHODS)}.")
        self._places = tuple(dict.fromkeys(_PLACES[name] for name in names))
        self._basic = "basic" in names
        self._bearer = any(name in ("token", "jwt", "bearer") for name in names)
        self.is_basic = self._basic and not self._bearer
        has_bearer = not self.is_basic
        self.challenge = ", ".join([BEARER] * has_bearer + [BASIC] * self._basic)
        self.advice = " Or: ".join(dict.fromkeys(METHODS[name] for name in names))

    @property
    def authorization_first(self) -> bool:
        """Whether no other credential decides if a request has Authorization."""
        return self._places[:1] == (_AUTHORIZATION,)

    def find(self, presented: Presented) -> Credential | None:
        """
        Return the credential that decides; None if the request has none.

        :raises NotAuthenticated: the request has no credential but one of a method that is not configured.
        """
        for place in self._places:
            if place == _AUTHORIZATION:
                if presented.authorization is not None:
                    return Credential(place, presented.authorization)
            elif place == "certificate":
                if presented.certificate is not None:
                    return Credential(place, presented.certificate)
            elif place == "header":
                if presented.proxy_identity is not None:
                    return Credential(place, presented.proxy_identity)
            elif is_signed(presented.query):
                return Credential(place, None)
        if self._places:
            self._check_unused(presented)
        return None

    def label(self, credential: Credential) -> str:
        """Return the method of a credential, for metrics; ``bearer`` for a token of another program."""
        if credential.place != _AUTHORIZATION or not isinstance(credential.key, bytes):
            return credential.place
        if _BASIC.fullmatch(credential.key):
            return "basic"
        bearer = _BEARER.fullmatch(credential.key)
        token = b"" if bearer is None else bearer[1]
        if has_static_form(token):
            return "token"
        return "jwt" if has_jwt_form(token) else "bearer"

    def read(self, credential: Credential, presented: Presented) -> ICredentials:
        """
        Return a credential as a portal takes it.

        :raises NotAuthenticated: it is malformed.
        """
        if credential.place == "certificate" and presented.certificate is not None:
            return CertificateCredentials(presented.certificate)
        if credential.place == "header" and presented.proxy_identity is not None:
            return ProxyIdentity(presented.proxy_identity)
        if credential.place == "signed-url":
            return SignedUrlCredentials(presented.query, presented.name, presented.method)
        return self._read_authorization(presented.authorization or b"", presented.address)

    def _read_authorization(self, value: bytes, address: str) -> ICredentials:
        bearer = _BEARER.fullmatch(value) if self._bearer else None
        if bearer is not None:
            return BearerToken(bearer[1], address)
        basic = _BASIC.fullmatch(value) if self._basic else None
        if basic is not None:
            return _read_basic(basic[1])
        wrong = "Authorization is not of a form that this server accepts"
        if self._bearer and value[:6].lower() == b"bearer":
            raise invalid_request(f"{wrong}: after Bearer stands one token of letters, digits and -._~+/ (RFC 6750).")
        raise invalid_request(f"{wrong}. {self.advice}")

    def _check_unused(self, presented: Presented) -> None:
        """
        Refuse a credential of a method that is not configured: its sender expects more than anonymous access.

        :raises NotAuthenticated: the request has one.
        """
        if presented.authorization is not None:
            raise invalid_request(f"This server does not accept Authorization. {self.advice}")
        if is_signed(presented.query):
            raise invalid_request(f"This server does not accept signed URLs. {self.advice}")


def _read_basic(encoded: bytes) -> UsernamePassword:
    try:
        user, colon, password = a2b_base64(encoded, strict_mode=True).partition(b":")
    except Base64Error:
        colon = b""
    if not colon:
        raise invalid_request("Authorization: Basic needs USER:PASSWORD, encoded in Base64.")
    return UsernamePassword(user, password)
