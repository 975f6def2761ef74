"""Group commit of appends, on a real server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred, DeferredList, gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface import implementer

from durable_streams.server.errors import (
    SequenceConflict,
    StorageFull,
    StreamClosed,
    StreamGone,
    StreamNotFound,
    Unavailable,
    WriterFenced,
    WriterGap,
)
from durable_streams.server.interfaces import ICommitListener
from durable_streams.server.model import Append, Appended, Lifetime, StorageLimits, Writer
from durable_streams.server.storage.entry import facts_of
from durable_streams.server.storage.postgres.append_queue import AppendQueues
from durable_streams.server.storage.postgres.heads import Head
from durable_streams.server.storage.postgres.known import KnownStream
from durable_streams.server.storage.postgres.lookups import LookUps
from durable_streams.server.storage.postgres.queries import QueryFailed
from durable_streams.server.storage.postgres.writer import AppendWriter
from durable_streams.server.testing.values import T0
from tests.storage.postgres.databases import SCHEMA, Database, lookups_on, writer_on
from tests.storage.postgres.test_folding import Room


class NoUses:
    """Uses of streams, as a node notes them."""

    def __init__(self) -> None:
        self.renewed: list[tuple[str, float]] = []
        self.last: dict[int, float] = {}

    def last_use(self, stream_id: int) -> float:
        return self.last.get(stream_id, 0.0)

    def note(self, head: Head) -> None:
        self.renewed.append((head.facts.name, head.read_at))


@implementer(ICommitListener)
class Announced:
    """A listener that records the names of streams that have changed."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def committed(self, name: str) -> None:
        self.names.append(name)


class Node:
    """A node: its cache, its totals and its writer."""

    lookups: LookUps
    writer: AppendWriter

    async def start(
        self, case: TestCase, database: Database, limits: StorageLimits, max_bytes: int, patience: float
    ) -> None:
        from twisted.internet import reactor  # noqa: PLC0415 (the default one, which importing installs)

        self.room = Room()
        self.uses = NoUses()
        self.lookups = await lookups_on(case, database)
        self.connections = writer_on(case, database), writer_on(case, database, lock_timeout=0.2)
        self.queues = AppendQueues(self.lookups, limits, self.room, self.uses, max_bytes)
        self.writer = AppendWriter(self.connections, SCHEMA, self.queues, self.lookups, reactor, patience)
        case.addCleanup(self.writer.close)
        self.announced = Announced()
        self.queues.listener = self.announced

    def append(self, name: str, data: bytes = b"", **fields: Any) -> Deferred[Appended]:
        return self.writer.append(name, Append("text/plain", data, **fields))


def sleep(seconds: float) -> Deferred[None]:
    from twisted.internet import reactor  # noqa: PLC0415 (the default one, which importing installs)

    return deferLater(reactor, seconds, lambda: None)


async def outcomes(started: Iterable[Deferred[Appended]]) -> list[Any]:
    """Return the results, or the types of the errors."""
    results = await DeferredList(list(started), consumeErrors=True)
    return [result.tail if success else result.type for success, result in results]  # type: ignore[attr-defined]


