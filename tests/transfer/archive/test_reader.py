"""Archives: what is written is read again, and what is damaged, impossible or hostile is refused."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import tarfile
import tracemalloc
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import msgspec
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.model import FOREVER, Fork, Lifetime, Offset, StreamConfig, StreamRecord, WriterState
from durable_streams.server.protocol.names import NameLimits
from durable_streams.server.transfer.archive.entries import config_of, entry_of, lifetime_of, sequence_of, writer_states
from durable_streams.server.transfer.archive.errors import ArchiveInvalid, ArchiveTooLarge, ArchiveUnsupported
from durable_streams.server.transfer.archive.layout import (
    END_OF_TAR,
    PART_BYTES,
    TRAILER_BYTES,
    TarHeaders,
    padding,
    trailer_start,
)
from durable_streams.server.transfer.archive.packing import ArchiveTotals, PartPacker
from durable_streams.server.transfer.archive.reader import (
    AppendSlice,
    ArchiveLimits,
    ArchiveReader,
    StreamStart,
    WriterSlice,
    check_ends,
    verify_archive,
)
from durable_streams.server.transfer.archive.writer import ArchiveWriter, size_bytes

from .samples import MADE_AT, Sample, archive, cut, fork, full_sample, record, sample, source


def read_all(data: bytes, limits: ArchiveLimits = ArchiveLimits()) -> list[Sample]:  # noqa: B008
    """Read an archive back to records and appends."""
    streams: list[tuple[StreamRecord, list[bytes]]] = []
    for event in ArchiveReader(source(data), limits).events():
        if isinstance(event, StreamStart):
            entry = event.entry
            made = record(
                entry.name,
                entry.tail - entry.base,
                content_type=entry.content_type,
                config=config_of(entry),
                lifetime=lifetime_of(entry.lifetime),
                base=entry.base,
                closed=entry.closed,
                deleted=entry.deleted,
                sequence=sequence_of(entry),
                created_at=entry.created_at,
                updated_at=entry.updated_at,
                used_at=entry.used_at,
                source=entry.source,
                source_id=None if entry.source is None else 7,
            )
            streams.append((made, []))
        elif isinstance(event, WriterSlice):
            streams[-1][0].writers.update(writer_states(event.writers))
        elif isinstance(event, AppendSlice):
            streams[-1][1].extend(cut(event.data, event.sizes))
    return [(made, appends) for made, appends in streams]


def as_lists(streams: Sequence[Sample]) -> list[Sample]:
    """Return streams with lists of appends."""
    return [(made, list(appends)) for made, appends in streams]


TIMES = st.floats(0, 4e9)
LIFETIMES = st.one_of(
    st.just(FOREVER), st.builds(Lifetime, ttl=st.integers(0, 2**53 - 1)), st.builds(Lifetime, expires_at=TIMES)
)
WRITERS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=9),
    st.builds(WriterState, st.integers(0, 2**53 - 1), st.integers(0, 2**53 - 1), TIMES),
    max_size=5,
)
SEGMENTS = st.text("ab\u00e9\u4e16 %.:", min_size=1, max_size=6).filter(lambda text: text not in (".", ".."))


@st.composite
def streams_of_archives(draw: st.DrawFn) -> list[Sample]:
    """Draw streams, some of which are forks of earlier ones."""
    names = draw(st.lists(SEGMENTS, unique=True, max_size=5))
    made: list[Sample] = []
    for name in names:
        appends = draw(st.lists(st.binary(min_size=1, max_size=40), max_size=6))
        own = sum(map(len, appends))
        common = {
            "lifetime": draw(LIFETIMES),
            "closed": draw(st.booleans()),
            "deleted": draw(st.booleans()),
            "sequence": draw(st.one_of(st.none(), st.binary(max_size=9))),
            "writers": draw(WRITERS),
            "created_at": draw(TIMES),
            "updated_at": draw(TIMES),
            "used_at": draw(TIMES),
        }
        is_fork: bool = draw(st.booleans())
        if made and is_fork:
            root = draw(st.sampled_from(made))[0]
            base = draw(st.integers(0, root.tail))
            config = StreamConfig(
                draw(st.sampled_from([None, "text/plain"])),
                draw(LIFETIMES),
                draw(st.booleans()),
                Fork(
                    root.facts.name,
                    draw(st.sampled_from([None, Offset(0, 0), Offset(5, base)])),
                    draw(st.integers(0, 9)),
                ),
            )
            made.append((fork(name, root.facts.name, base, own, **common | {"config": config}), appends))
        else:
            made.append((record(name, own, **common), appends))
    return made


class RoundTripTests(SynchronousTestCase):
    @given(streams_of_archives())
    @settings(max_examples=100, deadline=None)
    def test_everything_that_is_written_is_read_again(self, streams: list[Sample]) -> None:
        data = archive(*streams)
        self.assertEqual(read_all(data), as_lists(streams))
        header, totals = verify_archive(source(data))
        self.assertEqual((header.server_version, header.created_at), ("1.0", "2026-09-21T14:13:20Z"))
        self.assertEqual(totals.streams, len(streams))
        self.assertEqual(totals.bytes, sum(len(data) for _, appends in streams for data in appends))
        self.assertEqual(totals.appends, sum(len(appends) for _, appends in streams))
        self.assertEqual(totals.writers, sum(len(made.writers) for made, _ in streams))
        self.assertEqual(totals.forks, sum(made.source is not None for made, _ in streams))
        self.assertEqual(totals.deleted, sum(made.deleted for made, _ in streams))
        check_ends(source(data))

    def test_an_archive_without_streams_is_valid(self) -> None:
        self.assertEqual(verify_archive(source(archive()))[1], ArchiveTotals())

    def test_an_append_larger_than_a_part_is_read_as_one(self) -> None:
        large = random.Random(1).randbytes(3 * PART_BYTES + 5)
        streams = [sample("a", [b"x", large, b"y"]), sample("b", [large])]
        self.assertEqual(read_all(archive(*streams)), as_lists(streams))

    def test_large_tables_of_writers_are_sliced(self) -> None:
        writers = {f"{number:0512}": WriterState(number, 1, 5.5) for number in range(3000)}
        data = archive(sample("a", [], writers=writers))
        events = [event for event in ArchiveReader(source(data)).events() if isinstance(event, WriterSlice)]
        self.assertGreater(len(events), 5)
        [(made, _)] = read_all(data)
        self.assertEqual(list(made.writers.items()), list(writers.items()))

    def test_thousands_of_parts_have_several_indexes(self) -> None:
        streams = [sample(f"s{number}", [b"x"]) for number in range(800)]
        data = archive(*streams)
        unpacked = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True).read()
        with tarfile.open(fileobj=io.BytesIO(unpacked)) as tar:
            names = tar.getnames()
        self.assertEqual(
            [name for name in names if name.startswith("index")], ["index/000001", "index/000002", "index/000003"]
        )
        self.assertEqual(read_all(data), as_lists(streams))

    def test_a_stream_that_was_left_out_is_marked_and_not_counted(self) -> None:
        writer = ArchiveWriter(MADE_AT, "1.0")
        writer.begin_stream(record("gone", 5))
        writer.add_appends([2], b"ab")
        writer.leave_stream_out()
        writer.begin_stream(record("kept", 1))
        writer.add_appends([1], b"x")
        writer.end_stream()
        writer.finish()
        data = writer.take()
        self.assertEqual(verify_archive(source(data))[1], ArchiveTotals(streams=1, left_out=1, bytes=1, appends=1))

    def test_the_entry_of_a_record_has_all_of_it(self) -> None:
        made, _ = full_sample()
        entry = entry_of(made)
        self.assertEqual(config_of(entry), made.config)
        self.assertEqual(sequence_of(entry), made.sequence)
        self.assertEqual(lifetime_of(entry.lifetime), made.lifetime)


class DamageTests(SynchronousTestCase):
    def test_every_flipped_bit_is_detected(self) -> None:
        data = archive(full_sample(), (fork("f", "chat/42 \u00e4", 5, 1), [b"!"]))
        for index in range(len(data)):
            for bit in range(8):
                damaged = bytearray(data)
                damaged[index] ^= 1 << bit
                with self.assertRaises(ArchiveInvalid, msg=f"byte {index}, bit {bit}"):
                    verify_archive(source(bytes(damaged)))

    def test_every_truncation_is_detected(self) -> None:
        data = archive(full_sample())
        for size in range(len(data)):
            with self.assertRaises(ArchiveInvalid, msg=str(size)):
                verify_archive(source(data[:size]))
            with self.assertRaises(ArchiveInvalid, msg=str(size)):
                check_ends(source(data[:size]))

    def test_an_archive_that_is_cut_off_is_described_as_such(self) -> None:
        data = archive(sample("a", [os.urandom(100_000)]))
        for broken in (data[:50_000], data[:-TRAILER_BYTES], data[:-1]):
            with self.assertRaisesRegex(ArchiveInvalid, "cut off"):
                verify_archive(source(broken))

    @given(st.binary(max_size=300), st.integers(0, 2000))
    @settings(max_examples=200, deadline=None)
    def test_inserted_bytes_are_detected(self, extra: bytes, index: int) -> None:
        data = archive(full_sample())
        index = min(index, len(data))
        changed = data[:index] + extra + data[index:]
        if changed != data:
            with self.assertRaises(ArchiveInvalid):
                verify_archive(source(changed))

    @given(st.binary(max_size=2000))
    @settings(max_examples=100, deadline=None)
    def test_arbitrary_bytes_are_refused(self, data: bytes) -> None:
        for broken in (data, b"\x28\xb5\x2f\xfd" + data, zstandard.compress(data)):
            with self.assertRaises(ArchiveInvalid):
                verify_archive(source(broken))
            with self.assertRaises(ArchiveInvalid):
                check_ends(source(broken))


class Forger(PartPacker):
    """A writer of archives with right digests and wrong content."""

    def raw(self, data: bytes) -> None:
        """Add bytes to the tar file as they are."""
        self._compress(data)


HEADER = (
    b'{"format":"durable-streams-archive","format_version":1,"server_version":"1","created_at":"2026-09-21T14:13:20Z"}'
)


NOTHING = ArchiveTotals()


def forged(parts: Sequence[tuple[str, bytes]], totals: ArchiveTotals = NOTHING, header: bytes = HEADER) -> bytes:
    """Return an archive of these parts."""
    packer = Forger(MADE_AT)
    packer.add("archive.json", header)
    for name, data in parts:
        packer.add(name, data)
    packer.finish(totals)
    return packer.take()


def entry_json(made: StreamRecord) -> bytes:
    return msgspec.json.encode(entry_of(made))


class HostileTests(SynchronousTestCase):
    """Archives with right digests that nobody could have written by a backup."""

    def refused(self, data: bytes, message: str, limits: ArchiveLimits = ArchiveLimits()) -> None:  # noqa: B008
        with self.assertRaisesRegex(ArchiveInvalid, message):
            verify_archive(source(data), limits)

    def one_stream(self, *parts: tuple[str, bytes], made: StreamRecord | None = None) -> bytes:
        first = ("record.json", entry_json(made or record("a", 3)))
        return forged([("streams/00000001/" + name, data) for name, data in (first, *parts)])

    def test_another_format_version_is_refused_by_its_number(self) -> None:
        header = HEADER.replace(b'version":1,', b'version":2,')
        with self.assertRaisesRegex(ArchiveUnsupported, "version 2; this server reads version 1"):
            verify_archive(source(forged([], header=header)))

    def test_malformed_headers_are_refused(self) -> None:
        for header, message in (
            (b"[]", "archive.json is malformed"),
            (b"\xff", "archive.json is malformed"),
            (HEADER.replace(b"durable-", b"other-"), "not an archive of streams"),
            (HEADER.replace(b"2026-09-21", b"2026-09-41"), "time that does not exist"),
            (HEADER.replace(b"2026-09-21", b"2026-09-22"), "another time"),
            (HEADER.replace(b"2026-09-21T14:13:20Z", b"yesterday"), "malformed time"),
            (HEADER.replace(b"2026-09-21T14:13:20Z", b"2016-12-31T23:59:60Z"), "time that does not exist"),
        ):
            self.refused(forged([], header=header), message)

    def test_parts_of_wrong_names_or_places_are_refused(self) -> None:
        sizes, data = ("sizes-00000001", size_bytes([3])), ("data-00000002", b"abc")
        self.assertEqual(
            read_all(
                forged(
                    [
                        ("streams/00000001/" + n, d)
                        for n, d in (("record.json", entry_json(record("a", 3))), sizes, data)
                    ],
                    ArchiveTotals(streams=1, bytes=3, appends=1),
                )
            ),
            [(record("a", 3), [b"abc"])],
        )
        for parts in (
            [data],
            [("sizes-00000002", sizes[1]), ("data-00000003", b"abc")],
            [sizes, ("data-00000003", b"abc")],
            [sizes, sizes, data],
            [sizes, data, ("left-out", b""), ("left-out", b"")],
            [sizes, data, ("left-out", b"x")],
            [("writers-00000001", b"[]"), sizes, data],
            [("../../etc/passwd", b"x")],
            [("sizes-00000001/", sizes[1])],
            [("x", b"")],
        ):
            self.refused(self.one_stream(*parts), "is not in its place|not a plain file")
        for name in ("streams/00000002/record.json", "/etc/passwd", "../x", "archive.json", "streams/1/record.json"):
            self.refused(forged([(name, entry_json(record("a")))]), "is not in its place")

    def test_sizes_and_data_that_do_not_fit_are_refused(self) -> None:
        for sizes, message in (
            (b"", "not a list of sizes"),
            (b"1234567", "not a list of sizes"),
            (size_bytes([1]) * 65_537, "not a list of sizes"),
            (size_bytes([0, 3]), "do not fit"),
            (size_bytes([4]), "do not fit"),
            (size_bytes([2**63, 2**63]), "do not fit"),
        ):
            self.refused(self.one_stream(("sizes-00000001", sizes)), message)
        for data in (b"ab", b"abcd", b""):
            self.refused(self.one_stream(("sizes-00000001", size_bytes([3])), ("data-00000002", data)), "not all")
        self.refused(self.one_stream(), "is incomplete")
        self.refused(self.one_stream(("sizes-00000001", size_bytes([3]))), "is incomplete")

    def test_writers_that_do_not_fit_are_refused(self) -> None:
        made = record("a", writers={"w": WriterState(1, 2, 3.0), "v": WriterState(1, 2, 3.0)})
        for data in (
            b"[]",
            b'[["w",1,2,3.0],["w",1,2,3.0]]',
            b'[["w",1,2,3.0],["v",1,2,3.0],["u",1,2,3.0]]',
            b'[["w",1,2]]',
            b'[["w",-1,2,3.0],["v",1,2,3.0]]',
            b'[["w",1,9007199254740992,3.0],["v",1,2,3.0]]',
            b'[["",1,2,3.0],["v",1,2,3.0]]',
            b'[["w",1,2,1e300],["v",1,2,3.0]]',
            b'["' * 100_000,
        ):
            self.refused(self.one_stream(("writers-00000001", data), made=made), "producer|malformed")
        self.refused(self.one_stream(made=made), "incomplete")
        with self.assertRaisesRegex(ArchiveTooLarge, "has 2 producers; the limit is 1"):
            verify_archive(source(self.one_stream(made=made)), ArchiveLimits(max_writers=1))

    def test_impossible_records_are_refused(self) -> None:
        good = msgspec.json.decode(entry_json(record("a")))
        for change in (
            {"name": ""},
            {"name": "__ds/x"},
            {"name": "__ds/restore/0/x"},
            {"name": "__ds/x", "deleted": True},
            {"name": "a/../b"},
            {"name": "a\u0000"},
            {"name": "x" * 70_000},
            {"content_type": "text/plain\r\nSet-Cookie: x"},
            {"content_type": "text"},
            {"content_type": "text/plain;" + "x" * 9000},
            {"config": good["config"] | {"content_type": "application/json"}},
            {"incarnation": 0},
            {"incarnation": 10**16},
            {"tail": -1},
            {"tail": 10**16},
            {"base": 1, "tail": 1},
            {"writers": -1},
            {"lifetime": {"ttl": -1, "expires_at": None}},
            {"lifetime": {"ttl": 1, "expires_at": 1.0}},
            {"lifetime": {"ttl": None, "expires_at": 1e300}},
            {"created_at": 1e300},
            {"sequence": "%%%"},
            {"sequence": "\u00e4"},
            {"source": "b"},
            {"unknown": 1},
            {"closed": 1},
        ):
            self.refused(forged([("streams/00000001/record.json", msgspec.json.encode(good | change))]), "record.json")

    def test_impossible_lineage_is_refused(self) -> None:
        root = ("streams/00000001/record.json", entry_json(record("a")))
        for made, message in (
            (fork("f", "missing", 0), "before its source"),
            (fork("f", "a", 1), "does not fit its source"),
            (fork("f", "a", 0, content_type="text/html"), "does not fit its source"),
            (fork("f", "f", 0), "is the stream itself"),
            (record("a"), "has the stream a twice"),
        ):
            self.refused(forged([root, ("streams/00000002/record.json", entry_json(made))]), message)
        first = ("streams/00000001/record.json", entry_json(fork("f", "g", 0)))
        second = ("streams/00000002/record.json", entry_json(fork("g", "f", 0)))
        self.refused(forged([first, second]), "before its source")
        left_out = [root, ("streams/00000001/left-out", b"")]
        self.refused(forged([*left_out, ("streams/00000002/record.json", entry_json(fork("f", "a", 0)))]), "not fit")

    def test_fork_headers_must_agree_with_the_source(self) -> None:
        good = msgspec.json.decode(entry_json(fork("f", "a", 0)))
        root = ("streams/00000001/record.json", entry_json(record("a")))
        for change in (
            {"source": None},
            {"source": "b"},
            {"config": good["config"] | {"fork": None}},
            {"config": good["config"] | {"fork": {"source": "a", "offset": "x", "sub_offset": 0}}},
            {"config": good["config"] | {"fork": {"source": "a", "offset": None, "sub_offset": -1}}},
        ):
            data = forged([root, ("streams/00000002/record.json", msgspec.json.encode(good | change))])
            self.refused(data, "no stream has|before its source")

    def test_appends_of_json_streams_must_be_messages(self) -> None:
        for appends, fits in (
            ([b'{"a":1},', b"1,2,"], True),
            ([b'"\\ud800",'], True),
            ([b'{"a":1}'], False),
            ([b'"a,', b'b",'], False),
            ([b"1,,"], False),
            ([b","], False),
            ([b" 1,"], False),
            ([b"\xff,"], False),
        ):
            data = archive(sample("j", appends, content_type="application/json"))
            if fits:
                self.assertEqual(verify_archive(source(data))[1].appends, len(appends))
            else:
                self.refused(data, "that is not JSON")

    def test_a_manifest_with_other_counts_is_refused(self) -> None:
        parts = [("streams/00000001/record.json", entry_json(record("a")))]
        self.refused(forged(parts, ArchiveTotals(streams=2)), "does not count")
        self.assertEqual(verify_archive(source(forged(parts, ArchiveTotals(streams=1))))[1].streams, 1)

    def test_links_devices_and_extensions_of_tar_are_refused(self) -> None:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.XHDTYPE, b"L", b"S"):
            info = tarfile.TarInfo("streams/00000001/record.json")
            info.type, info.linkname, info.mode, info.mtime = kind, "/etc/passwd", 0o600, MADE_AT
            self.refused(self.with_raw(info.tobuf(tarfile.USTAR_FORMAT)), "not a plain file|malformed header")

    def with_raw(self, block: bytes) -> bytes:
        packer = Forger(MADE_AT)
        packer.add("archive.json", HEADER)
        packer.raw(block)
        packer.finish(ArchiveTotals())
        return packer.take()

    def test_sizes_of_parts_outside_the_limit_are_refused(self) -> None:
        headers = TarHeaders(MADE_AT)
        for size in (PART_BYTES + 1, 8**11 - 1, -5):
            self.refused(self.with_raw(headers.render("streams/00000001/record.json", size)), "size of|malformed")

    def test_padding_must_be_zeros(self) -> None:
        block = TarHeaders(MADE_AT).render("x", 1)
        self.refused(self.with_raw(block + b"x" + padding(1)[:-1] + b"!"), "not padded")

    def test_data_after_the_end_is_refused(self) -> None:
        packer = Forger(MADE_AT)
        packer.add("archive.json", HEADER)
        packer._put(*packer._index.cut())
        packer._put("manifest.json", packer._index.manifest(ArchiveTotals()))
        packer.raw(END_OF_TAR + b"more")
        packer._end_frame()
        start = trailer_start(packer._packed_bytes, packer._unpacked_bytes)
        data = packer.take() + start
        self.refused(data + sha256(data).digest(), "does not end as an archive")

    def test_a_bomb_is_refused_in_bounded_memory(self) -> None:
        bomb = zstandard.ZstdCompressor(level=19).compress(bytes(300_000_000))
        self.assertLess(len(bomb), 60_000)
        real = archive()
        tracemalloc.start()
        try:
            self.refused(bomb + bytes(TRAILER_BYTES), "not an archive|malformed")
            self.refused(real[:-TRAILER_BYTES] + bomb + real[-TRAILER_BYTES:], "does not end as an archive")
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertLess(peak, 8_000_000)

    def test_a_window_that_needs_much_memory_is_refused(self) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(19, window_log=27)
        data = zstandard.ZstdCompressor(compression_params=parameters).compressobj().compress(os.urandom(1000))
        packed = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        data = packed.compress(bytes(1000)) + packed.flush()
        self.refused(data + bytes(TRAILER_BYTES), "damaged before byte")

    def test_limits_of_the_caller_are_kept(self) -> None:
        data = archive(sample("some/long/name", [bytes(5000)]))
        for limits, message in (
            (ArchiveLimits(max_bytes=5000), "unpacks to more than 5000 bytes"),
            (ArchiveLimits(max_append_bytes=4999), "an append of 5000 bytes; the limit is 4999"),
        ):
            with self.assertRaisesRegex(ArchiveTooLarge, message):
                verify_archive(source(data), limits)
        self.refused(data, "must not be longer than 10 bytes", ArchiveLimits(names=NameLimits(10, 8)))
        self.assertEqual(
            verify_archive(source(data), ArchiveLimits(max_bytes=50_000, max_append_bytes=5000))[1].bytes, 5000
        )

    def test_a_large_archive_is_read_in_bounded_memory(self) -> None:
        writer = ArchiveWriter(MADE_AT, "1.0")
        packed = []
        writer.begin_stream(record("a", 64 * PART_BYTES))
        piece = random.Random(1).randbytes(4096) * 256
        for _ in range(64):
            writer.add_appends([4096] * 256, piece)
            packed.append(writer.take())
        writer.end_stream()
        writer.finish()
        packed.append(writer.take())
        data = b"".join(packed)
        self.assertLess(max(map(len, packed)), 2 * PART_BYTES)
        tracemalloc.start()
        try:
            self.assertEqual(verify_archive(source(data))[1].appends, 64 * 256)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        self.assertLess(peak, 8 * PART_BYTES)


class OperatorTests(SynchronousTestCase):
    """What an operator can do with an archive without this server."""

    def test_tar_lists_and_unpacks_an_archive_and_sha256sum_checks_it(self) -> None:
        tools = [shutil.which(tool) for tool in ("tar", "zstd", "sha256sum")]
        self.assertTrue(all(tools), "tar, zstd and coreutils are needed")
        folder = Path(self.mktemp())
        folder.mkdir()
        path = folder / "a.tar.zst"
        path.write_bytes(archive(sample("log", [b"hello ", b"world"]), *(sample(f"s{n}", [b"x"]) for n in range(400))))
        listed = subprocess.run(["tar", "--zstd", "-tf", path], capture_output=True, text=True, check=True)
        self.assertEqual(listed.stderr, "")
        self.assertEqual(
            listed.stdout.split()[:3],
            ["archive.json", "streams/00000001/record.json", "streams/00000001/sizes-00000001"],
        )
        subprocess.run(["tar", "--zstd", "-xf", path, "-C", folder], check=True)
        checked = subprocess.run(
            "cat index/* | sha256sum --check --quiet",
            shell=True,
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual((checked.returncode, checked.stdout, checked.stderr), (0, "", ""))
        self.assertEqual((folder / "streams/00000001/data-00000002").read_bytes(), b"hello world")
        self.assertEqual((folder / "streams/00000001/record.json").stat().st_mode & 0o777, 0o600)
        manifest = msgspec.json.decode((folder / "manifest.json").read_bytes())
        self.assertEqual(manifest["totals"]["streams"], 401)
        self.assertEqual(manifest["sha256"], sha256((folder / manifest["index"]).read_bytes()).hexdigest())
