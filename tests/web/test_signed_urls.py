"""Signed URLs on every front: what they open, what their end is, and that no answer repeats them."""

from __future__ import annotations

import json

from twisted.cred.portal import Portal

from durable_streams.server.clocks import clock_of
from durable_streams.server.identity.authentication import Authentication
from durable_streams.server.identity.control import AccessControl
from durable_streams.server.identity.policy import parse_rules
from durable_streams.server.identity.realm import PrincipalRealm
from durable_streams.server.identity.signed_url_checker import SignedUrlChecker
from durable_streams.server.identity.signed_urls import SigningKey, sign
from tests.support.cases import FrontTestCase, each_way
from tests.support.fronts import BASE, Peer
from tests.support.replies import Reply

KEY = SigningKey("k1", b"0123456789abcdef0123456789abcdef")
OTHER = SigningKey("k2", b"fedcba9876543210fedcba9876543210")
TEXT = {"Content-Type": "text/plain"}


@each_way
class SignedUrlTests(FrontTestCase):
    def setUp(self) -> None:
        super().setUp()
        clock = clock_of(self.front.clock)
        self.checker = SignedUrlChecker(clock.wall)
        self.checker.set_keys([KEY, OTHER])
        authentication = Authentication(Portal(PrincipalRealm(), [self.checker]), ["signed-url"], True, clock)
        self.addCleanup(authentication.close)
        self.control = AccessControl(authentication, parse_rules(["allow anyone read public/**"], "rules"), clock)
        for name in ("a", "b", "public/p"):
            self.front.create(name, body=b"hello")
        self.front.operations.guard(self.control)
        self.wall = clock.wall

    def query(self, operations: str = "read", name: str = "a", seconds: int = 60, key: SigningKey = KEY) -> str:
        return sign(key, operations, name.encode(), int(self.wall()) + seconds)

    def ask(self, method: str, name: str, query: str, body: bytes = b"") -> Reply:
        reply = self.front.ask(method, f"{BASE}{name}?{query}", TEXT if body else None, body)
        signature = query.partition("ds_sig=")[2][:43]
        self.assertEqual(43, len(signature))
        self.assertNotIn(signature, f"{reply.headers}{bytes(reply.body)!r}")
        return reply

    def statuses(self, query: str, *requests: tuple[str, str]) -> list[int]:
        return [
            self.ask(method, name, query, b"more" if method in ("PUT", "POST") else b"").status
            for method, name in requests
        ]

    def tail(self, query: str) -> Peer:
        return self.front.follow(f"{BASE}a?offset=-1&live=sse&{query}")

    def test_a_url_to_read_opens_all_reads_of_its_stream_and_nothing_else(self) -> None:
        query = self.query()
        self.assertEqual(b"hello", self.ask("GET", "a", query).body)
        self.assertEqual(b"hello", self.ask("GET", "a", f"offset=-1&{query}&cursor=1").body)
        self.assertEqual(200, self.ask("GET", "a", f"offset=-1&live=long-poll&{query}").status)
        self.assertEqual(
            [200, 403, 403, 403, 401, 401, 401],
            self.statuses(
                query,
                *(("HEAD", "a"), ("POST", "a"), ("PUT", "a"), ("DELETE", "a")),
                *(("GET", "b"), ("POST", "b"), ("GET", "public/p")),
            ),
        )
        self.assertEqual(b"hello", self.front.ask("GET", f"{BASE}public/p").body)

    def test_urls_to_write_open_the_operations_that_they_name(self) -> None:
        self.assertEqual(
            [204, 403, 403], self.statuses(self.query("append"), ("POST", "a"), ("GET", "a"), ("DELETE", "a"))
        )
        self.assertEqual([403], self.statuses(self.query("create", "new"), ("PUT", "new")))
        self.assertEqual([201], self.statuses(self.query("append,create", "new"), ("PUT", "new")))
        self.assertEqual([204], self.statuses(self.query("delete"), ("DELETE", "a")))

    def test_the_location_of_a_created_stream_is_its_url_without_the_signature(self) -> None:
        reply = self.ask("PUT", "new", self.query("append,create", "new"), b"data")
        location = reply.get("location")
        assert location is not None
        self.assertTrue(location.endswith(f"{BASE}new"), location)

    def test_the_instance_of_an_error_has_no_signature(self) -> None:
        for method, name, query, status in (
            ("GET", "a", self.query(seconds=-1), 401),
            ("GET", "a", f"offset=nonsense&{self.query()}", 400),
            ("DELETE", "a", self.query(), 403),
            ("GET", "missing", self.query(name="missing"), 404),
        ):
            reply = self.ask(method, name, query)
            self.assertEqual(status, reply.status)
            self.assertTrue(json.loads(reply.body)["instance"].startswith(f"{BASE}{name}"))

    def test_a_tail_ends_when_its_url_expires_and_the_url_is_refused_then(self) -> None:
        query = self.query(seconds=5)
        peer = self.tail(query)
        self.front.pass_time(4.25)
        self.assertFalse(peer.reply.complete)
        self.front.pass_time(1)
        self.assertTrue(peer.reply.complete)
        self.assertEqual((200, 2), (peer.reply.status, bytes(peer.reply.body).count(b"event: control")))
        self.assertEqual(401, self.ask("GET", "a", query).status)

    def test_tails_end_within_a_second_when_their_key_is_removed(self) -> None:
        removed, kept = self.tail(self.query(key=OTHER)), self.tail(self.query())
        self.checker.set_keys([KEY])
        self.control.changed()
        self.front.pass_time(1)
        self.assertEqual((True, False), (removed.reply.complete, kept.reply.complete))
        self.assertEqual([401, 200], [self.ask("GET", "a", self.query(key=key)).status for key in (OTHER, KEY)])

    def test_answers_are_not_for_shared_caches(self) -> None:
        reply = self.ask("GET", "a", self.query())
        self.assertEqual("no-store", reply.get("cache-control"))
