"""Identities and rules that tests of the gate change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from zope.interface import implementer

from durable_streams.server.clocks import IClock
from durable_streams.server.identity.authentication import Authentication
from durable_streams.server.identity.challenges import invalid_token
from durable_streams.server.identity.control import AccessControl
from durable_streams.server.identity.credentials import BearerToken, IBearerToken
from durable_streams.server.identity.policy import parse_rules
from durable_streams.server.identity.principal import Principal
from durable_streams.server.identity.realm import PrincipalRealm
from durable_streams.server.identity.revocation import IRevocations


def person(subject: str, expires_at: float | None = None) -> Principal:
    """Return a principal that a token proves."""
    return Principal(subject, "token", expires_at=expires_at)


@implementer(ICredentialsChecker, IRevocations)
class TokenBook:
    """
    Checks tokens by a dictionary.

    :param tokens: token -> principal.
    :ivar revoked: the subjects whose tokens were revoked.
    :ivar pending: while it is a list, a token is known only when the Deferred that is added to it is fired.
    :ivar cancelled: how many of them were cancelled.
    """

    credentialInterfaces = (IBearerToken,)
    kinds = ("token",)

    def __init__(self, tokens: Mapping[str, Principal]) -> None:
        self.tokens = dict(tokens)
        self.revoked: set[str] = set()
        self.pending: list[Deferred[None]] | None = None
        self.cancelled = 0

    def requestAvatarId(self, credentials: BearerToken) -> Any:
        """Return the principal of a token."""
        token = credentials.token.decode()
        if self.pending is None:
            return self._look_up(token)
        later: Deferred[None] = Deferred(self._cancel)
        self.pending.append(later)
        return later.addCallback(lambda _: self._look_up(token))

    def _cancel(self, _: object) -> None:
        self.cancelled += 1

    def _look_up(self, token: str) -> Principal:
        principal = self.tokens.get(token)
        if principal is None or not self.is_current(principal):
            raise invalid_token("There is no such token.")
        return principal

    def is_current(self, principal: Principal) -> bool:
        """Return whether a principal's token is not revoked."""
        return principal.subject not in self.revoked


class Control(AccessControl):
    """
    Authentication and rules.

    :param book: checks tokens.
    :param rules: the lines of the rules.
    """

    def __init__(self, book: TokenBook, rules: tuple[str, ...], clock: IClock, allow_anonymous: bool = True) -> None:
        self.book = book
        portal = Portal(PrincipalRealm(), [book])
        authentication = Authentication(portal, ["bearer"], allow_anonymous, clock)
        super().__init__(authentication, parse_rules(rules, "rules"), clock)

    def set_rules(self, *rules: str) -> None:
        """Replace the rules."""
        self.set_policy(parse_rules(rules, "rules"))

    def revoke(self, subject: str) -> None:
        """Revoke the tokens of a subject."""
        self.book.revoked.add(subject)
        self.changed()
