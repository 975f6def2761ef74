from __future__ import annotations

import io
import json
from base64 import b64decode
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from durable_streams.server.errors import StorageFull, StreamNotFound, Unavailable
from durable_streams.server.interfaces import NowOrLater, settle
from durable_streams.server.model import (
    START,
    Append,
    Appended,
    Fork,
    Lifetime,
    StorageLimits,
    StreamConfig,
    StreamRestoration,
    StreamStatus,
)
from durable_streams.server.protocol.messages import wire_form
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.streams import Streams
from durable_streams.server.transfer import (
    Conflict,
    ConflictPolicy,
    ImportLimits,
    ImportStats,
    InvalidBase64,
    InvalidDocument,
    MessageTooLarge,
    PartialImport,
    Progress,
    UnsupportedVersion,
    export_streams,
    import_streams,
)
from tests.support.transfers import RECORDED, TransferCase, document_object, pieces, pretty, stream_object


class FailingStreams(Streams):
    """Streams that call a function before each append and installation."""

    def __init__(self, clock: Any, before: Callable[[str], object], limits: StorageLimits | None = None) -> None:
        super().__init__(MemoryStorage(limits or StorageLimits()), clock)
        self.before = before

    def append(self, name: str, append: Append) -> NowOrLater[Appended]:
        self.before(name)
        return super().append(name, append)

    def install(
        self, staged: str, name: str, restoration: StreamRestoration, replace: bool
    ) -> NowOrLater[StreamStatus]:
        self.before(name)
        return super().install(staged, name, restoration, replace)


class ImportCase(TransferCase):
    def imported(
        self, document: dict[str, Any] | bytes, policy: ConflictPolicy = "skip", **options: Any
    ) -> ImportStats:
        """Import a document."""
        data = document if isinstance(document, bytes) else pretty(document)
        options = {"reactor": self.clock, "directory": self.directory} | options
        return self.run_to_end(import_streams(self.streams, pieces(data), policy, **options))

    def kept(self) -> dict[str, Any]:
        """Export all streams, and return them by name, without their times."""
        out = io.BytesIO()
        self.run_to_end(export_streams(self.streams, out, reactor=self.clock, directory=self.directory))
        streams = {}
        for stream in json.loads(out.getvalue())["streams"]:
            del stream["created_at"], stream["updated_at"]
            streams[stream["name"]] = stream
        return streams

    def messages(self, name: str) -> list[bytes]:
        """Return the messages of a stream."""
        return [b64decode(entry["data_base64"]) for entry in self.kept()[name]["messages"]]

    def nothing_is_left(self) -> None:
        """Assert that no staged stream is left, and no file."""
        listed = self.run_to_end(Deferred.fromCoroutine(settle(self.streams.statuses("", 1000))))
        self.assertEqual(len(listed), self.streams.figures().streams)
        self.assertEqual([], self.left_files())


