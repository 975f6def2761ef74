"""The statement of a group commit: its parameters, and the rows that it leaves out."""

from __future__ import annotations

import re
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.model import Append, StorageLimits, Writer
from durable_streams.server.storage.entry import facts_of
from durable_streams.server.storage.postgres.commit_statement import CommitStatements
from durable_streams.server.storage.postgres.folding import Fold, fold
from durable_streams.server.storage.postgres.known import KnownStream
from durable_streams.server.storage.postgres.packing import to_ints
from tests.storage.postgres.test_folding import Room, head_of

STATEMENTS = CommitStatements("streams")


def folded(stream_id: int, **fields: Any) -> Fold:
    known = KnownStream(head_of(facts_of(f"s{stream_id}", stream_id, stream_id, "text/plain"), version=stream_id))
    return fold(known, [Append("text/plain", b"x", **fields)], StorageLimits(writers=1), Room())


class BuildTests(SynchronousTestCase):
    def test_streams_are_locked_in_the_order_of_their_ids(self) -> None:
        _, parameters = STATEMENTS.build([folded(each) for each in (7, 2, 9, 1)], [7.0, 2.0, 9.0, 1.0])
        self.assertEqual(to_ints(parameters[0]), [1, 2, 7, 9])
        self.assertEqual(to_ints(parameters[1]), [1, 2, 7, 9])
        self.assertEqual(to_ints(parameters[9]), [1, 2, 7, 9])

    def test_a_stream_cannot_stand_twice(self) -> None:
        self.assertRaises(AssertionError, STATEMENTS.build, [folded(1), folded(2), folded(1)], [0.0] * 3)

    def test_each_statement_has_a_type_for_each_parameter(self) -> None:
        plain = folded(1)
        with_writer = folded(2, writer=Writer("w", 0, 0))
        evicting = folded(3, writer=Writer("w", 0, 0))
        evicting.evicted["v"] = None
        names = set()
        for folds in ([plain], [plain, with_writer], [with_writer, evicting]):
            statement, parameters = STATEMENTS.build(folds, [0.0] * len(folds))
            names.add(statement.name)
            used = {int(number) for number in re.findall(r"\$(\d+)", statement.sql)}
            self.assertEqual(used, set(range(1, len(statement.types) + 1)))
            self.assertEqual(len(statement.types), len(parameters) + 3)
        self.assertEqual(len(names), 3)

    def test_the_chunks_of_an_append_follow_each_other(self) -> None:
        known = KnownStream(head_of(facts_of("a", 1, 1, "text/plain"), tail=10))
        data = b"x" * (2 << 20)
        result = fold(known, [Append("text/plain", data)], StorageLimits(), Room())
        _, parameters = STATEMENTS.build([result], [0.0])
        self.assertEqual(to_ints(parameters[9]), [1, 1])
        self.assertEqual(to_ints(parameters[10]), [10, 10 + (1 << 20)])
        self.assertEqual(to_ints(parameters[11]), [10, 10])
