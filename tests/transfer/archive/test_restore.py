"""Backup and restore on a Clock: what comes back, and what happens if streams change or exist."""

from __future__ import annotations

import io
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any
from unittest.mock import ANY

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace as changed
from twisted.internet.defer import CancelledError, Deferred

from durable_streams.server.errors import (
    DataDamaged,
    OffsetGone,
    PathBlocked,
    SequenceConflict,
    StorageFull,
    StreamNotFound,
    Unavailable,
    WriterFenced,
)
from durable_streams.server.interfaces import settle
from durable_streams.server.model import Append, Lifetime, Offset, StorageLimits, StreamConfig, StreamFacts, Writer
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.streams import Streams
from durable_streams.server.transfer.archive.backup import ArchiveBackup, backup_streams
from durable_streams.server.transfer.archive.errors import (
    ArchiveInvalid,
    ArchiveTooLarge,
    BackupFailed,
    PartialRestore,
    RestoreConflict,
    RestoreInProgress,
)
from durable_streams.server.transfer.archive.packing import ArchiveTotals
from durable_streams.server.transfer.archive.reader import ArchiveLimits, ArchiveReader, StreamStart, verify_archive
from durable_streams.server.transfer.archive.restore import RestoreStats, restore_streams
from durable_streams.server.transfer.errors import SpoolFailed
from durable_streams.server.transfer.progress import Progress
from tests.support.transfers import TransferCase

from .families import TEXT, contents, create, fork, make_world, write


class ArchiveCase(TransferCase):
    """Tests with backups and restores on a Clock."""

    def setUp(self) -> None:
        super().setUp()
        self.target = self.started(Streams(MemoryStorage(), self.clock))

    def backup(self, streams: Streams | None = None, **options: Any) -> bytes:
        file = io.BytesIO()
        totals = self.run_to_end(backup_streams(streams or self.streams, file, reactor=self.clock, **options))
        self.assertEqual(verify_archive(io.BytesIO(file.getvalue()))[1], totals)
        return file.getvalue()

    def restore(self, data: bytes, streams: Streams | None = None, **options: Any) -> RestoreStats:
        source = io.BytesIO(data)
        return self.run_to_end(restore_streams(streams or self.target, source, reactor=self.clock, **options))

    def contents(self, streams: Streams, names: list[str], new_incarnation: bool = False) -> dict[str, Any]:
        return self.run_to_end(contents(streams, names, new_incarnation))

    def names(self, streams: Streams) -> list[str]:
        """Return the names of all streams, with those that no client finds."""
        return sorted(streams._owned._catalogue.streams)  # type: ignore[attr-defined]

    def names_in(self, data: bytes) -> list[str]:
        events = ArchiveReader(io.BytesIO(data)).events()
        return [event.entry.name for event in events if isinstance(event, StreamStart)]

    def make_on(self, *steps: Coroutine[Any, Any, Any]) -> None:
        async def all_steps() -> None:
            for step in steps:
                await step

        self.run_to_end(all_steps())