class ImportTests(ImportCase):
    def test_what_was_exported_is_imported(self) -> None:
        self.make("bytes", "text/plain", b"one", b"two")
        self.make("json", "application/json", b'[{"a": 1}, "x y"]', b"[[1, 2]]", close=True)
        self.make("closed", "text/plain", created_closed=True)
        self.make("empty", "application/json")
        self.make("ttl", lifetime=Lifetime(ttl=60))
        self.make("at", lifetime=Lifetime(expires_at=1_900_000_000.25))
        self.make("fork", "text/plain", b"!", fork=Fork("bytes"))
        before = self.kept()
        out = io.BytesIO()
        self.run_to_end(export_streams(self.streams, out, reactor=self.clock, directory=self.directory))
        self.streams = self.started(Streams(MemoryStorage(), self.clock))
        self.assertEqual(ImportStats(7, 0, 8, 30), self.imported(out.getvalue()))
        self.assertEqual(before, self.kept())
        self.nothing_is_left()

    def test_a_document_of_the_rust_server_is_imported_as_it_is(self) -> None:
        self.assertEqual(ImportStats(11, 0, 13, 178), self.imported(RECORDED.read_bytes()))
        expected = {stream["name"]: stream for stream in json.loads(RECORDED.read_bytes())["streams"]}
        kept = self.kept()
        # A fork's own numbers leave out what it has from its source; a TTL begins again; times have microseconds.
        for name in ("fork", "ttl", "expires"):
            expected.pop(name)
            self.assertEqual(name, kept.pop(name)["name"])
        for stream in expected.values():
            del stream["created_at"], stream["updated_at"]
        self.assertEqual(expected, kept)

    def test_a_file_is_imported(self) -> None:
        path = self.mktemp()
        with open(path, "wb") as file:
            file.write(pretty(document_object(stream_object("a", "text/plain", b"1"))))
        seen: list[Progress] = []
        with open(path, "rb") as file:
            size = len(file.read())
            file.seek(0)
            options = {"reactor": self.clock, "directory": self.directory}
            self.run_to_end(import_streams(self.streams, file, progress=seen.append, **options))
        self.assertEqual([b"1"], self.messages("a"))
        self.assertEqual(Progress("validating", 1, None, 1, size, size), seen[0])
        self.assertEqual(Progress("importing", 1, 1, 1, 1, 1), seen[-1])

    def test_message_boundaries_are_kept(self) -> None:
        self.imported(document_object(stream_object("a", "text/plain", b"one", b"", b"two")))
        self.assertEqual([b"one", b"two"], self.messages("a"))
        many = [b'"%d"' % number for number in range(50_000)]
        self.imported(document_object(stream_object("b", "application/json", *many)))
        self.assertEqual(many, self.messages("b"))

    def test_a_creation_is_compared_with_how_the_stream_was_created(self) -> None:
        self.imported(
            document_object(stream_object("a", config={"created_closed": True, "ttl_seconds": 9}, closed=True))
        )
        record = self.run_to_end(Deferred.fromCoroutine(settle(self.streams.record("a"))))
        self.assertEqual(StreamConfig("text/plain", Lifetime(ttl=9), True), record.config)
        self.assertTrue(record.closed)

    def test_a_stream_may_be_open_although_it_was_created_closed(self) -> None:
        self.imported(document_object(stream_object("a", config={"created_closed": True}, closed=False)))
        record = self.run_to_end(Deferred.fromCoroutine(settle(self.streams.record("a"))))
        self.assertEqual((True, False), (record.config.closed, record.closed))

    def test_a_ttl_begins_again(self) -> None:
        config = {"ttl_seconds": 60, "expires_at": "2020-01-01T00:00:00Z"}
        self.imported(document_object(stream_object("a", config=config)))
        self.clock.advance(59)
        self.assertIn("a", self.kept())
        self.clock.advance(2)
        self.assertNotIn("a", self.kept())

    def test_a_stream_that_has_expired_is_imported_as_expired(self) -> None:
        expired = stream_object("a", "text/plain", b"x", config={"expires_at": "2020-01-01T00:00:00Z"})
        zero = stream_object("c", config={"ttl_seconds": 0})
        stats = self.imported(document_object(expired, stream_object("b"), zero))
        self.assertEqual(3, stats.streams_imported)
        self.assertEqual(["b"], list(self.kept()))
        for policy in ("fail", "replace", "skip"):
            self.streams.delete("b")
            self.assertEqual(
                3, self.imported(document_object(expired, stream_object("b"), zero), policy).streams_imported
            )

    def test_an_imported_stream_can_be_appended_to_and_has_new_offsets(self) -> None:
        self.make("a", "text/plain", b"old")
        before = self.run_to_end(Deferred.fromCoroutine(settle(self.streams.status("a"))))
        self.imported(document_object(stream_object("a", "text/plain", b"new")), "replace")
        after = self.run_to_end(Deferred.fromCoroutine(settle(self.streams.status("a"))))
        self.assertGreater(after.facts.incarnation, before.facts.incarnation)
        self.make("a", "text/plain", b"more")
        self.assertEqual([b"new", b"more"], self.messages("a"))

    def test_a_service_that_is_not_open_is_refused_before_anything_is_read(self) -> None:
        def unread() -> AsyncIterator[bytes]:
            raise AssertionError("the source was read")

        self.streams = Streams(MemoryStorage(), self.clock)
        self.assertRaises(Unavailable, self.run_to_end, import_streams(self.streams, unread, reactor=self.clock))  # type: ignore[arg-type]

    def test_an_unknown_policy_is_refused(self) -> None:
        error = self.assertRaises(ValueError, import_streams, self.streams, pieces(b""), "merge", reactor=self.clock)
        self.assertIn("skip, fail, replace", str(error))


