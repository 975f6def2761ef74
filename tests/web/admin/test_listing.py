"""The list of all streams, for operators."""

from __future__ import annotations

import re
from functools import partial
from typing import Any, cast
from urllib.parse import urlencode

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.server import Site

from durable_streams.server import Settings
from durable_streams.server.config.sections import AdminSettings, ServerSettings
from durable_streams.server.daemon.service import Daemon
from durable_streams.server.errors import Unavailable
from durable_streams.server.model import Append, Lifetime, StreamConfig
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.streams import Streams
from durable_streams.server.web.answers import Answer, Answers
from durable_streams.server.web.pages import PageRequest
from durable_streams.server.web.site.admin.listing import PAGE, add_list
from durable_streams.server.web.site.app import Pages
from tests.support.admin import AdminCase
from tests.support.cases import each_way, each_way_in_turn
from tests.support.fronts import START_TIME


class ListCase(AdminCase):
    def create(self, count: int) -> list[str]:
        names = [f"{number:05d}" for number in range(count)]
        memory = self.memory
        for name in names:
            memory.create(name, StreamConfig("text/plain"), b"", START_TIME)
        return names

    def listed(self, query: str = "") -> list[str]:
        """Return the list, after as many turns of the reactor as needed."""
        peer = self.front.follow("/admin/streams" + query)
        self.front.pass_time(5, 0.01)
        self.assertEqual((peer.reply.status, peer.reply.complete), (200, True))
        self.assertEqual(peer.reply.get("content-type"), "application/json")
        return [stream["name"] for stream in peer.reply.json()]