class RoundTripTests(ArchiveCase):
    def test_everything_comes_back(self) -> None:
        names = self.run_to_end(make_world(self.streams))
        before = self.contents(self.streams, names)
        stats = self.restore(self.backup())
        self.assertEqual(self.contents(self.target, names), before)
        self.assertEqual(self.names(self.target), sorted(names))
        self.assertEqual((stats.streams_restored, stats.streams_deleted, stats.streams_skipped), (10, 2, 0))
        self.assertEqual(stats.bytes_restored, self.streams.figures().bytes)

    def test_a_deleted_source_is_never_found_under_its_name(self) -> None:
        self.run_to_end(make_world(self.streams))
        heard: list[str] = []
        found: list[str] = []

        def look(name: str) -> None:
            heard.append(name)
            found.extend(each.facts.name for each in now_of(self.target.statuses()))

        self.target.observe(look)
        self.restore(self.backup())
        self.assertLessEqual({"z", "f", "a"}, set(heard))
        self.assertEqual({"z", "f", "a"} & set(found), {"a"})

    def test_a_restored_server_is_backed_up_and_restored_again(self) -> None:
        names = self.run_to_end(make_world(self.streams))
        before = self.contents(self.streams, names)
        self.restore(self.backup())
        third = self.started(Streams(MemoryStorage(), self.clock))
        self.restore(self.backup(self.target), third)
        self.assertEqual(self.contents(third, names), before)

    def test_clients_resume_at_their_old_offsets(self) -> None:
        self.make_on(create(self.streams, "a", b"one", b"two", b"three"))
        old = self.streams.read("a", Offset(0, 0), 3)
        assert not isinstance(old, Deferred)
        self.restore(self.backup())
        chunk = self.target.read("a", Offset(old.facts.incarnation, 3), 100)
        assert not isinstance(chunk, Deferred)
        self.assertEqual((chunk.start, chunk.data), (3, b"twothree"))
        inside = self.target.read("a", Offset(old.facts.incarnation, 5), 100)
        assert not isinstance(inside, Deferred)
        self.assertEqual(inside.start, 3)

    def test_writers_and_stream_seq_go_on(self) -> None:
        self.make_on(
            create(self.streams, "a"),
            *(write(self.streams, "a", b"x", writer=Writer("w", 3, seq)) for seq in range(4)),
            write(self.streams, "a", b"y", sequence=b"007"),
        )
        self.restore(self.backup())

        async def go_on() -> None:
            again = await write(self.target, "a", b"x", writer=Writer("w", 3, 3))
            self.assertTrue(again.duplicate)
            self.assertFalse((await write(self.target, "a", b"x", writer=Writer("w", 3, 4))).duplicate)
            with self.assertRaises(WriterFenced):
                await write(self.target, "a", b"x", writer=Writer("w", 2, 0))
            with self.assertRaises(SequenceConflict):
                await write(self.target, "a", b"y", sequence=b"007")
            self.assertEqual((await write(self.target, "a", b"y", sequence=b"008")).tail, 7)

        self.run_to_end(go_on())

    def test_with_new_incarnations_old_offsets_are_gone(self) -> None:
        names = self.run_to_end(make_world(self.streams))
        before = self.contents(self.streams, names, new_incarnation=True)
        old = self.run_to_end(settle_record(self.streams, "live-source"))
        self.clock.advance(5)
        self.restore(self.backup(), new_incarnation=True)
        self.assertEqual(self.contents(self.target, names, new_incarnation=True), before)
        new = self.run_to_end(settle_record(self.target, "live-source"))
        self.assertGreater(new.incarnation, old.incarnation)
        for name in ("live-source", "live-fork", "a", "json"):
            with self.assertRaises(OffsetGone):
                self.target.read(name, Offset(old.incarnation - 1, 0), 10)
        self.assertEqual(self.run_to_end(settle_record(self.target, "live-fork")).incarnation, new.incarnation)

    def test_a_ttl_begins_again_and_expired_streams_do_not_come_back(self) -> None:
        now = self.clock.seconds()
        self.make_on(
            create(self.streams, "ttl", b"x", config=changed(TEXT, lifetime=Lifetime(ttl=60))),
            create(self.streams, "at", b"x", config=changed(TEXT, lifetime=Lifetime(expires_at=now + 60))),
            create(self.streams, "source", b"x", config=changed(TEXT, lifetime=Lifetime(expires_at=now + 60))),
            create(self.streams, "kept", b"x"),
        )
        self.run_to_end(fork_forever(self.streams, "fork", "source"))
        data = self.backup()
        self.clock.advance(3600)
        stats = self.restore(data)
        self.assertEqual((stats.streams_restored, stats.streams_expired), (3, 2))
        self.assertEqual([each.facts.name for each in now_of(self.target.statuses())], ["fork", "kept", "ttl"])
        self.assertEqual(now_of(self.target.read("fork", Offset(0, 0), 10)).data, b"x")
        self.clock.advance(59)
        self.assertEqual(now_of(self.target.status("ttl")).lifetime, Lifetime(ttl=60))
        self.clock.advance(61)
        with self.assertRaises(StreamNotFound):
            self.target.status("ttl")

    def test_a_repeated_put_finds_the_restored_stream(self) -> None:
        names = self.run_to_end(make_world(self.streams))
        records = [self.run_to_end(settle(self.streams.record(name, hidden=True))) for name in names]
        self.restore(self.backup())
        for record in records:
            config = changed(record.config, closed=record.closed)
            if record.deleted:
                with self.assertRaises(PathBlocked):
                    self.target.create(record.facts.name, config, b"")
            else:
                again = now_of(self.target.create(record.facts.name, config, b""))
                self.assertFalse(again.new, record.facts.name)

    @given(st.lists(st.binary(min_size=1, max_size=60_000), max_size=12), st.integers(1, 3))
    @settings(max_examples=25, deadline=None)
    def test_append_boundaries_of_any_sizes_come_back(self, appends: list[bytes], factor: int) -> None:
        name = os.urandom(8).hex()
        self.make_on(create(self.streams, name, *(data * (1 if factor < 3 else 20) for data in appends)))
        self.restore(self.backup(names=[name]))
        self.assertEqual(self.contents(self.target, [name]), self.contents(self.streams, [name]))

    def test_an_append_larger_than_a_part_comes_back_as_one(self) -> None:
        self.make_on(create(self.streams, "a", b"x", os.urandom(3_000_000), b"y"))
        self.restore(self.backup())
        self.assertEqual(self.contents(self.target, ["a"]), self.contents(self.streams, ["a"]))

    def test_ten_thousand_writers_come_back(self) -> None:
        self.make_on(
            create(self.streams, "a"),
            *(write(self.streams, "a", b"x", writer=Writer(f"w{n}", 1, 0)) for n in range(3000)),
        )
        self.restore(self.backup())
        self.assertEqual(self.contents(self.target, ["a"]), self.contents(self.streams, ["a"]))


