"""The caches of principals and refusals beside their definitions."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.clocks import SteadyClock
from durable_streams.server.identity.principal import Grant, Principal
from durable_streams.server.identity.principal_cache import (
    PrincipalCache,
    RefusalCache,
    size_of_key,
    size_of_principal,
)

keys = st.sampled_from([b"a", b"b", b"c" * 500, "d", b"e"])
steps = st.one_of(
    st.tuples(st.just("add"), keys, st.none() | st.floats(-5, 60), st.booleans()),
    st.tuples(st.just("advance"), st.floats(1, 20)),
    st.tuples(st.just("wall"), st.floats(-100, 100)),
    st.tuples(st.just("remove"), keys),
    st.tuples(st.just("clear")),
)


class PrincipalCacheTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.offset = 1_000_000.0
        self.cache = PrincipalCache(SteadyClock(self.clock, self.wall), 3, 2_500, 10.0)

    def wall(self) -> float:
        return self.clock.seconds() + self.offset

    @given(st.lists(steps, max_size=60))
    @settings(max_examples=300)
    def test_it_has_what_was_added_and_has_neither_expired_nor_ended(self, todo: list[tuple[Any, ...]]) -> None:
        self.setUp()
        # Key -> principal and the end of its lifetime, the oldest first.
        known: dict[Any, tuple[Principal, float | None]] = {}
        for name, *arguments in todo:
            if name == "add":
                key, expires_in, has_lifetime = arguments
                expires_at = None if expires_in is None else self.wall() + expires_in
                principal = Principal("x", "token", expires_at=expires_at)
                self.cache.add(key, principal, has_lifetime)
                if expires_at is None or expires_at > self.wall():
                    known.pop(key, None)
                    known[key] = principal, self.clock.seconds() + 10 if has_lifetime else None
                    while len(known) > 3 or sum(map(size_of_key, known)) > 2_500:
                        del known[next(iter(known))]
            elif name == "advance":
                # Shorter than a second, an expiry after a step of the wall clock may not be noticed yet.
                self.clock.advance(arguments[0])
                for key, (principal, end) in list(known.items()):
                    has_expired = principal.expires_at is not None and principal.expires_at <= self.wall()
                    if has_expired or (end is not None and end <= self.clock.seconds()):
                        del known[key]
                self.assertEqual({key: found for key, (found, _) in known.items()}, self.cache.principals)
            elif name == "wall":
                self.offset += arguments[0]
            elif name == "remove":
                self.cache.remove(arguments[0])
                known.pop(arguments[0], None)
            else:
                self.cache.clear()
                known.clear()
            self.assertLessEqual(len(self.cache.principals), 3)
            self.assertLessEqual(len(self.clock.getDelayedCalls()), 1)
        self.cache.clear()
        self.assertEqual([], self.clock.getDelayedCalls())

    def test_expiries_of_replaced_entries_are_dropped(self) -> None:
        for number in range(10_000):
            self.cache.add(b"a", Principal("x", "jwt", expires_at=self.wall() + 3_600 + number))
        self.assertLess(len(self.cache._expiries), 200)

    def test_principals_of_the_same_expiry_are_removed_together(self) -> None:
        for key in (b"a", "a", b"b"):
            self.cache.add(key, Principal("x", "jwt", expires_at=self.wall() + 5))
        self.clock.advance(4.9)
        self.assertEqual(3, len(self.cache.principals))
        self.clock.advance(0.1)
        self.assertEqual({}, self.cache.principals)

    def test_claims_groups_and_grants_take_memory(self) -> None:
        claims = {"lists": [[] for _ in range(7)], "texts": {"a": "b" * 200, "c": 5}}
        grants = tuple(Grant(frozenset({"read"}), f"{number}/**") for number in range(5))
        for principal in (
            Principal("x", "jwt", claims=claims),
            Principal("x", "jwt", groups=frozenset(map(str, range(15)))),
            Principal("x", "jwt", grants=grants),
        ):
            self.assertGreater(size_of_principal(principal), 1_000)
            self.cache.add(b"a", principal)
            self.cache.add(b"b", principal)
            self.assertEqual([b"b"], list(self.cache.principals))
        self.cache.add(b"c", Principal("x", "jwt", claims={"texts": ["a" * 50] * 100}))
        self.assertEqual({}, self.cache.principals)
        self.assertEqual(size_of_principal(Principal("x", "jwt")), 0)

    def test_a_principal_that_is_removed_is_passed_on(self) -> None:
        removed: list[str] = []
        cache = PrincipalCache(
            SteadyClock(self.clock, self.wall), 2, 10_000, 10.0, lambda principal: removed.append(principal.subject)
        )
        cache.add(b"a", Principal("expires", "jwt", expires_at=self.wall() + 5))
        cache.add(b"b", Principal("stays", "token"))
        self.clock.advance(6)
        self.assertEqual(removed, ["expires"])
        cache.add(b"c", Principal("other", "token"))
        cache.add(b"d", Principal("newest", "token"))
        self.assertEqual(removed, ["expires", "stays"])
        cache.clear()
        self.assertEqual(removed, ["expires", "stays"])


class RefusalCacheTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.cache = RefusalCache(SteadyClock(self.clock, self.clock.seconds), 3, 2_500, 5.0)

    def test_refusals_end_after_their_lifetime(self) -> None:
        self.cache.add(b"a", "No.", "Bearer")
        self.clock.advance(4.9)
        self.assertEqual(("No.", "Bearer"), self.cache.get(b"a"))
        self.clock.advance(0.1)
        self.assertIs(None, self.cache.get(b"a"))
        self.assertEqual(0, len(self.cache))

    def test_the_oldest_refusals_are_forgotten(self) -> None:
        for number in range(1_000):
            self.cache.add(b"%d" % number, "No.", "Bearer")
            self.assertLessEqual(len(self.cache), 3)
        self.assertIs(None, self.cache.get(b"996"))
        self.assertIsNot(None, self.cache.get(b"997"))
        self.cache.add(b"x" * 900, "No.", "Bearer")
        self.assertEqual(1, len(self.cache))
        self.cache.clear()
        self.assertEqual(0, len(self.cache))
