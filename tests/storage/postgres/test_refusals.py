"""Statements that the database refuses: log lines, errors for callers, and readiness."""

from __future__ import annotations

from twisted.internet import reactor
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, LogEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from durable_streams.server.errors import InsufficientStorage, Unavailable
from durable_streams.server.model import Append, StorageLimits, StreamConfig
from durable_streams.server.storage.postgres.queries import QueryFailed
from durable_streams.server.storage.postgres.refusals import Refusals, refusal_of
from durable_streams.server.storage.postgres.settings import PostgresSettings
from durable_streams.server.storage.postgres.storage import PostgresStorage
from tests.storage.postgres.connections import failure_of
from tests.storage.postgres.writers import until
from tests.support.postgres_server import database, shared_server

LOCKED = QueryFailed("55P03", "canceling statement due to lock timeout")
MISSING = QueryFailed("42P01", 'relation "durable_streams.streams" does not exist')


def logged(case: SynchronousTestCase | TestCase) -> list[str]:
    """Return the list of sentences that are logged until the end of the test."""
    sentences: list[str] = []

    @implementer(ILogObserver)
    def observe(event: LogEvent) -> None:
        if "sentence" in event:
            sentences.append(event["sentence"])

    globalLogPublisher.addObserver(observe)
    case.addCleanup(globalLogPublisher.removeObserver, observe)
    return sentences


class RefusalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.refusals = Refusals(self.clock)
        self.logged = logged(self)

    def test_a_lock_is_logged_with_what_to_do_and_does_not_make_the_node_unready(self) -> None:
        self.assertIsInstance(self.refusals.note(LOCKED), Unavailable)
        [sentence] = self.logged
        self.assertEqual(
            "The database refused a statement: canceling statement due to lock timeout (SQLSTATE 55P03). Another "
            "transaction holds a lock: see pg_locks and pg_stat_activity, and end it.",
            sentence,
        )
        self.assertIsNone(self.refusals.obstacle())

    def test_each_reason_is_logged_once_a_minute(self) -> None:
        for error in (LOCKED, MISSING, LOCKED, MISSING):
            self.refusals.note(error)
        self.assertEqual(2, len(self.logged))
        self.clock.advance(60)
        self.refusals.note(LOCKED)
        self.assertEqual(3, len(self.logged))

    def test_missing_tables_and_rights_are_an_obstacle_while_they_recur(self) -> None:
        for error, advice in ((MISSING, "migrate"), (QueryFailed("42501", "permission denied"), "--grant-to")):
            self.refusals.note(error)
            self.assertIn(advice, self.refusals.obstacle() or "")
            self.clock.advance(4.9)
            self.assertIsNotNone(self.refusals.obstacle())
            self.clock.advance(0.1)
            self.assertIsNone(self.refusals.obstacle())

    def test_a_statement_that_is_wrong_is_left_to_its_caller(self) -> None:
        self.assertIsNone(self.refusals.note(QueryFailed("42601", "syntax error")))
        self.assertEqual([], self.logged)

    def test_a_full_disk_is_insufficient_storage_for_writers(self) -> None:
        error = QueryFailed("53100", "could not extend file")
        self.assertIsInstance(refusal_of(error), InsufficientStorage)
        self.refusals.note(error)
        self.assertIn("Make room on the database's disk.", self.logged[0])


class RemovedTableTests(TestCase):
    async def test_a_node_whose_tables_are_removed_is_unavailable_and_says_why(self) -> None:
        dsn = database(self)
        storage = PostgresStorage(PostgresSettings(dsn, connections=1), StorageLimits(), reactor)
        self.addCleanup(storage.close)
        storage.open()
        await storage.create("a", StreamConfig("text/plain"), b"", 0.0)
        await until(reactor, lambda: storage.obstacle() is None)
        sentences = logged(self)
        name = dsn.partition("dbname=")[2].split()[0]
        shared_server().run("drop schema durable_streams cascade", database=name)
        await failure_of(storage.append("a", Append("text/plain", b"x"), 0.0), Unavailable)
        await failure_of(storage.status("a", 0.0), Unavailable)
        self.assertIn("The tables were removed or changed.", storage.obstacle() or "")
        self.assertIn("The tables were removed or changed.", sentences[0])
