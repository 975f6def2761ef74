"""Decisions of the policy: first match, default deny, grants."""

from __future__ import annotations

from itertools import product

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity import coverage
from durable_streams.server.identity.coverage import includes
from durable_streams.server.identity.operations import OPERATIONS
from durable_streams.server.identity.patterns import PlainParts
from durable_streams.server.identity.policy import Decision, Policy, parse_rules
from durable_streams.server.identity.principal import ANONYMOUS, Grant, Principal
from tests.support.naive_patterns import pattern_matches

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

PLAIN_PATTERNS = st.lists(st.sampled_from(["a", "b", "alice", "*", "**"]), min_size=1, max_size=4).map("/".join)

#: All names of up to four segments: the texts of patterns and values, and one that is in none.
UNIVERSE = [
    "/".join(name) for length in range(1, 5) for name in product(["a", "b", "alice", "*", "other"], repeat=length)
]


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
    @settings(max_examples=400)
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


class SignedUrlTests(SynchronousTestCase):
    def signed(self, name: str = "a/b", operation: str = "read") -> Principal:
        return Principal("", "signed-url", grants=(Grant(frozenset({operation}), name, literal=True),))

    def test_the_grant_of_a_signed_url_needs_no_rule(self) -> None:
        for operation, name, allowed in (
            ("read", "a/b", True),
            ("head", "a/b", True),
            ("append", "a/b", False),
            ("read", "a/c", False),
            ("read", "a/b/c", False),
        ):
            decision = policy().decide(self.signed(), operation, name)
            self.assertEqual((allowed, None, False), (decision.allowed, decision.rule, decision.public), operation)

    def test_a_rule_can_deny_what_a_signed_url_grants(self) -> None:
        for line, allowed in (
            ("deny kind:signed-url all **", False),
            ("deny anyone read a/**", False),
            ("deny anonymous all **", True),
            ("deny anyone append a/**", True),
            ("allow kind:signed-url all **", True),
        ):
            self.assertEqual(allowed, policy(line).decide(self.signed(), "read", "a/b").allowed, line)

    def test_an_allowing_rule_adds_nothing_to_the_grant_of_a_signed_url(self) -> None:
        self.assertFalse(policy("allow anyone all **").decide(self.signed(), "read", "a/c").allowed)

    def test_stars_in_the_name_of_a_literal_grant_are_plain_text(self) -> None:
        for name in ("a/*", "**", "*/b"):
            self.assertTrue(policy().decide(self.signed(name), "read", name).allowed, name)
            self.assertFalse(policy().decide(self.signed(name), "read", "a/b").allowed, name)
        self.assertFalse(policy("allow anyone all **").decide(self.signed("**", "admin"), "admin", "").allowed)

    def test_without_grants_the_kind_alone_allows_nothing(self) -> None:
        self.assertFalse(policy().decide(Principal("", "signed-url"), "read", "a").allowed)
        self.assertFalse(policy().decide(Principal("", "signed-url", grants=()), "read", "a").allowed)

    def test_other_kinds_with_the_same_grant_need_a_rule(self) -> None:
        other = Principal("alice", "jwt", grants=self.signed().grants)
        self.assertFalse(policy().decide(other, "read", "a/b").allowed)


