"""Exports by HTTP, on each front."""

from __future__ import annotations

import json
from typing import Any

from durable_streams.server.model import Append, StreamConfig
from durable_streams.server.web.site.admin import exports
from tests.support.admin import AdminCase
from tests.support.cases import each_way, each_way_in_turn

#: The most that may be rendered of an answer that its client does not read.
MAX_RENDERED = 600_000


class ExportCase(AdminCase):
    def create(self, name: str, *messages: bytes, content_type: str = "text/plain", closed: bool = False) -> None:
        memory = self.memory
        now = self.front.clock.seconds()
        memory.create(name, StreamConfig(content_type), b"", now)
        for message in messages:
            memory.append(name, Append(content_type, message), now)
        if closed:
            memory.append(name, Append(None, b"", close=True), now)

    def exported(self, query: str = "") -> Any:
        return self.fetched("/admin/export" + query)


@each_way
class ExportTests(ExportCase):
    def names(self, query: str = "") -> list[str]:
        return [stream["name"] for stream in self.exported(query)["streams"]]

    def test_a_server_without_streams_exports_an_empty_document(self) -> None:
        document = self.exported()
        self.assertEqual((document["format_version"], document["streams"]), (1, []))

    def test_all_streams_are_exported_with_their_messages(self) -> None:
        self.create("b", b"one", b"two", closed=True)
        self.create("a", b'{"x":1},2,', content_type="application/json")
        first, second = self.exported()["streams"]
        self.assertEqual((first["name"], first["message_count"], first["closed"]), ("a", 2, False))
        self.assertEqual([each["data_base64"] for each in second["messages"]], ["b25l", "dHdv"])
        self.assertEqual((second["name"], second["closed"]), ("b", True))

    def test_named_streams_are_exported_and_unknown_names_ignored(self) -> None:
        for name in ("a", "b", "c/d e"):
            self.create(name, b"x")
        self.assertEqual(self.names("?stream=b&stream=c/d%20e&stream=none"), ["b", "c/d e"])
        self.assertEqual(self.names("?stream=none"), [])
        self.assertEqual(self.names("?stream="), ["a", "b", "c/d e"])

    def test_a_head_exports_nothing(self) -> None:
        self.create("a", b"x")
        reply = self.front.ask("HEAD", "/admin/export")
        self.assertEqual((reply.status, bytes(reply.body)), (200, b""))
        self.assertIn("filename", reply.get("content-disposition") or "")

    def test_unknown_parameters_are_refused(self) -> None:
        self.assert_refused("/admin/export?name=a", "There is no parameter name. This page has stream.")


@each_way_in_turn
class SlowExportTests(ExportCase):
    def test_a_document_is_rendered_as_fast_as_its_reader_reads(self) -> None:
        for number in range(40):
            self.create(f"s{number:02d}", b"x" * 100_000)
        rendered = self.count_rendered()
        peer = self.front.follow("/admin/export", room=2000)
        self.front.pass_time(2)
        self.assertLess(sum(rendered), MAX_RENDERED)
        for _ in range(2000):
            peer.take_all()
            self.front.pass_time(0.02, 0.01)
            if peer.reply.complete:
                break
        self.assertEqual(len(json.loads(bytes(peer.reply.body))["streams"]), 40)
        self.assertGreater(sum(rendered), 5_000_000)

    def test_a_reader_that_disconnects_ends_the_export(self) -> None:
        for number in range(40):
            self.create(f"s{number:02d}", b"x" * 100_000)
        rendered = self.count_rendered()
        peer = self.front.follow("/admin/export", room=2000)
        self.front.pass_time(1)
        before = sum(rendered)
        peer.leave()
        self.front.pass_time(1)
        self.assertEqual(sum(rendered), before)
        self.assertEqual(rendered[-1], 0, "the export was not closed")

    def count_rendered(self) -> list[int]:
        """Note the sizes of pieces; 0 when the export is closed."""
        sizes: list[int] = []
        generated = exports._generated

        async def noting(pieces: Any) -> Any:
            try:
                async for piece in generated(pieces):
                    sizes.append(len(piece))
                    yield piece
            finally:
                sizes.append(0)

        self.patch(exports, "_generated", noting)
        return sizes
