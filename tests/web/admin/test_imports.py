"""Imports by HTTP, on each front."""

from __future__ import annotations

from typing import Any

from durable_streams.server.model import Append, StreamConfig
from durable_streams.server.web.site.admin import imports
from tests.support.admin import AdminCase
from tests.support.cases import each_way
from tests.support.fronts import BASE, Peer, SiteFront, settings_with
from tests.support.replies import Reply
from tests.support.transfers import document_object, pretty, stream_object
from tests.web.test_page_streams import Upload, begin_upload


def entry(name: str, *messages: bytes, content_type: str = "text/plain", **fields: Any) -> dict[str, Any]:
    """Make the entry of a stream in a document."""
    return stream_object(name, content_type, *messages, **fields)


def document(*streams: dict[str, Any], **fields: Any) -> bytes:
    """Make a document."""
    return pretty(document_object(*streams, **fields))


class ImportCase(AdminCase):
    def send(self, target: str, body: bytes, chunk: bool = False) -> tuple[Peer, Upload]:
        peer = self.front.connect()
        return peer, Upload(self.front, peer, target, body, chunk)

    def post(self, target: str, body: bytes, chunk: bool = False) -> Reply:
        """Send a body, and return the answer after as many turns of the reactor as needed."""
        peer, upload = self.send(target, body, chunk)
        for _ in range(400):
            self.front.pass_time(0.02, 0.01)
            upload.send_on()
            if peer.replies and peer.reply.complete:
                break
        reply = peer.reply
        self.assertTrue(reply.complete)
        peer.reset()
        return reply

    def imported(self, body: bytes, query: str = "") -> Any:
        reply = self.post("/admin/import" + query, body)
        self.assertEqual(reply.status, 200, bytes(reply.body))
        self.assertEqual(reply.get("cache-control"), "no-store")
        return reply.json()

    def read(self, name: str) -> bytes | None:
        reply = self.front.ask("GET", BASE + name)
        return bytes(reply.body) if reply.status == 200 else None


