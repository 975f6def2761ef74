"""A node whose database comes back without its last commits, such as a standby that was promoted, or a backup."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from durable_streams.server.model import START, Append, StorageLimits, StreamConfig, Writer
from durable_streams.server.storage.postgres.settings import PostgresSettings
from durable_streams.server.storage.postgres.storage import PostgresStorage

from .databases import Database
from .writers import until

NOW = 0.0


class LostCommitTests(TestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        self.database = Database(self, frozen=False)
        self.storage = await self.open_storage()
        await self.storage.create("a", StreamConfig("text/plain"), b"one", NOW)

    async def open_storage(self) -> PostgresStorage:
        storage = PostgresStorage(PostgresSettings(self.database.dsn, connections=2), StorageLimits(), reactor)
        self.addCleanup(storage.close)
        storage.open()
        await until(reactor, lambda: storage.obstacle() is None)
        return storage

    async def append(self, storage: PostgresStorage, data: bytes, seq: int) -> bool:
        """Append as a producer, and return whether it was a duplicate."""
        return (await storage.append("a", Append("text/plain", data, writer=Writer("w", 0, seq)), NOW)).duplicate

    async def content(self, storage: PostgresStorage) -> bytes:
        return (await storage.read("a", START, 1000, NOW)).data

    async def lose_the_last_append(self) -> None:
        """Lose the append of the producer's number 1, and all connections of the node."""
        before = self.storage._open_connections.reopened
        self.database.run("UPDATE streams SET tail = 6, version = version - 1")
        self.database.run("UPDATE writers SET seq = 0")
        self.database.run("DELETE FROM chunks WHERE start = 6")
        self.database.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await until(reactor, lambda: self.storage._open_connections.reopened >= before + 7)
        await until(reactor, lambda: self.storage.obstacle() is None)

    async def test_what_the_database_has_lost_is_not_answered_from_caches(self) -> None:
        self.assertFalse(await self.append(self.storage, b"two", 0))
        self.assertFalse(await self.append(self.storage, b"old", 1))
        self.assertEqual(await self.content(self.storage), b"onetwoold")
        await self.lose_the_last_append()
        self.assertEqual((await self.storage.status("a", NOW)).tail, 6)
        self.assertEqual(await self.content(self.storage), b"onetwo")
        # The producer sends again what it was told was written: it is no duplicate.
        self.assertFalse(await self.append(self.storage, b"old", 1))

    async def test_bytes_that_were_written_in_the_place_of_lost_ones_are_read(self) -> None:
        other = await self.open_storage()
        await self.append(self.storage, b"two", 0)
        await self.append(self.storage, b"old", 1)
        self.assertEqual(await self.content(self.storage), b"onetwoold")
        await self.lose_the_last_append()
        await until(reactor, lambda: other.obstacle() is None)
        self.assertFalse(await self.append(other, b"new", 1))
        self.assertEqual(await self.content(self.storage), b"onetwonew")
