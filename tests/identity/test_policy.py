"""Decisions of the policy: first match, default deny, grants."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity.operations import OPERATIONS
from durable_streams.server.identity.policy import Policy, parse_rules
from durable_streams.server.identity.principal import ANONYMOUS, Grant, Principal

from .naive import NaiveRule, decide, name_matches, operation_matches

SEGMENTS = st.sampled_from(["a", "b", "ü", "alice", "*", "**", "__ds", "subscriptions"])
NAMES = st.lists(SEGMENTS, min_size=1, max_size=5).map("/".join)
VALUES = st.sampled_from(["a", "b", "ü", "alice", "*", "**", "__ds", "a/b", ""])
PARTS = st.sampled_from(["a", "b", "ü", "alice", "*", "**", "**", "__ds", "{subject}", "{claim.t}", "{claim.o.t}"])
_PATTERNS = st.lists(PARTS, min_size=1, max_size=5).map("/".join)
PATTERNS = _PATTERNS | st.sampled_from(["**", "**", "__ds/subscriptions/*", "__ds/**", "*/**"])
CONDITIONS = st.sampled_from(
    [
        *("anyone", "authenticated", "anonymous", "subject:alice", "subject:a", "group:g", "group:h", "kind:jwt"),
        *("claim:t=a", "claim:t=b", "claim:o.t=alice", "claim:l=a", "claim:l=b", "group:g&group:h"),
        *("subject:alice&group:g", "claim:l=a&claim:l=b", "claim:t=a&kind:jwt&group:h", "authenticated&group:g"),
    ]
)
KINDS = st.sampled_from(["token", "jwt", "header"])
CLAIMS = st.fixed_dictionaries(
    {}, optional={"t": VALUES, "o": st.fixed_dictionaries({"t": VALUES}), "l": st.lists(VALUES, max_size=3)}
)
PRINCIPALS = st.just(ANONYMOUS) | st.builds(
    Principal, subject=VALUES, kind=KINDS, groups=st.frozensets(st.sampled_from(["g", "h"])), claims=CLAIMS
)
SOME_OPERATIONS = st.lists(st.sampled_from([o for o in OPERATIONS if o != "admin"] + ["all"]), min_size=1, max_size=3)
RULES = st.builds(
    NaiveRule, st.booleans(), CONDITIONS, SOME_OPERATIONS, st.lists(PATTERNS, min_size=1, max_size=3)
) | st.builds(NaiveRule, st.booleans(), CONDITIONS, st.just(["admin"]), st.sampled_from([[], ["**"]]))


def policy(*lines: str) -> Policy:
    return parse_rules(lines, "auth.rules")


def alice(**more: object) -> Principal:
    return Principal("alice", "token", **more)  # type: ignore[arg-type]


class DecisionTests(SynchronousTestCase):
    def test_without_rules_everything_is_denied(self) -> None:
        for operation in OPERATIONS:
            decision = policy().decide(alice(), operation, "a")
            self.assertEqual((False, None, False), (decision.allowed, decision.rule, decision.public), operation)

    def test_the_first_rule_that_matches_decides(self) -> None:
        rules = policy("# rules", "deny subject:alice read a/b", "", "allow subject:alice read a/*  # hers")
        for name, allowed, rule in (
            ("a/b", False, "auth.rules 2: deny subject:alice read a/b"),
            ("a/c", True, "auth.rules 4: allow subject:alice read a/*  # hers"),
            ("a", False, None),
        ):
            decision = rules.decide(alice(), "read", name)
            self.assertEqual((allowed, rule), (decision.allowed, decision.rule), name)

    def test_an_unknown_operation_is_an_error_of_the_caller(self) -> None:
        self.assertRaises(KeyError, policy("allow anyone all **").decide, alice(), "write", "a")

    @given(st.lists(RULES, max_size=8), PRINCIPALS, st.sampled_from(OPERATIONS), NAMES)
    def test_decisions_agree_with_the_definition(
        self, rules: list[NaiveRule], principal: Principal, operation: str, name: str
    ) -> None:
        decision = policy(*(rule.line() for rule in rules)).decide(principal, operation, name)
        first = decide(rules, principal, operation, name)
        if first is None:
            self.assertEqual((False, None), (decision.allowed, decision.rule))
        else:
            expected = (rules[first].allow, f"auth.rules {first + 1}: {rules[first].line()}")
            self.assertEqual(expected, (decision.allowed, decision.rule))


class GrantTests(SynchronousTestCase):
    def test_a_grant_and_a_rule_are_both_needed(self) -> None:
        rules = policy("allow authenticated read,append a/**")
        narrow = alice(grants=(Grant(frozenset({"read"}), "**"), Grant(frozenset({"append"}), "a/b")))
        for operation, name, allowed in (
            ("read", "a/c", True),
            ("head", "a/c", True),
            ("read", "b", False),
            ("append", "a/b", True),
            ("append", "a/c", False),
            ("delete", "a/b", False),
        ):
            self.assertEqual(allowed, rules.decide(narrow, operation, name).allowed, (operation, name))

    def test_an_empty_list_of_grants_allows_nothing(self) -> None:
        self.assertFalse(policy("allow anyone all **").decide(alice(grants=()), "read", "a").allowed)

    @given(
        st.lists(RULES, max_size=4),
        st.builds(alice),
        st.lists(st.tuples(SOME_OPERATIONS, st.lists(SEGMENTS, min_size=1, max_size=3)), max_size=3),
        st.sampled_from(OPERATIONS),
        NAMES,
    )
    def test_grants_allow_nothing_that_the_rules_deny(
        self,
        rules: list[NaiveRule],
        principal: Principal,
        granted: list[tuple[list[str], list[str]]],
        operation: str,
        name: str,
    ) -> None:
        compiled = policy(*(rule.line() for rule in rules))
        grants = tuple(Grant(frozenset(operations), "/".join(pattern)) for operations, pattern in granted)
        narrow = Principal(principal.subject, principal.kind, grants=grants)
        expected = compiled.decide(principal, operation, name).allowed and any(
            operation_matches(operations, operation)
            and (
                pattern == ["**"] if operation == "admin" else name_matches("/".join(pattern), narrow, operation, name)
            )
            for operations, pattern in granted
        )
        self.assertEqual(expected, compiled.decide(narrow, operation, name).allowed)
