"""Folding: many appends of a stream decided at once, as if they were decided one after another."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as some
from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.errors import StreamGone, StreamNotFound, StreamsError
from durable_streams.server.model import (
    START,
    Append,
    Appended,
    Lifetime,
    Offset,
    StorageLimits,
    StreamConfig,
    StreamFacts,
    Writer,
    WriterState,
)
from durable_streams.server.storage.memory import MemoryStorage
from durable_streams.server.storage.metadata import stream_size
from durable_streams.server.storage.postgres.chunk_index import decode_ends
from durable_streams.server.storage.postgres.folding import Fold, advance, fold
from durable_streams.server.storage.postgres.heads import Head
from durable_streams.server.storage.postgres.known import KnownStream
from tests.protocol.samples import examples

NOW = 1_800_000_000.0


class Room:
    """The totals of a storage with one stream."""

    def __init__(self) -> None:
        self.bytes = 0
        self.metadata = 0
        self.written = 0

    def add(self, streams: int, size: int, metadata: int) -> None:
        self.bytes += size
        self.metadata += metadata


def head_of(facts: StreamFacts, **changes: Any) -> Head:
    head = Head(
        facts,
        StreamConfig(facts.content_type),
        Lifetime(),
        created_at=NOW,
        updated_at=NOW,
        used_at=NOW,
        closed=False,
        deleted=False,
        base=0,
        tail=0,
        sequence=None,
        writers=0,
        source_id=None,
        depth=0,
        forks=0,
        version=1,
        read_at=NOW,
    )
    return replace(head, **changes)


class Database:
    """The rows of one stream, as the statement of a commit changes them."""

    def __init__(self, facts: StreamFacts) -> None:
        self.head = head_of(facts)
        # The least recently seen writer is the first one.
        self.writers: dict[str, WriterState] = {}
        self.data = b""
        self.ends: list[int] = []

    def look_up(self, writers: tuple[str, ...] = (), oldest: int = 0) -> KnownStream:
        known = {writer_id: self.writers.get(writer_id) for writer_id in writers}
        if not oldest:
            return KnownStream(self.head, known)
        return KnownStream(self.head, known, list(self.writers)[:oldest], oldest >= len(self.writers))

    def write(self, folded: Fold) -> None:
        assert folded.head.version == self.head.version
        for row in folded.chunks():
            start, first, ends, _, data = row
            assert (start, first) == (len(self.data), len(self.data))
            self.data += data
            self.ends += decode_ends(start, ends)
        for writer_id in folded.evicted:
            assert writer_id not in folded.states
            self.writers.pop(writer_id, None)
        for writer_id, state in folded.states.items():
            self.writers.pop(writer_id, None)
            self.writers[writer_id] = state
        self.head = replace(
            self.head,
            tail=folded.tail,
            closed=folded.closed,
            sequence=folded.sequence,
            writers=folded.writers,
            version=self.head.version + 1,
        )


positions = some.integers(0, 12).map(lambda position: position)
writers = some.builds(Writer, some.sampled_from("uvwxyz"), some.integers(0, 2), some.integers(0, 2))
appends = some.builds(
    Append,
    some.sampled_from(["text/plain"] * 5 + ["image/png"]),
    some.binary(max_size=4),
    some.sampled_from([False] * 12 + [True]),
    some.none() | some.sampled_from([b"", b"1", b"12", b"2"]),
    some.none() | writers,
    some.none() | some.just(START) | some.integers(0, 12).map(lambda position: Offset(7, position)),
)
batches = some.lists(some.tuples(some.lists(appends, min_size=1, max_size=8), some.booleans()), max_size=8)
limits = some.builds(
    StorageLimits,
    total_bytes=some.integers(5, 60),
    stream_bytes=some.integers(5, 60),
    writers=some.integers(1, 4),
    metadata_bytes=some.sampled_from([11, 280, 540, 2000]),
)


def shape(outcome: Appended | StreamsError) -> Any:
    """Return what can be compared of an outcome: all but the time at which a writer was seen."""
    if isinstance(outcome, StreamsError):
        return type(outcome), vars(outcome), str(outcome)
    writer = outcome.writer
    return outcome.tail, outcome.closed, outcome.duplicate, writer and (writer.epoch, writer.seq)


class FoldTests(SynchronousTestCase):
    def outcomes_of(
        self, database: Database, known: KnownStream | None, queue: list[Append], limits: StorageLimits, oldest: int
    ) -> tuple[list[Appended | StreamsError], KnownStream | None]:
        """Decide and write appends, and look up what is needed."""
        outcomes: list[Appended | StreamsError] = []
        known = known or database.look_up()
        while queue:
            room = Room()
            room.bytes = database.head.tail
            room.metadata = stream_size(
                database.head.facts, database.head.config, database.head.sequence, database.writers
            )
            folded = fold(known, queue, limits, room, max_bytes=6)
            if folded.outcomes:
                outcomes += folded.outcomes
                queue = queue[len(folded.outcomes) :]
                if folded.writes:
                    database.write(folded)
                    self.assertEqual(database.head.writers, len(database.writers))
                    self.assertEqual(folded.size, database.head.tail - room.bytes)
                    size = stream_size(
                        database.head.facts, database.head.config, database.head.sequence, database.writers
                    )
                    self.assertEqual(folded.metadata, size - room.metadata)
                    advance(known, folded, database.head.version, NOW)
            else:
                wanted = folded.wanted
                assert wanted is not None
                known = database.look_up(wanted.writers, oldest if wanted.oldest else 0)
        return outcomes, known

    @examples(400)
    @given(batches, limits, some.integers(2, 5))
    def test_folds_agree_with_one_decision_after_another(
        self, batches: list[tuple[list[Append], bool]], limits: StorageLimits, oldest: int
    ) -> None:
        memory = MemoryStorage(limits)
        facts = memory.create("a", StreamConfig("text/plain"), b"", NOW).facts
        database = Database(facts)
        known: KnownStream | None = None
        for batch, keeps in batches:
            queue = [
                replace(append, expected=Offset(facts.incarnation, append.expected.position))
                if append.expected not in (None, START)
                else append
                for append in batch
            ]
            expected: list[Appended | StreamsError] = []
            for append in queue:
                try:
                    expected.append(memory.append("a", append, NOW))
                except StreamsError as refusal:
                    expected.append(refusal)
            outcomes, known = self.outcomes_of(database, known if keeps else None, queue, limits, oldest)
            self.assertEqual(list(map(shape, outcomes)), list(map(shape, expected)))
            record = memory.record("a", NOW)
            head = database.head
            self.assertEqual((head.tail, head.closed, head.sequence), (record.tail, record.closed, record.sequence))
            self.assertEqual(list(database.writers), list(record.writers))
            self.assertEqual(database.writers, {key: replace(state, seen=NOW) for key, state in record.writers.items()})
            self.assertEqual(database.data, memory.read_range(facts, 0, record.tail))
            self.assertEqual(database.ends, memory.append_ends(facts, 0, 1000))

    def known(self, **changes: Any) -> KnownStream:
        facts = StreamFacts("a", 7, 7, "text/plain", "text/plain", json=False)
        return KnownStream(head_of(facts, **changes))

    def test_appends_to_an_absent_stream_are_refused_and_write_nothing(self) -> None:
        queue = [Append("text/plain", b"x"), Append("text/plain", b"y", close=True)]
        for changes, error in (
            ({"deleted": True, "forks": 1}, StreamGone),
            ({"lifetime": Lifetime(ttl=0)}, StreamNotFound),
            ({"lifetime": Lifetime(expires_at=NOW)}, StreamNotFound),
            ({"lifetime": Lifetime(ttl=0), "forks": 1}, StreamGone),
        ):
            folded = fold(self.known(**changes), queue, StorageLimits(), Room())
            self.assertEqual([type(outcome) for outcome in folded.outcomes], [error, error])
            self.assertEqual((folded.writes, folded.renews, folded.chunks()), (False, False, []))

    def test_a_use_that_is_not_written_yet_keeps_a_stream(self) -> None:
        known = self.known(lifetime=Lifetime(ttl=60), used_at=NOW - 100)
        queue = [Append("text/plain", b"x")]
        self.assertFalse(fold(known, queue, StorageLimits(), Room()).writes)
        self.assertTrue(fold(known, queue, StorageLimits(), Room(), used_at=NOW - 59).writes)

    def test_a_fold_ends_before_its_maximum_size_but_has_at_least_one_append(self) -> None:
        queue = [Append("text/plain", b"x" * size) for size in (10, 3, 3, 3)]
        self.assertEqual(len(fold(self.known(), queue, StorageLimits(), Room(), max_bytes=6).outcomes), 1)
        self.assertEqual(len(fold(self.known(), queue[1:], StorageLimits(), Room(), max_bytes=6).outcomes), 2)

    def test_duplicates_renew_the_ttl_and_write_nothing(self) -> None:
        known = self.known(writers=1)
        known.writers["w"] = WriterState(0, 0, NOW)
        folded = fold(known, [Append("text/plain", b"x", writer=Writer("w", 0, 0))], StorageLimits(), Room())
        self.assertEqual((folded.writes, folded.renews), (False, True))

    def test_refusals_neither_write_nor_renew_the_ttl(self) -> None:
        folded = fold(self.known(closed=True), [Append("text/plain", b"x")], StorageLimits(), Room())
        self.assertEqual((folded.writes, folded.renews, len(folded.outcomes)), (False, False, 1))

    def test_the_states_of_all_unknown_writers_are_wanted_at_once(self) -> None:
        queue = [Append("text/plain", b"x", writer=Writer(name, 0, 0)) for name in "uvu"]
        folded = fold(self.known(writers=3), queue, StorageLimits(), Room())
        assert folded.wanted is not None
        self.assertEqual((folded.outcomes, folded.wanted.writers, folded.wanted.oldest), ([], ("u", "v"), False))
        folded = fold(self.known(writers=3), queue, StorageLimits(writers=4), Room())
        assert folded.wanted is not None
        self.assertTrue(folded.wanted.oldest)
