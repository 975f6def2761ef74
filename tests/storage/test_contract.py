"""The contract itself: a storage may answer later and may be durable, and one with a bug does not get through."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Mapping
from typing import Any, cast

from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test
from msgspec.structs import replace
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from durable_streams.server.errors import OffsetGone, StorageFull, StreamsError
from durable_streams.server.interfaces import ICommitListener, IStorage
from durable_streams.server.model import (
    Append,
    Appended,
    Chunk,
    Created,
    ForkPoint,
    Lifetime,
    Offset,
    StorageLimits,
    StreamConfig,
    StreamFacts,
    StreamRestoration,
    StreamStatus,
    Writer,
    WriterState,
)
from durable_streams.server.storage.catalogue import Catalogue
from durable_streams.server.storage.memory import MemoryStorage, _append_at, _Stream
from durable_streams.server.storage.metadata import writers_size
from durable_streams.server.storage.values import ValueTable, check_puts
from durable_streams.server.testing import DurableStorageContract, StorageContract, storage_machine
from durable_streams.server.testing.values import WEEK
from tests.support.late_storage import LateStorage


def late(limits: StorageLimits) -> LateStorage:
    """Make a storage that writes in a later turn of the reactor than it is asked, and answers then."""
    return LateStorage(MemoryStorage(limits), reactor, delay=0)


class LateTests(StorageContract, TestCase):
    """A storage that answers later passes."""

    async def make_storage(self, limits: StorageLimits) -> LateStorage:
        await deferLater(reactor, 0)
        return late(limits)


class KeptStorage(MemoryStorage):
    """A storage that is durable enough for a test: a new one uses the catalogue of the previous one."""

    catalogue_type: type[Catalogue[_Stream]] = Catalogue
    entry_type: type[_Stream] = _Stream

    def __init__(self, limits: StorageLimits) -> None:
        super().__init__(limits)
        self._go_on_with(self.catalogue_type(limits, self.entry_type, _append_at, self._removed))

    def _go_on_with(self, catalogue: Catalogue[_Stream]) -> None:
        self._catalogue = catalogue
        catalogue._removed = self._removed
        self._streams, self._find, self._write = catalogue.streams, catalogue.find, catalogue.append

    def reopened(self) -> KeptStorage:
        catalogue = self._catalogue
        other = type(self)(catalogue._limits)
        other._go_on_with(catalogue)
        # What there is was written by the one before.
        catalogue._unwritten = catalogue._bytes
        vars(self).clear()
        return other


class KeptTests(DurableStorageContract, TestCase):
    """A storage that is durable passes, and none of the tests is skipped."""

    def make_storage(self, limits: StorageLimits) -> KeptStorage:
        return KeptStorage(limits)

    async def reopen(self, storage: IStorage) -> IStorage:
        assert isinstance(storage, KeptStorage)
        return storage.reopened()


# The bugs


class ForgetsWriters(KeptStorage):
    """An append goes in, and its writer is not remembered."""

    class entry_type(_Stream):
        def record_writer(self, writer_id: str, state: WriterState, forgotten: tuple[str, ...]) -> None:
            pass


class ForgetsWritersAfterAWeek(KeptStorage):
    """A writer's state is gone when nothing was heard of the writer for a week."""

    def append(self, name: str, append: Append, now: float) -> Appended:
        stream = self._catalogue.streams.get(name)
        for writer_id, state in list(((stream and stream.writers) or {}).items()):
            if stream is not None and stream.writers is not None and now - state.seen >= WEEK:
                del stream.writers[writer_id]
        return super().append(name, append, now)


class ForgetsTheNewestWriter(KeptStorage):
    """A new writer evicts the most recently seen one."""

    class catalogue_type(Catalogue[_Stream]):
        def evicted_by(self, stream: _Stream, writer: Writer | None) -> tuple[str, ...]:
            return tuple(list(stream.writers or ())[-1:]) if super().evicted_by(stream, writer) else ()


