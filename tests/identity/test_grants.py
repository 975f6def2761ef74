"""Tests of the compiled grants of principals: what they allow, and how many are kept."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity.grants import CompiledGrants
from durable_streams.server.identity.principal import Grant, Principal


def granted(*patterns: str) -> Principal:
    return Principal("x", "jwt", grants=tuple(Grant(frozenset({"read"}), pattern) for pattern in patterns))


class CompiledGrantsTests(SynchronousTestCase):
    def test_a_grant_allows_its_operations_on_its_names(self) -> None:
        compiled = CompiledGrants()
        principal = granted("a/*", "b/**")
        for operation, name, allowed in (
            ("read", "a/x", True),
            ("head", "b/x/y", True),
            ("append", "a/x", False),
            ("read", "c", False),
        ):
            self.assertIs(compiled.allow(principal, operation, name), allowed, (operation, name))
        self.assertEqual(len(compiled), 1)

    def test_the_number_of_principals_is_bounded(self) -> None:
        compiled = CompiledGrants()
        for number in range(2000):
            self.assertTrue(compiled.allow(granted(f"{number}/*"), "read", f"{number}/x"))
        self.assertEqual(len(compiled), 1024)

    def test_principals_with_long_patterns_are_kept_in_smaller_number(self) -> None:
        compiled = CompiledGrants()
        for number in range(200):
            patterns = [f"{number}/{part}" + "/x" * 60 for part in range(20)]
            self.assertTrue(compiled.allow(granted(*patterns), "read", patterns[0]))
        self.assertEqual(len(compiled), 16_384 // (20 * 62))
        self.assertTrue(
            compiled.allow(granted(*("y/" * 60 + str(number) for number in range(300))), "read", "y/" * 60 + "7")
        )
        self.assertEqual(len(compiled), 1)