async def settle_record(streams: Streams, name: str) -> StreamFacts:
    return (await settle(streams.record(name))).facts


async def fork_forever(streams: Streams, name: str, source: str) -> None:
    """Fork a stream that expires; the fork has a longer lifetime."""
    made = await fork(streams, name, source, None)
    await settle(streams.delete(name))
    config = StreamConfig(lifetime=Lifetime(ttl=10_000), fork=made.config.fork)
    await create(streams, name, config=config)


def now_of(outcome: Any) -> Any:
    """Return a result that is at hand."""
    assert not isinstance(outcome, Deferred)
    return outcome


class SelectionTests(ArchiveCase):
    def test_names_and_prefixes_select_streams_and_the_sources_of_forks(self) -> None:
        names = self.run_to_end(make_world(self.streams))
        self.assertEqual(self.names_in(self.backup(prefix="live-")), ["live-source", "live-fork"])
        self.assertEqual(self.names_in(self.backup(names=["a", "json", "missing", "z"])), ["z", "f", "a", "json"])
        self.assertEqual(self.names_in(self.backup(names=["a", "b"], prefix="b")), ["z", "b"])
        self.assertEqual(self.names_in(self.backup(names=[])), [])
        self.assertEqual(sorted(self.names_in(self.backup())), sorted(names))

    def test_staged_streams_are_not_backed_up(self) -> None:
        self.make_on(create(self.streams, "__ds/restore/0/a", b"x"), create(self.streams, "b"))
        self.assertEqual(self.names_in(self.backup()), ["b"])
        self.assertEqual(self.names_in(self.backup(names=["__ds/restore/0/a", "b"])), ["b"])

    def test_thousands_of_streams_are_read_in_pages(self) -> None:
        self.make_on(*(create(self.streams, f"s{number:04}", b"x") for number in range(1203)))
        self.assertEqual(len(self.names_in(self.backup())), 1203)


