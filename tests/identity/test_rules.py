"""The grammar of rules, and the errors of lines that are none."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity.conditions import Condition
from durable_streams.server.identity.operations import OPERATIONS, expand
from durable_streams.server.identity.policy import parse_rules
from durable_streams.server.identity.rules import MAX_CLAIMS, MAX_LINE, MAX_RULES, Rule, RuleError, parse_rule


def rule(line: str) -> Rule:
    found = parse_rule(line, "auth.rules 1")
    assert found is not None
    return found


class OperationTests(SynchronousTestCase):
    def test_read_includes_head_and_all_includes_everything(self) -> None:
        self.assertEqual({"read", "head"}, expand(["read"]))
        self.assertEqual({"head"}, expand(["head"]))
        self.assertEqual({"create", "append"}, expand(["create", "append"]))
        self.assertEqual(set(OPERATIONS), expand(["all"]))
        self.assertEqual(frozenset(), expand([]))

    def test_an_unknown_operation_is_refused_with_the_known_ones(self) -> None:
        error = self.assertRaises(ValueError, expand, ["write"])
        self.assertIn("'write'", str(error))
        self.assertIn("create, append, read, head, close, delete, fork-from, subscribe, admin, or all", str(error))


class LineTests(SynchronousTestCase):
    def test_a_rule_has_all_its_parts(self) -> None:
        found = rule('  deny\tsubject:alice&group:"night shift" create,append a/* "my chats/**" ')
        self.assertEqual((False, False), (found.allow, found.public))
        self.assertEqual((Condition("subject", "alice"), Condition("group", "night shift")), found.conditions)
        self.assertEqual({"create", "append"}, found.operations)
        self.assertEqual(("a", "my chats"), tuple(parts[0] for parts in found.names))
        self.assertEqual("auth.rules 1", found.where)
        self.assertEqual('deny\tsubject:alice&group:"night shift" create,append a/* "my chats/**"', found.text)

    def test_empty_lines_and_comments_are_no_rules(self) -> None:
        for line in ("", "   ", "\t", "# allow anyone all **", "  #", "\r"):
            self.assertIsNone(parse_rule(line.rstrip("\r"), "r"), line)

    def test_a_comment_may_follow_a_rule(self) -> None:
        self.assertEqual((("a",),), rule("allow anyone read a # not b").names)
        self.assertEqual((("a#b",), ("#c",)), rule('allow anyone read a#b "#c"').names)

    def test_values_in_quotes_have_blanks_and_signs(self) -> None:
        for who, value in (
            ('"subject:CN=alice,O=Example Corp"', "CN=alice,O=Example Corp"),
            ('subject:"CN=alice,O=Example Corp"', "CN=alice,O=Example Corp"),
            ('subject:"a & b"', "a & b"),
            ('subject:a"&"b', "a&b"),
            ('subject:"say \\"hi\\" \\\\ \\n"', 'say "hi" \\ \\n'),
            ("subject:a:b", "a:b"),
            ("subject:a\\b", "a\\b"),
            ("subject:ünï", "ünï"),
        ):
            self.assertEqual((Condition("subject", value),), rule(f"allow {who} read **").conditions, who)

    def test_the_value_of_a_claim_may_have_equals_signs(self) -> None:
        for who, path, value in (
            ("claim:tenant=acme", "tenant", "acme"),
            ("claim:a.b=c=d", "a.b", "c=d"),
            ('"claim:https://id.example.com/roles=stream admin"', "https://id.example.com/roles", "stream admin"),
        ):
            self.assertEqual((Condition("claim", value, path),), rule(f"allow {who} read **").conditions, who)

    def test_anyone_adds_no_condition(self) -> None:
        self.assertEqual((), rule("allow anyone read **").conditions)
        self.assertEqual((Condition("group", "a"),), rule("allow anyone&group:a&group:a read **").conditions)
        self.assertEqual((Condition("authenticated"),), rule("allow authenticated read **").conditions)

    def test_admin_needs_no_name(self) -> None:
        self.assertEqual((), rule("allow group:ops admin").names)
        for line in ("allow group:ops admin **", "allow group:ops admin,read **", "allow group:ops all a/**"):
            self.assertTrue(rule(line).names, line)

    def test_shared_caches_are_an_option_of_what_allows_reads(self) -> None:
        self.assertTrue(rule("allow anyone read public/** cache:public").public)
        self.assertTrue(rule("allow anyone all cache:public public/**").public)
        self.assertFalse(rule('allow anyone read "cache:public"').public)


class ErrorTests(SynchronousTestCase):
    def test_a_line_that_is_no_rule_is_refused_with_what_to_write(self) -> None:
        for line, why in (
            ("permit anyone read **", "begins with allow or deny, not with 'permit'"),
            ("Allow anyone read **", "begins with allow or deny"),
            ("allow", "no WHO"),
            ("allow anyone", "no OPERATIONS"),
            ("allow anyone read", "Write ** for all names"),
            ("allow anyone admin,read", "Write ** for all names"),
            ("allow anyone all", "Write ** for all names"),
            ("allow anyone admin a/**", "in a rule without NAME, or with **"),
            ("allow anyone admin,read a/** b", "in a rule without NAME, or with **"),
            ("allow alice read **", "WHO is 'alice'. Write anyone, authenticated"),
            ("allow user:alice read **", "WHO is 'user:alice'"),
            ("allow * read **", "WHO is '*'"),
            ("allow subject: read **", "without a value"),
            ("allow group:a& read **", "WHO is ''"),
            ("allow claim:tenant read **", "claim:PATH=VALUE"),
            ("allow claim:=a read **", "claim:PATH=VALUE"),
            ("allow claim:t= read **", "without a value"),
            ("allow claim:" + "a." * 17 + "b=x read **", "16 dots"),
            ("allow subject:a&subject:b read **", "a principal has one subject"),
            ("allow kind:jwt&kind:token read **", "a principal has one kind"),
            ("allow anonymous&group:a read **", "WHO never holds"),
            ("allow anonymous&authenticated read **", "WHO never holds"),
            ("allow kind:anonymous&subject:a read **", "WHO never holds"),
            ("allow anyone read,write **", "no operation 'write'"),
            ("allow anyone READ **", "no operation 'READ'"),
            ("allow anyone read, append **", "empty item"),
            ("allow anyone read a*", "whole segments"),
            ("allow anyone read a//b", "NAME 'a//b'"),
            ("allow anyone read {user}/**", "Write {subject}"),
            ("allow anyone read public/** cache:private", "no option cache:private"),
            ("allow anyone append public/** cache:public", "allow rule with read"),
            ("allow anyone head public/** cache:public", "allow rule with read"),
            ("deny anyone read public/** cache:public", "allow rule with read"),
            ('allow subject:"alice read **', "double quote is not closed"),
            ("allow anyone read a\x00b", "control characters"),
            ("allow anyone read a\nallow anyone all **", "control characters"),
            ("allow anyone read \ud800", "surrogates"),
            ("allow\u00a0anyone read **", "begins with allow or deny"),
            ("allow anyone read " + "x" * MAX_LINE, f"{MAX_LINE} characters"),
        ):
            error = self.assertRaises(RuleError, parse_rules, ["# comment", line], "auth.rules")
            self.assertEqual(("auth.rules", 2), (error.source, error.line), line)
            self.assertTrue(str(error).startswith("auth.rules 2: "), error)
            self.assertIn(why, str(error), line)

    def test_the_number_of_rules_is_bounded(self) -> None:
        lines = ["allow subject:a read a"] * MAX_RULES
        self.assertEqual(MAX_RULES, len(parse_rules([*lines, "# comment"], "r").rules))
        error = self.assertRaises(RuleError, parse_rules, [*lines, *lines], "r")
        self.assertEqual(MAX_RULES + 1, error.line)

    def test_the_number_of_different_claims_is_bounded(self) -> None:
        lines = [f"allow claim:a{n}=x&claim:b{n}=x read {{claim.a{n}}}" for n in range(MAX_CLAIMS // 2)]
        self.assertEqual(len(lines) * 2, len(parse_rules(lines * 2, "r").rules))
        error = self.assertRaises(RuleError, parse_rules, [*lines, "allow anyone read {claim.c}"], "r")
        self.assertIn(f"more than {MAX_CLAIMS} different claims", error.sentence)

    def test_a_byte_order_mark_before_the_first_line_is_ignored(self) -> None:
        self.assertEqual(1, len(parse_rules(["\ufeffallow anyone read **\r\n", "\n"], "r").rules))
        self.assertRaises(RuleError, parse_rules, ["", "\ufeffallow anyone read **"], "r")

    @given(st.text(max_size=60) | st.text(alphabet='alowdeny :=&"\\{}*/#,', max_size=60))
    def test_any_text_is_a_rule_or_refused_by_a_sentence(self, text: str) -> None:
        try:
            parse_rules([text], "r")
        except RuleError as error:
            self.assertTrue(error.sentence.endswith((".", ")")), error.sentence)

    @given(st.text(min_size=1, alphabet=st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=30))
    def test_every_text_can_be_written_in_quotes(self, value: str) -> None:
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
        self.assertEqual((Condition("subject", value),), rule(f'allow subject:"{quoted}" read **').conditions)
