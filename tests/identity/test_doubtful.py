"""Rules that probably do not say what was meant."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity.policy import parse_rules


class DoubtTests(SynchronousTestCase):
    def test_a_value_with_a_comma_is_warned_of(self) -> None:
        for who, value in (
            ("subject:alice,bob", "subject whose value is alice,bob,"),
            ("authenticated&group:a,b", "group whose value is a,b,"),
            ("claim:role=a,b", "claim whose value is a,b,"),
            ("kind:token,jwt", "kind whose value is token,jwt,"),
        ):
            (warning,) = parse_rules(["allow anyone read a", f"deny {who} all **"], "rules").warnings
            self.assertIn(f"rules 2 is about one {value}", warning)

    def test_a_value_in_quotes_or_a_distinguished_name_is_meant(self) -> None:
        for who in ('"subject:alice,bob"', 'subject:"alice,bob"', "subject:CN=alice,O=Example", "subject:alice"):
            self.assertEqual((), parse_rules([f"deny {who} all **"], "rules").warnings, who)

    def test_the_number_of_warnings_is_bounded(self) -> None:
        rules = parse_rules([f"deny subject:a,{number} read **" for number in range(100)], "rules")
        self.assertEqual(20, len(rules.warnings))

    def test_a_name_with_the_base_path_is_warned_of(self) -> None:
        for name in ("v1/stream/chats/**", "/v1/stream/chats", "a v1/stream/**"):
            (warning,) = parse_rules([f"deny anyone all {name}"], "rules").warnings
            self.assertIn("rules 1 is about streams whose names begin with v1/stream.", warning)
        self.assertEqual((), parse_rules(["deny anyone all v1/streams/** v1/* **"], "rules").warnings)