class ChangingTests(ArchiveCase):
    """Streams that change while they are backed up."""

    def interrupted(self, change: Callable[[], Any], after: str) -> tuple[bytes, ArchiveTotals]:
        """Make a backup; make a change when the record of a stream was read, before its data."""
        streams = self.streams
        read_range = streams.read_range
        done: list[str] = []

        def reading(facts: StreamFacts, start: int, end: int, hidden: bool = False) -> Any:
            if facts.name == after and not done:
                done.append(after)
                change()
            return read_range(facts, start, end, hidden)

        self.patch(streams, "read_range", reading)
        data = self.backup()
        self.assertEqual(done, [after])
        return data, verify_archive(io.BytesIO(data))[1]

    def test_appends_during_a_backup_are_not_in_it(self) -> None:
        self.make_on(create(self.streams, "a", b"one", b"two"))
        data, totals = self.interrupted(lambda: self.streams.append("a", Append("text/plain", b"late")), "a")
        self.assertEqual((totals.bytes, totals.appends), (6, 2))
        self.restore(data)
        self.assertEqual(now_of(self.target.read("a", Offset(0, 0), 99)).data, b"onetwo")

    def test_a_stream_deleted_while_it_is_read_is_left_out_and_counted(self) -> None:
        self.make_on(
            create(self.streams, "a", b"x"), create(self.streams, "b", b"x" * 10), create(self.streams, "c", b"y")
        )
        data, totals = self.interrupted(lambda: self.streams.delete("b"), "b")
        self.assertEqual((totals.streams, totals.left_out, totals.bytes), (2, 1, 2))
        self.assertEqual(self.restore(data).streams_restored, 2)
        self.assertEqual(self.names(self.target), ["a", "c"])

    def test_a_source_deleted_while_it_is_read_is_kept_for_its_forks(self) -> None:
        self.make_on(create(self.streams, "a", b"one", b"two"), fork(self.streams, "f", "a", 3, b"x"))
        data, totals = self.interrupted(lambda: self.streams.delete("a"), "a")
        self.assertEqual((totals.streams, totals.left_out, totals.deleted), (2, 0, 0))
        self.restore(data)
        self.assertEqual(now_of(self.target.read("f", Offset(0, 0), 99)).data, b"onex")

    def test_a_fork_made_after_its_source_was_read_is_not_in_the_archive(self) -> None:
        self.make_on(create(self.streams, "a", b"one", b"two"))

        def change() -> None:
            self.make_on(
                write(self.streams, "a", b"late"), fork(self.streams, "f", "a", 8), fork(self.streams, "g", "f", 2)
            )

        data, totals = self.interrupted(change, "a")
        self.assertEqual((self.names_in(data), totals.streams, totals.left_out), (["a"], 1, 0))

    def test_a_name_used_again_during_the_backup_is_in_the_archive_once(self) -> None:
        self.make_on(create(self.streams, "a", b"one"), create(self.streams, "b", b"x"))

        def change() -> None:
            self.make_on(
                settle_delete(self.streams, "a"), create(self.streams, "a", b"new"), fork(self.streams, "f", "a", None)
            )

        data, totals = self.interrupted(change, "b")
        self.assertEqual((self.names_in(data), totals.streams), (["a", "b"], 2))

    def test_a_damaged_stream_ends_the_backup_with_its_name(self) -> None:
        self.make_on(create(self.streams, "a", b"x"))

        def damaged(*_: Any, **__: Any) -> bytes:
            raise DataDamaged("a")

        self.patch(self.streams, "read_range", damaged)
        file = io.BytesIO()
        with self.assertRaisesRegex(BackupFailed, "stream 'a' cannot be read.*The archive is incomplete"):
            self.run_to_end(backup_streams(self.streams, file, reactor=self.clock))
        with self.assertRaises(ArchiveInvalid):
            verify_archive(io.BytesIO(file.getvalue()))

    def test_a_slow_destination_pauses_the_backup(self) -> None:
        self.make_on(*(create(self.streams, f"s{number}", os.urandom(100_000)) for number in range(40)))
        waiting: list[Deferred[None]] = []

        def slow(_: bytes) -> Deferred[None]:
            waiting.append(Deferred())
            return waiting[-1]

        backup = backup_streams(self.streams, slow, reactor=self.clock)
        for _ in range(1000):
            self.clock.advance(0.01)
        self.assertEqual(len(waiting), 1)
        while not backup.called:
            last = len(waiting)
            waiting[-1].callback(None)
            for _ in range(200):
                self.clock.advance(0)
            self.assertLessEqual(len(waiting), last + 1)
        self.assertGreater(len(waiting), 30)
        self.assertEqual(self.run_to_end(backup).streams, 40)

    def test_pieces_have_at_most_128_kib(self) -> None:
        self.make_on(create(self.streams, "a", os.urandom(2_000_000)))

        async def sizes() -> list[int]:
            return [len(piece) async for piece in ArchiveBackup(self.streams, reactor=self.clock)]

        found = self.run_to_end(sizes())
        self.assertLessEqual(max(found), 131_072)
        self.assertGreater(sum(found), 2_000_000)

    def test_progress_is_reported(self) -> None:
        self.make_on(create(self.streams, "a", b"abc"))
        reports: list[Progress] = []
        data = self.backup(progress=reports.append)
        self.assertEqual(reports, [Progress("backing up", 1, 1, 1, 3, 3)])
        self.restore(data, progress=reports.append)
        self.assertEqual(reports[-1], Progress("restoring", 1, 1, 1, 3, 3))


