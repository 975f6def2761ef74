"""Parsing of the bodies of the subscription APIs."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.protocol.names import NameLimits
from durable_streams.server.subscriptions.bodies import (
    MAX_ACKS,
    check_id,
    normal_path,
    parse_object,
    read_ack,
    read_added_streams,
    read_worker,
)
from durable_streams.server.subscriptions.errors import (
    InvalidConfig,
    InvalidJsonBody,
    InvalidPath,
    InvalidSubscriptionId,
    InvalidSubscriptionRequest,
    InvalidWorker,
    SubscriptionError,
)
from durable_streams.server.subscriptions.model import Ack, AckRequest

LIMITS = NameLimits()


def body(**members: object) -> bytes:
    """Return a JSON object."""
    return json.dumps(members).encode()


class IdTests(SynchronousTestCase):
    def test_ids_with_colons_and_other_punctuation_are_accepted(self) -> None:
        for text in (
            "sub-1",
            "runner:abc:0123456789abcdef",
            "webhook:0123",
            "task-handler",
            "a@b+c=d,e~f._-",
            "x" * 256,
        ):
            check_id(text)

    def test_other_ids_are_refused(self) -> None:
        for text in ("", ".", "..", "a/b", "a b", "é", "a%3A", "a\n", "x" * 257, "a?"):
            self.assertRaises(InvalidSubscriptionId, check_id, text)


class ObjectTests(SynchronousTestCase):
    def test_an_empty_body_is_an_empty_object(self) -> None:
        self.assertEqual({}, parse_object(b""))

    def test_the_last_of_doubled_members_counts(self) -> None:
        self.assertEqual({"a": 2}, parse_object(b'{"a": 1, "a": 2}'))

    def test_bodies_that_are_not_json_are_refused(self) -> None:
        for text in (
            b"{",
            b"{'a': 1}",
            b"\xff{}",
            b'{"a": 01}',
            b'{"a": NaN}',
            b"{} {}",
            b"[" * 100_000,
            b"\xef\xbb\xbf{}",
        ):
            self.assertRaises(InvalidJsonBody, parse_object, text)

    def test_other_json_values_than_objects_are_refused(self) -> None:
        for text in (b"[]", b"null", b'"a"', b"1"):
            self.assertRaises(InvalidSubscriptionRequest, parse_object, text)

    @given(
        st.binary(max_size=64) | st.recursive(st.none() | st.text() | st.floats(), st.lists).map(str).map(str.encode)
    )
    def test_any_bytes_are_parsed_or_refused(self, text: bytes) -> None:
        for read in (parse_object, read_worker, read_ack):
            try:
                read(text)
            except SubscriptionError as error:
                self.assertEqual(400, error.status)


class PathTests(SynchronousTestCase):
    def test_slashes_at_the_ends_are_removed_and_nothing_is_decoded(self) -> None:
        self.assertEqual("a/b%2Fc", normal_path("/a/b%2Fc/", LIMITS))

    def test_invalid_names_are_refused(self) -> None:
        for path in ("", "/", "a//b", "a/./b", "__ds/a", "/__ds", "a\x00"):
            self.assertRaises(InvalidPath, normal_path, path, LIMITS)

    def test_added_streams_are_sorted_and_distinct(self) -> None:
        self.assertEqual(("a", "b/c"), read_added_streams(body(streams=["/b/c", "a", "b/c/"]), LIMITS))

    def test_added_streams_that_are_missing_or_mistyped_are_refused(self) -> None:
        for text in (b"", body(), body(streams=None), body(streams=[]), body(streams="a"), body(streams=["a", 1])):
            self.assertRaises(InvalidSubscriptionRequest, read_added_streams, text, LIMITS)
        self.assertRaises(InvalidPath, read_added_streams, body(streams=["a", "b//c"]), LIMITS)
        self.assertRaises(InvalidConfig, read_added_streams, body(streams=["a"] * 1001), LIMITS)


class WorkerTests(SynchronousTestCase):
    def test_a_worker_has_a_name_of_at_most_256_bytes(self) -> None:
        self.assertEqual("worker 1", read_worker(body(worker="worker 1", other=1)))
        for worker in (None, "", "  \t", 5, "é" * 129):
            self.assertRaises(InvalidWorker, read_worker, body(worker=worker))


class AckTests(SynchronousTestCase):
    def test_streams_are_named_by_stream_or_path_and_unknown_members_are_ignored(self) -> None:
        acks = [
            {"stream": "/a", "offset": "1", "x": 1},
            {"path": "b/", "offset": "2"},
            {"stream": None, "path": "c", "offset": "3"},
        ]
        read = read_ack(body(wake_id="w", generation=3, acks=acks, done=True, more={}))
        self.assertEqual(AckRequest("w", 3, (Ack("a", "1"), Ack("b", "2"), Ack("c", "3")), True), read)

    def test_acks_and_done_are_optional(self) -> None:
        for extra in ({}, {"acks": None, "done": None}, {"acks": [], "done": False}):
            self.assertEqual(AckRequest("w", 3), read_ack(body(wake_id="w", generation=3, **extra)))

    def test_missing_and_mistyped_members_are_refused(self) -> None:
        changes: tuple[dict[str, object], ...] = (
            {"wake_id": None},
            {"wake_id": 5},
            {"generation": None},
            {"generation": "1"},
            {"generation": True},
            {"generation": 1.5},
            {"done": "true"},
            {"acks": {}},
            {"acks": ["a"]},
            {"acks": [{"stream": "a"}]},
            {"acks": [{"offset": "1"}]},
            {"acks": [{"stream": "a", "offset": 1}]},
            {"acks": [{"stream": "a", "offset": "1"}] * (MAX_ACKS + 1)},
        )
        for change in changes:
            members: dict[str, object] = {"wake_id": "w", "generation": 1, **change}
            self.assertRaises(InvalidSubscriptionRequest, read_ack, body(**members))
