"""Tests of Cache-Control, Vary and ETag (PROTOCOL section 10)."""

from __future__ import annotations

from msgspec.structs import replace

from durable_streams.server.config.sections import HttpSettings
from durable_streams.server.config.settings import Settings
from tests.support.cases import TEXT, FrontTestCase, each_way
from tests.support.fronts import BASE, Headers
from tests.support.gates import GateTestCase, bearer
from tests.support.replies import Reply

FOR_A_MINUTE = "max-age=60, stale-while-revalidate=300"


class CachingCases(FrontTestCase):
    """Only reads with data may be cached, as the setting allows."""

    kept = ""

    def setUp(self) -> None:
        super().setUp()
        self.start = self.front.create("a", body=b"one")
        self.tail = self.front.append("a", b"two")

    def get(self, query: str, **headers: str) -> Reply:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.front.ask("GET", BASE + "a" + query, fields)

    def check_found(self) -> None:
        for query in ("", "?offset=-1", f"?offset={self.start}", f"?offset={self.start}&live=long-poll"):
            reply = self.get(query)
            self.assertEqual((reply.status, reply.get("cache-control")), (200, self.kept), query)
            self.assertIsNotNone(reply.get("etag"))
            known = self.get(query, If_None_Match=reply.get("etag") or "")
            self.assertEqual((known.status, known.get("cache-control")), (304, self.kept), query)
            self.assertEqual(known.get("etag"), reply.get("etag"))

    def check_polled(self) -> None:
        after = self.front.follow(BASE + f"a?offset={self.tail}&live=long-poll&cursor=7")
        now = self.front.follow(BASE + "a?offset=now&live=long-poll")
        self.front.append("a", b"three")
        for peer, caching in ((after, self.kept), (now, "no-store")):
            self.assertEqual((peer.reply.status, bytes(peer.reply.body)), (200, b"three"))
            self.assertEqual(peer.reply.get("cache-control"), caching)
            self.assertIsNotNone(peer.reply.get("stream-cursor"))

    def check_passing(self) -> None:
        self.front.create("done", body=b"x")
        self.front.close_stream("done")
        for method, target, status in (
            ("GET", f"a?offset={self.tail}", 200),
            ("GET", "a?offset=now", 200),
            ("GET", "done?offset=now&live=long-poll", 204),
            ("GET", "a?offset=x", 400),
            ("GET", "none", 404),
            ("HEAD", "a", 200),
            ("POST", "a", 204),
            ("PUT", "a", 200),
            ("DELETE", "a", 204),
        ):
            reply = self.front.ask(method, BASE + target, TEXT, b"x" if method == "POST" else b"")
            self.assertEqual((reply.status, reply.get("cache-control")), (status, "no-store"), (method, target))

    def check_waited(self) -> None:
        poll = self.front.follow(BASE + f"a?offset={self.tail}&live=long-poll")
        tail = self.front.follow(BASE + f"a?offset={self.tail}&live=sse")
        self.front.pass_time(21)
        self.assertEqual((poll.reply.status, poll.reply.get("cache-control")), (204, "no-store"))
        self.assertEqual(tail.reply.get("cache-control"), "no-cache, no-transform")


@each_way
class NobodyTests(CachingCases):
    kept = "no-store"

    def test_every_answer_is_no_store(self) -> None:
        self.check_found()
        self.check_waited()
        self.check_passing()

    def test_long_polls_with_data_are_no_store(self) -> None:
        self.check_polled()


@each_way
class ReaderTests(CachingCases):
    settings = replace(Settings(), http=HttpSettings(cache="private"))
    kept = f"private, {FOR_A_MINUTE}"

    def test_catch_up_reads_and_polls_with_data_are_private(self) -> None:
        self.check_found()
        self.check_polled()

    def test_other_answers_are_not_private(self) -> None:
        self.check_waited()
        self.check_passing()


@each_way
class AnybodyTests(CachingCases):
    settings = replace(Settings(), http=HttpSettings(cache="public"))
    kept = f"public, {FOR_A_MINUTE}"

    def test_catch_up_reads_and_polls_with_data_are_public(self) -> None:
        self.check_found()
        self.check_polled()
        self.assertIsNone(self.get("").get("vary"))

    def test_other_answers_are_not_public(self) -> None:
        self.check_waited()
        self.check_passing()

    def test_closing_a_stream_changes_the_etag(self) -> None:
        before = self.get("").get("etag")
        self.front.close_stream("a")
        after = self.get("", If_None_Match=before or "")
        self.assertEqual((after.status, after.get("cache-control")), (200, self.kept))
        self.assertNotEqual(after.get("etag"), before)


