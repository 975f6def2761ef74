"""Tests of the check of a database, with damage of each kind."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.storage.findings import Finding
from durable_streams.server.storage.postgres.checking import DatabaseCheck
from durable_streams.server.storage.postgres.chunk_index import checksum_of, encode_ends
from tests.support.postgres_rows import Rows
from tests.support.postgres_tables import SCHEMA


class Database(Rows):
    """A database that is checked."""

    def check(self) -> tuple[DatabaseCheck, list[Finding]]:
        findings: list[Finding] = []
        check = DatabaseCheck(self.connection, SCHEMA, findings.append)
        check.run()
        return check, findings


class CheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.database = Database(self)
        random = Random(1)
        for stream_id in range(1, 31):
            self.database.create(stream_id)
            appends = [random.randbytes(random.randint(1, 40)) for _ in range(10)]
            self.database.append(stream_id, 0, appends, random.choice([7, 100, 1000]))
        self.database.create(40, 20, 3)

    def damage(self, statement: str) -> list[Finding]:
        self.database.connection.execute(statement.replace("@", SCHEMA))
        return self.database.check()[1]

    def assert_serious(self, statement: str, where: str, what: str) -> None:
        findings = self.damage(statement)
        serious = [finding for finding in findings if finding.serious]
        self.assertEqual([finding.where for finding in serious], [where])
        self.assertIn(what, serious[0].what)

    def test_intact_tables_are_counted(self) -> None:
        check, findings = self.database.check()
        self.assertEqual(findings, [])
        self.assertEqual((check.counts.streams, check.counts.appends), (31, 300))
        row = self.database.connection.execute(f"SELECT sum(length(data)), count(*) FROM {SCHEMA}.chunks").fetchone()
        self.assertEqual((check.counts.bytes, check.counts.frames), row)

    def test_an_empty_database_is_whole(self) -> None:
        self.assertEqual(self.damage("TRUNCATE @.streams, @.chunks"), [])

    def test_a_missing_chunk_is_found(self) -> None:
        self.database.create(50)
        self.database.append(50, 0, [b"abcdefg", b"hijklmn", b"opqrstu"], 7)
        self.assert_serious(
            "DELETE FROM @.chunks WHERE stream_id = 50 AND start = 7",
            "chunks, stream 50, start 14",
            "bytes 7 to 14 are missing",
        )

    def test_an_append_that_goes_on_as_another_is_found(self) -> None:
        self.database.create(50)
        self.database.append(50, 0, [b"abcdefghijklmn"], 7)
        ends, checksum = encode_ends(7, [14]), checksum_of(7, 3, encode_ends(7, [14]), b"hijklmn")
        self.database.connection.execute(
            f"UPDATE {SCHEMA}.chunks SET first = 3, ends = %s, checksum = %s WHERE stream_id = 50 AND start = 7",
            (ends, checksum),
        )
        _, findings = self.database.check()
        self.assertEqual([finding.where for finding in findings], ["chunks, stream 50, start 7"])
        self.assertIn("the append that began at 0 goes on as one from 3", findings[0].what)

    def test_a_missing_last_chunk_is_found(self) -> None:
        self.assert_serious(
            "DELETE FROM @.chunks c WHERE stream_id = 30 AND "
            "finish = (SELECT max(finish) FROM @.chunks WHERE stream_id = 30)",
            "chunks, stream 30",
            "its bytes end at",
        )

    def test_damaged_bytes_are_found(self) -> None:
        self.assert_serious(
            "UPDATE @.chunks SET data = set_byte(data, 0, get_byte(data, 0) # 1) WHERE stream_id = 7 AND start = 0",
            "chunks, stream 7, start 0",
            "are damaged",
        )

    def test_a_missing_source_is_found(self) -> None:
        self.assert_serious("DELETE FROM @.streams WHERE id = 3", "streams, id 40", "The source of the stream s40")

    def test_a_fork_past_its_source_is_found(self) -> None:
        self.assert_serious(
            "UPDATE @.streams SET base = 100000, tail = 100000 WHERE id = 40", "streams, id 40", "leaves its source"
        )

    def test_a_wrong_number_of_forks_is_found(self) -> None:
        self.assert_serious(
            "UPDATE @.streams SET forks = 0, deleted = true WHERE id = 3", "streams, id 3", "has 1 forks"
        )

    def test_a_wrong_number_of_producers_is_found(self) -> None:
        self.assert_serious("UPDATE @.streams SET writers = 2 WHERE id = 4", "streams, id 4", "has 0 producers")

    def test_a_configuration_that_can_not_be_decoded_is_found(self) -> None:
        self.assert_serious("UPDATE @.streams SET config = 'x' WHERE id = 4", "streams, id 4", "cannot be decoded")

    def test_chunks_of_no_stream_are_a_note_unless_their_removal_goes_on(self) -> None:
        self.database.connection.execute(f"INSERT INTO {SCHEMA}.removed VALUES (12, 0)")
        findings = self.damage("DELETE FROM @.streams WHERE id IN (11, 12, 30)")
        self.assertEqual([finding.where for finding in findings], ["chunks, stream 11", "chunks, stream 30"])
        self.assertFalse(any(finding.serious for finding in findings))

    def test_appends_during_the_check_are_no_damage(self) -> None:
        other = Database.__new__(Database)
        other.__dict__.update(self.database.__dict__)
        other.connection = self.database.connect()
        lengths = dict.fromkeys(range(1, 31), 0)
        for stream_id in lengths:
            row = other.connection.execute(f"SELECT tail FROM {SCHEMA}.streams WHERE id = %s", (stream_id,)).fetchone()
            assert row is not None
            assert isinstance(row[0], int)
            lengths[stream_id] = row[0]
        findings: list[Finding] = []
        check = DatabaseCheck(self.database.connection, SCHEMA, findings.append)
        random = Random(2)

        def advance(_: int) -> None:
            stream_id = random.choice(list(lengths))
            if random.random() < 0.05:
                del lengths[stream_id]
                with other.connection.transaction():
                    other.connection.execute(f"DELETE FROM {SCHEMA}.streams WHERE id = %s", (stream_id,))
                    other.connection.execute(f"INSERT INTO {SCHEMA}.removed VALUES (%s, 0)", (stream_id,))
                return
            with other.connection.transaction():
                other.append(stream_id, lengths[stream_id], [b"more"], 100)
                other.connection.execute(
                    f"UPDATE {SCHEMA}.streams SET version = version + 1 WHERE id = %s", (stream_id,)
                )
            lengths[stream_id] += 4

        other.connection.execute(f"UPDATE {SCHEMA}.streams SET forks = 0 WHERE id = 3")
        other.connection.execute(f"DELETE FROM {SCHEMA}.streams WHERE id = 40")
        check.run(advance)
        self.assertEqual(findings, [])
        self.assertLess(len(lengths), 30)
