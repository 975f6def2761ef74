from __future__ import annotations

import io
import json
from base64 import b64decode
from collections.abc import Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from durable_streams.server.errors import DataDamaged, Unavailable
from durable_streams.server.interfaces import NowOrLater
from durable_streams.server.model import Fork, Lifetime, StreamFacts
from durable_streams.server.protocol.messages import compact
from durable_streams.server.release import version_of_server
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.streams import Streams
from durable_streams.server.transfer import ExportFailed, ExportStats, Progress, export_streams
from durable_streams.server.transfer.pieces import PIECE
from tests.protocol.samples import examples, json_arrays
from tests.support.transfers import TransferCase, document_object, pretty, stream_object


class _ChangingStreams(Streams):
    """Streams of which one changes when its appends are asked for."""

    def __init__(self, clock: Clock, error: type[Exception] | None = None) -> None:
        super().__init__(MemoryStorage(), clock)
        self._error = error

    def append_ends(
        self, facts: StreamFacts, start: int, max_count: int, hidden: bool = False
    ) -> NowOrLater[Sequence[int]]:
        if facts.name == "changing":
            if self._error is not None:
                raise self._error(facts.name)
            self.delete(facts.name)
        return super().append_ends(facts, start, max_count, hidden)


class ExportCase(TransferCase):
    def document(self, names: list[str] | None = None) -> Any:
        """Export streams, and parse the document."""
        out = io.BytesIO()
        self.run_to_end(export_streams(self.streams, out, names, reactor=self.clock, directory=self.directory))
        return json.loads(out.getvalue())

    def text(self) -> bytes:
        """Export all streams into memory."""
        out = io.BytesIO()
        self.run_to_end(export_streams(self.streams, out, reactor=self.clock, directory=self.directory))
        return out.getvalue()


