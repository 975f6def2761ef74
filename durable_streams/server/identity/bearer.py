"""Bearer tokens of several sorts behind one portal: the form of a token tells its checker."""

from __future__ import annotations

from typing import Any, Final

from twisted.cred.checkers import ICredentialsChecker
from zope.interface import implementer

from .challenges import invalid_token
from .credentials import BearerToken, IBearerToken
from .principal import Principal
from .revocation import IRevocations, revocations_of
from .tokens.records import STATIC_PREFIX

#: A JWT in compact form has two dots (RFC 7515 section 7.1).
_DOTS: Final = 2


def has_static_form(token: bytes) -> bool:
    """Return whether a token has the form of static tokens."""
    return token.startswith(STATIC_PREFIX)


def has_jwt_form(token: bytes) -> bool:
    """Return whether a token has the form of JWTs."""
    return token.count(b".") == _DOTS


@implementer(ICredentialsChecker, IRevocations)
class BearerChecker:
    """
    Chooses the checker of a bearer token by the token's form. A token of another form is refused.

    :param static: checks tokens that begin with ``dst_``; None if there is none.
    :param jwt: checks tokens with two dots; None if there is none.
    :param other: checks all other tokens; None if there is none.
    """

    credentialInterfaces = (IBearerToken,)

    def __init__(
        self,
        static: ICredentialsChecker | None = None,
        jwt: ICredentialsChecker | None = None,
        other: ICredentialsChecker | None = None,
    ) -> None:
        self._static = static
        self._jwt = jwt
        self._other = other
        self._revocations = revocations_of(checker for checker in (static, jwt, other) if checker is not None)
        self.kinds = frozenset(self._revocations)

    def requestAvatarId(self, credentials: BearerToken) -> Any:
        """
        Return what the token's checker returns.

        :raises NotAuthenticated: no checker is for tokens of this form.
        """
        token = credentials.token
        checker = self._other
        if self._static is not None and has_static_form(token):
            checker = self._static
        elif self._jwt is not None and has_jwt_form(token):
            checker = self._jwt
        if checker is None:
            raise invalid_token(f"The bearer token is not {self._forms()}.")
        return checker.requestAvatarId(credentials)

    def is_current(self, principal: Principal) -> bool:
        """Return what the checker of the principal's kind returns."""
        check = self._revocations.get(principal.kind)
        return check is None or check(principal)

    def _forms(self) -> str:
        forms = []
        if self._static is not None:
            forms.append("a static token of this server, which begins with dst_")
        if self._jwt is not None:
            forms.append("a JWT, which has three parts with a dot between them")
        return " or ".join(forms) or "of a form that this server accepts"
