"""Rules that never decide."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity import unreachable
from durable_streams.server.identity.operations import OPERATIONS
from durable_streams.server.identity.principal import Principal
from durable_streams.server.identity.unreachable import unreachable_rules

from .naive import NaiveRule, decide
from .test_policy import NAMES, PRINCIPALS, RULES, policy


class UnreachableTests(SynchronousTestCase):
    def found(self, *lines: str) -> list[tuple[int, int]]:
        """Return the numbers of the rules that never decide, and of those that match before."""
        numbers = {rule: number for number, rule in enumerate(policy(*lines).rules)}
        return [(numbers[rule], numbers[cover]) for rule, cover in unreachable_rules(numbers)]

    def test_a_rule_after_a_wider_one_never_decides(self) -> None:
        for first, second in (
            ("allow group:staff read **", "deny group:staff read secret/**"),
            ("allow anyone all **", "deny anonymous append a"),
            ("deny authenticated all **", "allow subject:alice admin"),
            ("allow authenticated read a/** b", "allow claim:t=x&group:g read,head a/*/c b"),
            ("allow anyone read chats/*/**", "deny anyone read chats/{subject}/x"),
            ("allow anyone read {subject}/**", "deny anyone read {subject}/x"),
            ("allow anyone all **", "deny anyone subscribe __ds/subscriptions/*"),
            ("allow anyone subscribe **", "deny anyone subscribe **"),
            ("allow anyone admin", "deny anyone admin"),
            ("allow anyone all **", "deny anyone admin"),
            ("allow kind:jwt read **", "deny kind:jwt&subject:a read x"),
        ):
            self.assertEqual([(1, 0)], self.found(first, second), (first, second))

    def test_a_rule_that_may_decide_is_not_found(self) -> None:
        for first, second in (
            ("deny group:staff read secret/**", "allow group:staff read **"),
            ("allow authenticated read **", "allow anyone read **"),
            ("allow anonymous read **", "allow subject:a read **"),
            ("allow group:a read **", "allow group:b read **"),
            ("allow group:a&group:b read **", "allow group:a read **"),
            ("allow anyone read **", "allow anyone read,append **"),
            ("allow anyone head **", "allow anyone read **"),
            ("allow anyone all a/**", "deny anyone admin"),
            ("allow anyone all */**", "deny anyone all **"),
            ("allow anyone read {subject}/**", "deny anyone read alice/**"),
            ("allow anyone read alice/**", "deny anyone read {subject}/**"),
            ("allow anyone read {subject}", "deny anyone read {claim.t}"),
            ("allow anyone read **", "deny anyone subscribe __ds/subscriptions/a"),
            ("allow anyone admin", "deny anyone all **"),
        ):
            self.assertEqual([], self.found(first, second), (first, second))

    def test_the_number_of_comparisons_is_bounded(self) -> None:
        self.patch(unreachable, "_MAX_COMPARISONS", 10)
        lines = [f"allow anyone read a{number}" for number in range(100)]
        self.assertEqual([], self.found(*lines, "deny anyone read a0"))
        many = "&".join(f"group:{number}" for number in range(9))
        self.assertEqual([], self.found("allow anyone read **", f"allow {many} read a"))

    def test_a_warning_names_both_rules(self) -> None:
        [warning] = policy("allow group:staff read **", "", "deny group:staff read secret/**").warnings
        self.assertEqual(
            "auth.rules 3 never decides, since auth.rules 1 matches whatever it matches. Put it before that rule, or "
            "remove it.",
            warning,
        )
        self.assertEqual((), policy("deny group:staff read secret/**", "allow group:staff read **").warnings)
        self.assertEqual(20, len(policy(*["allow anyone read a"] * 30).warnings))

    @given(st.lists(RULES, min_size=2, max_size=6), PRINCIPALS, st.sampled_from(OPERATIONS), NAMES)
    @settings(max_examples=400)
    def test_no_request_is_decided_by_a_rule_that_is_found(
        self, rules: list[NaiveRule], principal: Principal, operation: str, name: str
    ) -> None:
        found = [rule for rule, _ in self.found(*(rule.line() for rule in rules))]
        self.assertNotIn(decide(rules, principal, operation, name), found)
