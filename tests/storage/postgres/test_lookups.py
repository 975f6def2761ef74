"""Look-ups of heads, and their cache."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase, TestCase

from durable_streams.server.errors import Unavailable
from durable_streams.server.model import Lifetime, WriterState
from durable_streams.server.storage.entry import facts_of
from durable_streams.server.storage.postgres.folding import MAX_WANTED, Wanted
from durable_streams.server.storage.postgres.known import KnownStream
from durable_streams.server.storage.postgres.lookups import LookUps
from durable_streams.server.testing.values import T0
from tests.storage.postgres.databases import SCHEMA, Database, lookups_on
from tests.storage.postgres.test_folding import head_of


class LookUpTests(TestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        self.database = Database(self)
        self.lookups = await lookups_on(self, self.database)

    async def test_a_head_has_all_columns(self) -> None:
        stream_id = self.database.add_stream("a/\u2603", Lifetime(ttl=60), tail=5, sequence=b"\xff", writers=2, forks=1)
        self.database.set_time(T0 + 7)
        head = await self.lookups.fresh("a/\u2603")
        assert head is not None
        self.assertEqual((head.facts.name, head.facts.id, head.facts.incarnation), ("a/\u2603", stream_id, stream_id))
        self.assertEqual((head.lifetime, head.created_at, head.read_at), (Lifetime(ttl=60), T0, T0 + 7))
        self.assertEqual((head.tail, head.sequence, head.writers, head.forks, head.version), (5, b"\xff", 2, 1, 1))
        self.assertEqual(await self.lookups.fresh_id(stream_id), head)

    async def test_a_missing_stream_is_not_cached(self) -> None:
        self.assertIsNone(await self.lookups.fresh("a"))
        self.assertIsNone(await self.lookups.fresh_id(7))
        self.database.add_stream("a")
        self.assertIsNotNone(await self.lookups.fresh("a"))

    async def test_a_stream_that_is_gone_is_removed_from_the_cache(self) -> None:
        self.database.add_stream("a")
        await self.lookups.fresh("a")
        self.assertIsNotNone(self.lookups.cached("a"))
        self.database.run("DELETE FROM streams")
        await self.lookups.fresh("a")
        self.assertIsNone(self.lookups.cached("a"))

    async def test_look_ups_of_many_streams_each_find_theirs(self) -> None:
        ids = {f"s{number}": self.database.add_stream(f"s{number}") for number in range(600)}
        names = [f"s{number}" for number in range(0, 1200, 2)]
        found = await gatherResults([Deferred.fromCoroutine(self.lookups.fresh(name)) for name in names])
        self.assertEqual([head and head.facts.id for head in found], [ids.get(name) for name in names])
        by_id = await gatherResults([self.lookups.fresh_id(ids.get(name, -1)) for name in names])
        self.assertEqual(
            [head and head.facts.name for head in by_id], [name if name in ids else None for name in names]
        )

    async def test_wanted_writers_are_read_with_the_head(self) -> None:
        self.database.add_stream("a", writers=2)
        self.database.add_stream("b")
        for stream, writer, epoch in (("a", "v", 1), ("a", "w", 2)):
            self.database.run(
                "INSERT INTO writers SELECT id, %s, %s, 7, 8.5 FROM streams WHERE name = %s", writer, epoch, stream
            )
        first = self.lookups.look_up("a", Wanted(("v",)))
        second = self.lookups.look_up("a", Wanted(("w", "x")))
        third = self.lookups.look_up("b", Wanted(("v",)))
        found = await gatherResults([first, second, third])
        self.assertIs(found[0], found[1])
        assert found[0] is not None
        assert found[2] is not None
        self.assertEqual(found[0].writers, {"v": WriterState(1, 7, 8.5), "w": WriterState(2, 7, 8.5), "x": None})
        self.assertEqual((found[2].head.facts.name, found[2].writers), ("b", {"v": None}))

    async def test_the_least_recently_seen_writers_are_read_in_order(self) -> None:
        self.database.add_stream("a", writers=100)
        self.database.run(
            "INSERT INTO writers SELECT id, 'w' || n, 0, 0, n FROM streams, generate_series(100, 1, -1) AS n"
        )
        found = await self.lookups.look_up("a", Wanted(("w90", "x"), oldest=True))
        assert found is not None
        self.assertEqual(found.oldest, [f"w{number}" for number in range(1, MAX_WANTED + 1)])
        self.assertEqual((found.complete, found.knows("w90"), found.writers["x"]), (False, True, None))
        self.database.run("DELETE FROM writers WHERE seen > 3")
        found = await self.lookups.look_up("a", Wanted(oldest=True))
        assert found is not None
        self.assertEqual((found.oldest, found.complete), (["w1", "w2", "w3"], True))
        self.database.run("DELETE FROM writers")
        found = await self.lookups.look_up("a", Wanted(("w1",), oldest=True))
        assert found is not None
        self.assertEqual((found.oldest, found.complete), ([], True))
        self.assertIsNone(await self.lookups.look_up("b", Wanted(("w1",), oldest=True)))


class FakeDatabase:
    """Statements that are answered when a test says so."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.sent: list[tuple[str, Deferred[Any]]] = []
        self.lookups = LookUps(self.execute, SCHEMA, self.clock, max_streams=3)

    def execute(self, statement: Any, parameters: Any) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred()
        self.sent.append((statement.name, answer))
        return answer


class NoRows:
    ntuples = 0


