"""The figures of the whole storage on a real server."""

from __future__ import annotations

from typing import Any, cast

from psycopg.conninfo import conninfo_to_dict
from twisted.internet import reactor
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from durable_streams.server.model import START, Append, DatabaseFigures, StorageLimits, StreamConfig
from durable_streams.server.storage.postgres.settings import PostgresSettings
from durable_streams.server.storage.postgres.storage import PostgresStorage
from tests.storage.postgres.databases import Database
from tests.storage.postgres.writers import until
from tests.support.postgres_server import shared_server


class FigureTests(TestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        self.database = Database(self)
        settings = PostgresSettings(self.database.dsn, connections=2)
        self.storage = PostgresStorage(settings, StorageLimits(), reactor)
        self.storage.open()
        self.addCleanup(self.storage.close)
        await until(reactor, lambda: self.database_figures().connections == 7)

    def database_figures(self) -> DatabaseFigures:
        figures = self.storage.figures().database
        assert figures is not None
        return figures

    async def test_connections_that_were_lost_are_counted_once_they_are_open_again(self) -> None:
        self.assertEqual(0, self.database_figures().reconnections)
        # The database of the test has other connections, too.
        shared_server().run(
            "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s and application_name <> ''",
            [conninfo_to_dict(self.database.dsn)["dbname"]],
        )
        await until(reactor, lambda: self.database_figures().reconnections == 7)
        self.assertEqual(7, self.database_figures().connections)

    async def test_commits_and_reads_are_counted(self) -> None:
        await self.storage.create("a", StreamConfig("text/plain"), b"one", 0.0)
        await self.storage.append("a", Append("text/plain", b"two"), 0.0)
        for _ in range(3):
            chunk = await self.storage.read("a", START, 100, 0.0)
            self.assertEqual(b"onetwo", chunk.data)
        figures: Any = self.storage.figures()
        self.assertEqual((1, 6, 6), (figures.streams, figures.bytes, figures.written_bytes))
        self.assertGreaterEqual(sum(figures.commit_sizes.counts), 2)
        self.assertGreaterEqual(figures.commit_seconds.total, 0.0)
        database = figures.database
        self.assertGreaterEqual(database.cache_hits, 1)
        self.assertGreater(database.cache_bytes, 0)
        self.assertEqual((0, 0), (database.misses, database.uncertain_commits))

    async def test_a_storage_that_was_never_opened_closes_without_a_word(self) -> None:
        events: list[LogEvent] = []
        observer = cast(ILogObserver, events.append)
        storage = PostgresStorage(PostgresSettings("host=127.0.0.1 port=1"), StorageLimits(), reactor)
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        await storage.close()
        self.assertEqual([], events)
