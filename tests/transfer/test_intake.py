from __future__ import annotations

import os
import stat
from base64 import b64encode
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from durable_streams.server.protocol.messages import compact
from durable_streams.server.transfer.context import Context, spool_directory
from durable_streams.server.transfer.document import StreamEntry
from durable_streams.server.transfer.errors import (
    InvalidBase64,
    InvalidDocument,
    InvalidJsonMessage,
    MessageTooLarge,
    SpoolFailed,
    TransferError,
)
from durable_streams.server.transfer.intake import Batch, Intake
from durable_streams.server.transfer.limits import ImportLimits
from durable_streams.server.transfer.spool import private_file
from tests.protocol.samples import examples, json_texts
from tests.support.transfers import TransferCase, document_object, pretty, stream_object

#: A stream, and its appends.
Taken = list[tuple[StreamEntry, list[Batch]]]

LIMITS = ImportLimits(message_bytes=3_000_000)


class IntakeCase(TransferCase):
    def taken(self, document: dict[str, Any] | bytes, size: int = 10_000, limits: ImportLimits = LIMITS) -> Taken:
        """Take a document, and return what would be imported."""
        data = document if isinstance(document, bytes) else pretty(document)
        return self.run_to_end(self._take(data, size, limits))

    async def _take(self, data: bytes, size: int, limits: ImportLimits) -> Taken:
        intake = Intake(Context(self.streams, self.clock), limits, self.directory)
        try:
            for start in range(0, len(data), size):
                await intake.feed(data[start : start + size])
            await intake.finish()
            return [
                (spooled.entry, [batch async for batch in intake.batches(spooled)])
                async for page in intake.index.pages()
                for spooled in page
            ]
        finally:
            await intake.close()

    def refused(self, document: dict[str, Any] | bytes, phrase: str, kind: type[TransferError]) -> None:
        """Assert that a document is refused, and that nothing is left of it."""
        error = self.assertRaises(kind, self.taken, document)
        self.assertIn(phrase, str(error))
        self.assertEqual([], self.left_files())


class IntakeTests(IntakeCase):
    def test_each_entry_of_a_byte_stream_is_an_append(self) -> None:
        long = bytes(range(256)) * 10_000
        document = document_object(stream_object("b", "text/plain", b"one", b"", b"two", long), stream_object("a"))
        batches = [Batch(1, b"one"), Batch(1, b""), Batch(1, b"two"), Batch(1, long)]
        expected = [(StreamEntry("b", "text/plain"), batches), (StreamEntry("a", "text/plain"), [])]
        self.assertEqual(expected, self.taken(document))
        self.assertEqual([], self.left_files())

    def test_entries_of_a_json_stream_are_joined_to_appends_of_bounded_size(self) -> None:
        values = [b'{"number": %d}' % number for number in range(20_000)]
        [(_, batches)] = self.taken(document_object(stream_object("a", "application/json", *values)))
        self.assertEqual(20_000, sum(batch.messages for batch in batches))
        self.assertEqual(
            b"".join(value.replace(b" ", b"") + b"," for value in values), b"".join(b.data for b in batches)
        )
        self.assertLess(max(len(batch.data) for batch in batches), 140_000)

    def test_an_array_is_one_message(self) -> None:
        [(_, batches)] = self.taken(document_object(stream_object("a", "application/json", b"[1, 2]", b"[]")))
        self.assertEqual([Batch(2, b"[1,2],[],")], batches)

    def test_messages_may_come_before_their_content_type(self) -> None:
        document = document_object(
            stream_object("a", "application/json", b"[1, 2]", b' {"a" : "b"}'), stream_object("b", "text/plain", b"{")
        )
        for stream in document["streams"]:
            stream["config"] = stream.pop("config")
        [(_, json_batches), (_, text_batches)] = self.taken(document)
        self.assertEqual([Batch(2, b'[1,2],{"a":"b"},')], json_batches)
        self.assertEqual([Batch(1, b"{")], text_batches)
        document["streams"][0]["messages"].append({"data_base64": b64encode(b"1 2").decode()})
        self.refused(document, "message 3 of stream 'a' is not one JSON value", InvalidJsonMessage)

    @examples(60)
    @given(st.lists(json_texts, max_size=5))
    def test_json_values_are_taken_as_compact_text(self, texts: list[str]) -> None:
        values = [text.encode() for text in texts]
        [(_, batches)] = self.taken(document_object(stream_object("a", "application/json", *values)))
        self.assertEqual(b"".join(compact(v) + b"," for v in values), b"".join(batch.data for batch in batches))

    @examples(60)
    @given(st.lists(st.binary(max_size=100), max_size=5), st.integers(1, 200))
    def test_bytes_are_taken_as_they_are(self, values: list[bytes], size: int) -> None:
        [(_, batches)] = self.taken(document_object(stream_object("a", "text/plain", *values)), size)
        self.assertEqual(values, [batch.data for batch in batches])


