"""Why rules match or not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity.explanation import explain
from durable_streams.server.identity.operations import OPERATIONS
from durable_streams.server.identity.principal import ANONYMOUS, Grant, Principal

from .naive import NaiveRule
from .test_policy import NAMES, PLAIN_PATTERNS, PRINCIPALS, RULES, alice, policy


class ReasonTests(SynchronousTestCase):
    def reason(self, rule: str, operation: str, name: str, principal: Principal, is_pattern: bool = False) -> str:
        [result] = explain(policy(rule), principal, operation, name, is_pattern)
        self.assertFalse(result.matches)
        self.assertEqual(f"auth.rules 1: {rule}", result.rule)
        return result.reason

    def test_each_reason_names_the_part_that_does_not_match(self) -> None:
        bob = Principal("bob", "jwt", frozenset({"staff"}), {"tenant": 5})
        for rule, operation, name, reason in (
            ("allow anyone read **", "append", "a", "It is not about append."),
            ("allow anyone all a/**", "admin", "", "Its names are not **, so it is not about admin."),
            ("allow subject:alice&group:staff read **", "read", "a", "WHO does not hold: subject:alice."),
            ("allow kind:token&claim:t=x read **", "read", "a", "WHO does not hold: kind:token, claim:t=x."),
            ("allow anonymous read **", "read", "a", "WHO does not hold: anonymous."),
            ("allow anyone read b {subject}", "read", "a", "No NAME matches."),
            (
                "allow anyone read {claim.tenant}/**",
                "read",
                "5/a",
                "No NAME matches. The principal has no value for {claim.tenant}: it must be text without a slash.",
            ),
            (
                "allow anyone all */*/*",
                "subscribe",
                "__ds/subscriptions/a",
                "No NAME matches: of those that do not begin with __ds, only ** does.",
            ),
        ):
            self.assertEqual(reason, self.reason(rule, operation, name, bob), rule)

    def test_reasons_about_a_pattern_say_which_names_a_rule_must_have(self) -> None:
        for rule, reason in (
            ("allow anyone read a/*", "No NAME includes all names of the pattern."),
            ("deny anyone read b/**", "No NAME matches a name of the pattern."),
        ):
            self.assertEqual(reason, self.reason(rule, "read", "a/**", alice(), is_pattern=True), rule)

    def test_a_denial_of_what_was_allowed_before_is_explained(self) -> None:
        rules = policy("allow anyone read a/b", "deny anyone read a/b", "allow anyone read a/*")
        found = list(explain(rules, ANONYMOUS, "read", "a/*", is_pattern=True))
        self.assertEqual([False, False, True], [result.matches for result in found])
        self.assertEqual("Rules before it allow all names that it denies.", found[1].reason)

    def test_grants_do_not_change_which_rule_matches(self) -> None:
        narrow = alice(grants=(Grant(frozenset({"read"}), "b"),))
        [result] = explain(policy("allow anyone read **"), narrow, "read", "a")
        self.assertTrue(result.matches)

    @given(st.lists(RULES, max_size=6), PRINCIPALS, st.sampled_from(OPERATIONS), NAMES)
    def test_the_rule_that_matches_is_the_one_that_decides(
        self, rules: list[NaiveRule], principal: Principal, operation: str, name: str
    ) -> None:
        compiled = policy(*(rule.line() for rule in rules))
        found = list(explain(compiled, principal, operation, name))
        matching = [result.rule for result in found if result.matches]
        decision = compiled.decide(principal, operation, name)
        self.assertEqual([] if decision.rule is None else [decision.rule], matching)
        if decision.rule is None:
            self.assertEqual(len(rules), len(found))

    @given(st.lists(RULES, max_size=6), PRINCIPALS, st.sampled_from(OPERATIONS), PLAIN_PATTERNS)
    def test_the_rule_that_decides_about_a_pattern_is_the_one_that_matches(
        self, rules: list[NaiveRule], principal: Principal, operation: str, pattern: str
    ) -> None:
        compiled = policy(*(rule.line() for rule in rules))
        matching = [r.rule for r in explain(compiled, principal, operation, pattern, True) if r.matches]
        decision = compiled.covers(principal, operation, pattern)
        self.assertEqual([] if decision.rule is None else [decision.rule], matching)