class WriterTestCase(TestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        self.database = Database(self)
        self.node = await self.start()

    async def start(self, max_bytes: int = 1 << 20, patience: float = 5.0, **limits: int) -> Node:
        node = Node()
        await node.start(self, self.database, StorageLimits(**limits), max_bytes, patience)
        return node

    def head(self, name: str, columns: str) -> tuple[Any, ...]:
        return self.database.run(f"SELECT {columns} FROM streams WHERE name = %s", name)[0]


class AppendTests(WriterTestCase):
    async def append_by_two_names(self, *, locked: bool) -> None:
        """Append to a stream by its name, and by the one that it had before, which this node has cached, too."""
        self.database.add_stream("old")
        self.assertEqual(await outcomes([self.node.append("old", b"1")]), [1])
        self.database.run("UPDATE streams SET name = 'new', version = version + 1")
        self.assertEqual(await outcomes([self.node.append("new", b"2")]), [2])
        for names in (("old", "new"), ("new", "old")):
            stale = self.node.lookups.known("new")
            assert stale is not None
            facts = facts_of("old", stale.head.facts.id, stale.head.facts.incarnation, "text/plain")
            self.node.lookups.keep(KnownStream(replace(stale.head, facts=facts, version=1)))
            if locked:
                for name in names:
                    self.node.writer._contention.note(name)
            found = dict(zip(names, await outcomes([self.node.append(name, b"3") for name in names]), strict=True))
            self.assertIs(found["old"], StreamNotFound)
            self.assertIsInstance(found["new"], int)
        self.assertEqual(self.database.content("new"), b"1233")

    async def test_a_stream_whose_old_name_is_still_cached_stands_once_in_a_commit(self) -> None:
        await self.append_by_two_names(locked=False)

    async def test_a_stream_whose_old_name_is_still_cached_is_locked_once(self) -> None:
        await self.append_by_two_names(locked=True)

    async def test_appends_of_many_streams_are_written_by_one_statement(self) -> None:
        for number in range(100):
            self.database.add_stream(f"s{number}")
        started = [self.node.append(f"s{number}", b"%d" % turn) for turn in range(3) for number in range(100)]
        self.assertEqual(await outcomes(started), [1] * 100 + [2] * 100 + [3] * 100)
        self.assertEqual(sum(self.node.writer.figures.sizes.distribution().counts), 1)
        for number in range(100):
            self.assertEqual(self.database.content(f"s{number}"), b"012")
        self.assertEqual(self.head("s7", "tail, version, writers, closed, updated_at"), (3, 2, 0, False, T0))
        node = self.node.connections[0].node
        row = self.database.run("SELECT batch, bytes, metadata, written FROM nodes WHERE id = %s", node)
        self.assertEqual(row, [(1, 300, 0, None)])
        self.assertEqual(self.node.room.bytes, 300)
        self.assertEqual(self.node.writer.figures.sizes.distribution().total, 300)

    async def test_the_appends_of_a_stream_keep_their_order(self) -> None:
        self.database.add_stream("a")
        started = []
        for number in range(50):
            started.append(self.node.append("a", b"%02d" % number))
            if number % 7 == 0:
                await DeferredList(started[-1:])
        self.assertEqual(await outcomes(started), list(range(2, 102, 2)))
        self.assertEqual(self.database.content("a"), b"".join(b"%02d" % number for number in range(50)))

    async def test_a_commit_is_announced_before_it_is_answered(self) -> None:
        self.database.add_stream("a")
        changed: list[tuple[int, int]] = []
        self.node.queues.changed = lambda stream_id, version: changed.append((stream_id, version))
        heard: list[list[str]] = []
        await self.node.append("a", b"x").addCallback(lambda _: heard.append(list(self.node.announced.names)))
        self.assertEqual(heard, [["a"]])
        self.assertEqual(changed, [self.head("a", "id, version")])

    async def test_closing_stream_seq_and_writers_are_written(self) -> None:
        self.database.add_stream("a")
        await self.node.append("a", b"x", sequence=b"1", writer=Writer("w", 3, 0))
        await self.node.append("a", close=True, sequence=b"2", writer=Writer("w", 3, 1))
        self.assertEqual(self.head("a", "tail, closed, sequence, writers"), (1, True, b"2", 1))
        self.assertEqual(self.database.run("SELECT writer, epoch, seq, seen FROM writers"), [("w", 3, 1, T0)])
        self.assertEqual(self.database.run("SELECT sum(metadata)::bigint FROM nodes"), [(258,)])

    async def test_evicted_writers_are_removed(self) -> None:
        node = await self.start(writers=2)
        self.database.add_stream("a")
        for number in range(5):
            self.database.set_time(T0 + number)
            await node.append("a", b"x", writer=Writer(f"w{number}", 0, 0))
        self.assertEqual(self.database.run("SELECT writer FROM writers ORDER BY seen"), [("w3",), ("w4",)])
        self.assertEqual(self.head("a", "writers"), (2,))
        other = await self.start(writers=2)
        await outcomes([other.append("a", b"x", writer=Writer(f"v{number}", 0, 0)) for number in range(3)])
        self.assertEqual(self.database.run("SELECT count(*) FROM writers"), [(2,)])

    async def test_an_append_of_several_megabytes_has_several_chunks(self) -> None:
        node = await self.start(max_bytes=1 << 24)
        self.database.add_stream("a")
        data = bytes(range(256)) * 10_000
        await outcomes([node.append("a", b"x"), node.append("a", data), node.append("a", b"y")])
        self.assertEqual(self.database.content("a"), b"x" + data + b"y")
        self.assertEqual(self.database.run("SELECT count(*) FROM chunks"), [(4,)])

    async def test_an_append_to_a_missing_stream_is_refused(self) -> None:
        self.assertEqual(await outcomes([self.node.append("a", b"x")] * 1), [StreamNotFound])
        self.database.add_stream("a")
        self.assertEqual(await outcomes([self.node.append("a", b"x")]), [1])

    async def test_an_append_to_a_deleted_or_expired_stream_is_refused(self) -> None:
        self.database.add_stream("a", deleted=True, forks=1)
        self.database.add_stream("b", Lifetime(ttl=60))
        self.database.add_stream("c", Lifetime(expires_at=T0 + 60), forks=1)
        await outcomes(self.node.append(name, b"x") for name in "bc")
        self.database.set_time(T0 + 60)
        refused = [StreamGone, StreamNotFound, StreamGone]
        self.assertEqual(await outcomes(self.node.append(name, b"x") for name in "abc"), refused)

    async def test_an_append_renews_the_ttl_and_a_duplicate_notes_a_use(self) -> None:
        self.database.add_stream("a", Lifetime(ttl=60))
        self.database.set_time(T0 + 59)
        await self.node.append("a", b"x", writer=Writer("w", 0, 0))
        self.assertEqual(self.head("a", "used_at"), (T0 + 59,))
        self.database.set_time(T0 + 100)
        self.assertEqual(await outcomes([self.node.append("a", b"x", writer=Writer("w", 0, 0))]), [1])
        self.assertEqual(self.node.uses.renewed, [("a", T0 + 100)])
        self.database.set_time(T0 + 130)
        self.assertEqual(await outcomes([self.node.append("a", b"x")]), [StreamNotFound])
        self.node.uses.last = {self.head("a", "id")[0]: T0 + 100}
        self.assertEqual(await outcomes([self.node.append("a", b"x")]), [2])

    async def test_the_queue_is_bounded(self) -> None:
        node = await self.start(max_bytes=2_000)
        self.database.add_stream("a")
        first = node.append("a", b"x" * 3_000)
        with self.assertRaises(Unavailable) as refused:
            await node.append("a", b"x")
        self.assertIn("queue is full", str(refused.exception))
        await first
        self.assertEqual(node.queues.bytes, 0)
        self.assertEqual((await node.append("a", b"x")).tail, 3_001)

    async def test_a_commit_has_a_bounded_number_of_appends(self) -> None:
        node = await self.start(max_bytes=1 << 24)
        for name in "abcd":
            self.database.add_stream(name)
        started = [node.append(name, b"x") for name in "abcd" for _ in range(1_500)]
        self.assertEqual((await outcomes(started))[-1], 1_500)
        sizes = node.writer.figures.sizes.distribution()
        self.assertEqual(sizes.total, 6_000)
        self.assertGreaterEqual(sum(sizes.counts), 3)

    async def test_a_limit_holds_for_appends_of_one_turn(self) -> None:
        node = await self.start(total_bytes=10)
        for name in "abc":
            self.database.add_stream(name)
        self.assertEqual(await outcomes(node.append(name, b"xxxx") for name in "abc"), [4, 4, StorageFull])
        self.assertEqual(node.room.bytes, 8)

    async def test_cancelling_an_append_does_not_undo_it(self) -> None:
        self.database.add_stream("a")
        first, second = self.node.append("a", b"x"), self.node.append("a", b"y")
        first.addErrback(lambda _: None)
        first.cancel()
        self.assertEqual((await second).tail, 2)

    async def test_closing_answers_all_appends_and_refuses_new_ones(self) -> None:
        self.database.add_stream("a")
        started = self.node.append("a", b"x")
        await self.node.writer.close()
        self.assertEqual(self.successResultOf(started).tail, 1)
        self.assertRaises(Unavailable, self.node.append, "a", b"y")

    def test_closing_without_appends_returns_at_once_each_time(self) -> None:
        for _ in range(2):
            self.successResultOf(self.node.writer.close())


class SeveralNodeTests(WriterTestCase):
    """Two nodes that write the same streams."""

    async def setUp(self) -> None:  # type: ignore[override]
        await super().setUp()
        self.other = await self.start()

    async def test_a_node_whose_head_is_out_of_date_decides_again(self) -> None:
        self.database.add_stream("a")
        await self.node.append("a", b"1")
        await self.other.append("a", b"2")
        self.assertEqual(await outcomes([self.node.append("a", b"3"), self.node.append("a", b"4")]), [3, 4])
        self.assertEqual(self.node.writer.figures.misses, 1)
        self.assertEqual(self.database.content("a"), b"1234")

    async def test_a_refusal_is_never_from_a_head_that_is_out_of_date(self) -> None:
        self.database.add_stream("a")
        for seq in range(4):
            await self.node.append("a", b"%d" % seq, writer=Writer("w", 0, seq))
        await self.other.append("a", b"4", writer=Writer("w", 0, 4))
        self.assertEqual(await outcomes([self.node.append("a", b"5", writer=Writer("w", 0, 5))]), [6])
        duplicate = await self.other.append("a", b"5", writer=Writer("w", 0, 5))
        self.assertEqual((duplicate.duplicate, duplicate.tail), (True, 6))
        self.assertEqual(await outcomes([self.other.append("a", b"7", writer=Writer("w", 0, 7))]), [WriterGap])
        await self.node.append("a", b"6", writer=Writer("w", 1, 0))
        self.assertEqual(await outcomes([self.other.append("a", b"6", writer=Writer("w", 0, 6))]), [WriterFenced])

    async def test_a_close_on_one_node_is_known_to_the_other(self) -> None:
        self.database.add_stream("a")
        await outcomes([self.node.append("a", b"1", sequence=b"5"), self.other.append("a", b"2")])
        self.assertEqual(await outcomes([self.other.append("a", b"x", sequence=b"5")]), [SequenceConflict])
        await self.other.append("a", close=True)
        self.assertEqual(await outcomes([self.node.append("a", b"x")]), [StreamClosed])
        self.assertTrue((await self.node.append("a", close=True)).duplicate)

    async def test_a_stream_that_was_replaced_by_another_of_its_name_is_found(self) -> None:
        self.database.add_stream("a")
        await self.node.append("a", b"123")
        self.database.run("DELETE FROM streams")
        self.assertEqual(await outcomes([self.node.append("a", b"x")]), [StreamNotFound])
        await self.other.append("a", b"x").addErrback(lambda _: None)
        self.database.add_stream("a")
        # At the same time, in either order.
        found = await outcomes([self.node.append("a", b"x"), self.other.append("a", b"y")])
        self.assertIn(found, ([1, 2], [2, 1]))

    async def test_streams_that_both_nodes_write_lose_nothing(self) -> None:
        names = [f"s{number}" for number in range(20)]
        for name in names:
            self.database.add_stream(name)

        async def write(node: Node, mark: bytes) -> None:
            for turn in range(10):
                await gatherResults([node.append(name, mark, writer=Writer(mark.decode(), 0, turn)) for name in names])

        await gatherResults(
            [Deferred.fromCoroutine(write(self.node, b"1")), Deferred.fromCoroutine(write(self.other, b"2"))]
        )
        for name in names:
            content = self.database.content(name)
            self.assertEqual((content.count(b"1"), content.count(b"2")), (10, 10))
        self.assertEqual(self.database.run("SELECT count(*), min(seq), max(seq) FROM writers"), [(40, 9, 9)])
        self.assertEqual(self.database.run("SELECT sum(bytes)::bigint FROM nodes"), [(400,)])
        self.assertEqual(self.node.room.bytes + self.other.room.bytes, 400)

    async def test_only_the_streams_that_were_not_changed_are_written(self) -> None:
        for name in "abc":
            self.database.add_stream(name)
        await outcomes(self.node.append(name, b"1") for name in "abc")
        await self.other.append("b", b"2")
        self.assertEqual(await outcomes(self.node.append(name, b"3") for name in "abc"), [2, 3, 2])
        self.assertEqual([self.database.content(name) for name in "abc"], [b"13", b"123", b"13"])
        self.assertEqual(self.node.writer.figures.misses, 1)


class FailureTests(WriterTestCase):
    async def test_a_stream_that_the_database_refuses_does_not_hold_up_others(self) -> None:
        for name in "abc":
            self.database.add_stream(name)
        # A damaged stream: its next bytes are there already.
        self.database.run(
            "INSERT INTO chunks SELECT id, 0, 1, 0, ''::bytea, 0, 'x'::bytea FROM streams WHERE name = 'b'"
        )
        self.assertEqual(await outcomes(self.node.append(name, b"1") for name in "abc"), [1, Unavailable, 1])
        self.assertEqual(len(self.flushLoggedErrors(QueryFailed)), 0)
        self.assertEqual(await outcomes(self.node.append(name, b"2") for name in "ac"), [2, 2])
        self.assertEqual(self.node.room.bytes, 4)

    async def test_a_node_whose_epoch_was_ended_by_others_writes_in_a_new_one(self) -> None:
        self.database.add_stream("a")
        await self.node.append("a", b"1")
        self.database.run("UPDATE nodes SET epoch = epoch + 1")
        self.assertEqual(await outcomes([self.node.append("a", b"2")]), [2])
        self.assertEqual(self.database.content("a"), b"12")

    async def test_a_lost_connection_loses_and_doubles_nothing(self) -> None:
        self.database.add_stream("a")

        async def write(name: str) -> None:
            for seq in range(30):
                await self.node.append("a", b"x", writer=Writer(name, 0, seq))

        writing = gatherResults([Deferred.fromCoroutine(write(f"w{number}")) for number in range(4)])
        for _ in range(3):
            await sleep(0.05)
            self.database.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%WITH n AS%' "
                "AND pid <> pg_backend_pid()"
            )
        await writing
        self.assertEqual(self.database.content("a"), b"x" * 120)
        self.assertEqual(self.node.room.bytes, 120)