class ExportTests(ExportCase):
    def expected(self, *streams: dict[str, Any]) -> bytes:
        changes = {"created_at": "2027-01-15T08:00:00Z"}
        document = document_object(
            *(stream | changes for stream in streams),
            exported_at="2027-01-15T08:00:00Z",
            server_version=version_of_server(),
        )
        return pretty(document)

    def test_an_empty_storage_is_a_document_without_streams(self) -> None:
        self.assertEqual(self.expected().decode(), self.text().decode())

    def test_each_append_of_a_byte_stream_is_an_entry(self) -> None:
        self.make("b", "Text/Plain; charset=utf-8", b"one", b"two")
        self.make("a", "application/octet-stream", bytes(range(256)))
        expected = self.expected(
            stream_object("a", "application/octet-stream", bytes(range(256))),
            stream_object("b", "text/plain", b"one", b"two"),
        )
        self.assertEqual(expected.decode(), self.text().decode())

    def test_each_message_of_a_json_stream_is_an_entry_of_compact_text(self) -> None:
        self.make("a", "application/json", b'[{"b": 1.50,\n"a" : [1, 2]}, "x y"]', b" null ", b"[[1 , 2]]")
        stream = stream_object("a", "application/json", b'{"b":1.50,"a":[1,2]}', b'"x y"', b"null", b"[1,2]")
        self.assertEqual(self.expected(stream).decode(), self.text().decode())

    def test_closures_are_told_apart(self) -> None:
        self.make("a", created_closed=True)
        self.make("b", "text/plain", b"x", close=True)
        expected = self.expected(
            stream_object("a", config={"created_closed": True}, closed=True),
            stream_object("b", "text/plain", b"x", closed=True),
        )
        self.assertEqual(expected.decode(), self.text().decode())

    def test_a_ttl_is_written_with_the_time_at_which_it_ends(self) -> None:
        self.make("a", lifetime=Lifetime(ttl=60))
        self.make("b", lifetime=Lifetime(expires_at=2_000_000_000.5))
        expected = self.expected(
            stream_object("a", config={"ttl_seconds": 60, "expires_at": "2027-01-15T08:01:00Z"}),
            stream_object("b", config={"expires_at": "2033-05-18T03:33:20.500Z"}),
        )
        self.assertEqual(expected.decode(), self.text().decode())

    def test_a_fork_is_written_with_what_it_has_from_its_source(self) -> None:
        self.make("source", "text/plain", b"one", b"two")
        self.make("fork", "text/plain", b"!", fork=Fork("source"))
        document = self.document(["fork"])
        self.assertEqual(
            [b"one", b"two", b"!"], [b64decode(entry["data_base64"]) for entry in document["streams"][0]["messages"]]
        )
        self.assertEqual(3, document["streams"][0]["message_count"])

    def test_an_append_after_the_creation_is_the_last_update(self) -> None:
        self.make("a")
        self.clock.advance(1.25)
        self.make("a", "text/plain", b"x")
        self.assertEqual("2027-01-15T08:00:01.250Z", self.document()["streams"][0]["updated_at"])

    def test_named_streams_are_exported_once_each_in_the_order_of_names(self) -> None:
        for name in ("a", "b", "c", "__ds/import/x"):
            self.make(name)
        document = self.document(["c", "nothing", "a", "c", "__ds/import/x", "a//b", ""])
        self.assertEqual(["a", "c"], [stream["name"] for stream in document["streams"]])

    def test_deleted_expired_and_reserved_streams_are_not_exported(self) -> None:
        for name in ("deleted", "kept", "__ds/x"):
            self.make(name)
        self.make("expired", lifetime=Lifetime(ttl=1))
        self.make("fork", fork=Fork("deleted"))
        self.streams.delete("deleted")
        self.clock.advance(2)
        self.assertEqual(["fork", "kept"], [stream["name"] for stream in self.document()["streams"]])

    def test_more_streams_than_a_page_are_in_the_order_of_names(self) -> None:
        names = [f"s{number}" for number in range(1203)]
        for name in names:
            self.make(name)
        self.assertEqual(sorted(names), [stream["name"] for stream in self.document()["streams"]])

    def test_an_append_and_a_stream_larger_than_a_piece_are_whole(self) -> None:
        long = bytes(range(256)) * (PIECE // 64)
        many = [b"%d" % number * 50 for number in range(9000)]
        self.make("long", "text/plain", b"a", long, b"b", long[:-1])
        self.make("many", "text/plain", *many)
        self.make("json", "application/json", b"[" + b",".join(b'"%s"' % each for each in many) + b"]")
        expected = self.expected(
            stream_object("json", "application/json", *(b'"%s"' % each for each in many)),
            stream_object("long", "text/plain", b"a", long, b"b", long[:-1]),
            stream_object("many", "text/plain", *many),
        )
        self.assertTrue(expected == self.text(), "the documents differ")
        self.assertEqual([], self.left_files())

    @examples(40)
    @given(st.lists(json_arrays(), max_size=4))
    def test_json_messages_keep_their_meaning(self, bodies: list[tuple[bytes, list[bytes]]]) -> None:
        self.setUp()
        self.make("a", "application/json", *(body for body, _ in bodies))
        entries = self.document()["streams"][0]["messages"]
        expected = [compact(element) for _, elements in bodies for element in elements]
        self.assertEqual(expected, [b64decode(entry["data_base64"]) for entry in entries])


class MeanwhileTests(ExportCase):
    def setUp(self) -> None:
        super().setUp()
        self.progress: list[Progress] = []

    def test_a_stream_that_is_deleted_meanwhile_is_left_out(self) -> None:
        self.streams = self.started(_ChangingStreams(self.clock))
        for name in ("a", "changing", "z"):
            self.make(name, "text/plain", b"x")
        self.assertEqual(["a", "z"], [stream["name"] for stream in self.document()["streams"]])

    def test_a_damaged_stream_ends_the_export_with_its_name(self) -> None:
        self.streams = self.started(_ChangingStreams(self.clock, DataDamaged))
        self.make("changing", "text/plain", b"x")
        error = self.assertRaises(ExportFailed, self.document)
        self.assertIn("stream 'changing' cannot be exported", str(error))
        self.assertIn("incomplete", str(error))
        self.assertEqual("changing", error.stream)

    def test_what_is_appended_meanwhile_is_not_exported(self) -> None:
        self.make("a", "text/plain", *[b"x" * 1000] * 1000)
        out: list[bytes] = []

        def take(piece: bytes) -> None:
            out.append(piece)
            self.make("a", "text/plain", b"later")

        self.run_to_end(export_streams(self.streams, take, reactor=self.clock, directory=self.directory))
        [stream] = json.loads(b"".join(out))["streams"]
        self.assertEqual((1000, 1000), (stream["message_count"], len(stream["messages"])))
        self.assertGreater(len(out), 10)

    def test_an_export_waits_for_its_destination(self) -> None:
        self.make("a", "text/plain", *[b"x" * 1000] * 1000)
        waiting: list[Deferred[None]] = []

        def take(piece: bytes) -> Deferred[None]:
            waiting.append(Deferred())
            return waiting[-1]

        export = export_streams(self.streams, take, reactor=self.clock, directory=self.directory)
        for _ in range(1000):
            self.clock.advance(0)
        self.assertEqual(1, len(waiting))
        while waiting:
            waiting.pop().callback(None)
            for _ in range(1000):
                self.clock.advance(0)
        self.assertEqual(ExportStats(1, 1000, 1_000_000), self.successResultOf(export))

    def test_a_cancelled_export_ends_and_leaves_no_file(self) -> None:
        self.make("a", "text/plain", *[b"x" * 1000] * 1000)
        export = export_streams(self.streams, lambda _: Deferred(), reactor=self.clock, directory=self.directory)
        for _ in range(1000):
            self.clock.advance(0)
        export.cancel()
        self.failureResultOf(export, CancelledError)
        self.assertEqual([], self.left_files())

    def test_an_error_of_the_destination_ends_the_export(self) -> None:
        class Full(io.BytesIO):
            def write(self, _: Any) -> int:
                raise OSError(28, "No space left on device")

        export = export_streams(self.streams, Full(), reactor=self.clock, directory=self.directory)
        self.assertRaises(OSError, self.run_to_end, export)

    def test_a_file_that_takes_little_at_once_gets_all(self) -> None:
        class Slow(io.BytesIO):
            def write(self, data: Any) -> int:
                return super().write(bytes(data)[:7])

        self.make("a", "text/plain", b"x" * 1000)
        out = Slow()
        self.run_to_end(export_streams(self.streams, out, reactor=self.clock, directory=self.directory))
        self.assertEqual("a", json.loads(out.getvalue())["streams"][0]["name"])

    def test_progress_ends_with_all_that_is_exported(self) -> None:
        for number in range(3):
            self.make(f"s{number}", "text/plain", b"x" * 10, b"y")
        export = export_streams(
            self.streams, lambda _: None, progress=self.progress.append, reactor=self.clock, directory=self.directory
        )
        self.run_to_end(export)
        self.assertEqual(Progress("exporting", 3, 3, 6, 33, 33), self.progress[-1])

    def test_a_service_that_is_not_open_cannot_be_exported(self) -> None:
        export = export_streams(Streams(MemoryStorage(), self.clock), io.BytesIO(), reactor=self.clock)
        self.assertRaises(Unavailable, self.run_to_end, export)