@each_way
class ImportTests(ImportCase):
    settings = settings_with({"stall_timeout_secs": 60}, max_request_body_bytes=1000)

    def test_streams_are_imported_with_all_messages(self) -> None:
        result = self.imported(
            document(
                entry("a", b"one", b"two", closed=True),
                entry("b", b'{"x": 1}', b"[2]", content_type="application/json"),
            )
        )
        expected = {"streams_imported": 2, "streams_skipped": 0, "messages_imported": 4, "skipped": []}
        self.assertEqual({name: result[name] for name in expected}, expected)
        self.assertEqual((self.read("a"), self.read("b")), (b"onetwo", b'[{"x":1},[2]]'))
        self.assertEqual(self.front.ask("HEAD", BASE + "a").get("stream-closed"), "true")

    def test_an_export_can_be_imported_again(self) -> None:
        for name in "abc":
            self.front.create(name, body=name.encode() * 5)
        peer = self.front.follow("/admin/export")
        self.front.pass_time(1, 0.01)
        exported = bytes(peer.reply.body)
        for name in "abc":
            self.front.delete(name)
        self.assertEqual(self.imported(exported)["streams_imported"], 3)
        self.assertEqual([self.read(name) for name in "abc"], [b"aaaaa", b"bbbbb", b"ccccc"])

    def test_a_document_may_be_larger_than_request_bodies_may_be(self) -> None:
        body = document(*(entry(f"s{number}", b"x" * 10_000) for number in range(30)))
        for chunk in (False, True):
            reply = self.post("/admin/import?on_conflict=replace", body, chunk)
            self.assertEqual((reply.status, reply.json()["streams_imported"]), (200, 30))
        self.assertEqual(self.read("s29"), b"x" * 10_000)

    def test_streams_that_exist_are_skipped_by_default_and_named(self) -> None:
        self.front.create("a", body=b"old")
        for query in ("", "?on_conflict=skip", "?on_conflict="):
            result = self.imported(document(entry("a", b"new")), query)
            self.assertEqual((result["streams_imported"], result["skipped"]), (0, ["a"]))
        self.assertEqual(self.read("a"), b"old")

    def test_the_names_of_skipped_streams_are_limited(self) -> None:
        self.patch(imports, "MAX_NAMES", 10)
        many = document(*(entry(f"s{number:04d}") for number in range(12)))
        self.imported(many)
        result = self.imported(many)
        self.assertEqual((result["streams_skipped"], len(result["skipped"])), (12, 10))

    def test_streams_that_exist_are_replaced_on_request(self) -> None:
        self.front.create("a", body=b"old")
        self.assertEqual(self.imported(document(entry("a", b"new")), "?on_conflict=replace")["streams_imported"], 1)
        self.assertEqual(self.read("a"), b"new")

    def test_a_conflict_refuses_the_whole_document_on_request(self) -> None:
        self.front.create("b", body=b"old")
        reply = self.post("/admin/import?on_conflict=fail", document(entry("a", b"x"), entry("b", b"new")))
        self.assertEqual((reply.status, reply.code), (409, "IMPORT_CONFLICT"))
        self.assertIn("'b' already exists", reply.json()["detail"])
        self.assertEqual((self.read("a"), self.read("b")), (None, b"old"))

    def test_an_invalid_document_changes_nothing(self) -> None:
        good = document(entry("a", b"x"), entry("b", b"y"))
        for body, text in (
            (b" ", "Invalid document"),
            (b"no json", "Invalid document"),
            (good[:-10], "Invalid document"),
            (good + b"x", "Invalid document"),
            (document(entry("a", b"x"), format_version=2), "Unsupported format version: 2"),
            (document(entry("a", b"x"), entry("a", b"y")), "Invalid document"),
            (document(entry("a", b"x"), entry("b", messages=[{"offset": "0", "data_base64": "?"}])), "base64"),
            (document(entry("a", b"x"), entry("b", b"{", content_type="application/json")), "JSON"),
        ):
            reply = self.post("/admin/import?on_conflict=replace", body)
            self.assertEqual((reply.status, reply.code), (400, "INVALID_UPLOAD"), body)
            self.assertIn(text, reply.json()["detail"])
            self.assertEqual(reply.json()["instance"], "/admin/import?on_conflict=replace")
            self.assertEqual((self.read("a"), self.read("b")), (None, None))

    def test_parameters_are_checked_before_the_body_is_read(self) -> None:
        for query, text in (
            ("on_conflict=maybe", "The parameter on_conflict must be skip or fail or replace."),
            ("conflict=skip", "There is no parameter conflict."),
        ):
            reply = self.post("/admin/import?" + query, document(entry("a", b"x")))
            self.assertEqual((reply.status, reply.code), (400, "BAD_REQUEST"))
            self.assertIn(text, reply.json()["detail"])
        self.assertIsNone(self.read("a"))

    def begin(self) -> Peer:
        """Send the first half of a document."""
        peer = self.front.connect()
        begin_upload(peer, "/admin/import", document(entry("a", b"x" * 50_000))[:30_000], 60_000)
        self.front.pass_time(0.5)
        return peer

    def test_only_one_import_runs_at_a_time(self) -> None:
        if self.front_type is SiteFront:
            # The page is called when twisted.web has received the whole body.
            return
        peer = self.begin()
        reply = self.post("/admin/import", document(entry("b", b"y")))
        self.assertEqual((reply.status, reply.code), (409, "IMPORT_RUNNING"))
        peer.reset()
        self.front.pass_time(0.5)
        self.assertEqual(self.imported(document(entry("b", b"y")))["streams_imported"], 1)

    def test_a_connection_that_is_cut_during_the_body_changes_nothing(self) -> None:
        for end in (lambda peer: peer.leave(), lambda peer: peer.reset()):
            end(self.begin())
            self.front.pass_time(0.5)
            self.assertIsNone(self.read("a"))
        self.assertEqual(self.imported(document(entry("a", b"y")))["streams_imported"], 1)


class LimitTests(ImportCase):
    settings = settings_with(max_streams=4)

    def test_an_import_that_stops_says_what_was_done(self) -> None:
        body = document(*(entry(name, b"x") for name in "abcdef"))
        reply = self.post("/admin/import", body)
        self.assertEqual((reply.status, reply.code), (500, "PARTIAL_IMPORT"))
        problem = reply.json()
        completed = problem["completed"]
        self.assertEqual(problem["stream"], "abcdef"[completed])
        self.assertIn(f"after {completed} stream(s) were imported", problem["detail"])
        self.assertEqual([self.read(name) for name in "abcdef"], [b"x"] * completed + [None] * (6 - completed))
        # A second run finishes it.
        memory: Any = self.front.storage
        memory.delete("a", self.front.clock.seconds())
        memory.create("g", StreamConfig("text/plain"), b"", self.front.clock.seconds())
        memory.append("g", Append("text/plain", b"z"), self.front.clock.seconds())
        self.assertEqual(self.post("/admin/import", document(entry("b"), entry("g"))).json()["streams_skipped"], 2)
