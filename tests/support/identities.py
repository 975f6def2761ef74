"""Small identities and rules for tests of the gate: tokens in a dictionary, and rules of prefixes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from msgspec import Struct
from twisted.internet.defer import Deferred

from durable_streams.server.errors import NotAuthenticated
from durable_streams.server.interfaces import NowOrLater
from durable_streams.server.web.access_parts import Presented, Principal


class Person(Struct, frozen=True, eq=False):
    """A principal."""

    subject: str
    kind: str = "token"
    expires_at: float | None = None
    credential: str = ""


NOBODY = Person("", "anonymous")


class Verdict(Struct, frozen=True):
    """A decision."""

    allowed: bool
    rule: str | None = None
    public: bool = False


class PrefixRules:
    """
    Rules of prefixes: the first that matches decides.

    :param rules: each ``allow`` or ``deny``, the subject or ``*`` for all, operations, and the prefix of names;
        with ``public`` behind it, shared caches may keep the answers.
    :ivar decided: how many decisions were made.
    """

    def __init__(self, rules: Iterable[str]) -> None:
        self._rules = [rule.split() for rule in rules]
        self.decided = 0

    def decide(self, principal: Principal, operation: str, name: str) -> Verdict:
        """Decide whether a principal may do an operation on a name."""
        self.decided += 1
        for effect, subject, operations, prefix, *public in self._rules:
            known = operations.split(",")
            if (
                subject in ("*", principal.subject or "-")
                and (operation in known or "all" in known or (operation == "head" and "read" in known))
                and name.startswith(prefix.strip("*"))
            ):
                return Verdict(effect == "allow", " ".join([effect, subject, operations, prefix]), bool(public))
        return Verdict(False)


class TokenBook:
    """
    Authentication by tokens in a dictionary.

    :param tokens: token -> principal.
    :param now: returns the time, in UNIX seconds.
    :ivar revoked: the subjects whose tokens were revoked.
    :ivar pending: while it is a list, principals are known only when its Deferreds are fired.
    """

    def __init__(self, tokens: Mapping[str, Person], now: Callable[[], float], allow_anonymous: bool = True) -> None:
        self.tokens = dict(tokens)
        self.allow_anonymous = allow_anonymous
        self.revoked: set[str] = set()
        self.pending: list[Deferred[None]] | None = None
        self.cancelled = 0
        self.checked: list[Presented] = []
        self._now = now
        self._cache: dict[bytes, Person] = {}

    def principal_of(self, presented: Presented) -> NowOrLater[Principal]:
        """Return the principal."""
        self.checked.append(presented)
        if presented.authorization is None:
            if not self.allow_anonymous:
                raise NotAuthenticated("Send a token.", 'Bearer realm="durable-streams"')
            return NOBODY
        if self.pending is None:
            return self._look_up(presented.authorization)
        later: Deferred[None] = Deferred(self._cancel)
        self.pending.append(later)
        return later.addCallback(lambda _: self._look_up(presented.authorization or b""))

    def _cancel(self, _: object) -> None:
        self.cancelled += 1

    def _look_up(self, authorization: bytes) -> Person:
        token = authorization.decode("latin-1").removeprefix("Bearer ")
        person = self.tokens.get(token)
        if person is None or not self.is_current(person, self._now()):
            raise NotAuthenticated("The token is not valid.", 'Bearer realm="durable-streams", error="invalid_token"')
        self._cache[authorization] = person
        return person

    def cached(self, authorization: bytes | None) -> Person | None:
        """Return the principal of a header that was checked before."""
        return None if authorization is None else self._cache.get(authorization)

    def is_current(self, principal: Principal, now: float) -> bool:
        """Return whether a principal has neither expired nor been revoked."""
        expires_at = principal.expires_at
        return principal.subject not in self.revoked and (expires_at is None or now < expires_at)

    def forget(self) -> None:
        """Clear the cache."""
        self._cache.clear()


class Control:
    """Authentication and rules that tests change."""

    def __init__(self, authentication: TokenBook, policy: PrefixRules) -> None:
        self.authentication = authentication
        self.policy = policy
        self._calls: list[Callable[[], None]] = []

    def on_change(self, call: Callable[[], None]) -> None:
        """Register a call for each change."""
        self._calls.append(call)

    def set_rules(self, *rules: str) -> None:
        """Replace the rules."""
        self.policy = PrefixRules(rules)
        self._announce()

    def revoke(self, subject: str) -> None:
        """Revoke the tokens of a subject."""
        self.authentication.revoked.add(subject)
        self.authentication.forget()
        self._announce()

    def _announce(self) -> None:
        for call in self._calls:
            call()
