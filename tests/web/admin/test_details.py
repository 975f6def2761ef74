"""The details of a stream, and its deletion by operators."""

from __future__ import annotations

from typing import Any

from durable_streams.server.model import Append, Fork, Lifetime, StreamConfig, Writer
from durable_streams.server.web.site.admin.details import MAX_WRITERS, WRITERS
from tests.support.admin import AdminCase
from tests.support.cases import each_way, each_way_in_turn
from tests.support.fronts import BASE


@each_way
class DetailsTests(AdminCase):
    def create(self, name: str, config: StreamConfig, body: bytes = b"") -> None:
        self.front.streams.create(name, config, body)
        self.front.pass_time(0.2)

    def append(self, name: str, append: Append) -> None:
        self.front.streams.append(name, append)
        self.front.pass_time(0.2)

    def test_a_stream_is_described(self) -> None:
        self.create("a/b", StreamConfig("text/plain", Lifetime(ttl=3600)), b"hello")
        self.front.pass_time(9.6)
        self.append("a/b", Append("text/plain", b" you", sequence=b"7"))
        found = self.fetched("/admin/streams/a/b")
        incarnation = found["incarnation"]
        self.assertEqual(
            found,
            {
                "name": "a/b",
                "status": "open",
                "content_type": "text/plain",
                "incarnation": incarnation,
                "next_offset": f"{incarnation:016d}_{9:016d}",
                "total_bytes": 9,
                "own_bytes": 9,
                "message_count": None,
                "created_at": "2027-01-15T08:00:00Z",
                "updated_at": found["updated_at"],
                "used_at": found["used_at"],
                "ttl_seconds": 3600,
                "expires_at": None,
                "expiry": found["expiry"],
                "stream_seq": "7",
                "fork": None,
                "forks": 0,
                "readers": {"tails": 0, "long_polls": 0, "embedded": 0},
                "writer_count": 0,
                "writers": [],
            },
        )
        self.assertEqual(found["updated_at"], found["used_at"])
        self.assertRegex(found["used_at"], r"^2027-01-15T08:00:(09\.8|10)")
        self.assertEqual(found["expiry"], found["used_at"].replace("T08", "T09"))

    def test_an_expiry_and_a_close_are_described(self) -> None:
        self.create("a", StreamConfig("text/plain", Lifetime(expires_at=4e9)))
        self.append("a", Append(None, b"", close=True))
        found = self.fetched("/admin/streams/a")
        self.assertEqual(found["status"], "closed")
        self.assertEqual((found["expires_at"], found["expiry"]), ("2096-10-02T07:06:40Z", "2096-10-02T07:06:40Z"))

    def test_a_look_is_no_use_of_the_stream(self) -> None:
        self.create("a", StreamConfig("text/plain", Lifetime(ttl=5)))
        for _ in range(4):
            self.front.pass_time(1)
            self.front.ask("GET", "/admin/streams/a")
        self.front.pass_time(2)
        self.assertEqual(self.front.ask("GET", "/admin/streams/a").status, 404)

    def test_forks_and_their_sources_are_described(self) -> None:
        self.create("source", StreamConfig("text/plain"), b"12345")
        self.create("fork", StreamConfig(fork=Fork("source")))
        self.append("fork", Append("text/plain", b"678"))
        source, fork = self.fetched("/admin/streams/source"), self.fetched("/admin/streams/fork")
        self.assertEqual((source["forks"], source["fork"]), (1, None))
        self.assertEqual((fork["total_bytes"], fork["own_bytes"]), (8, 3))
        self.assertEqual(fork["fork"], {"source": "source", "offset": source["next_offset"]})

    def test_a_deleted_stream_that_has_forks_is_described(self) -> None:
        self.create("source", StreamConfig("text/plain"), b"12345")
        self.create("fork", StreamConfig(fork=Fork("source")))
        self.assertEqual(self.front.ask("DELETE", "/admin/streams/source").status, 204)
        found = self.fetched("/admin/streams/source")
        self.assertEqual((found["status"], found["forks"]), ("deleted", 1))
        reply = self.front.ask("DELETE", "/admin/streams/source")
        self.assertEqual((reply.status, reply.code), (410, "GONE"))

    def test_writers_are_listed_the_last_one_first(self) -> None:
        self.create("a", StreamConfig("text/plain"))
        for number in range(WRITERS + 20):
            writer = Writer(f"w{number}", 3, 0)
            self.append("a", Append("text/plain", b"x", writer=writer))
        self.append("a", Append("text/plain", b"x", writer=Writer("w5", 4, 0)))
        found = self.fetched("/admin/streams/a")
        self.assertEqual((found["writer_count"], len(found["writers"])), (WRITERS + 20, WRITERS))
        first, second = found["writers"][:2]
        self.assertEqual((first["id"], first["epoch"], first["sequence"]), ("w5", 4, 0))
        self.assertEqual((second["id"], second["epoch"]), (f"w{WRITERS + 19}", 3))
        self.assertRegex(first["seen_at"], "^2027-01-15T08:00:2")
        self.assertEqual(len(self.fetched("/admin/streams/a?writers=1")["writers"]), 1)
        self.assertEqual(len(self.fetched(f"/admin/streams/a?writers={MAX_WRITERS}")["writers"]), WRITERS + 20)

    def test_names_are_read_as_streams_read_them(self) -> None:
        for name, spellings in (
            ("a/b", ("a/b", "a%2Fb", "%61/b")),
            ("snow \N{SNOWMAN}", ("snow%20%E2%98%83",)),
            ("100%25", ("100%2525",)),
            ("c+d", ("c+d", "c%2Bd")),
        ):
            self.create(name, StreamConfig("text/plain"))
            for spelling in spellings:
                self.assertEqual(self.fetched(f"/admin/streams/{spelling}")["name"], name)
                self.assertEqual(self.fetched(f"//admin/streams/{spelling}")["name"], name)
                self.assertEqual(self.fetched(f"/%61dmin/streams/{spelling}")["name"], name)
                self.assertEqual(self.front.ask("GET", BASE + spelling).status, 200, spelling)

    def test_a_path_that_could_be_split_in_another_way_is_not_a_stream(self) -> None:
        self.create("b", StreamConfig("text/plain"))
        for path in ("/admin%2Fstreams/a/b", "/admin/streams%2Fa/b"):
            reply = self.front.ask("DELETE", path)
            self.assertEqual((reply.status, reply.code), (404, "NOT_FOUND"), path)
        self.assertEqual(self.fetched("/admin/streams/b")["name"], "b")

    def test_names_that_no_stream_can_have_are_refused(self) -> None:
        for name, code in (("__ds/x", 400), ("a/../b", 400), ("%FF", 400), ("a//b", 400), ("x" * 2000, 400)):
            for method in ("GET", "DELETE"):
                self.assertEqual(self.front.ask(method, f"/admin/streams/{name}").status, code, name)

    def test_a_missing_stream_is_404_and_other_methods_are_405(self) -> None:
        reply = self.front.ask("GET", "/admin/streams/none")
        self.assertEqual((reply.status, reply.code), (404, "NOT_FOUND"))
        reply = self.front.ask("PUT", "/admin/streams/none")
        self.assertEqual((reply.status, reply.get("allow")), (405, "DELETE, GET, HEAD"))

    def test_parameters_are_checked(self) -> None:
        self.create("a", StreamConfig("text/plain"))
        self.assert_refused("/admin/streams/a?writers=0", "The parameter writers must be a number from 1 to 1000.")
        self.assert_refused("/admin/streams/a?writer=1", "There is no parameter writer. This page has writers.")
        self.assert_refused("/admin/streams/a?force=1", "There is no parameter force.", "DELETE")
        self.assertEqual(self.fetched("/admin/streams/a")["name"], "a")

    def test_a_head_has_no_body(self) -> None:
        self.create("a", StreamConfig("text/plain"))
        reply = self.front.ask("HEAD", "/admin/streams/a")
        self.assertEqual((reply.status, bytes(reply.body)), (200, b""))


