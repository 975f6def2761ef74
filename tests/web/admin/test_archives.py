"""Backup and restore by HTTP, on each front."""

from __future__ import annotations

import re
from typing import Any

from durable_streams.server.model import Append, Fork, Lifetime, StreamConfig, Writer
from tests.support.cases import each_way
from tests.support.fronts import BASE, settings_with
from tests.web.admin.test_imports import ImportCase


@each_way
class ArchiveTests(ImportCase):
    settings = settings_with({"stall_timeout_secs": 60}, max_request_body_bytes=1000)

    def fill(self) -> None:
        """Create a stream with a writer, a fork of it, and one more."""
        now = self.front.clock.seconds()
        self.memory.create("a", StreamConfig("text/plain", Lifetime(ttl=3600)), b"", now)
        self.memory.append("a", Append("text/plain", b"one", sequence=b"5", writer=Writer("w", 7, 0)), now)
        self.memory.create("b/fork", StreamConfig(fork=Fork("a")), b"", now)
        self.memory.append("b/fork", Append("text/plain", b"two"), now)
        self.memory.create("c", StreamConfig("application/json"), b'[{"x":1}]', now)

    def empty(self) -> None:
        for name in ("b/fork", "a", "c"):
            self.memory.delete(name, self.front.clock.seconds())

    def archive(self, query: str = "") -> bytes:
        peer = self.front.follow("/admin/backup" + query)
        self.front.pass_time(2, 0.01)
        reply = peer.reply
        self.assertEqual((reply.status, reply.complete), (200, True), bytes(reply.body))
        self.assertEqual(reply.get("content-type"), "application/zstd")
        peer.reset()
        return bytes(reply.body)

    def restored(self, archive: bytes, query: str = "") -> Any:
        reply = self.post("/admin/restore" + query, archive, chunk=True)
        self.assertEqual(reply.status, 200, bytes(reply.body))
        return reply.json()

    def details(self, name: str) -> Any:
        """Return the details of a stream without the time of its last use, which a restore renews."""
        found = self.fetched(f"/admin/streams/{name}")
        return {key: value for key, value in found.items() if key not in ("used_at", "expiry")}

    def test_streams_are_restored_with_offsets_writers_and_lineage(self) -> None:
        self.fill()
        before = [self.details(name) for name in ("a", "b/fork", "c")]
        archive = self.archive()
        self.empty()
        self.assertEqual(self.restored(archive)["streams_restored"], 3)
        self.assertEqual([self.details(name) for name in ("a", "b/fork", "c")], before)
        self.assertEqual((self.read("b/fork"), self.read("c")), (b"onetwo", b'[{"x":1}]'))
        again = {"Producer-Id": "w", "Producer-Epoch": "7", "Producer-Seq": "0", "Content-Type": "text/plain"}
        self.assertEqual(self.front.ask("POST", BASE + "a", again, b"one").status, 204)
        self.assertEqual(self.read("a"), b"one")

    def test_old_offsets_are_gone_with_new_incarnations(self) -> None:
        self.fill()
        archive, old = self.archive(), self.details("a")["next_offset"]
        self.empty()
        self.front.pass_time(1)
        self.restored(archive, "?new_incarnation=true")
        self.assertEqual(self.front.ask("GET", f"{BASE}a?offset={old}").status, 410)
        self.assertEqual(self.read("a"), b"one")

    def test_streams_are_chosen_by_name_and_prefix(self) -> None:
        self.fill()
        for query, names in (("?stream=c&stream=none", "c"), ("?prefix=c", "c"), ("?stream=a&level=19", "a")):
            archive = self.archive(query)
            self.empty()
            self.assertEqual(self.restored(archive)["streams_restored"], 1, query)
            self.assertIsNotNone(self.read(names))
            self.memory.delete(names, self.front.clock.seconds())
            self.fill()

    def test_conflicts_are_handled_as_asked(self) -> None:
        self.fill()
        archive = self.archive("?stream=c")
        self.memory.append("c", Append("application/json", b"2,"), self.front.clock.seconds())
        self.assertEqual(self.restored(archive)["streams_skipped"], 1)
        reply = self.post("/admin/restore?on_conflict=fail", archive)
        self.assertEqual((reply.status, reply.code), (409, "IMPORT_CONFLICT"))
        self.assertEqual(self.read("c"), b'[{"x":1},2]')
        self.assertEqual(self.restored(archive, "?on_conflict=replace")["streams_replaced"], 1)
        self.assertEqual(self.read("c"), b'[{"x":1}]')

    def test_a_damaged_archive_changes_nothing(self) -> None:
        self.fill()
        archive = self.archive()
        self.empty()
        middle = len(archive) // 2
        for damaged in (
            b" ",
            b"no archive",
            archive[:-1],
            archive[:middle],
            archive[:middle] + bytes([archive[middle] ^ 1]) + archive[middle + 1 :],
        ):
            reply = self.post("/admin/restore", damaged)
            self.assertEqual((reply.status, reply.code), (400, "INVALID_UPLOAD"), bytes(reply.body))
            self.assertRegex(reply.json()["detail"], re.compile("^[A-Z]"))
            self.assertEqual([self.read(name) for name in ("a", "b/fork", "c")], [None] * 3)
        self.assertEqual(self.restored(archive)["streams_restored"], 3)

    def test_parameters_are_checked(self) -> None:
        for target, text in (
            ("/admin/backup?level=20", "The parameter level must be a number from 1 to 19."),
            ("/admin/backup?names=a", "There is no parameter names."),
            ("/admin/restore?new_incarnation=yes", "The parameter new_incarnation must be true or false."),
            ("/admin/restore?on_conflict=no", "The parameter on_conflict must be skip or fail or replace."),
        ):
            method = "GET" if "backup" in target else "POST"
            self.assert_refused(target, text, method)

    def test_a_head_makes_no_archive(self) -> None:
        reply = self.front.ask("HEAD", "/admin/backup")
        self.assertEqual((reply.status, bytes(reply.body)), (200, b""))
        self.assertIn("streams.tar.zst", reply.get("content-disposition") or "")