async def settle_delete(streams: Streams, name: str) -> None:
    await settle(streams.delete(name))


class ConflictTests(ArchiveCase):
    def make_both(self) -> bytes:
        """Make a stream a on both servers, and b on the one that is backed up."""
        self.make_on(create(self.streams, "a", b"archived"), create(self.streams, "b", b"x"))
        self.make_on(create(self.target, "a", b"present"))
        return self.backup()

    def text(self, name: str) -> bytes:
        return bytes(now_of(self.target.read(name, Offset(0, 0), 1000)).data)

    def test_skip_leaves_existing_streams_as_they_are(self) -> None:
        stats = self.restore(self.make_both())
        self.assertEqual((stats.streams_restored, stats.streams_skipped), (1, 1))
        self.assertEqual((self.text("a"), self.text("b")), (b"present", b"x"))

    def test_fail_writes_nothing(self) -> None:
        data = self.make_both()
        with self.assertRaisesRegex(RestoreConflict, "stream 'a' already exists. Nothing was written"):
            self.restore(data, on_conflict="fail")
        self.assertEqual(self.names(self.target), ["a"])

    def test_an_unknown_policy_is_refused(self) -> None:
        data = self.backup()
        policy: Any = "merge"
        with self.assertRaisesRegex(ValueError, "on_conflict must be one of skip, fail, replace, not 'merge'"):
            restore_streams(self.target, io.BytesIO(data), on_conflict=policy, reactor=self.clock)

    def test_replace_replaces_in_one_step(self) -> None:
        data = self.make_both()
        reader = now_of(self.target.read("a", Offset(0, 0), 1))
        stats = self.restore(data, on_conflict="replace", new_incarnation=True)
        self.assertEqual((stats.streams_restored, stats.streams_replaced), (2, 1))
        self.assertEqual(self.text("a"), b"archived")
        with self.assertRaises(OffsetGone):
            self.target.read("a", Offset(reader.facts.incarnation, 3), 10)

    def test_replace_replaces_a_family_whose_forks_are_in_the_archive(self) -> None:
        names = self.run_to_end(make_world(self.streams))
        before = self.contents(self.streams, names)
        data = self.backup()
        self.restore(data)
        self.make_on(write(self.target, "live-source", b"changed"), write(self.target, "a", b"changed"))
        stats = self.restore(data, on_conflict="replace")
        self.assertEqual((stats.streams_restored, stats.streams_replaced), (10, 10))
        self.assertEqual(self.contents(self.target, names), before)
        self.assertEqual(self.names(self.target), sorted(names))

    def test_replace_is_refused_if_forks_are_not_in_the_archive(self) -> None:
        data = self.make_both()
        self.make_on(fork(self.target, "other", "a", None))
        with self.assertRaisesRegex(RestoreConflict, "'a' has forks that are not in the archive"):
            self.restore(data, on_conflict="replace")
        self.assertEqual(self.names(self.target), ["a", "other"])

    def test_a_fork_of_a_skipped_source_has_the_bytes_of_the_archive(self) -> None:
        self.make_on(create(self.streams, "a", b"one", b"two"), fork(self.streams, "f", "a", 6, b"x"))
        self.make_on(create(self.target, "a", b"other"))
        stats = self.restore(self.backup())
        self.assertEqual((stats.streams_restored, stats.streams_skipped), (1, 1))
        self.assertEqual((self.text("a"), self.text("f")), (b"other", b"onetwox"))
        # The fork keeps a source that no client finds, and is backed up with it.
        third = self.started(Streams(MemoryStorage(), self.clock))
        self.restore(self.backup(self.target), third)
        self.assertEqual(now_of(third.read("f", Offset(0, 0), 99)).data, b"onetwox")
        self.assertEqual([each.facts.name for each in now_of(third.statuses())], ["a", "f"])

    def test_a_fork_of_an_existing_source_with_the_same_bytes_is_made_of_it(self) -> None:
        self.make_on(create(self.streams, "a", b"one", b"two"), fork(self.streams, "f", "a", 3, b"x"))
        data = self.backup()
        self.restore(data)
        self.make_on(settle_delete(self.target, "f"), write(self.target, "a", b"more"))
        self.restore(data)
        self.assertEqual(self.names(self.target), ["a", "f"])
        self.assertEqual(now_of(self.target.record("f")).source, "a")
        self.assertEqual((self.text("a"), self.text("f")), (b"onetwomore", b"onex"))

    def test_a_source_deleted_on_this_server_is_not_needed_for_its_forks(self) -> None:
        self.make_on(
            create(self.streams, "a", b"one"), fork(self.streams, "f", "a", 3), fork(self.streams, "g", "a", 3)
        )
        data = self.backup()
        self.restore(data)
        self.make_on(settle_delete(self.target, "f"), settle_delete(self.target, "a"))
        stats = self.restore(data)
        self.assertEqual((stats.streams_restored, stats.streams_skipped), (1, 2))
        self.assertEqual((self.text("f"), self.text("g")), (b"one", b"one"))

    def test_nothing_is_left_staged(self) -> None:
        data = self.make_both()
        for policy in ("skip", "replace", "replace", "skip"):
            self.restore(data, on_conflict=policy)
            self.assertEqual(self.names(self.target), ["a", "b"])


