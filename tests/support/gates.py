"""A base test case with a front behind the gate."""

from __future__ import annotations

from collections.abc import Mapping

from durable_streams.server.clocks import clock_of
from durable_streams.server.web.access import Gate

from .cases import FrontTestCase
from .fronts import BASE, START_TIME, Headers, Peer
from .identities import Control, TokenBook, person
from .replies import Reply

RULES = (
    "allow subject:alice all alice/**",
    "allow subject:bob read shared/**",
    "allow anyone read public/** cache:public",
    "allow subject:owner all **",
)


def bearer(token: str | None) -> dict[str, str]:
    """Return the header with a token; none for None."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


class GateTestCase(FrontTestCase):
    """A test case with a front behind a gate."""

    hide_forbidden = False
    allow_anonymous = True
    rules: tuple[str, ...] = RULES
    streams: Mapping[str, bytes] = dict.fromkeys(("alice/a", "bob/b", "shared/s", "public/p"), b"hello")

    def setUp(self) -> None:
        super().setUp()
        people = {name: person(name) for name in ("alice", "bob", "owner")}
        people["brief"] = person("alice", START_TIME + 10)
        self.book = TokenBook(people)
        self.control = Control(self.book, self.rules, clock_of(self.front.clock), self.allow_anonymous)
        self.addCleanup(self.control.authentication.close)
        for name, body in self.streams.items():
            self.front.create(name, body=body)
        self.gate: Gate = self.front.operations.guard(self.control, self.hide_forbidden)

    def ask(
        self, method: str, name: str, token: str | None = None, headers: Headers | None = None, body: bytes = b""
    ) -> Reply:
        """Send a request with a token."""
        return self.front.ask(method, BASE + name, {**bearer(token), **(headers or {})}, body)

    def tail(self, name: str, token: str) -> Peer:
        """Begin a tail with a token."""
        return self.front.follow(BASE + f"{name}?offset=-1&live=sse", bearer(token))