class OperationTests(SynchronousTestCase):
    def allowed(self, line: str, operation: str, name: str = "a") -> bool:
        return policy(line).decide(alice(), operation, name).allowed

    def test_read_covers_head_and_not_the_other_way_round(self) -> None:
        self.assertTrue(self.allowed("allow anyone read a", "head"))
        self.assertFalse(self.allowed("allow anyone head a", "read"))
        rules = policy("deny anyone read secret", "allow anyone all **")
        self.assertFalse(rules.decide(alice(), "head", "secret").allowed)
        self.assertTrue(rules.decide(alice(), "append", "secret").allowed)
        self.assertTrue(policy("deny anyone head a", "allow anyone all **").decide(alice(), "read", "a").allowed)

    def test_every_operation_is_denied_unless_it_is_named(self) -> None:
        for operation in OPERATIONS:
            for other in OPERATIONS:
                line = f"allow anyone {operation} **"
                expected = other == operation or (operation, other) == ("read", "head")
                self.assertEqual(expected, self.allowed(line, other), (operation, other))
            self.assertTrue(self.allowed("allow anyone all **", operation), operation)

    def test_all_on_certain_names_does_not_concern_admin(self) -> None:
        self.assertFalse(self.allowed("allow anyone all a/** *", "admin"))
        self.assertTrue(self.allowed("allow anyone all a/** **", "admin"))
        self.assertTrue(self.allowed("allow anyone admin", "admin"))
        rules = policy("deny anyone all secret/**", "allow anyone all **")
        self.assertTrue(rules.decide(alice(), "admin", "secret/a").allowed)
        self.assertFalse(policy("deny anyone all **", "allow anyone admin").decide(alice(), "admin", "").allowed)

    def test_admin_ignores_the_name(self) -> None:
        for name in ("", "a", "__ds/subscriptions/a", "**"):
            self.assertTrue(self.allowed("allow anyone admin", "admin", name), name)

    def test_a_grant_of_admin_needs_the_pattern_of_everything(self) -> None:
        rules = policy("allow anyone all **")
        for pattern, allowed in (("**", True), ("*", False), ("a/**", False), ("*/**", False)):
            narrow = alice(grants=(Grant(frozenset({"all"}), pattern),))
            self.assertEqual(allowed, rules.decide(narrow, "admin", "").allowed, pattern)


class ReservedNameTests(SynchronousTestCase):
    def test_of_the_patterns_of_streams_only_two_stars_concern_subscriptions(self) -> None:
        for pattern, allowed in (
            ("**", True),
            ("*/**", False),
            ("*/*/*", False),
            ("**/mine", False),
            ("{claim.t}/**", False),
            ("__ds/**", True),
            ("__ds/subscriptions/*", True),
            ("__ds/subscriptions/{subject}", False),
            ("__ds/subscriptions/mine", True),
        ):
            principal = alice(claims={"t": "__ds"})
            decision = policy(f"allow anyone all {pattern}").decide(principal, "subscribe", "__ds/subscriptions/mine")
            self.assertEqual(allowed, decision.allowed, pattern)

    def test_two_stars_concern_nothing_else_that_is_reserved(self) -> None:
        rules = policy("allow anyone all **")
        for operation, name in (
            ("read", "__ds/subscriptions/mine"),
            ("subscribe", "__ds"),
            ("subscribe", "__ds/subscriptions"),
            ("subscribe", "__ds/subscriptions/a/b"),
            ("subscribe", "__ds/jwks.json"),
            ("subscribe", "__ds/other/a"),
        ):
            self.assertFalse(rules.decide(alice(), operation, name).allowed, (operation, name))

    def test_the_reserved_segment_is_no_such_further_on(self) -> None:
        self.assertTrue(policy("allow anyone read a/*").decide(alice(), "read", "a/__ds").allowed)

    def test_a_subject_can_have_subscriptions_of_its_own(self) -> None:
        rules = policy("allow authenticated subscribe __ds/subscriptions/{subject}")
        self.assertTrue(rules.decide(alice(), "subscribe", "__ds/subscriptions/alice").allowed)
        self.assertFalse(rules.decide(alice(), "subscribe", "__ds/subscriptions/bob").allowed)

    def test_a_denial_of_everything_concerns_subscriptions(self) -> None:
        rules = policy("deny anonymous all **", "allow anyone subscribe __ds/**")
        self.assertFalse(rules.decide(ANONYMOUS, "subscribe", "__ds/subscriptions/a").allowed)
        self.assertTrue(rules.decide(alice(), "subscribe", "__ds/subscriptions/a").allowed)