@each_way_in_turn
class ReaderTests(AdminCase):
    def readers(self, name: str) -> Any:
        return self.fetched(f"/admin/streams/{name}")["readers"]

    def test_waiting_readers_are_counted_for_each_stream(self) -> None:
        for name in "ab":
            self.front.create(name)
        peers = [self.front.follow(f"{BASE}a?offset=-1&live=sse") for _ in range(3)]
        peers.append(self.front.follow(f"{BASE}a?offset=now&live=long-poll"))
        peers.append(self.front.follow(f"{BASE}b?offset=now&live=long-poll"))
        self.front.pass_time(0.5)
        self.front.streams.watch("b", lambda: None)
        self.assertEqual(self.readers("a"), {"tails": 3, "long_polls": 1, "embedded": 0})
        self.assertEqual(self.readers("b"), {"tails": 0, "long_polls": 1, "embedded": 1})
        for peer in peers:
            peer.reset()
        self.front.pass_time(0.5)
        self.assertEqual(self.readers("a"), {"tails": 0, "long_polls": 0, "embedded": 0})

    def test_totals_are_counted(self) -> None:
        for name in "abc":
            self.front.create(name, body=b"12345")
        self.front.close_stream("b")
        tail = self.front.follow(f"{BASE}a?offset=-1&live=sse")
        poll = self.front.follow(f"{BASE}a?offset=now&live=long-poll")
        self.front.pass_time(0.5)
        found = self.fetched("/admin/counts")
        self.assertEqual(found["streams"], 3)
        self.assertEqual(found["bytes"], self.front.streams.figures().bytes)
        self.assertEqual(found["connections"], self.front.channels.connections)
        self.assertEqual((found["tails"], found["long_polls"]), (1, 1))
        self.assertNotIn("status", found)
        self.assertEqual(self.fetched("/admin/counts?by=status")["status"], {"open": 2, "closed": 1})
        self.assert_refused("/admin/counts?by=size", "The parameter by must be status.")
        tail.reset()
        poll.reset()
