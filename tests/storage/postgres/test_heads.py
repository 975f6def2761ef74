"""Tests of the decoding of a stream's row."""

from __future__ import annotations

from math import inf

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.model import Fork, Lifetime, Offset, StreamConfig, WriterState
from durable_streams.server.storage.postgres.heads import COLUMNS, WIDTH, decode_head, encode_config
from durable_streams.server.storage.postgres.packing import boolean, float8, int4, int8

CONFIG = StreamConfig("Text/Plain; charset=utf-8", Lifetime(ttl=60), False, Fork("source", Offset(1, 2), 3))


class Rows:
    """Rows of a result, in PostgreSQL's binary format."""

    def __init__(self, *rows: list[bytes | None]) -> None:
        self.rows = rows

    def get_value(self, row_number: int, column_number: int) -> bytes | None:
        return self.rows[row_number][column_number]


def row(name: bytes = b"a/\xe2\x98\x83", ttl: int | None = 60, expires_at: float | None = None) -> list[bytes | None]:
    return [
        *(int8(7), name, int8(5), b"Text/Plain; charset=utf-8", encode_config(CONFIG)),
        *(None if ttl is None else int8(ttl), None if expires_at is None else float8(expires_at)),
        *(float8(100.5), float8(200.25), float8(150.0), boolean(True), boolean(False)),
        *(int8(10), int8(30), b"\xff\0", int4(2), int8(6), int4(1), int4(4), int8(9), float8(201.0)),
    ]


class DecodingTests(SynchronousTestCase):
    def test_a_row_has_the_columns_that_a_query_selects(self) -> None:
        self.assertEqual((len(COLUMNS.split(", ")), len(row())), (WIDTH, WIDTH))

    def test_all_columns_are_decoded(self) -> None:
        head = decode_head(Rows(row()), 0)
        facts = head.facts
        self.assertEqual((facts.id, facts.name, facts.incarnation), (7, "a/\u2603", 5))
        self.assertEqual((facts.content_type, facts.media_type), ("Text/Plain; charset=utf-8", "text/plain"))
        self.assertEqual((head.config, head.lifetime), (CONFIG, Lifetime(ttl=60)))
        self.assertEqual((head.created_at, head.updated_at, head.used_at), (100.5, 200.25, 150.0))
        self.assertEqual((head.closed, head.deleted, head.base, head.tail), (True, False, 10, 30))
        self.assertEqual((head.sequence, head.writers, head.source_id), (b"\xff\0", 2, 6))
        self.assertEqual((head.depth, head.forks, head.version, head.read_at), (1, 4, 9, 201.0))

    def test_the_columns_may_begin_anywhere(self) -> None:
        self.assertEqual(decode_head(Rows([], [b"x", *row()]), 1, 1), decode_head(Rows(row()), 0))

    def test_immutable_parts_of_a_known_head_are_used_again(self) -> None:
        known = decode_head(Rows(row()), 0)
        self.assertIs(decode_head(Rows(row()), 0, 0, known).facts, known.facts)

    def test_an_installed_stream_is_decoded_anew_although_its_id_is_known(self) -> None:
        known = decode_head(Rows(row(b"__ds/staged")), 0)
        head = decode_head(Rows(row(b"b", None, 300.0)), 0, 0, known)
        self.assertEqual((head.facts.name, head.lifetime), ("b", Lifetime(expires_at=300.0)))


class StateTests(SynchronousTestCase):
    def test_a_ttl_counts_from_the_later_of_the_written_and_the_known_use(self) -> None:
        head = decode_head(Rows(row()), 0)
        self.assertEqual((head.expires(), head.expires(140.0), head.expires(170.0)), (210.0, 210.0, 230.0))

    def test_expires_at_does_not_depend_on_uses(self) -> None:
        self.assertEqual(decode_head(Rows(row(ttl=None, expires_at=300.0)), 0).expires(1000.0), 300.0)

    def test_a_stream_without_a_lifetime_does_not_expire(self) -> None:
        self.assertEqual(decode_head(Rows(row(ttl=None)), 0).expires(), inf)

    def test_the_status_and_the_record_have_the_committed_state(self) -> None:
        head = decode_head(Rows(row()), 0)
        status = head.status()
        self.assertEqual((status.facts, status.tail, status.closed), (head.facts, 30, True))
        self.assertEqual((status.created_at, status.updated_at), (100.5, 200.25))
        writers = {"w": WriterState(1, 2, 3.0)}
        record = head.record("source", writers, 170.0)
        self.assertEqual((record.source, record.source_id, record.base, record.forks), ("source", 6, 10, 4))
        self.assertEqual((record.writers, record.sequence, record.used_at), (writers, b"\xff\0", 170.0))