@each_way
class OriginsTests(CachingCases):
    settings = replace(Settings(), http=HttpSettings(cache="public", cors_origins=("https://app.example",)))
    kept = f"public, {FOR_A_MINUTE}"

    def test_answers_vary_by_origin_if_origins_are_listed(self) -> None:
        for origin in ("https://app.example", "https://other.example"):
            reply = self.get("", Origin=origin)
            self.assertEqual((reply.get("cache-control"), reply.get("vary")), (self.kept, "Origin"))
        self.assertEqual(self.get("").get("vary"), "Origin")


class GatedCachingTestCase(GateTestCase):
    settings = replace(Settings(), http=replace(HttpSettings(), cache="public"))
    rules = (
        "allow subject:bob read mixed/**",
        "allow anyone read public/** cache:public",
        "allow anyone read mixed/** cache:public",
        "allow subject:owner all **",
    )
    streams = {"public/p": b"hello", "mixed/m": b"hello", "own/o": b"hello"}  # noqa: RUF012 (not changed)

    def caching(self, name: str, token: str | None, headers: Headers | None = None) -> tuple[str | None, str | None]:
        """Return the kind of Cache-Control of an answer, and its Vary."""
        reply = self.ask("GET", name, token, headers)
        self.assertIn(reply.status, (200, 304))
        return (reply.get("cache-control") or "").partition(",")[0], reply.get("vary")


@each_way
class GatedCachingTests(GatedCachingTestCase):
    def test_what_only_some_may_read_is_private_and_varies(self) -> None:
        private = "private", "Authorization"
        self.assertEqual(self.caching("own/o", "owner"), private)
        self.assertEqual(self.caching("mixed/m", "bob"), private)
        self.assertEqual(self.caching("own/o?offset=-1&live=long-poll", "owner"), private)
        tag = self.ask("GET", "own/o", "owner").get("etag") or ""
        self.assertEqual(self.caching("own/o", "owner", {"If-None-Match": tag}), private)

    def test_what_a_public_rule_lets_everybody_read_is_public(self) -> None:
        public = "public", None
        self.assertEqual(self.caching("public/p", None), public)
        self.assertEqual(self.caching("public/p", "bob"), public)
        self.assertEqual(self.caching("mixed/m", None), public)

    def test_a_head_that_is_remembered_for_one_principal_is_not_sent_to_another(self) -> None:
        for _ in range(3):
            self.assertEqual(self.caching("mixed/m", "bob")[0], "private")
            self.assertEqual(self.caching("mixed/m", None)[0], "public")
            self.assertEqual(self.caching("mixed/m", "owner")[0], "public")

    def test_events_that_only_some_may_read_are_private(self) -> None:
        for name, token, expected in (
            ("own/o", "owner", "private, no-cache, no-transform"),
            ("public/p", None, "no-cache, no-transform"),
        ):
            peer = self.front.follow(BASE + name + "?offset=-1&live=sse", bearer(token))
            self.assertEqual(peer.reply.get("cache-control"), expected)
            peer.leave()

    def test_refusals_are_not_kept(self) -> None:
        for token, status in ((None, 401), ("bob", 403)):
            reply = self.ask("GET", "own/o", token)
            self.assertEqual((reply.status, reply.get("cache-control")), (status, "no-store"))

    def test_a_304_is_decided_as_a_200(self) -> None:
        tag = self.ask("GET", "own/o", "owner").get("etag") or ""
        self.assertEqual(self.ask("GET", "own/o", "bob", {"If-None-Match": tag}).status, 403)


@each_way
class GatedUncachedTests(GatedCachingTestCase):
    settings = Settings()

    def test_a_public_rule_makes_nothing_cachable_where_nothing_is_kept(self) -> None:
        self.assertEqual(self.caching("public/p", None), ("no-store", None))
        self.assertEqual(self.caching("own/o", "owner"), ("no-store", None))