class ForgetsWritersInVain(KeptStorage):
    """A new writer takes another's place even though its append is refused."""

    def append(self, name: str, append: Append, now: float) -> Appended:
        try:
            return super().append(name, append, now)
        except StorageFull:
            stream = self._catalogue.streams[name]
            if append.writer is not None and stream.writers is not None:
                for writer_id in self._catalogue.evicted_by(stream, append.writer):
                    del stream.writers[writer_id]
            raise


class ClosesInAStepOfItsOwn(KeptStorage):
    """The close is not one with the append that it comes with, and goes in when that is refused."""

    def append(self, name: str, append: Append, now: float) -> Appended:
        try:
            return super().append(name, append, now)
        except StreamsError:
            stream = self._catalogue.streams.get(name)
            if stream is not None and append.close:
                stream.closed = True
            raise


class KeepsTheRoom(KeptStorage):
    """A deleted stream's bytes stay counted."""

    class catalogue_type(Catalogue[_Stream]):
        def remove(self, stream: _Stream) -> None:
            before = self._bytes
            super().remove(stream)
            self._bytes = before


class KeepsTheMetadata(KeptStorage):
    """The name and the writers of a deleted stream stay counted."""

    class catalogue_type(Catalogue[_Stream]):
        def remove(self, stream: _Stream) -> None:
            before = self._metadata
            super().remove(stream)
            self._metadata = before


class CountsRefusedWriters(KeptStorage):
    """A new writer is counted even though its append is refused."""

    class catalogue_type(Catalogue[_Stream]):
        def _check_metadata_room(self, size: int) -> None:
            try:
                super()._check_metadata_room(size)
            except StreamsError:
                self._metadata += size
                raise


class CountsForgottenWriters(KeptStorage):
    """An evicted writer stays counted."""

    class catalogue_type(Catalogue[_Stream]):
        def _grow_metadata(
            self, stream: _Stream, append: Append, known: WriterState | None, evicted: tuple[str, ...]
        ) -> None:
            super()._grow_metadata(stream, append, known, evicted)
            self._metadata += writers_size(evicted)


class CountsRefusedAppends(KeptStorage):
    """The room that an append was to have is not given back when it is refused."""

    def append(self, name: str, append: Append, now: float) -> Appended:
        try:
            return super().append(name, append, now)
        except StreamsError:
            self._catalogue._bytes += len(append.data)
            raise


class HoldsSourcesOfRefusedForks(KeptStorage):
    """A fork counts for its source before it is known whether it will be made."""

    def create(
        self, name: str, config: StreamConfig, body: bytes, now: float, point: ForkPoint | None = None
    ) -> Created:
        try:
            return super().create(name, config, body, now, point)
        except StreamsError:
            source = self._catalogue.streams.get(config.fork.source) if config.fork is not None else None
            if source is not None and name not in self._catalogue.streams:
                source.forks += 1
            raise


class FreesDeletedSources(KeptStorage):
    """A source is gone when it is deleted, whoever reads it still."""

    def delete(self, name: str, now: float) -> None:
        stream = self._find(name, now)
        super().delete(name, now)
        self._catalogue.streams.pop(name, None)
        self._catalogue._bytes -= len(stream.data) if stream.forks else 0


class LetsWritersIntoForks(KeptStorage):
    """A fork goes on with the writers and the Stream-Seq of its source."""

    def create(
        self, name: str, config: StreamConfig, body: bytes, now: float, point: ForkPoint | None = None
    ) -> Created:
        created = super().create(name, config, body, now, point)
        stream = self._catalogue.streams[name]
        if created.new and stream.source is not None:
            stream.writers = dict(stream.source.writers or {})
            stream.sequence = stream.source.sequence
        return created


class ShowsForksWhatComesLater(KeptStorage):
    """A fork that has written nothing itself has its source's tail."""

    def read(self, name: str, offset: Offset, limit: int, now: float, whole: bool = False, renew: bool = True) -> Chunk:
        stream = self._find(name, now)
        if stream.source is not None and not stream.data:
            stream.base = stream.source.tail
        return super().read(name, offset, limit, now, whole, renew)


class RenewsByLooking(KeptStorage):
    """To describe a stream is to use it."""

    def status(self, name: str, now: float) -> StreamStatus:
        self.renew(name, now)
        return super().status(name, now)


