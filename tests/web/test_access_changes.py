"""The gate remembers decisions: random requests between changes of rules and tokens are decided as if it did not."""

from __future__ import annotations

from itertools import chain
from typing import Any, NamedTuple, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.clocks import clock_of
from durable_streams.server.identity.principal import Principal
from durable_streams.server.web.answers import Answer
from durable_streams.server.web.requests import stream_request
from tests.identity.naive import NaiveRule, decide
from tests.support.fronts import BASE, ChannelFront
from tests.support.identities import Control, TokenBook, person

from .test_gate_bypass import RecordedStreams


class Request(NamedTuple):
    """A request: its method, the stream, who sends it, its body, whether it closes the stream, the live mode."""

    method: bytes
    name: str
    token: str
    body: bytes
    closes: bool
    query: bytes

    @property
    def operations(self) -> tuple[str, ...]:
        """What it needs, by the documentation."""
        if self.method in (b"GET", b"HEAD", b"DELETE"):
            return ({b"GET": "read", b"HEAD": "head", b"DELETE": "delete"}[self.method],)
        found = ["create"] if self.method == b"PUT" else []
        if self.body:
            found.append("append")
        if self.closes:
            found.append("close")
        return tuple(found or ["append"])


#: All requests of one sender for one stream, in any order.
REQUESTS = st.tuples(
    st.sampled_from(["a", "alice/a", "public/a"]),
    st.sampled_from(["alice", "bob", ""]),
    st.permutations(
        [
            *((b"GET", b"", False, query) for query in (b"", b"offset=-1&live=sse", b"offset=-1&live=long-poll")),
            *((method, b"", False, b"") for method in (b"HEAD", b"DELETE")),
            *((method, body, closes, b"") for method in (b"PUT", b"POST") for body in (b"", b"x") for closes in (0, 1)),
        ]
    ),
).map(lambda drawn: tuple(Request(m, drawn[0], drawn[1], body, bool(c), q) for m, body, c, q in drawn[2]))
RULES = st.lists(
    st.builds(
        NaiveRule,
        st.booleans(),
        st.sampled_from(["anyone", "authenticated", "anonymous", "subject:alice", "subject:bob"]),
        st.lists(
            st.sampled_from(["create", "append", "read", "head", "close", "delete", "all"]), min_size=1, max_size=3
        ),
        st.lists(st.sampled_from(["**", "*", "a", "{subject}/**", "public/*"]), min_size=1, max_size=2),
    ),
    min_size=1,
    max_size=3,
)
#: Rules, requests while they are in force, and whose tokens are revoked afterwards.
PHASES = st.tuples(RULES, st.lists(REQUESTS, min_size=1, max_size=4), st.sampled_from(["", "", "", "alice", "bob"]))


class ChangeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.front = ChannelFront()
        self.addCleanup(self.front.stop)
        self.recorded = RecordedStreams()
        self.front.operations.streams = cast(Any, self.recorded)

    def status(self, asked: Request) -> int:
        headers = {b"content-type": b"text/plain"}
        if asked.token:
            headers[b"authorization"] = b"Bearer " + asked.token.encode()
        if asked.closes:
            headers[b"stream-closed"] = b"true"
        request = stream_request(
            asked.method, BASE.encode(), asked.name.encode(), asked.query, headers, asked.body, number=1
        )
        answer = self.front.operations.perform(request)
        assert isinstance(answer, Answer)
        return answer.status

    @given(st.lists(PHASES, min_size=1, max_size=4))
    @settings(max_examples=150)
    def test_decisions_are_those_of_the_present_rules_and_tokens(
        self, phases: list[tuple[list[NaiveRule], list[tuple[Request, ...]], str]]
    ) -> None:
        book = TokenBook({"alice": person("alice"), "bob": person("bob")})
        control = Control(book, (), clock_of(Clock()))
        self.front.operations.guard(control)
        for rules, batches, revoked in phases:
            control.set_rules(*(rule.line() for rule in rules))
            for asked in chain.from_iterable(batches):
                self.assertEqual(self.expected(rules, book, asked), self.status(asked), asked)
            if revoked:
                control.revoke(revoked)
        control.authentication.close()

    def expected(self, rules: list[NaiveRule], book: TokenBook, asked: Request) -> int:
        """Return the status by the definition: 404 if it is allowed, since there are no streams."""
        if asked.token in book.revoked:
            return 401
        principal = Principal(asked.token, "token") if asked.token else Principal("", "anonymous")
        for operation in asked.operations:
            first = decide(rules, principal, operation, asked.name)
            if first is None or not rules[first].allow:
                return 403 if asked.token else 401
        # The operation finds that there is nothing to append.
        return 400 if asked.method == b"POST" and not asked.body and not asked.closes else 404