class PolicyTests(ImportCase):
    def setUp(self) -> None:
        super().setUp()
        self.make("b", "text/plain", b"old")
        self.document = document_object(*(stream_object(name, "text/plain", b"new") for name in "abc"))

    def test_skip_leaves_streams_that_exist(self) -> None:
        skipped: list[str] = []
        self.assertEqual(ImportStats(2, 1, 2, 6), self.imported(self.document, skipped=skipped.append))
        self.assertEqual(["b"], skipped)
        self.assertEqual([[b"new"], [b"old"], [b"new"]], [self.messages(name) for name in "abc"])
        self.assertEqual(ImportStats(0, 3), self.imported(self.document))
        self.nothing_is_left()

    def test_fail_writes_nothing_if_a_stream_exists(self) -> None:
        before = self.kept()
        error = self.assertRaises(Conflict, self.imported, self.document, "fail")
        self.assertIn("import conflict: stream 'b' already exists. Nothing was written.", str(error))
        self.assertEqual("b", error.stream)
        self.assertEqual(before, self.kept())
        self.streams.delete("b")
        self.assertEqual(3, self.imported(self.document, "fail").streams_imported)

    def test_replace_replaces_streams_that_exist(self) -> None:
        self.assertEqual(ImportStats(3, 0, 3, 9), self.imported(self.document, "replace"))
        self.assertEqual([[b"new"]] * 3, [self.messages(name) for name in "abc"])
        self.nothing_is_left()

    def test_a_fork_or_its_source_is_not_replaced_and_nothing_is_written(self) -> None:
        self.make("fork", fork=Fork("b"))
        before = self.kept()
        for name, reason in (("b", "has forks"), ("fork", "is a fork")):
            error = self.assertRaises(
                Conflict, self.imported, document_object(stream_object("a"), stream_object(name)), "replace"
            )
            self.assertIn(f"stream '{name}' {reason}", str(error))
        self.assertEqual(before, self.kept())
        self.assertEqual(ImportStats(2, 1, 2, 6), self.imported(self.document))

    def test_a_name_that_is_blocked_by_forks_is_refused_before_anything_is_written(self) -> None:
        self.make("fork", fork=Fork("b"))
        self.streams.delete("b")
        before = self.kept()
        for policy in ("skip", "fail", "replace"):
            error = self.assertRaises(Conflict, self.imported, self.document, policy)
            self.assertIn("stream 'b' was deleted, but has forks. Nothing was written. Delete the forks", str(error))
        self.assertEqual(before, self.kept())


class BadDocumentTests(ImportCase):
    def test_a_bad_document_changes_nothing(self) -> None:
        self.make("kept", "text/plain", b"old")
        before = self.kept()
        good = stream_object("a", "text/plain", b"new")
        bad_base64 = stream_object("z", "text/plain", b"x")
        bad_base64["messages"][0]["data_base64"] = "x"
        replaced = stream_object("kept", "text/plain", b"new")
        last_version = document_object(good, replaced)
        last_version["format_version"] = last_version.pop("format_version") + 1
        for document, kind in (
            (document_object(good, replaced, bad_base64), InvalidBase64),
            (document_object(good, replaced, good), InvalidDocument),
            (document_object(good, replaced, stream_object("z", "application/json", b"{")), InvalidDocument),
            (last_version, UnsupportedVersion),
            (pretty(document_object(good, replaced))[:-1], InvalidDocument),
            (document_object(good, replaced, stream_object("z", "text/plain", bytes(2000))), MessageTooLarge),
        ):
            for policy in ("skip", "fail", "replace"):
                self.assertRaises(kind, self.imported, document, policy, limits=ImportLimits(message_bytes=1000))
        self.assertEqual(before, self.kept())
        self.nothing_is_left()

    def test_an_error_of_the_source_changes_nothing(self) -> None:
        async def broken() -> AsyncIterator[bytes]:
            yield pretty(document_object(stream_object("a")))[:100]
            raise ConnectionResetError("gone")

        run = import_streams(self.streams, broken(), reactor=self.clock, directory=self.directory)
        self.assertRaises(ConnectionResetError, self.run_to_end, run)
        self.nothing_is_left()