class KeepsExpiredStreams(KeptStorage):
    """Expired streams are found until they are swept."""

    class catalogue_type(Catalogue[_Stream]):
        def find(self, name: str, now: float) -> _Stream:
            return super().find(name, min(now, self.streams[name].deadline - 1) if name in self.streams else now)


@implementer(ICommitListener)
class Deaf:
    def committed(self, name: str) -> None:
        pass


class AnnouncesTooEarly(KeptStorage):
    """The listener is notified before a change is visible, and not after it."""

    def append(self, name: str, append: Append, now: float) -> Appended:
        listener, self._listener = self._listener, Deaf()
        listener.committed(name)
        try:
            return super().append(name, append, now)
        finally:
            self._listener = listener


class SaysNothing(KeptStorage):
    """The listener is never notified."""

    def listen(self, listener: ICommitListener) -> None:
        pass


class ReusesIncarnations(KeptStorage):
    """A recreated stream has the incarnation of the earlier one."""

    class entry_type(_Stream):
        def __init__(self, facts: StreamFacts, config: StreamConfig, lifetime: Lifetime, base: int, now: float) -> None:
            super().__init__(replace(facts, incarnation=1), config, lifetime, base, now)


class ReadsOnAfterADeletion(KeptStorage):
    """A range is read from whatever has the name now."""

    def read_range(self, facts: StreamFacts, start: int, end: int, hidden: bool = False) -> bytes:
        stream = self._catalogue.streams.get(facts.name)
        return super().read_range(facts if stream is None else stream.facts, start, end, hidden)


class TakesStaleOffsets(KeptStorage):
    """An offset of an earlier stream is read from the start."""

    def read(self, name: str, offset: Offset, limit: int, now: float, whole: bool = False, renew: bool = True) -> Chunk:
        try:
            return super().read(name, offset, limit, now, whole, renew)
        except OffsetGone:
            return super().read(name, Offset(0, 0), limit, now, whole, renew)


class CutsMessages(KeptStorage):
    """Reads of whole appends end at the limit, inside an append."""

    def read(self, name: str, offset: Offset, limit: int, now: float, whole: bool = False, renew: bool = True) -> Chunk:
        return super().read(name, offset, limit, now, False, renew)


class ForgetsWritersWhenClosed(KeptStorage):
    """Data is durable, and writers are not."""

    def reopened(self) -> KeptStorage:
        for stream in self._catalogue.streams.values():
            stream.writers = None
        return super().reopened()


class CountsAnewWhenOpened(KeptStorage):
    """Ids begin at the clock when a storage is opened, and the clock may have gone back."""

    def reopened(self) -> KeptStorage:
        other = super().reopened()
        other._catalogue.last_id = 0
        return other


class ForgetsInstalledIncarnations(KeptStorage):
    """Ids follow the clock, whatever incarnation was installed."""

    class catalogue_type(Catalogue[_Stream]):
        def install(self, *arguments: Any) -> Any:
            last_id = self.last_id
            try:
                return super().install(*arguments)
            finally:
                self.last_id = last_id


class KeepsTheStagedLifetime(KeptStorage):
    """An installed stream expires when the staged one would have."""

    class entry_type(_Stream):
        def install(self, name: str, state: StreamRestoration, used_at: float) -> None:
            deadline = self.deadline
            super().install(name, state, used_at)
            self.deadline = deadline


class InstallsSilently(KeptStorage):
    """The listener is not notified of installations."""

    def install(self, *arguments: Any) -> StreamStatus:
        listener, self._listener = self._listener, Deaf()
        try:
            return super().install(*arguments)
        finally:
            self._listener = listener