@each_way
class PagedListTests(ListCase):
    def test_an_empty_list_is_an_empty_array(self) -> None:
        self.assertEqual(self.listed(), [])

    def test_lists_of_one_stream_one_page_and_several_pages_are_complete(self) -> None:
        for count in (1, PAGE - 1, PAGE, PAGE + 1, 4 * PAGE):
            names = self.create(count)
            self.assertEqual(self.listed(), names)

    def test_a_list_begins_after_a_name_and_ends_at_a_limit(self) -> None:
        names = self.create(300)
        self.assertEqual(self.listed("?after=00010"), names[11:])
        self.assertEqual(self.listed("?prefix=0001"), names[10:20])
        self.assertEqual(self.listed("?prefix=0001&after=00012"), names[13:20])
        self.assertEqual(self.listed("?prefix=00299"), ["00299"])
        self.assertEqual(self.listed("?prefix=x"), [])
        self.assertEqual(self.listed("?limit=200"), names[:200])
        self.assertEqual(self.listed(f"?limit={PAGE}"), names[:PAGE])
        self.assertEqual(self.listed("?after=00010x&limit=1"), ["00011"])
        self.assertEqual(self.listed("?after=%C3%A9"), [])
        self.assertEqual(self.listed("?after=&limit="), names)

    def test_malformed_parameters_are_400(self) -> None:
        for query, text in (
            ("limit=0", "The parameter limit must be a number from 1 to 1000."),
            ("limit=-1", "limit must be a number"),
            ("limit=1x", "limit must be a number"),
            ("limit=1001", "limit must be a number"),
            ("limit=1&limit=2", "The parameter limit was sent twice."),
            ("after=a&after=b", "The parameter after was sent twice."),
            ("after=%FF", "The parameter after must be UTF-8"),
            ("%FF=a", "must be UTF-8"),
            ("status=gone", "The parameter status must be open or closed."),
            ("content_type=text", "The parameter content_type must be a media type"),
            ("order=-name", "The parameter order must be name"),
            ("order=size", "The parameter order must be name"),
            ("stat=open", "There is no parameter stat. This page has limit, after, prefix, status"),
        ):
            self.assert_refused("/admin/streams?" + query, text)

    def test_streams_are_filtered_by_status_and_media_type(self) -> None:
        names = self.create(300)
        for name in names[::50]:
            self.front.streams.append(name, Append(None, b"", close=True))
        self.front.create("json", "Application/JSON;charset=utf-8")
        self.front.pass_time(1)
        self.assertEqual(self.listed("?status=closed"), names[::50])
        self.assertEqual(len(self.listed("?status=open")), 295)
        for content_type in ("application/json", "application/JSON%3B+x=y"):
            self.assertEqual(self.listed(f"?content_type={content_type}"), ["json"])
        self.assertEqual(self.listed("?content_type=text/plain&status=closed&prefix=002&order=name"), names[200::50])
        self.assertEqual(self.listed("?content_type=text/csv"), [])

    def test_following_the_links_yields_each_matching_stream_once(self) -> None:
        names = self.create(300)
        for name in names[::3]:
            self.front.streams.append(name, Append(None, b"", close=True))
        self.front.pass_time(1)
        for query, expected in (
            ("limit=7", names),
            ("limit=100&status=closed", names[::3]),
            ("limit=150&prefix=00", names),
            ("limit=1&prefix=0000&status=open&after=00001", ["00002", "00004", "00005", "00007", "00008"]),
            ("limit=1000", names),
        ):
            found, sizes = [], set()
            target: str | None = f"/admin/streams?{query}"
            while target is not None:
                peer = self.front.follow(target)
                self.front.pass_time(0.5, 0.01)
                page = peer.reply.json()
                sizes.add(len(page))
                found += [stream["name"] for stream in page]
                link = peer.reply.get("link")
                target = None if link is None else self.next_of(link)
                peer.leave()
            self.assertEqual(found, expected)
            self.assertNotIn(0, sizes)

    def next_of(self, link: str) -> str:
        match = re.fullmatch(r'<(\?[!-~]+)>; rel="next"', link)
        assert match is not None, link
        return "/admin/streams" + match[1]

    def test_a_link_quotes_names_and_is_for_the_same_path(self) -> None:
        for name in ('a&b="c">', "d/\N{SNOWMAN}"):
            self.front.streams.create(name, StreamConfig("text/plain"), b"")
        self.front.pass_time(1)
        reply = self.front.ask("GET", "//admin/streams?limit=1")
        self.assertEqual(reply.get("link"), '<?limit=1&after=a%26b%3D%22c%22%3E>; rel="next"')
        self.assertEqual(self.listed(f"?{self.next_of(reply.get('link') or '').partition('?')[2]}"), ["d/\N{SNOWMAN}"])

    def test_lines_are_sent_to_clients_that_accept_them(self) -> None:
        names = self.create(300)
        for accept in ("application/x-ndjson", "text/html, application/jsonl;q=0.5, application/json;q=0.4"):
            for query, expected in (("", names), ("?limit=5", names[:5]), ("?prefix=x", []), ("?limit=9&prefix=x", [])):
                peer = self.front.follow("/admin/streams" + query, {"Accept": accept})
                self.front.pass_time(1, 0.01)
                self.assertEqual((peer.reply.status, peer.reply.complete), (200, True))
                self.assertEqual(peer.reply.get("content-type"), "application/x-ndjson")
                lines = bytes(peer.reply.body).split(b"\n")
                self.assertEqual(lines.pop(), b"")
                self.assertEqual([msgspec.json.decode(line)["name"] for line in lines], expected)
                self.assertEqual(peer.reply.get("link") is not None, query == "?limit=5")
        for accept in (
            "*/*",
            "application/json",
            "application/json, application/x-ndjson;q=0.9",
            "application/ndjson;q=0",
        ):
            reply = self.front.ask("GET", "/admin/streams?limit=1", {"Accept": accept})
            self.assertEqual((reply.get("content-type"), reply.get("vary")), ("application/json", "Accept"))

    def test_a_head_has_no_body(self) -> None:
        self.create(300)
        reply = self.front.ask("HEAD", "/admin/streams")
        self.assertEqual((reply.status, bytes(reply.body), reply.complete), (200, b"", True))


#: Names that share prefixes, and sort in unexpected ways.
NAMES = st.text("ab/\N{LATIN SMALL LETTER E WITH ACUTE}\N{GRINNING FACE}", min_size=1, max_size=4)