class FailureTests(ImportCase):
    def failing(self, before: Callable[[str], object], limits: StorageLimits | None = None) -> None:
        """Use streams that call a function before each append and installation."""
        self.streams = self.started(FailingStreams(self.clock, before, limits))

    def test_a_failure_in_the_middle_says_what_was_done_and_a_second_run_finishes_it(self) -> None:
        document = document_object(*(stream_object(name, "text/plain", name.encode() * 400) for name in "abcd"))
        self.failing(lambda _: None, StorageLimits(total_bytes=1000))
        error = self.assertRaises(PartialImport, self.imported, document)
        self.assertEqual(("c", 2), (error.stream, error.completed))
        self.assertIsInstance(error.source, StorageFull)
        self.assertIn("stopped at stream 'c', after 2 stream(s) were imported: All streams together", str(error))
        self.assertIn("import the same document again.", str(error))
        self.assertEqual(["a", "b"], list(self.kept()))
        self.nothing_is_left()
        kept = self.streams
        self.streams = self.started(Streams(MemoryStorage(), self.clock))
        self.imported(document_object(*document["streams"][:2]))
        self.assertEqual(ImportStats(2, 2, 2, 800), self.imported(document))
        self.assertEqual(list("abcd"), list(self.kept()))
        self.assertEqual(2, len(self.run_to_end(Deferred.fromCoroutine(settle(kept.statuses("", 10))))))

    def test_a_replacement_that_fails_leaves_the_stream_as_it_was(self) -> None:
        self.failing(lambda _: None, StorageLimits(total_bytes=1000))
        self.make("b", "text/plain", b"o" * 500)
        document = document_object(*(stream_object(name, "text/plain", b"n" * 400) for name in "ab"))
        error = self.assertRaises(PartialImport, self.imported, document, "replace")
        self.assertEqual(("b", 1), (error.stream, error.completed))
        self.assertEqual([[b"n" * 400], [b"o" * 500]], [self.messages(name) for name in "ab"])
        self.nothing_is_left()

    def test_a_stream_that_is_created_meanwhile_is_skipped_or_a_conflict(self) -> None:
        def create(name: str) -> None:
            if name == "b":
                self.streams.create("b", StreamConfig("text/plain"), b"theirs")

        document = document_object(*(stream_object(name, "text/plain", b"ours") for name in "abc"))
        self.failing(create)
        self.assertEqual(ImportStats(2, 1, 2, 8), self.imported(document))
        self.failing(create)
        error = self.assertRaises(PartialImport, self.imported, document, "fail")
        self.assertIsInstance(error.source, Conflict)
        self.assertIn("stream 'b' already exists", str(error))
        self.assertIn("again with the policy skip", str(error))
        self.assertEqual([b"theirs"], self.messages("b"))
        self.nothing_is_left()

    def test_a_storage_that_is_overloaded_is_tried_again(self) -> None:
        failures = [Unavailable("busy")] * 2

        def refuse(name: str) -> None:
            if failures:
                raise failures.pop()

        self.failing(refuse)
        run = import_streams(
            self.streams,
            pieces(pretty(document_object(stream_object("a", "text/plain", b"1", b"2")))),
            reactor=self.clock,
        )
        for _ in range(2000):
            self.clock.advance(0.001)
        self.assertEqual(1, self.successResultOf(run).streams_imported)
        self.assertEqual([b"1", b"2"], self.messages("a"))
        self.nothing_is_left()

    def test_an_import_waits_while_the_storage_is_congested(self) -> None:
        self.failing(lambda _: None)
        congested = [True]
        self.patch(self.streams, "congested", lambda: congested[0])
        document = pretty(document_object(stream_object("a", "text/plain", b"1")))
        run = import_streams(self.streams, pieces(document), reactor=self.clock, directory=self.directory)
        for _ in range(100):
            self.clock.advance(0.1)
        self.assertNoResult(run)
        congested[0] = False
        self.clock.advance(1)
        self.assertEqual(1, self.run_to_end(run).streams_imported)

    def test_a_cancelled_import_leaves_only_whole_streams(self) -> None:
        runs: list[Deferred[ImportStats]] = []

        def cancel(name: str) -> None:
            if name.startswith("__ds") and self.has("a"):
                self.clock.callLater(0, runs[0].cancel)

        self.failing(cancel)
        # Each look at the time ends a slice.
        self.patch(self.streams.turns, "seconds", count().__next__)
        document = document_object(*(stream_object(name, "text/plain", *[b"x" * 9000] * 50) for name in "abc"))
        runs.append(
            import_streams(self.streams, pieces(pretty(document)), reactor=self.clock, directory=self.directory)
        )
        self.assertRaises(CancelledError, self.run_to_end, runs[0])
        self.assertEqual(["a"], list(self.kept()))
        self.nothing_is_left()

    def has(self, name: str) -> bool:
        """Return whether there is a stream."""
        try:
            self.streams.status(name)
        except StreamNotFound:
            return False
        return True

    def test_an_append_that_is_refused_leaves_nothing(self) -> None:
        def refuse(name: str) -> None:
            raise StorageFull(name, 5)

        self.failing(refuse)
        document = document_object(stream_object("a", "text/plain", b"1"))
        error = self.assertRaises(PartialImport, self.imported, document)
        self.assertEqual(0, error.completed)
        self.nothing_is_left()


class ReaderTests(ImportCase):
    def test_a_waiting_reader_of_a_replaced_stream_is_woken(self) -> None:
        self.make("a", "text/plain", b"old")
        woken: list[str] = []
        self.streams.watch("a", lambda: woken.append("a"))
        self.imported(document_object(stream_object("a", "application/json", b"[1]")), "replace")
        self.clock.advance(0)
        self.assertEqual(["a"], list(dict.fromkeys(woken)))
        chunk = self.run_to_end(Deferred.fromCoroutine(settle(self.streams.read("a", START, 100))))
        self.assertEqual((b"[1],", wire_form(b"[[1]]")), (chunk.data, b"[1],"))