class SubstitutionTests(SynchronousTestCase):
    RULE = "allow authenticated all chats/{subject}/** {claim.tenant}/**"

    def test_a_value_matches_its_own_segment_only(self) -> None:
        rules = policy(self.RULE)
        principal = alice(claims={"tenant": "acme"})
        for name, allowed in (
            ("chats/alice/a", True),
            ("chats/alice", True),
            ("chats/bob/a", False),
            ("chats/Alice/a", False),
            ("acme/a/b", True),
            ("other/a", False),
        ):
            self.assertEqual(allowed, rules.decide(principal, "read", name).allowed, name)

    def test_a_value_cannot_widen_a_rule(self) -> None:
        rules = policy(self.RULE)
        for value in ("*", "**", "bob/../alice", "bob/", "", "{subject}", "**/x", "."):
            for principal in (Principal(value, "jwt"), alice(claims={"tenant": value})):
                for name in ("chats/bob/a", "chats/bob", "bob", "bob/a", "__ds/subscriptions/a", "chats//a", "/a"):
                    self.assertFalse(rules.decide(principal, "read", name).allowed, (principal, name))
                    self.assertFalse(rules.covers(principal, "read", name).allowed, (principal, name))

    def test_a_star_as_value_covers_no_pattern_of_other_names(self) -> None:
        star = Principal("*", "jwt")
        self.assertFalse(policy(self.RULE).covers(star, "read", "chats/*/a").allowed)
        self.assertTrue(policy(self.RULE).decide(star, "read", "chats/*/a").allowed)

    def test_names_are_compared_without_unicode_normalization(self) -> None:
        rules = policy("allow anyone read é")
        self.assertTrue(rules.decide(alice(), "read", "é").allowed)
        self.assertFalse(rules.decide(alice(), "read", "e\u0301").allowed)


class PublicTests(SynchronousTestCase):
    def test_the_deciding_rule_says_whether_shared_caches_may_keep_it(self) -> None:
        rules = policy(
            "deny anyone read public/secret", "allow anyone read public/** cache:public", "allow authenticated read **"
        )
        for name, public in (("public/a", True), ("public/secret", False), ("a", False)):
            self.assertEqual(public, rules.decide(alice(), "read", name).public, name)

    def test_what_grants_deny_is_not_public(self) -> None:
        decision = policy("allow anyone read ** cache:public").decide(alice(grants=()), "read", "a")
        self.assertEqual((False, False), (decision.allowed, decision.public))


class ConditionTests(SynchronousTestCase):
    def holds(self, who: str, principal: Principal) -> bool:
        return policy(f"allow {who} read **").decide(principal, "read", "a").allowed

    def test_claims_of_other_types_equal_what_json_writes(self) -> None:
        claims = {"n": 5, "yes": True, "f": 1.5, "none": None, "list": ["a", 7, False], "o": {"x": "y"}, "text": "5"}
        principal = alice(claims=claims)
        for who, expected in (
            ("claim:n=5", True),
            ("claim:n=5.0", False),
            ("claim:yes=true", True),
            ("claim:yes=1", False),
            ("claim:yes=True", False),
            ("claim:f=1.5", True),
            ("claim:none=null", False),
            ("claim:list=a", True),
            ("claim:list=7", True),
            ("claim:list=false", True),
            ("claim:list=b", False),
            ("claim:o.x=y", True),
            ("claim:o=y", False),
            ("claim:text=5", True),
            ("claim:missing=x", False),
        ):
            self.assertEqual(expected, self.holds(who, principal), who)

    def test_all_conditions_must_hold(self) -> None:
        principal = alice(groups=frozenset({"a", "b"}), claims={"l": ["x", "y"], "m": "z"})
        for who, expected in (
            ("group:a&group:b", True),
            ("group:a&group:c", False),
            ("group:c&group:a", False),
            ("claim:l=x&claim:l=y", True),
            ("claim:l=x&claim:l=z", False),
            ("claim:l=x&claim:m=z&group:a&subject:alice&kind:token&authenticated", True),
            ("claim:l=x&claim:m=z&group:a&subject:alice&kind:jwt", False),
            ("group:a&subject:bob", False),
        ):
            self.assertEqual(expected, self.holds(who, principal), who)

    def test_an_embedders_own_kind_is_authenticated(self) -> None:
        own = Principal("", "ldap")
        self.assertEqual(
            [True, True, False, True],
            [self.holds(w, own) for w in ("anyone", "authenticated", "anonymous", "kind:ldap")],
        )

    def test_rules_after_one_whose_second_condition_fails_are_tried(self) -> None:
        rules = policy("deny group:a&group:c read **", "deny claim:t=x&claim:t=y read **", "allow group:a read **")
        decision = rules.decide(alice(groups=frozenset({"a"}), claims={"t": ["x"]}), "read", "a")
        self.assertEqual("auth.rules 3: allow group:a read **", decision.rule)