class BatchTests(SynchronousTestCase):
    def test_look_ups_of_one_turn_are_one_statement(self) -> None:
        fake = FakeDatabase()
        callers = [fake.lookups.look_up(name) for name in "aab"]
        fake.clock.advance(0)
        self.assertEqual([name for name, _ in fake.sent], ["heads_by_name"])
        fake.sent[0][1].callback(NoRows)
        self.assertEqual([self.successResultOf(caller) for caller in callers], [None] * 3)

    def test_a_look_up_never_uses_a_statement_that_was_sent_before_it_came(self) -> None:
        fake = FakeDatabase()
        early = fake.lookups.look_up("a")
        fake.clock.advance(0)
        late = fake.lookups.look_up("a")
        fake.sent[0][1].callback(NoRows)
        self.successResultOf(early)
        self.assertNoResult(late)
        fake.clock.advance(0)
        fake.sent[1][1].callback(NoRows)
        self.successResultOf(late)

    def test_at_most_two_statements_run_and_the_others_wait_together(self) -> None:
        fake = FakeDatabase()
        callers = []
        for name in "abcde":
            callers.append(fake.lookups.look_up(name))
            fake.clock.advance(0)
        self.assertEqual(len(fake.sent), 2)
        fake.sent[1][1].callback(NoRows)
        fake.clock.advance(0)
        self.assertEqual(len(fake.sent), 3)
        fake.sent[2][1].callback(NoRows)
        self.assertEqual([caller.called for caller in callers], [False, True, True, True, True])

    def test_an_error_goes_to_all_callers_and_the_next_look_up_is_sent(self) -> None:
        fake = FakeDatabase()
        callers = [fake.lookups.look_up("a"), fake.lookups.look_up("b")]
        fake.clock.advance(0)
        fake.sent[0][1].errback(OSError("gone"))
        for caller in callers:
            self.failureResultOf(caller, OSError)
        after = fake.lookups.fresh_id(7)
        fake.clock.advance(0)
        fake.sent[1][1].callback(NoRows)
        self.assertIsNone(self.successResultOf(after))

    def test_look_ups_that_waited_as_long_as_a_refused_one_are_refused_too(self) -> None:
        fake = FakeDatabase()
        callers = [fake.lookups.look_up(str(number)) for number in range(1000)]
        fake.lookups.fresh_id(7)
        fake.clock.advance(0)
        late = fake.lookups.look_up("late")
        self.assertEqual(len(fake.sent), 2)
        fake.sent[0][1].errback(Unavailable("The database cannot be reached."))
        fake.clock.advance(0)
        for caller in callers:
            self.failureResultOf(caller, Unavailable)
        self.assertNoResult(late)
        fake.sent[2][1].callback(NoRows)
        self.assertIsNone(self.successResultOf(late))

    def test_many_callers_are_answered_in_several_turns(self) -> None:
        fake = FakeDatabase()
        callers = [fake.lookups.look_up("a") for _ in range(1000)]
        fake.clock.advance(0)
        fake.sent[0][1].callback(NoRows)
        self.assertEqual(sum(caller.called for caller in callers), 256)
        self.assertEqual(len(fake.clock.getDelayedCalls()), 1)
        fake.clock.advance(0)
        self.assertEqual([self.successResultOf(caller) for caller in callers], [None] * 1000)


class CacheTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.lookups = FakeDatabase().lookups

    def known(self, name: str, version: int, stream_id: int = 7, **writers: WriterState | None) -> KnownStream:
        facts = facts_of(name, stream_id, stream_id, "text/plain")
        return KnownStream(head_of(facts, version=version, tail=version), writers, confirmed=self.lookups.tick())

    def test_an_earlier_version_does_not_replace_a_later_one(self) -> None:
        later = self.lookups.keep(self.known("a", 2))
        earlier = self.known("a", 1)
        self.assertIs(self.lookups.keep(earlier), later)
        # It was committed after the look-up of the earlier one began.
        self.assertEqual(later.confirmed, earlier.confirmed)

    def test_another_stream_of_the_name_replaces_the_one_before(self) -> None:
        self.lookups.keep(self.known("a", 5, stream_id=7))
        other = self.lookups.keep(self.known("a", 1, stream_id=6))
        self.assertIs(self.lookups.known("a"), other)

    def test_writers_read_at_the_same_version_are_added(self) -> None:
        state = WriterState(1, 2, T0)
        known = self.lookups.keep(self.known("a", 2, v=state))
        self.lookups.keep(self.known("a", 2, w=None))
        self.assertEqual(known.writers, {"v": state, "w": None})
        self.lookups.keep(self.known("a", 3, x=None))
        after = self.lookups.known("a")
        assert after is not None
        self.assertEqual(after.writers, {"x": None})

    def test_the_least_recently_used_head_is_dropped(self) -> None:
        for name in "abc":
            self.lookups.store(self.known(name, 1).head)
        self.lookups.known("a")
        self.lookups.store(self.known("d", 1).head)
        self.assertEqual([self.lookups.cached(name) is not None for name in "abcd"], [True, False, True, True])

    def test_the_memory_of_the_cache_is_bounded(self) -> None:
        lookups = LookUps(FakeDatabase().execute, SCHEMA, Clock(), max_bytes=100_000)
        for number in range(1000):
            known = self.known(f"s{number}", 1)
            known.remember({f"w{writer}": None for writer in range(number % 50)})
            lookups.keep(known)
        count, size = lookups.figures
        self.assertTrue(0 < count < 100)
        self.assertTrue(50_000 < size <= 100_000)
        for number in range(1000):
            lookups.forget(f"s{number}")
        self.assertEqual(lookups.figures, (0, 0))

    def test_a_forgotten_head_is_not_cached(self) -> None:
        self.lookups.store(replace(self.known("a", 1).head, closed=True))
        self.lookups.forget("a")
        self.lookups.forget("a")
        self.assertIsNone(self.lookups.cached("a"))
