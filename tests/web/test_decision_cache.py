"""Tests of the cache of the gate's decisions."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.web.access_parts import Access
from durable_streams.server.web.decision_cache import DecisionCache
from durable_streams.server.web.requests import StreamRequest, stream_request
from tests.support.identities import person


def request(method: bytes, path: bytes, body: bytes = b"", closes: bool = False) -> StreamRequest:
    headers = {b"stream-closed": b"true"} if closes else {}
    return stream_request(method, b"/v1/stream/", path, b"", headers, body)


class DecisionCacheTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.cache = DecisionCache()
        self.alice, self.bob = person("alice"), person("bob")

    def add(self, request: StreamRequest) -> Access:
        access = Access(self.alice, ("append",), "a", None, True, "append", None)
        self.cache.add(self.alice, request, access)
        return access

    def test_a_decision_is_found_for_the_same_request_of_the_same_principal_only(self) -> None:
        access = self.add(request(b"POST", b"a", b"x"))
        self.assertIs(self.cache.find(self.alice, request(b"POST", b"a", b"y")), access)
        self.assertIsNone(self.cache.find(self.bob, request(b"POST", b"a", b"x")))
        self.assertIsNone(self.cache.find(person("alice"), request(b"POST", b"a", b"x")))
        for other in (
            request(b"POST", b"b", b"x"),
            request(b"POST", b"a", b"x", closes=True),
            request(b"POST", b"a", b"", closes=True),
            request(b"GET", b"a"),
            request(b"HEAD", b"a"),
            request(b"PUT", b"a", b"x"),
            request(b"DELETE", b"a"),
        ):
            self.assertIsNone(self.cache.find(self.alice, other), other.operation)

    def test_only_appends_and_reads_are_remembered(self) -> None:
        for asked in (request(b"HEAD", b"a"), request(b"PUT", b"a"), request(b"DELETE", b"a")):
            self.add(asked)
            self.assertIsNone(self.cache.find(self.alice, asked))

    def test_it_is_bounded(self) -> None:
        for number in range(100_000):
            self.add(request(b"GET", b"%d" % number))
        self.add(request(b"GET", b"x" * 1000))
        decisions = self.cache.principals[self.alice]
        self.assertLessEqual(len(decisions.reads), 32_768)
        self.assertIsNone(self.cache.find(self.alice, request(b"GET", b"x" * 1000)))

    def test_nothing_is_found_after_a_change(self) -> None:
        self.add(request(b"GET", b"a"))
        principals = self.cache.principals
        self.cache.clear()
        self.assertIsNone(self.cache.find(self.alice, request(b"GET", b"a")))
        self.assertIs(self.cache.principals, principals)

    def test_a_principal_that_is_forgotten_leaves_room_for_others(self) -> None:
        for number in range(40_000):
            self.add(request(b"GET", b"%d" % (number % 4)))
            self.add(request(b"POST", b"a", b"x"))
            if number % 3:
                self.cache.forget(self.alice)
        self.assertIsNone(self.cache.find(self.alice, request(b"GET", b"0")))
        access = self.add(request(b"GET", b"0"))
        self.assertIs(self.cache.find(self.alice, request(b"GET", b"0")), access)
        self.cache.forget(self.bob)
        self.assertEqual(list(self.cache.principals), [self.alice])
