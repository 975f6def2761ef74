"""Authentication with a checker that returns what a test sets, and a clock."""

from __future__ import annotations

from typing import Any

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from durable_streams.server.clocks import SteadyClock
from durable_streams.server.errors import NotAuthenticated
from durable_streams.server.identity.authentication import Authentication
from durable_streams.server.identity.credentials import (
    ClientCertificate,
    IBearerToken,
    Presented,
)
from durable_streams.server.identity.principal import Principal
from durable_streams.server.identity.realm import PrincipalRealm
from durable_streams.server.identity.revocation import IRevocations
from tests.support.clocks import SteppedClock

ALICE = Principal("alice", "jwt", credential="1")
CERTIFICATE = ClientCertificate("CN=carol", common_name="carol")


@implementer(ICredentialsChecker, IRevocations)
class Checker:
    """A checker that returns or raises ``outcome``, and records the credentials that it was asked about."""

    kinds = ("jwt",)

    def __init__(self, interface: Any, outcome: Any) -> None:
        self.credentialInterfaces = (interface,)
        self.outcome = outcome
        self.asked: list[Any] = []
        self.revoked: set[str] = set()

    def requestAvatarId(self, credentials: Any) -> Any:
        self.asked.append(credentials)
        outcome = self.outcome(credentials) if callable(self.outcome) else self.outcome
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def is_current(self, principal: Principal) -> bool:
        return principal.credential not in self.revoked


class AuthenticationCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.times = SteppedClock()
        self.times.step(1_000_000.0)
        self.clock = SteadyClock(self.times, self.times.wall)
        self.bearer = Checker(IBearerToken, ALICE)
        self.other_checkers: list[Any] = []

    def make(self, *methods: str, allow_anonymous: bool = False, **others: Any) -> Authentication:
        portal = Portal(PrincipalRealm(), [self.bearer, *self.other_checkers])
        made = Authentication(portal, methods or ("token",), allow_anonymous, self.clock, **others)
        self.addCleanup(made.close)
        return made

    def principal(self, authentication: Authentication, **presented: Any) -> Principal:
        found = authentication.principal_of(Presented(**presented))
        return self.successResultOf(found) if isinstance(found, Deferred) else found

    def refusal(self, authentication: Authentication, **presented: Any) -> NotAuthenticated:
        error = self.assertRaises(NotAuthenticated, authentication.principal_of, Presented(**presented))
        assert isinstance(error, NotAuthenticated)
        return error
