"""The stored form of subscriptions."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.subscriptions import records
from durable_streams.server.subscriptions.errors import CorruptRecord
from durable_streams.server.subscriptions.model import (
    Link,
    Snapshot,
    SnapshotEntry,
    State,
    Subscription,
    SubscriptionConfig,
    Wake,
)

NUMBERS = st.integers(0, 2**53)
TIMES = st.floats(0, 1e11)
OPTIONAL_TIMES = st.none() | TIMES
LINKS = st.builds(Link, st.booleans(), st.none() | NUMBERS, NUMBERS, NUMBERS)
ENTRIES = st.builds(SnapshotEntry, st.text(), st.booleans(), st.none() | NUMBERS, NUMBERS, NUMBERS, NUMBERS)
SNAPSHOTS = st.builds(Snapshot, st.text(), st.lists(ENTRIES, max_size=3).map(tuple))
WAKES = st.builds(Wake, st.text(), NUMBERS, st.text(), TIMES, st.none() | st.text(), OPTIONAL_TIMES)
STATES = st.builds(State, NUMBERS, st.none() | WAKES, NUMBERS, OPTIONAL_TIMES)
CONFIGS = st.builds(SubscriptionConfig, st.sampled_from(["webhook", "pull-wake"]), st.none() | st.text())
SUBSCRIPTIONS = st.builds(Subscription, st.text(), NUMBERS, CONFIGS, st.text(), TIMES, st.binary())

KINDS: list[tuple[Any, Any, Any]] = [
    (SUBSCRIPTIONS, records.encode, partial(records.decode, kind=Subscription)),
    (STATES, records.encode, partial(records.decode, kind=State)),
    (SNAPSHOTS, records.encode, partial(records.decode, kind=Snapshot)),
    (LINKS, lambda link: records.encode_link(link, 2**62), lambda key, value: records.decode_link(key, value)[0]),
]


class RecordTests(SynchronousTestCase):
    @given(st.sampled_from(KINDS), st.data())
    def test_what_was_encoded_is_decoded(self, kind: tuple[Any, Any, Any], data: st.DataObject) -> None:
        values, encode, decode = kind
        value = data.draw(values)
        self.assertEqual(value, decode("key", encode(value)))

    @given(st.sampled_from(KINDS), st.data())
    def test_damaged_values_are_decoded_or_refused_with_their_key(
        self, kind: tuple[Any, Any, Any], data: st.DataObject
    ) -> None:
        values, encode, decode = kind
        encoded = bytearray(encode(data.draw(values)))
        position = data.draw(st.integers(0, len(encoded) - 1))
        encoded[position] ^= data.draw(st.integers(1, 255))
        cut = data.draw(st.integers(0, len(encoded)))
        for damaged in (bytes(encoded), bytes(encoded[:cut])):
            try:
                decode("links/s/a", damaged)
            except CorruptRecord as error:
                self.assertIn("links/s/a", str(error))

    def test_values_of_another_version_are_refused_with_both_versions(self) -> None:
        for _values, _encode, decode in KINDS:
            for fields in ([2, {}], [2, 5, 6, 7, 8, 9], [2]):
                error = self.assertRaises(CorruptRecord, decode, "wakes/s", msgspec.msgpack.encode(fields))
                self.assertIn("it has version 2, and this server reads version 1", str(error))

    def test_keys_are_taken_apart(self) -> None:
        self.assertEqual(("a:b", "c/d"), records.split_link_key(records.link_key("a:b", "c/d")))
        self.assertTrue(records.link_key("a", "b").startswith(records.links_prefix("a")))
        self.assertFalse(records.link_key("a.b", "c").startswith(records.links_prefix("a")))
        for key in ("links/", "links/a", "links/a/", "links//a", "wakes/a/b"):
            self.assertRaises(CorruptRecord, records.split_link_key, key)

    def test_records_are_small(self) -> None:
        wake = Wake("w_0123456789012345678901", 5, "events/a", 1.5, "worker", 2.5, True)
        self.assertLess(len(records.encode(State(5, wake))), 120)
        self.assertLess(len(records.encode_link(Link(False, 10**6, 10**6, 10**9), 2**62)), 32)

    def test_the_stored_form_is_that_of_its_version(self) -> None:
        wake = Wake("w", 2, "a", 1.0, "h", 2.0, True, 3, True, 4.0, True)
        config = SubscriptionConfig("webhook", "p", ("s",), "u", "w", 1, "d")
        values = (
            records.encode(State(2, wake, 1, 5.0, 6)),
            records.encode(Subscription("i", 1, config, "o", 1.0, b"d")),
            records.encode(Snapshot("w", (SnapshotEntry("p", True, 1, 2, 3, 4),))),
            records.encode_link(Link(True, 1, 2, 3), 4),
        )
        expected: list[object] = [
            [1, [2, ["w", 2, "a", 1.0, "h", 2.0, True, 3, True, 4.0, True], 1, 5.0, 6]],
            [1, ["i", 1, ["webhook", "p", ["s"], "u", "w", 1, "d"], "o", 1.0, b"d"]],
            [1, ["w", [["p", True, 1, 2, 3, 4]]]],
            [1, 4, True, 1, 2, 3],
        ]
        self.assertEqual(expected, [msgspec.msgpack.decode(value) for value in values])

    def test_a_state_that_was_stored_without_a_revision_has_revision_0(self) -> None:
        stored = msgspec.msgpack.encode([1, [2, None, 1, 5.0]])
        self.assertEqual(State(2, None, 1, 5.0, 0), records.decode("wakes/s", stored, State))