class LockingTests(WriterTestCase):
    """Streams that several nodes write at the same time."""

    async def test_no_node_is_starved_by_another_that_writes_all_the_time(self) -> None:
        names = [f"s{number}" for number in range(8)]
        for name in names:
            self.database.add_stream(name)
        other = await self.start()
        stopping = False

        async def write(name: str) -> None:
            while not stopping:
                await other.append(name, b"2")

        writing = gatherResults([Deferred.fromCoroutine(write(name)) for name in names * 3])
        await gatherResults([self.node.append(name, b"1") for name in names])
        rounds = 1
        # On a busy machine the nodes may write one after the other for a while.
        while rounds < 21 or (rounds < 500 and not all(node.writer.figures.locked for node in (self.node, other))):
            await gatherResults([self.node.append(name, b"1") for name in names])
            rounds += 1
        stopping = True
        await writing
        for name in names:
            self.assertEqual(self.database.content(name).count(b"1"), rounds)
        self.assertGreater(self.node.writer.figures.locked, 0)
        self.assertGreater(other.writer.figures.locked, 0)

    async def test_appends_under_a_lock_obey_the_rules_of_writers(self) -> None:
        self.database.add_stream("a")
        other = await self.start(writers=3)
        nodes = [await self.start(writers=3), other]

        async def write(node: Node, name: str) -> list[int]:
            tails = []
            for seq in range(15):
                first = await node.append("a", b"x", writer=Writer(name, 0, seq))
                again = await nodes[seq % 2].append("a", b"x", writer=Writer(name, 0, seq))
                self.assertEqual((first.duplicate, again.duplicate), (False, True))
                tails.append(first.tail)
            return tails

        started = [write(node, f"{number}{mark}") for number, node in enumerate(nodes) for mark in "v"]
        tails = await gatherResults([Deferred.fromCoroutine(each) for each in started])
        self.assertEqual(sorted(tail for found in tails for tail in found), list(range(1, 31)))
        self.assertEqual(self.database.content("a"), b"x" * 30)
        self.assertEqual(self.database.run("SELECT min(seq), max(seq), count(*) FROM writers"), [(14, 14, 2)])

    def contend(self, node: Node, *names: str) -> None:
        """Have a node lock streams before it writes them."""
        for name in names:
            node.writer._contention.note(name)

    async def test_outcomes_under_a_lock_are_the_usual_ones(self) -> None:
        for name in "abc":
            self.database.add_stream(name)
        self.contend(self.node, *"abcd")
        started = [self.node.append(name, b"x", writer=Writer("w", 0, seq)) for seq in (0, 0, 2) for name in "abcd"]
        expected = [1, 1, 1, StreamNotFound, 1, 1, 1, StreamNotFound, *[WriterGap] * 3, StreamNotFound]
        self.assertEqual(await outcomes(started), expected)
        self.assertEqual(await outcomes([self.node.append("a", close=True), self.node.append("b", b"y")]), [1, 2])
        self.assertEqual(
            await outcomes([self.node.append("a", b"x"), self.node.append("a", close=True)]), [StreamClosed, 1]
        )
        self.assertGreater(self.node.writer.figures.locked, 0)
        self.assertEqual([self.database.content(name) for name in "abc"], [b"x", b"xy", b"x"])

    async def test_a_stream_that_another_transaction_holds_does_not_hold_up_others(self) -> None:
        node = await self.start(patience=0.5)
        for name in "abc":
            self.database.add_stream(name)
        self.contend(node, *"abc")
        with self.database.locked("b"):
            started = [node.append(name, b"1") for name in "abc"]
            self.assertEqual(await outcomes(started), [1, Unavailable, 1])
        self.assertEqual(await outcomes([node.append("b", b"2")]), [1])
        self.assertEqual(self.database.content("b"), b"2")

    async def test_appends_go_on_when_the_transaction_that_holds_their_stream_ends(self) -> None:
        self.database.add_stream("a")
        with self.database.locked("a"):
            started = self.node.append("a", b"1")
            await sleep(0.6)
            self.assertNoResult(started)
        self.assertEqual((await started).tail, 1)

    async def test_a_lost_connection_under_a_lock_loses_and_doubles_nothing(self) -> None:
        self.database.add_stream("a")
        self.contend(self.node, "a")
        for turn in range(10):
            self.contend(self.node, "a")
            started = self.node.append("a", b"x", writer=Writer("w", 0, turn))
            await sleep(0.001 * turn)
            self.database.run(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query ~ "
                "'NO KEY UPDATE|COMMIT|BEGIN'"
            )
            self.assertEqual((await started).tail, turn + 1)
        self.assertEqual(self.database.content("a"), b"x" * 10)