class RefusalTests(IntakeCase):
    def test_bad_base64_in_the_last_stream_is_refused(self) -> None:
        for text in (
            "M",
            "MQ",
            "MQ=",
            "MR==",
            "MQ==\n",
            "M Q==",
            "MQ==MQ==",
            "====",
            "MQ-_",
            "\u00e9QQQ",
            "MTE",
            "MTF=x",
        ):
            last = stream_object("z", "text/plain", b"fine")
            last["messages"].append({"offset": "", "data_base64": text})
            document = document_object(stream_object("a", "text/plain", b"1"), last)
            self.refused(document, "message 2 of stream 'z' is not padded standard base64", InvalidBase64)

    def test_bad_base64_anywhere_in_a_long_message_is_refused(self) -> None:
        good = b64encode(bytes(2_500_000)).decode()
        for place in (0, 1_048_575, 1_048_576, 2_000_000, len(good) - 5):
            for wrong in "=!":
                stream = stream_object("a", "text/plain", b"")
                stream["messages"][0]["data_base64"] = good[:place] + wrong + good[place + 1 :]
                self.refused(document_object(stream), "message 1 of stream 'a' is not padded", InvalidBase64)

    def test_a_message_that_is_not_one_json_value_is_refused(self) -> None:
        for text in (b"", b"1 2", b"1,", b"{", b"NaN", b'"\xff"', b"[" * 100_000, b"\xef\xbb\xbf1"):
            document = document_object(stream_object("a"), stream_object("z", "Application/JSON;x=y", b"1", text))
            self.refused(document, "message 2 of stream 'z' is not one JSON value", InvalidJsonMessage)

    def test_a_name_that_is_there_twice_is_refused(self) -> None:
        far = [stream_object(f"s{number}") for number in range(1200)]
        for streams in ([stream_object("a"), stream_object("a")], [*far, stream_object("s7")]):
            self.refused(document_object(*streams), "twice", InvalidDocument)

    def test_a_message_that_is_too_large_is_refused(self) -> None:
        stream = stream_object("a", "text/plain", bytes(3_000_001))
        self.refused(document_object(stream), "has 3000001 bytes, more than 3000000", MessageTooLarge)
        self.assertEqual(1, len(self.taken(document_object(stream_object("a", "text/plain", bytes(3_000_000))))))
        self.refused(document_object(stream_object("a", "text/plain", bytes(4_000_000))), "3000000", InvalidDocument)

    def test_a_document_that_is_cut_is_refused_and_leaves_no_file(self) -> None:
        whole = pretty(document_object(stream_object("a", "text/plain", *[b"x" * 1000] * 1000)))
        for end in (100, 400_000, len(whole) - 1):
            self.refused(whole[:end], "cut off", InvalidDocument)


class TemporaryFileTests(IntakeCase):
    def test_a_temporary_file_is_private_and_has_no_name(self) -> None:
        file = private_file(self.directory)
        self.addCleanup(os.close, file)
        self.assertEqual((0o600, 0), (stat.S_IMODE(os.fstat(file).st_mode), os.fstat(file).st_nlink))
        self.assertEqual([], self.left_files())

    def test_a_directory_that_cannot_be_written_is_named(self) -> None:
        self.directory += "/missing"
        error = self.assertRaises(SpoolFailed, self.taken, document_object(stream_object("a", "text/plain", b"x")))
        self.assertIn(self.directory, str(error))
        self.assertIn("TMPDIR", str(error))

    def test_temporary_files_are_on_a_disk_unless_tmpdir_says_otherwise(self) -> None:
        self.patch(os, "environ", {"TMPDIR": self.directory})
        self.assertEqual(self.directory, spool_directory(None))
        self.assertEqual("/elsewhere", spool_directory("/elsewhere"))
        self.patch(os, "environ", {})
        self.assertEqual("/var/tmp", spool_directory(None))