class PagingTests(SynchronousTestCase):
    """For any streams, parameters and sizes of pages."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.streams = Streams(MemoryStorage(), self.clock)
        self.streams.startService()
        self.pages = Pages(Answers(), b"/v1/stream/")
        self.pages.add(partial(add_list, base_path="/admin", streams=self.streams))

    def tearDown(self) -> None:
        self.streams.stopService()

    def ask(self, target: str, accept: str = "application/json") -> Answer:
        request = PageRequest(b"GET", target.encode(), [(b"Accept", accept.encode())])
        answered = self.pages.perform(request)
        while not answered.called:
            self.clock.advance(0)
        answer = self.successResultOf(answered)
        self.assertEqual(answer.status, 200, answer.body)
        return answer

    @given(
        st.dictionaries(NAMES, st.tuples(st.booleans(), st.sampled_from(["text/plain", "application/json"]))),
        st.integers(1, 5),
        st.fixed_dictionaries(
            {},
            optional={
                "prefix": NAMES,
                "after": NAMES,
                "status": st.sampled_from(["open", "closed"]),
                "content_type": st.sampled_from(["text/plain", "application/json", "image/png"]),
            },
        ),
    )
    @settings(max_examples=150, deadline=None)
    def test_pages_together_are_the_matching_streams_in_order(
        self, made: dict[str, tuple[bool, str]], limit: int, query: dict[str, str]
    ) -> None:
        for name, (closed, content_type) in made.items():
            self.streams.create(name, StreamConfig(content_type, closed=closed), b"")
        expected = [
            name
            for name, (closed, content_type) in sorted(made.items())
            if name.startswith(query.get("prefix", ""))
            and name > query.get("after", "")
            and query.get("status") in (None, "closed" if closed else "open")
            and query.get("content_type") in (None, content_type)
        ]
        found: list[str] = []
        target: str | None = f"/admin/streams?{urlencode({**query, 'limit': limit})}"
        while target is not None:
            answer = self.ask(target)
            page = [stream["name"] for stream in msgspec.json.decode(cast(bytes, answer.body))]
            link = dict(answer.fields()).get(b"Link")
            self.assertEqual(len(page) == limit if link else len(page) <= limit, True)
            found += page
            target = None if link is None else "/admin/streams" + link.decode()[1:].partition(">")[0]
        for name in made:
            self.streams.delete(name)
        self.assertEqual(found, expected)


@each_way_in_turn
class SlowListTests(ListCase):
    def pages(self) -> list[str]:
        """Note after which names pages are read."""
        pages: list[str] = []
        statuses = self.front.streams.statuses

        def noting(after: str, max_count: int, prefix: str) -> object:
            pages.append(after)
            return statuses(after, max_count, prefix)

        self.patch(self.front.streams, "statuses", noting)
        return pages

    def test_a_reader_that_disconnects_ends_the_list(self) -> None:
        self.create(5000)
        pages = self.pages()
        peer = self.front.follow("/admin/streams", room=2000)
        self.front.pass_time(1)
        before = len(pages)
        peer.leave()
        self.front.pass_time(1)
        self.assertEqual((len(pages), before < 12), (before, True))

    def test_a_list_is_rendered_as_fast_as_its_reader_reads(self) -> None:
        names = self.create(5000)
        pages = self.pages()
        peer = self.front.follow("/admin/streams", room=2000)
        self.front.pass_time(1)
        self.assertLess(len(pages), 12)
        for _ in range(1000):
            peer.take_all()
            self.front.pass_time(0.05)
            if peer.reply.complete:
                break
        self.assertEqual([stream["name"] for stream in peer.reply.json()], names)
        self.assertEqual(len(pages), 5000 // PAGE + 1)

    def test_a_list_that_the_storage_cannot_complete_is_aborted(self) -> None:
        self.create(3000)
        statuses = self.front.streams.statuses

        def failing(after: str, max_count: int, prefix: str) -> object:
            if after > "00500":
                raise Unavailable("The disk has failed.")
            return statuses(after, max_count, prefix)

        self.patch(self.front.streams, "statuses", failing)
        peer = self.front.follow("/admin/streams")
        self.front.pass_time(1)
        self.assertEqual((peer.reply.status, peer.reply.complete, peer.closed), (200, False, True))

    def test_a_storage_that_can_not_list_is_503(self) -> None:
        def failing(after: str, max_count: int, prefix: str) -> object:
            raise Unavailable("The disk has failed.")

        self.patch(self.front.streams, "statuses", failing)
        reply = self.front.ask("GET", "/admin/streams")
        self.assertEqual((reply.status, reply.code), (503, "UNAVAILABLE"))


class ListTests(TestCase):
    """Over the tree of a daemon, which here has no port of its own."""

    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: PLC0415 (trial chooses it)

        self.reactor: Any = reactor

    def daemon(self, **admin: object) -> Daemon:
        chosen = replace(
            Settings(),
            server=ServerSettings(bind_address="127.0.0.1:0"),
            admin=AdminSettings(**admin),  # type: ignore[arg-type]
        )
        daemon = Daemon(chosen, self.reactor)
        self.addCleanup(daemon.stopService)
        return daemon

    async def fetch(self, port: int, path: str) -> tuple[int, bytes]:
        import treq  # noqa: PLC0415 (it chooses a reactor)
        from twisted.web.client import Agent, HTTPConnectionPool  # noqa: PLC0415 (as above)

        pool = HTTPConnectionPool(self.reactor, persistent=False)
        response = await treq.get(f"http://127.0.0.1:{port}{path}", agent=Agent(self.reactor, pool=pool))
        return response.code, await response.content()

    async def test_the_list_has_all_streams_ordered_by_name(self) -> None:
        daemon = self.daemon(enabled=True)
        await daemon.start()
        daemon.streams.create("b", StreamConfig("text/plain", Lifetime(ttl=60)), b"")
        daemon.streams.create("a", StreamConfig("application/json", Lifetime(expires_at=4e9)), b"")
        daemon.streams.append("a", Append("application/json", b"1,", close=True))
        code, body = await self.fetch(daemon.address.port, "/admin/streams")  # type: ignore[attr-defined]
        self.assertEqual(code, 200)
        first, second = msgspec.json.decode(body)
        self.assertEqual(
            {**first, "created_at": None, "updated_at": None},
            {
                "name": "a",
                "closed": True,
                "message_count": None,
                "total_bytes": 2,
                "content_type": "application/json",
                "created_at": None,
                "updated_at": None,
                "ttl_seconds": None,
                "expires_at": "2096-10-02T07:06:40Z",
            },
        )
        self.assertEqual((second["name"], second["closed"], second["ttl_seconds"]), ("b", False, 60))

    async def test_the_list_is_off_by_default(self) -> None:
        daemon = self.daemon()
        await daemon.start()
        self.assertEqual((await self.fetch(daemon.address.port, "/admin/streams"))[0], 404)  # type: ignore[attr-defined]

    async def test_the_list_can_be_on_a_separate_port(self) -> None:
        daemon = self.daemon(enabled=True, base_path="/ops", bind_address="127.0.0.1:0")
        await daemon.start()
        theirs = daemon.listeners.admin_addresses[0].port  # type: ignore[attr-defined]
        ours = daemon.address.port  # type: ignore[attr-defined]
        for path, wanted in (("/ops/streams", 200), ("/metrics", 200), ("/healthz", 200), ("/v1/stream/a", 404)):
            self.assertEqual((await self.fetch(theirs, path))[0], wanted, path)
        for path, wanted in (("/ops/streams", 404), ("/metrics", 404), ("/healthz", 200)):
            self.assertEqual((await self.fetch(ours, path))[0], wanted, path)

    async def test_the_list_is_503_before_the_storage_is_open(self) -> None:
        daemon = self.daemon(enabled=True)
        listening = self.reactor.listenTCP(0, Site(daemon.tree), interface="127.0.0.1")
        self.addCleanup(listening.stopListening)
        code, body = await self.fetch(listening.getHost().port, "/admin/streams")
        self.assertEqual((code, msgspec.json.decode(body)["code"]), (503, "UNAVAILABLE"))
        ready: Deferred[None] = daemon.start()
        await ready
