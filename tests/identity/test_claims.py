"""How rules find claims, and what their values equal."""

from __future__ import annotations

from types import MappingProxyType

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity.claims import claim_texts, find_claim


class FindTests(SynchronousTestCase):
    def test_dots_in_a_path_lead_into_nested_claims(self) -> None:
        claims = MappingProxyType({"tenant": "acme", "org": {"unit": MappingProxyType({"id": 5})}})
        for path, value in (
            ("tenant", "acme"),
            ("org.unit.id", 5),
            ("org.unit", {"id": 5}),
            ("org.unit.id.x", None),
            ("tenant.x", None),
            ("nothing", None),
            ("org.nothing", None),
            ("org.", None),
            (".org", None),
        ):
            self.assertEqual(value, find_claim(claims, path), path)

    def test_a_claim_whose_name_has_dots_is_found_by_its_whole_name(self) -> None:
        claims = {"https://id.example.com/roles": ["a"], "https://id.example.com/org": {"a.b": {"c": "d"}}}
        self.assertEqual(["a"], find_claim(claims, "https://id.example.com/roles"))
        self.assertEqual("d", find_claim(claims, "https://id.example.com/org.a.b.c"))

    def test_of_several_claims_that_a_path_could_mean_the_longest_name_is_taken(self) -> None:
        self.assertEqual("whole", find_claim({"a.b": "whole", "a": {"b": "nested"}}, "a.b"))
        # No way back: a shorter name is not tried after a longer one was found.
        self.assertIsNone(find_claim({"a.b": {}, "a": {"b": {"c": "nested"}}}, "a.b.c"))


class TextTests(SynchronousTestCase):
    def test_values_equal_what_json_writes_for_them(self) -> None:
        for value, texts in (
            ("acme", ("acme",)),
            ("", ("",)),
            (5, ("5",)),
            (-5, ("-5",)),
            (1.5, ("1.5",)),
            (5.0, ("5.0",)),
            (True, ("true",)),
            (False, ("false",)),
            (10**20, ("100000000000000000000",)),
            (10**299, (str(10**299),)),
            (10**5000, ()),
            (-(10**5000), ()),
            (float("inf"), ()),
            (float("nan"), ()),
            (None, ()),
            ({"a": "b"}, ()),
            (b"bytes", ()),
        ):
            self.assertEqual(texts, claim_texts(value), value)

    def test_a_list_equals_what_any_of_its_values_equals(self) -> None:
        self.assertEqual(("a", "5", "true"), claim_texts(["a", 5, True, None, ["nested"], {"a": "b"}]))
        self.assertEqual(("a",), claim_texts(("a",)))
        self.assertEqual((), claim_texts([]))
