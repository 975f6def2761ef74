"""Writes of the last uses of streams, on a real server."""

from __future__ import annotations

from twisted.trial.unittest import TestCase

from durable_streams.server.model import Lifetime
from durable_streams.server.storage.postgres.upkeep import UseWriter
from durable_streams.server.testing.values import T0

from .databases import SCHEMA, Database, lookups_on


class UseWriterTests(TestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        self.database = Database(self)
        lookups = await lookups_on(self, self.database)
        self.writer = UseWriter(lookups._execute, SCHEMA, lookups)

    def used_at(self) -> list[tuple[str, float]]:
        return [(name, at) for name, at in self.database.run("SELECT name, used_at FROM streams ORDER BY name")]

    async def test_a_stream_that_others_have_locked_does_not_hold_up_the_others(self) -> None:
        ids = [self.database.add_stream(name, Lifetime(ttl=60)) for name in "abc"]
        uses = dict.fromkeys(ids, T0 + 5)
        with self.database.locked("b"):
            self.assertEqual(await self.writer.write(uses), {ids[1]})
        self.assertEqual(self.used_at(), [("a", T0 + 5), ("b", T0), ("c", T0 + 5)])
        self.assertEqual(await self.writer.write(uses), frozenset())
        self.assertEqual(self.used_at(), [("a", T0 + 5), ("b", T0 + 5), ("c", T0 + 5)])

    async def test_streams_that_are_gone_or_were_used_later_are_left_alone(self) -> None:
        stream_id = self.database.add_stream("a", Lifetime(ttl=60), used_at=T0 + 9)
        self.assertEqual(await self.writer.write({stream_id: T0 + 5, 7: T0 + 5}), frozenset())
        self.assertEqual(self.used_at(), [("a", T0 + 9)])
