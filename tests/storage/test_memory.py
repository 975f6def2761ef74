"""Tests of the memory storage, besides the contract."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from time import process_time

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test
from twisted.trial.unittest import SynchronousTestCase, TestCase

from durable_streams.server.errors import StreamNotFound
from durable_streams.server.interfaces import IStorage
from durable_streams.server.model import (
    START,
    Append,
    Fork,
    Lifetime,
    Offset,
    StorageLimits,
    StreamConfig,
    Writer,
)
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.testing import StorageContract, storage_machine

NOW = 1_800_000_000.0
ALL = 2**40
MIB = 2**20
ROOMY = StorageLimits(total_bytes=ALL, stream_bytes=ALL, fork_depth=ALL)


class ContractTests(StorageContract, TestCase):
    def make_storage(self, limits: StorageLimits) -> MemoryStorage:
        return MemoryStorage(limits)


class RandomWalkTests(SynchronousTestCase):
    def test_memory_agrees_with_the_model(self) -> None:
        walked: list[IStorage] = []

        def make_storage(limits: StorageLimits) -> MemoryStorage:
            walked.append(MemoryStorage(limits))
            return MemoryStorage(limits)

        steps = settings(max_examples=150, stateful_step_count=40, database=None, deadline=None)
        run_state_machine_as_test(storage_machine(make_storage), settings=steps)
        self.assertGreaterEqual(len(walked), 150)


def text(lifetime: Lifetime = Lifetime()) -> StreamConfig:  # noqa: B008 (frozen)
    return StreamConfig("text/plain", lifetime)


def seconds_of(storage: MemoryStorage, name: str) -> float:
    """Return the shortest measured CPU time of a read of a whole stream."""
    best = 1e9
    for _ in range(5):
        begun = process_time()
        storage.read(name, START, ALL, NOW)
        best = min(best, process_time() - begun)
    return best


class ForkChainTests(SynchronousTestCase):
    """A fork of a fork of a fork..., ten thousand deep: each has one byte of its own."""

    depth = 10_000

    def chain(self, depth: int) -> MemoryStorage:
        storage = MemoryStorage(ROOMY)
        storage.create("0", text(), b"0", NOW)
        for number in range(1, depth):
            storage.create(str(number), StreamConfig(fork=Fork(str(number - 1))), b"%d" % (number % 10), NOW)
        return storage

    def test_a_deep_fork_chain_exceeds_pythons_recursion_limit(self) -> None:
        self.assertGreater(self.depth, sys.getrecursionlimit())

    def test_a_deep_fork_chain_can_be_read_completely(self) -> None:
        storage = self.chain(self.depth)
        chunk = storage.read(str(self.depth - 1), START, ALL, NOW)
        self.assertEqual(chunk.data, b"0123456789" * (self.depth // 10))
        self.assertEqual(storage.read_range(chunk.facts, 5000, 5010), b"0123456789")

    def test_a_deep_fork_chain_is_read_in_pieces_of_the_limit(self) -> None:
        storage = self.chain(self.depth)
        name = str(self.depth - 1)
        incarnation = storage.status(name, NOW).facts.incarnation
        sizes: list[int] = []
        while chunk := storage.read(name, Offset(incarnation, sum(sizes)), 1000, NOW, whole=True).data:
            sizes.append(len(chunk))
        self.assertEqual(sizes, [1000] * (self.depth // 1000))

    def test_the_time_to_read_a_fork_chain_grows_linearly(self) -> None:
        shallow, deep = self.chain(self.depth // 10), self.chain(self.depth)
        ratio = seconds_of(deep, str(self.depth - 1)) / seconds_of(shallow, str(self.depth // 10 - 1))
        self.assertLess(ratio, 50, "Ten times the depth: about 10 if it is linear, about 100 if it is quadratic.")

    def test_a_deep_fork_chain_is_purged_with_its_last_fork(self) -> None:
        storage = self.chain(self.depth)
        for number in range(self.depth):
            storage.delete(str(number), NOW)
        self.assertEqual((storage.statuses(NOW), storage._catalogue.streams, storage._catalogue._bytes), ([], {}, 0))

    def test_a_deep_fork_chain_can_be_garbage_collected(self) -> None:
        storage = self.chain(self.depth)
        storage.delete("0", NOW)
        storage._catalogue.streams.clear()
        self.assertEqual(storage._catalogue.streams, {})


class BytesTests(SynchronousTestCase):
    """Measurements of the memory that a storage uses."""

    def setUp(self) -> None:
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)

    def held(self) -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    def test_a_purged_streams_bytes_are_released_before_its_deadline(self) -> None:
        storage = MemoryStorage(ROOMY)
        before = self.held()
        storage.create("a", text(Lifetime(ttl=10**9)), b"x" * (8 * MIB), NOW)
        storage.append("a", Append("text/plain", b"x", writer=Writer("w", 0, 0)), NOW)
        self.assertGreater(self.held() - before, 8 * MIB)
        storage.delete("a", NOW)
        self.assertEqual(len(storage._catalogue._deadlines.steady), 1)
        self.assertLess(self.held() - before, MIB // 10)

    def test_a_purged_streams_writers_are_released_before_its_deadline(self) -> None:
        storage = MemoryStorage(ROOMY)
        before = self.held()
        storage.create("a", text(Lifetime(ttl=10**9)), b"", NOW)
        for number in range(5000):
            storage.append("a", Append("text/plain", b"x", writer=Writer(f"writer-{number}", 0, 0)), NOW)
        self.assertGreater(self.held() - before, MIB // 2)
        storage.delete("a", NOW)
        self.assertLess(self.held() - before, MIB // 10)

    def test_a_purged_sources_bytes_are_released(self) -> None:
        storage = MemoryStorage(ROOMY)
        before = self.held()
        storage.create("a", text(Lifetime(ttl=10**9)), b"x" * (8 * MIB), NOW)
        storage.create("b", StreamConfig(fork=Fork("a")), b"", NOW)
        storage.delete("a", NOW)
        self.assertGreater(self.held() - before, 8 * MIB)
        storage.delete("b", NOW)
        self.assertLess(self.held() - before, MIB // 10)

    def test_an_expired_streams_bytes_are_released(self) -> None:
        storage = MemoryStorage(ROOMY)
        before = self.held()
        storage.create("a", text(Lifetime(ttl=60)), b"x" * (8 * MIB), NOW)
        self.assertRaises(StreamNotFound, storage.status, "a", NOW + 60)
        self.assertLess(self.held() - before, MIB // 10)

    def test_a_fork_does_not_copy_what_it_inherits(self) -> None:
        storage = MemoryStorage(ROOMY)
        storage.create("a", text(), b"x" * (8 * MIB), NOW)
        before = self.held()
        for number in range(10):
            storage.create(str(number), StreamConfig(fork=Fork("a")), b"own", NOW)
        self.assertLess(self.held() - before, MIB // 10)

    def test_an_empty_stream_costs_at_most_2_kib(self) -> None:
        count = 20_000
        storage = MemoryStorage(ROOMY)
        before = self.held()
        for number in range(count):
            config = StreamConfig("text/plain; charset=" + "utf-8", Lifetime(ttl=3600 + number))
            storage.create(f"tenant-{number % 100}/documents/{number:036d}", config, b"", NOW)
        cost = (self.held() - before) / count
        self.assertEqual(len(storage._catalogue.streams), count)
        self.assertLessEqual(cost, 2048)

    def test_a_byte_appended_alone_costs_at_most_16(self) -> None:
        count = 30_000
        storage = MemoryStorage(ROOMY)
        storage.create("a", text(), b"", NOW)
        append = Append("text/plain", b"x")
        before = self.held()
        for _ in range(count):
            storage.append("a", append, NOW)
        cost = (self.held() - before) / count
        self.assertEqual(storage.status("a", NOW).tail, count)
        self.assertLessEqual(cost, 16)


class SingleByteTests(SynchronousTestCase):
    """A hundred thousand appends of one byte each."""

    count = 100_000

    def setUp(self) -> None:
        self.storage = MemoryStorage(ROOMY)
        self.storage.create("a", text(), b"", NOW)
        for number in range(self.count):
            self.storage.append("a", Append("text/plain", b"%d" % (number % 10)), NOW)
        self.incarnation = self.storage.status("a", NOW).facts.incarnation

    def test_many_one_byte_appends_are_read_in_one_call(self) -> None:
        self.assertEqual(self.storage.read("a", START, ALL, NOW).data, b"0123456789" * (self.count // 10))

    def test_many_one_byte_appends_are_read_in_pieces_from_any_position(self) -> None:
        for position in (0, 1, 4095, 50_001, self.count - 1):
            chunk = self.storage.read("a", Offset(self.incarnation, position), 4096, NOW, whole=True)
            self.assertEqual((chunk.start, len(chunk.data)), (position, min(4096, self.count - position)))
            self.assertEqual(chunk.data[:1], b"%d" % (position % 10))

    def test_a_stream_of_one_byte_appends_can_be_forked_anywhere(self) -> None:
        place = Fork("a", Offset(self.incarnation, 12_345), 1)
        self.assertEqual(self.storage.create("b", StreamConfig(fork=place), b"!", NOW).tail, 12_347)
        self.assertEqual(self.storage.read("b", Offset(self.incarnation, 12_344), ALL, NOW).data, b"45!")


class DeadlineTests(SynchronousTestCase):
    """The deadlines that a storage knows, of streams that are there no more among them, are bounded."""

    def test_creating_and_deleting_streams_does_not_accumulate_deadlines(self) -> None:
        storage = MemoryStorage(ROOMY)
        most = 0
        for number in range(20_000):
            storage.create(f"stream-{number}", text(Lifetime(ttl=10**9)), b"", NOW)
            storage.delete(f"stream-{number}", NOW)
            most = max(most, len(storage._catalogue._deadlines.steady))
        self.assertLessEqual(most, 1100)

    def test_recreating_one_name_does_not_accumulate_deadlines(self) -> None:
        storage = MemoryStorage(ROOMY)
        for _ in range(20_000):
            storage.create("a", text(Lifetime(ttl=10**9)), b"", NOW)
            storage.delete("a", NOW)
        self.assertLessEqual(len(storage._catalogue._deadlines.steady), 1100)

    def test_deleting_most_streams_releases_most_deadlines(self) -> None:
        storage = MemoryStorage(ROOMY)
        for number in range(10_000):
            storage.create(f"stream-{number}", text(Lifetime(ttl=1000 + number)), b"", NOW)
        for number in range(9_990):
            storage.delete(f"stream-{number}", NOW)
        self.assertLessEqual(len(storage._catalogue._deadlines.steady), 1100)

    def test_remaining_deadlines_still_expire_streams_after_a_release(self) -> None:
        storage = MemoryStorage(ROOMY)
        for number in range(3000):
            storage.create(f"stream-{number}", text(Lifetime(ttl=1000 - number % 500)), b"", NOW)
        for number in range(10, 3000):
            storage.delete(f"stream-{number}", NOW)
        self.assertEqual(storage.sweep(NOW + 995, 1000), 5)
        self.assertEqual(storage.sweep(NOW + 1000, 1000), 5)
        self.assertEqual(storage.statuses(NOW + 999), [])

    def test_renewing_ttls_does_not_accumulate_deadlines(self) -> None:
        storage = MemoryStorage(ROOMY)
        storage.create("a", text(Lifetime(ttl=60)), b"", NOW)
        for second in range(10_000):
            storage.renew("a", NOW + second)
            storage.sweep(NOW + second, 1000)
        self.assertEqual(len(storage._catalogue._deadlines.steady), 1)

    def test_streams_without_a_lifetime_have_no_deadline(self) -> None:
        storage = MemoryStorage(ROOMY)
        for number in range(100):
            storage.create(f"stream-{number}", text(), b"", NOW)
        self.assertEqual(storage._catalogue._deadlines.steady, [])
