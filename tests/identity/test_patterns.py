"""Patterns of names in rules and grants."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import InvalidName
from durable_streams.server.identity.patterns import (
    Star,
    Substitution,
    joined,
    literal_parts,
    parse_parts,
    parse_plain,
    substituted,
)
from durable_streams.server.identity.principal import ANONYMOUS, Principal

from .test_coverage import plain_matches

ONE, ANY = Star.ONE, Star.ANY


class ParseTests(SynchronousTestCase):
    def test_stars_are_whole_segments_and_all_else_is_text(self) -> None:
        for text, parts in (
            ("a/b", ("a", "b")),
            ("/a/*/", ("a", ONE)),
            ("a/**/b", ("a", ANY, "b")),
            ("**", (ANY,)),
            ("**/*/**/**", (ONE, ANY)),
            ("**/a/**", (ANY, "a", ANY)),
            ("é/e\u0301/A", ("é", "e\u0301", "A")),
            ("%2A", ("%2A",)),
            ("__ds/subscriptions/*", ("__ds", "subscriptions", ONE)),
        ):
            self.assertEqual(parts, parse_parts(text), text)

    def test_a_segment_in_braces_is_a_substitution(self) -> None:
        parts = parse_parts("chats/{subject}/{claim.org.id}")
        texts = [part.text for part in parts if isinstance(part, Substitution)]
        self.assertEqual(["{subject}", "{claim.org.id}"], texts)

    def test_the_path_of_a_claim_may_have_slashes(self) -> None:
        [part, star] = parse_parts("{claim.https://id.example.com/org}/**")
        assert isinstance(part, Substitution)
        principal = Principal("alice", "jwt", claims={"https://id.example.com/org": "acme"})
        self.assertEqual(("acme", ANY), (part.value(principal), star))

    def test_braces_are_plain_text_without_substitutions(self) -> None:
        self.assertEqual(("{subject}", ANY), parse_plain("{subject}/**"))
        self.assertEqual(("*", "{subject}", "**"), literal_parts("*/{subject}/**"))

    def test_an_invalid_pattern_is_refused_with_what_to_write(self) -> None:
        for text, why in (
            ("", "no stream name"),
            ("/", "no stream name"),
            ("a//b", "empty, . or .."),
            ("a/../b", "empty, . or .."),
            ("a*", "whole segments"),
            ("a/***", "whole segments"),
            ("a-{subject}", "whole segment"),
            ("{subject}x", "whole segment"),
            ("{subject", "whole segment"),
            ("{claim.}", "whole segment"),
            ("{claim.a}}", "whole segment"),
            ("{claim.a{b}", "whole segment"),
            ("{name}", "Write {subject}, or {claim.PATH}"),
            ("a}", "whole segment"),
            ("{claim." + "a." * 17 + "b}", "16 dots"),
            ("/".join(["a"] * 65), "64 segments"),
            ("x" * 5000, "4096 bytes"),
            ("a/__ds/\x7f", "control characters"),
        ):
            error = self.assertRaises(InvalidName, parse_parts, text)
            self.assertIn(why, str(error), text)

    @given(
        st.lists(st.sampled_from(["a", "b", ONE, ANY]), min_size=1, max_size=6),
        st.lists(st.sampled_from("abc"), min_size=1, max_size=6),
    )
    def test_joining_runs_of_stars_changes_no_match(self, parts: list[str | Star], name: list[str]) -> None:
        found = [part for part in joined(parts) if not isinstance(part, Substitution)]
        self.assertEqual(plain_matches(parts, name), plain_matches(found, name))


class SubstitutionTests(SynchronousTestCase):
    def substituted(self, text: str, **principal: object) -> object:
        given = {"subject": "alice", "kind": "jwt", **principal}
        return substituted(parse_parts(text), Principal(**given))  # type: ignore[arg-type]

    def test_a_value_is_one_segment_of_plain_text(self) -> None:
        self.assertEqual(("a", "alice", ANY), self.substituted("a/{subject}/**"))
        for value in ("*", "**", "{subject}", "..", "ü", "a b", "%2F"):
            self.assertEqual(("a", value), self.substituted("a/{subject}", subject=value), value)
            self.assertEqual((value,), self.substituted("{claim.t}", claims={"t": value}), value)

    def test_a_pattern_with_a_value_that_can_be_no_segment_matches_nothing(self) -> None:
        for value in ("", "a/b", "/", None, 5, True, ["a"], {"a": "b"}, 1.5):
            self.assertIsNone(self.substituted("{claim.t}/**", claims={"t": value}), value)
        self.assertIsNone(self.substituted("a/{claim.t}"))
        self.assertIsNone(substituted(parse_parts("a/{subject}"), ANONYMOUS))

    def test_a_value_cannot_be_the_reserved_first_segment(self) -> None:
        self.assertIsNone(self.substituted("{subject}/subscriptions/*", subject="__ds"))
        self.assertEqual(("a", "__ds"), self.substituted("a/{subject}", subject="__ds"))