class FailureTests(ArchiveCase):
    def test_a_damaged_archive_changes_nothing(self) -> None:
        self.make_on(create(self.streams, "a", b"x" * 1000), create(self.streams, "b", os.urandom(1000)))
        data = bytearray(self.backup())
        data[-1500] ^= 1
        for broken in (bytes(data), bytes(data[:-100]), b"", b"no archive"):
            for policy in ("skip", "replace"):
                with self.assertRaises(ArchiveInvalid):
                    self.restore(broken, on_conflict=policy)
        self.assertEqual(self.names(self.target), [])

    def test_a_limit_of_the_caller_refuses_the_archive_before_anything_is_written(self) -> None:
        self.make_on(create(self.streams, "a", b"x" * 100_000))
        with self.assertRaises(ArchiveTooLarge):
            self.restore(self.backup(), limits=ArchiveLimits(max_bytes=50_000))
        self.assertEqual(self.names(self.target), [])

    def test_a_full_storage_ends_the_restore_with_whole_streams_and_a_second_run_completes_it(self) -> None:
        names = self.run_to_end(make_world(self.streams))
        before = self.contents(self.streams, names)
        data = self.backup()
        size = self.streams.figures().bytes
        for policy in ("skip", "replace"):
            for limit in range(0, size, 3):
                storage = MemoryStorage(StorageLimits(total_bytes=limit))
                target = self.started(Streams(storage, self.clock))
                with self.assertRaisesRegex(
                    PartialRestore,
                    "This stream and those after it are unchanged.*[.] Every stream is whole[.] Remove the cause, and",
                ) as caught:
                    self.restore(data, target, on_conflict=policy)
                self.assertIsInstance(caught.exception.source, StorageFull)
                for status in now_of(target.statuses()):
                    name = status.facts.name
                    present = self.contents(target, [name])[name]
                    # Only the names and number of forks differ while the family is incomplete.
                    self.assertEqual(present[1:], before[name][1:])
                    self.assertEqual(
                        changed(present[0], forks=0, source=ANY), changed(before[name][0], forks=0, source=ANY)
                    )
                storage._catalogue._max_bytes = 10**9
                storage._catalogue._limits = StorageLimits(total_bytes=10**9)
                self.restore(data, target, on_conflict=policy)
                for name in set(names) - {"z", "f"}:
                    present = self.contents(target, [name])[name]
                    self.assertEqual(present[1:], before[name][1:])
                self.assertEqual(self.staged_and_live(target), [])

    def staged_and_live(self, streams: Streams) -> list[str]:
        """Return the names of staged streams that are not deleted."""
        found = streams._owned._catalogue.streams  # type: ignore[attr-defined]
        return [name for name, stream in found.items() if name.startswith("__ds/") and not stream.deleted]

    def test_what_a_crash_leaves_is_removed_by_a_second_restore_and_expires_by_itself(self) -> None:
        self.make_on(
            create(self.streams, "a", b"one"), fork(self.streams, "f", "a", 3, b"x"), create(self.streams, "z", b"y")
        )
        self.make_on(settle_delete(self.streams, "a"))
        data = self.backup()
        before = self.contents(self.streams, ["a", "f", "z"])
        self.make_on(create(self.target, "__ds/restore/0/a", b"on", config=changed(TEXT, lifetime=Lifetime(ttl=3600))))
        self.make_on(fork(self.target, "__ds/restore/0/f", "__ds/restore/0/a", 2, b"xyz"))
        self.restore(data)
        self.assertEqual(self.contents(self.target, ["a", "f", "z"]), before)
        self.clock.advance(3601)
        self.assertEqual(self.names(self.target), ["a", "f", "z"])

    def test_a_fork_left_by_a_crash_does_not_keep_its_source_from_being_replaced(self) -> None:
        self.make_on(create(self.streams, "a", b"one"), fork(self.streams, "f", "a", 3, b"x"))
        data = self.backup()
        self.make_on(create(self.target, "a", b"new"), fork(self.target, "__ds/restore/0/f", "a", 3, b"x"))
        self.restore(data, on_conflict="replace")
        self.assertEqual(self.names(self.target), ["a", "f"])

    def test_a_long_restore_keeps_staged_sources_alive(self) -> None:
        self.make_on(
            create(self.streams, "a", b"one"), fork(self.streams, "f", "a", 3, b"x"), settle_delete(self.streams, "a")
        )
        data = self.backup()
        create_stream = self.target.create

        def slow(name: str, config: StreamConfig, body: bytes) -> Any:
            if name.endswith("/f"):
                for _ in range(80):
                    self.clock.advance(60)
            return create_stream(name, config, body)

        self.patch(self.target, "create", slow)
        self.assertEqual(self.restore(data).streams_restored, 1)

    def test_a_stream_created_during_the_restore_is_skipped(self) -> None:
        self.make_on(
            create(self.streams, "a", b"one"), fork(self.streams, "f", "a", 3, b"x"), create(self.streams, "z")
        )
        data = self.backup()
        install = self.target.install

        def late(staged: str, name: str, restoration: Any, replace: bool) -> Any:
            if name in ("a", "z"):
                self.target.create(name, TEXT, b"mine")
            return install(staged, name, restoration, replace)

        self.patch(self.target, "install", late)
        stats = self.restore(data)
        self.assertEqual((stats.streams_restored, stats.streams_skipped), (1, 2))
        found = [now_of(self.target.read(name, Offset(0, 0), 99)).data for name in ("a", "f", "z")]
        self.assertEqual(found, [b"mine", b"onex", b"mine"])
        self.assertEqual(self.staged_and_live(self.target), [])

    def test_nothing_is_appended_while_the_storage_is_congested(self) -> None:
        self.make_on(create(self.streams, "a", *[bytes(500_000)] * 5))
        data = self.backup()
        congested = True
        self.patch(self.target, "congested", lambda: congested)
        done = restore_streams(self.target, io.BytesIO(data), reactor=self.clock)
        self.clock.pump([0.01] * 500)
        self.assertFalse(done.called)
        self.assertEqual(self.target.figures().bytes, 0)
        congested = False
        self.assertEqual(self.run_to_end_in_steps(done).bytes_restored, 2_500_000)

    def run_to_end_in_steps(self, done: Deferred[RestoreStats]) -> RestoreStats:
        self.clock.pump([0.01] * 100)
        return self.run_to_end(done)

    def test_a_second_restore_at_the_same_time_is_refused(self) -> None:
        self.make_on(create(self.streams, "a", b"x"))
        data = self.backup()
        first = restore_streams(self.target, endless(data), reactor=self.clock, directory=self.directory)
        with self.assertRaisesRegex(RestoreInProgress, "another restore is in progress"):
            self.restore(data)
        first.cancel()
        with self.assertRaises(CancelledError):
            self.run_to_end(first)
        self.assertEqual(self.restore(data).streams_restored, 1)

    def test_a_storage_that_is_not_open_is_reported_before_anything_is_written(self) -> None:
        self.make_on(create(self.streams, "a", b"x"))
        closed = Streams(MemoryStorage(), self.clock)
        with self.assertRaises(Unavailable):
            self.restore(self.backup(), closed)
        with self.assertRaises(Unavailable):
            self.run_to_end(backup_streams(closed, io.BytesIO(), reactor=self.clock))


