"""A base test case with a front behind the gate."""

from __future__ import annotations

from durable_streams.server.web.access import Gate

from .cases import FrontTestCase
from .fronts import BASE, START_TIME, Headers, Peer
from .identities import Control, Person, PrefixRules, TokenBook
from .replies import Reply

RULES = (
    "allow alice all alice/",
    "allow bob read shared/",
    "allow * read public/ public",
    "allow owner all **",
)


def bearer(token: str | None) -> dict[str, str]:
    """Return the header with a token; none for None."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


class GateTestCase(FrontTestCase):
    """A test case with a front behind a gate."""

    hide_forbidden = False
    rules = RULES

    def setUp(self) -> None:
        super().setUp()
        people = {name: Person(name) for name in ("alice", "bob", "owner")}
        people["brief"] = Person("alice", expires_at=START_TIME + 10)
        self.book = TokenBook(people, self.front.clock.wall)
        self.control = Control(self.book, PrefixRules(self.rules))
        for name in ("alice/a", "bob/b", "shared/s", "public/p"):
            self.front.create(name, body=b"hello")
        self.gate: Gate = self.front.operations.guard(self.control, self.hide_forbidden)

    def ask(
        self, method: str, name: str, token: str | None = None, headers: Headers | None = None, body: bytes = b""
    ) -> Reply:
        """Send a request with a token."""
        return self.front.ask(method, BASE + name, {**bearer(token), **(headers or {})}, body)

    def tail(self, name: str, token: str) -> Peer:
        """Begin a tail with a token."""
        return self.front.follow(BASE + f"{name}?offset=-1&live=sse", bearer(token))
