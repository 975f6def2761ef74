"""Where bytes are read from: memory, one row, or several."""

from __future__ import annotations

from durable_streams.server.model import Append, Fork, Offset, StreamConfig
from durable_streams.server.storage.acid import content, transactions

from .turns import NOW, TEXT, DatabaseTestCase


class LongAppendTests(DatabaseTestCase):
    """One append in several rows."""

    def setUp(self) -> None:
        super().setUp()
        self.pieces = [b"a" * 10, bytes(range(256)) * 1000, b"b", b"c" * 131_072, b"d" * 65_537]
        self.create("a", body=self.pieces[0])
        for piece in self.pieces[1:]:
            self.append("a", piece)
        self.close(self.storage)
        self.storage = self.opened(self.directory)

    def test_a_long_append_is_stored_in_rows_of_limited_size(self) -> None:
        self.assertEqual(self.rows("SELECT max(length(data)) FROM appends"), [(transactions.ROW_BYTES,)])
        counts, findings = self.check(self.directory)
        self.assertEqual((counts.appends, findings), (5, []))

    def test_a_long_append_is_one_append_for_readers(self) -> None:
        whole = b"".join(self.pieces)
        edges = [sum(map(len, self.pieces[:count])) for count in range(6)]
        facts = self.now(self.storage.status("a", NOW)).facts
        for position in (0, 5, 10, 11, 65_546, 200_000, 256_009, 256_010, 256_011, 300_000, 387_083, 452_619):
            begin = max(edge for edge in edges if edge <= position)
            for limit in (1, 65_536, 131_072, 131_073, 300_000):
                for is_whole in (False, True):
                    offset = Offset(facts.incarnation, position)
                    chunk = self.now(self.storage.read("a", offset, limit, NOW, is_whole))
                    fits = [edge for edge in edges if begin < edge <= begin + limit]
                    first = min(edge for edge in edges if edge > begin)
                    end = (max(fits) if fits else first) if is_whole else min(begin + limit, len(whole))
                    self.assertEqual((chunk.start, chunk.start + len(chunk.data) + chunk.more), (begin, end))
                    self.assertTrue(chunk.data == whole[begin : min(end, begin + limit)])

    def test_a_long_append_can_be_read_in_pieces(self) -> None:
        whole = b"".join(self.pieces)
        facts = self.now(self.storage.status("a", NOW)).facts
        for size in (50_001, 131_072):
            read = [
                self.now(self.storage.read_range(facts, start, min(start + size, len(whole))))
                for start in range(0, len(whole), size)
            ]
            self.assertTrue(b"".join(read) == whole)

    def test_a_long_append_can_be_forked_inside(self) -> None:
        facts = self.now(self.storage.status("a", NOW)).facts
        fork = Fork("a", Offset(facts.incarnation, 10), 100_000)
        self.create("b", StreamConfig(fork=fork), b"!")
        self.assertTrue(self.content(self.storage, "b") == b"".join(self.pieces)[:100_010] + b"!")


class RecentTests(DatabaseTestCase):
    def test_recent_bytes_in_memory_are_bounded(self) -> None:
        self.patch(content, "_RECENT_OF_ALL", 300_000)
        for number in range(20):
            self.create(f"{number}")
            for piece in range(20):
                self.append(f"{number}", bytes([piece]) * 10_000)
        held = sum(
            len(stream.recent.data) for stream in self.storage._catalogue.streams.values() if stream.recent is not None
        )
        self.assertEqual(held, self.storage._stored._recent_bytes)
        self.assertLessEqual(held, 300_000)
        largest = max(
            len(stream.recent.data) for stream in self.storage._catalogue.streams.values() if stream.recent is not None
        )
        self.assertLessEqual(largest, 65_536)
        whole = b"".join(bytes([piece]) * 10_000 for piece in range(20))
        for number in range(20):
            self.assertEqual(self.content(self.storage, f"{number}"), whole)


class AcceptedTests(DatabaseTestCase):
    def test_uncommitted_bytes_stay_in_memory(self) -> None:
        self.turns.run()
        created = self.begin(self.storage.create("a", TEXT, b"", NOW))
        self.turns.clock.advance(0)
        # The creation is under way; it has nothing to do with these.
        append = Append("text/plain", b"x" * 50_000)
        appended = [self.begin(self.storage.append("a", append, NOW)) for _ in range(4)]
        work, done = self.turns._jobs.pop(0)
        done.callback(work())
        facts = self.successResultOf(created).facts
        config = StreamConfig(fork=Fork("a", Offset(facts.incarnation, 0), 20_000))
        fork = self.begin(self.storage.create("b", config, b"!", NOW))
        self.turns.run()
        self.assertEqual([self.successResultOf(each).tail for each in appended][-1], 200_000)
        self.assertEqual(self.successResultOf(fork).tail, 20_001)