async def endless(data: bytes) -> AsyncIterator[bytes]:
    """Return the beginning of an archive, and never its end."""
    yield data[:100]
    await Deferred()


class SourceTests(ArchiveCase):
    def test_a_pipe_is_copied_into_a_private_file_without_a_name(self) -> None:
        self.make_on(create(self.streams, "a", os.urandom(500_000)))
        data = self.backup()

        class Source(io.RawIOBase):
            left = io.BytesIO(data)

            def seekable(self) -> bool:
                return False

            def readable(self) -> bool:
                return True

            def readinto(self, buffer: Any) -> int:
                return self.left.readinto(buffer)

        stats = self.run_to_end(
            restore_streams(self.target, Source(), reactor=self.clock, directory=self.directory)  # type: ignore[arg-type]
        )
        self.assertEqual(stats.streams_restored, 1)
        self.assertEqual(self.left_files(), [])

    def test_pieces_of_a_request_are_copied_and_cut_ones_refused(self) -> None:
        self.make_on(create(self.streams, "a", os.urandom(500_000)))
        data = self.backup()

        async def pieces(end: int) -> AsyncIterator[bytes]:
            for start in range(0, end, 10_000):
                yield data[start : min(start + 10_000, end)]

        with self.assertRaisesRegex(ArchiveInvalid, "cut off"):
            self.run_to_end(
                restore_streams(self.target, pieces(len(data) - 1), reactor=self.clock, directory=self.directory)
            )
        with self.assertRaisesRegex(ArchiveTooLarge, "more than 100000 bytes"):
            limits = ArchiveLimits(max_bytes=100_000)
            self.run_to_end(
                restore_streams(
                    self.target, pieces(len(data)), limits=limits, reactor=self.clock, directory=self.directory
                )
            )
        self.assertEqual(self.left_files(), [])
        stats = self.run_to_end(
            restore_streams(self.target, pieces(len(data)), reactor=self.clock, directory=self.directory)
        )
        self.assertEqual(stats.bytes_restored, 500_000)

    def test_an_endless_source_that_is_no_archive_is_refused_at_its_first_bytes(self) -> None:
        read = 0

        async def zeros(size: int) -> AsyncIterator[bytes]:
            nonlocal read
            while read < 100_000:
                read += size
                yield bytes(size)

        for size in (1, 3, 10_000):
            read = 0
            with self.assertRaisesRegex(ArchiveInvalid, "not an archive of streams"):
                self.run_to_end(restore_streams(self.target, zeros(size), reactor=self.clock, directory=self.directory))
            self.assertEqual(read, size)

    def test_an_archive_may_arrive_in_single_bytes(self) -> None:
        self.make_on(create(self.streams, "a", b"x"))
        data = self.backup()

        async def single() -> AsyncIterator[bytes]:
            for byte in data:
                yield bytes([byte])

        stats = self.run_to_end(restore_streams(self.target, single(), reactor=self.clock, directory=self.directory))
        self.assertEqual(stats.streams_restored, 1)

    def test_a_temporary_directory_that_cannot_be_used_is_named(self) -> None:
        missing = str(Path(self.directory) / "missing")

        async def pieces() -> AsyncIterator[bytes]:
            yield b"x"

        with self.assertRaisesRegex(SpoolFailed, "missing"):
            self.run_to_end(restore_streams(self.target, pieces(), reactor=self.clock, directory=missing))