class WritesValuesUnseen(KeptStorage):
    """It does not compare values with what is expected."""

    def write_values(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> None:
        super().write_values(puts, {})


class WritesValuesInParts(KeptStorage):
    """It writes the values that are left when it finds another than expected."""

    def write_values(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> None:
        for key, value in puts.items():
            super().write_values({key: value}, {each: expected[each] for each in expected if each == key})
        super().write_values({}, {key: expected[key] for key in expected if key not in puts})


class KeepsRemovedValues(KeptStorage):
    """It writes an empty value in place of one that is removed."""

    def write_values(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> None:
        super().write_values({key: value or b"" for key, value in puts.items()}, expected)


class RepeatsTheLastKey(KeptStorage):
    """A page begins with the key after which it should."""

    def values(self, prefix: str = "", after: str = "", max_count: int = 1000) -> list[tuple[str, bytes]]:
        every = super().values(prefix, "", 1 << 40)
        return [(key, value) for key, value in every if key >= after][:max_count]


class CountsNoValues(KeptStorage):
    """Values are without a limit."""

    def write_values(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> None:
        check_puts(puts, expected)
        self._catalogue.values.check(expected)
        self._catalogue.values.apply(puts)


class AnnouncesValues(KeptStorage):
    """Readers of a stream are woken by a value of its name."""

    def write_values(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> None:
        super().write_values(puts, expected)
        for key in puts:
            self._listener.committed(key)


class ForgetsValuesWhenClosed(KeptStorage):
    """Values end with the process."""

    def reopened(self) -> KeptStorage:
        other = super().reopened()
        other._catalogue.values = ValueTable()
        return other


class LosesAValueRace(LateStorage):
    """It compares values when it is asked, and writes them later."""

    def write_values(self, puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> Deferred[None]:
        self._inner._catalogue.values.check(expected)
        return super().write_values(puts, {})


class LosesARace(LateStorage):
    """An append is checked before it waits, and written without another check."""

    def append(self, name: str, append: Append, now: float) -> Deferred[Appended]:
        stream = self._inner._find(name, now)
        checked = stream.closed, stream.sequence, dict(stream.writers or {})

        def write() -> Appended:
            closed = stream.closed
            stream.closed, stream.sequence, stream.writers = checked
            try:
                return self._inner.append(name, append, now)
            finally:
                stream.closed = stream.closed or closed

        return self._later("append", write)


def failures_of(make: Callable[[StorageLimits], IStorage]) -> set[str]:
    """Run the contract, and say which of its tests do not pass."""

    class Suite(StorageContract, TestCase):
        patience = 0.05

        def make_storage(self, limits: StorageLimits) -> IStorage:
            return make(limits)

    class DurableSuite(DurableStorageContract, TestCase):
        patience = 0.05

        def make_storage(self, limits: StorageLimits) -> IStorage:
            return make(limits)

        def reopen(self, storage: IStorage) -> IStorage:
            assert isinstance(storage, KeptStorage)
            return storage.reopened()

    result = unittest.TestResult()
    suite = DurableSuite if isinstance(make(StorageLimits()), KeptStorage) else Suite
    unittest.TestLoader().loadTestsFromTestCase(suite).run(result)
    if result.testsRun < 200:
        raise RuntimeError(f"Only {result.testsRun} tests were run.")
    return {case.id().rpartition(".")[2] for case, _ in [*result.failures, *result.errors]}


class CaughtByTheContractTests(SynchronousTestCase):
    """Each bug is caught by the test that is meant for it, and perhaps by others."""

    def assert_caught(self, make: Callable[[StorageLimits], IStorage], *names: str) -> None:
        self.assertEqual(set(names) - failures_of(make), set(), "These pass, in spite of the bug.")

    def test_storages_without_a_bug_pass(self) -> None:
        self.assertEqual((failures_of(KeptStorage), failures_of(late)), (set(), set()))

    def test_a_storage_that_does_not_record_writers_is_caught(self) -> None:
        self.assert_caught(
            ForgetsWriters,
            "test_a_retry_writes_nothing_and_returns_the_last_sequence_number",
            "test_a_new_epoch_fences_the_old_one",
        )

    def test_a_storage_that_drops_writers_after_a_week_is_caught(self) -> None:
        self.assert_caught(ForgetsWritersAfterAWeek, "test_a_writer_is_recorded_as_long_as_the_stream_exists")

    def test_a_storage_that_evicts_the_wrong_writer_is_caught(self) -> None:
        self.assert_caught(ForgetsTheNewestWriter, "test_a_new_writer_replaces_the_least_recently_seen_one")

    def test_a_storage_that_evicts_a_writer_for_a_rejected_append_is_caught(self) -> None:
        self.assert_caught(ForgetsWritersInVain, "test_a_rejected_new_writer_replaces_none")

    def test_a_storage_that_appends_and_closes_in_two_steps_is_caught(self) -> None:
        self.assert_caught(ClosesInAStepOfItsOwn, "test_a_rejected_append_does_not_close_the_stream")

    def test_storages_that_install_streams_wrongly_are_caught(self) -> None:
        for bug, name in (
            (ForgetsInstalledIncarnations, "test_ids_and_incarnations_are_greater_than_every_installed_incarnation"),
            (KeepsTheStagedLifetime, "test_an_installed_stream_without_lifetime_does_not_expire"),
            (InstallsSilently, "test_an_installation_is_announced_under_the_new_name"),
        ):
            self.assert_caught(bug, name)

    def test_storages_that_write_values_wrongly_are_caught(self) -> None:
        for bug, name in (
            (WritesValuesUnseen, "test_another_value_than_expected_is_refused"),
            (WritesValuesInParts, "test_another_value_than_expected_is_refused"),
            (KeepsRemovedValues, "test_a_put_replaces_a_value_and_none_removes_it"),
            (RepeatsTheLastKey, "test_pages_have_the_values_of_a_prefix_after_a_key"),
            (CountsNoValues, "test_values_and_streams_share_the_limit_of_metadata"),
            (AnnouncesValues, "test_values_are_not_announced"),
            (ForgetsValuesWhenClosed, "test_values_survive_reopening"),
        ):
            self.assert_caught(bug, name)

    def test_a_storage_that_compares_values_before_other_writes_is_caught(self) -> None:
        self.assert_caught(
            lambda limits: LosesAValueRace(MemoryStorage(limits), reactor, delay=0),
            "test_of_concurrent_writes_that_expect_one_value_one_succeeds",
        )

    def test_a_storage_that_counts_deleted_data_is_caught(self) -> None:
        self.assert_caught(
            KeepsTheRoom,
            "test_deleted_data_does_not_count_towards_the_limits",
            "test_swept_streams_do_not_count_towards_the_limits",
        )

    def test_a_storage_that_counts_rejected_appends_is_caught(self) -> None:
        self.assert_caught(CountsRefusedAppends, "test_a_rejected_append_does_not_count_towards_the_limits")

    def test_a_storage_whose_rejected_forks_keep_their_source_is_caught(self) -> None:
        self.assert_caught(HoldsSourcesOfRefusedForks, "test_a_rejected_fork_does_not_keep_its_deleted_source")

    def test_a_storage_that_drops_deleted_sources_of_forks_is_caught(self) -> None:
        self.assert_caught(FreesDeletedSources, "test_a_deleted_source_stays_for_its_forks")

    def test_a_storage_that_counts_metadata_of_deleted_streams_is_caught(self) -> None:
        self.assert_caught(KeepsTheMetadata, "test_metadata_of_a_deleted_source_counts_until_its_forks_are_gone")

    def test_a_storage_that_counts_rejected_metadata_is_caught(self) -> None:
        self.assert_caught(
            CountsRefusedWriters,
            "test_names_and_content_types_share_a_limit",
            "test_stream_seq_counts_as_metadata",
            "test_writers_of_all_streams_share_a_limit",
        )

    def test_a_storage_that_counts_metadata_of_evicted_writers_is_caught(self) -> None:
        self.assert_caught(CountsForgottenWriters, "test_a_writer_that_replaces_another_needs_only_the_difference")

    def test_a_storage_whose_forks_inherit_writers_is_caught(self) -> None:
        self.assert_caught(
            LetsWritersIntoForks, "test_a_fork_inherits_no_writers", "test_a_fork_inherits_no_stream_seq"
        )

    def test_a_storage_whose_forks_follow_their_source_is_caught(self) -> None:
        self.assert_caught(ShowsForksWhatComesLater, "test_a_fork_without_own_data_does_not_follow_its_source")

    def test_a_storage_whose_status_renews_ttls_is_caught(self) -> None:
        self.assert_caught(RenewsByLooking, "test_status_does_not_renew_a_ttl")

    def test_a_storage_that_serves_expired_streams_until_swept_is_caught(self) -> None:
        self.assert_caught(
            KeepsExpiredStreams, "test_a_stream_expires_after_its_ttl", "test_a_stream_expires_at_expires_at"
        )

    def test_a_storage_that_announces_commits_too_early_is_caught(self) -> None:
        self.assert_caught(AnnouncesTooEarly, "test_an_append_is_announced", "test_a_close_is_announced")

    def test_a_storage_that_does_not_announce_commits_is_caught(self) -> None:
        self.assert_caught(
            SaysNothing, "test_a_creation_is_announced", "test_an_expiry_is_announced_when_the_stream_is_swept"
        )

    def test_a_storage_that_reuses_incarnations_is_caught(self) -> None:
        self.assert_caught(ReusesIncarnations, "test_a_recreated_stream_has_a_new_id_and_incarnation")

    def test_a_storage_that_reads_ranges_from_a_recreated_stream_is_caught(self) -> None:
        self.assert_caught(ReadsOnAfterADeletion, "test_a_range_of_a_deleted_stream_is_not_found")

    def test_a_storage_that_accepts_stale_offsets_is_caught(self) -> None:
        self.assert_caught(TakesStaleOffsets, "test_the_offset_of_an_earlier_stream_is_gone")

    def test_a_storage_that_splits_messages_is_caught(self) -> None:
        self.assert_caught(CutsMessages, "test_a_large_append_is_read_up_to_the_limit_and_its_rest_is_counted")

    def test_a_storage_that_loses_writers_at_a_restart_is_caught(self) -> None:
        self.assert_caught(ForgetsWritersWhenClosed, "test_writers_survive_reopening")

    def test_a_storage_that_reuses_ids_after_a_restart_is_caught(self) -> None:
        self.assert_caught(CountsAnewWhenOpened, "test_ids_and_incarnations_are_not_reused_after_reopening")

    def test_a_storage_that_checks_before_other_writes_is_caught(self) -> None:
        self.assert_caught(
            lambda limits: LosesARace(MemoryStorage(limits), reactor, delay=0),
            "test_of_concurrent_retries_of_an_append_one_is_written",
            "test_of_concurrent_appends_with_one_stream_seq_one_is_accepted",
            "test_no_concurrent_append_is_written_after_a_close",
        )


def walk(make: Callable[[StorageLimits], IStorage], examples: int) -> int:
    """Let storages walk at random beside the model, by the same steps each time, and say how many did."""
    made = []

    def make_storage(limits: StorageLimits) -> IStorage:
        made.append(make(limits))
        return made[-1]

    machine = storage_machine(make_storage, reopen=lambda storage: cast("KeptStorage", storage).reopened())
    steps = settings(
        max_examples=examples,
        stateful_step_count=40,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
    )
    run_state_machine_as_test(machine, settings=steps)
    return len(made)


class CaughtByTheMachineTests(SynchronousTestCase):
    """The random walks find bugs without a specific test."""

    def assert_caught(self, make: Callable[[StorageLimits], IStorage]) -> None:
        # A walk ends at the first difference. What hypothesis generates depends on the modules that are loaded, so the
        # steps are the same each time only for the same tests.
        self.assertRaises(AssertionError, walk, make, 1500)

    def test_a_durable_storage_without_a_bug_passes(self) -> None:
        self.assertGreaterEqual(walk(KeptStorage, 50), 50)

    def test_a_storage_that_does_not_record_writers_is_caught(self) -> None:
        self.assert_caught(ForgetsWriters)

    def test_storages_that_write_values_wrongly_are_caught(self) -> None:
        for bug in (
            WritesValuesUnseen, WritesValuesInParts, KeepsRemovedValues, RepeatsTheLastKey, CountsNoValues,
            ForgetsValuesWhenClosed,
        ):  # fmt: skip
            self.assert_caught(bug)

    def test_a_storage_that_counts_rejected_appends_is_caught(self) -> None:
        self.assert_caught(CountsRefusedAppends)

    def test_a_storage_whose_forks_follow_their_source_is_caught(self) -> None:
        self.assert_caught(ShowsForksWhatComesLater)

    def test_a_storage_that_splits_messages_is_caught(self) -> None:
        self.assert_caught(CutsMessages)