class RobustnessTests(SynchronousTestCase):
    @given(
        st.text(max_size=8),
        st.frozensets(st.text(max_size=4), max_size=4),
        st.dictionaries(
            st.sampled_from(["a", "b", "a.b", "", "."]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
                lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
            ),
        ),
        st.sampled_from(OPERATIONS),
        st.text(max_size=12),
    )
    def test_no_principal_and_no_name_makes_a_decision_fail(
        self, subject: str, groups: frozenset[str], claims: dict[str, object], operation: str, name: str
    ) -> None:
        rules = policy(
            "deny claim:a=x&claim:a.b=y read **",
            "allow claim:a.b.c=true&claim:b=1 all {claim.a}/{subject}/** {claim.a.b}",
            "deny group:g&group:h all **/{claim.b}/**",
            "allow anyone read {subject}/**",
        )
        principal = Principal(subject, "jwt", groups, claims)
        decision = rules.decide(principal, operation, name)
        if (
            subject
            and operation == "read"
            and name.split("/", maxsplit=1)[0] == subject != "__ds"
            and decision.rule is None
        ):
            self.fail("the last rule matches")
        self.assertIsInstance(rules.covers(principal, operation, name).allowed, bool)


class CoverTests(SynchronousTestCase):
    def covers(self, pattern: str, *lines: str, **principal: object) -> bool:
        return policy(*lines).covers(alice(**principal), "subscribe", pattern).allowed

    def test_one_rule_must_include_the_whole_pattern(self) -> None:
        for pattern, allowed in (
            ("chats/*", True),
            ("chats/**", True),
            ("chats/a/*", True),
            ("*/a", False),
            ("**", False),
        ):
            self.assertEqual(allowed, self.covers(pattern, "allow anyone subscribe chats/**"), pattern)

    def test_a_denial_of_some_of_the_names_denies_the_pattern(self) -> None:
        rules = ("deny anyone subscribe chats/secret/**", "allow anyone subscribe chats/**")
        self.assertFalse(self.covers("chats/**", *rules))
        self.assertFalse(self.covers("chats/*/a", *rules))
        self.assertFalse(self.covers("**/a", *rules))
        self.assertTrue(self.covers("chats/open/*", *rules))

    def test_a_denial_of_what_was_allowed_before_denies_nothing(self) -> None:
        rules = (
            "allow subject:alice all chats/secret/**",
            "deny anyone all chats/secret/*",
            "allow anyone all chats/**",
        )
        self.assertTrue(self.covers("chats/**", *rules))
        self.assertFalse(policy(*rules).covers(Principal("bob", "jwt"), "subscribe", "chats/**").allowed)

    def test_rules_about_other_operations_or_principals_are_left_out(self) -> None:
        self.assertTrue(
            self.covers("a/*", "deny anyone read **", "deny subject:bob all **", "allow anyone subscribe a/**")
        )

    def test_two_stars_include_no_reserved_names_but_subscriptions(self) -> None:
        self.assertTrue(self.covers("__ds/subscriptions/*", "allow anyone all **"))
        self.assertFalse(self.covers("__ds/**", "allow anyone all **"))
        self.assertFalse(self.covers("__ds/subscriptions/*", "deny anyone all **", "allow anyone all __ds/**"))

    def test_braces_in_the_pattern_are_plain_text(self) -> None:
        self.assertFalse(self.covers("chats/{subject}/*", "allow anyone subscribe chats/alice/**"))
        self.assertTrue(self.covers("chats/{x/*", "allow anyone subscribe chats/**"))

    def test_an_invalid_pattern_is_not_covered(self) -> None:
        for pattern in ("", "a*", "a//b"):
            decision = policy("allow anyone all **").covers(alice(), "subscribe", pattern)
            self.assertFalse(decision.allowed, pattern)
            self.assertIn("cannot be compared", decision.reason)

    def test_grants_narrow_patterns_too(self) -> None:
        grants = (Grant(frozenset({"subscribe"}), "chats/*"), Grant(frozenset({"read"}), "**"))
        self.assertTrue(self.covers("chats/a", "allow anyone all **", grants=grants))
        self.assertTrue(self.covers("chats/*", "allow anyone all **", grants=grants))
        self.assertFalse(self.covers("chats/**", "allow anyone all **", grants=grants))
        self.assertFalse(self.covers("chats/*", "allow anyone read **", grants=grants))

    def count_searches(self, size: int, pattern: str, *last: str) -> tuple[Decision, int]:
        """Compare ** with many rules, a denial within each allowed pattern; return the decision and the searches."""
        searches = 0

        def count(*patterns: PlainParts) -> bool:
            nonlocal searches
            searches += 1
            return includes(*patterns)

        self.patch(coverage, "includes", count)
        names = [pattern.format(number) for number in range(size)]
        lines = [f"allow anyone all {name}/**" for name in names]
        lines += [f"deny anyone subscribe {name}/secret/**" for name in names]
        return policy(*lines, *last).covers(alice(), "subscribe", "**"), searches

    def test_patterns_that_begin_with_texts_are_compared_without_a_search(self) -> None:
        for pattern in ("tenant{}", "tenants/{}"):
            decision, searches = self.count_searches(400, pattern, "allow anyone subscribe **")
            self.assertTrue(decision.allowed)
            self.assertEqual(searches, 0)

    def test_a_pattern_that_takes_too_many_searches_is_denied(self) -> None:
        self.assertTrue(self.count_searches(20, "*/{}", "allow anyone subscribe **")[0].allowed)
        decision, searches = self.count_searches(200, "*/{}", "allow anyone subscribe **")
        self.assertFalse(decision.allowed)
        self.assertIn("too many rules", decision.reason)
        self.assertEqual(searches, coverage.MAX_COMPARISONS)

    def test_an_unknown_operation_is_an_error_of_the_caller(self) -> None:
        self.assertRaises(ValueError, policy().covers, alice(), "write", "a")

    @given(st.lists(RULES, max_size=6), PRINCIPALS, st.sampled_from(OPERATIONS), PLAIN_PATTERNS)
    @settings(max_examples=300)
    def test_a_covered_pattern_matches_no_name_that_is_denied(
        self, rules: list[NaiveRule], principal: Principal, operation: str, pattern: str
    ) -> None:
        compiled = policy(*(rule.line() for rule in rules))
        if compiled.covers(principal, operation, pattern).allowed:
            denied = [
                name
                for name in UNIVERSE
                if pattern_matches(pattern.split("/"), name.split("/"))
                and not compiled.decide(principal, operation, name).allowed
            ]
            self.assertEqual([], denied)

    @given(RULES.filter(lambda rule: rule.allow and len(rule.names) == 1), PRINCIPALS, PLAIN_PATTERNS)
    @settings(max_examples=300)
    def test_with_one_rule_a_pattern_is_covered_if_all_its_names_are_allowed(
        self, rule: NaiveRule, principal: Principal, pattern: str
    ) -> None:
        compiled = policy(rule.line())
        names = [name for name in UNIVERSE if pattern_matches(pattern.split("/"), name.split("/"))]
        expected = all(compiled.decide(principal, "subscribe", name).allowed for name in names)
        self.assertEqual(expected, compiled.covers(principal, "subscribe", pattern).allowed, names[:5])

    @given(PRINCIPALS, st.sampled_from(OPERATIONS), NAMES.filter(lambda name: "*" not in name))
    def test_a_name_as_pattern_is_covered_as_the_name_is_decided(
        self, principal: Principal, operation: str, name: str
    ) -> None:
        rules = policy("deny group:g all a/**", "allow authenticated all a/** {subject}/*", "allow group:h read **")
        self.assertEqual(
            rules.decide(principal, operation, name).allowed, rules.covers(principal, operation, name).allowed
        )
