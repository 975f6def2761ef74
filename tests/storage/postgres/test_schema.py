"""Tests of the list of migrations."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.storage.postgres.schema import SCHEMA_VERSION, check_schema_name, migrations


class MigrationTests(SynchronousTestCase):
    def test_an_empty_schema_gets_all_migrations(self) -> None:
        scripts = migrations("streams_1", 0)
        self.assertEqual(len(scripts), SCHEMA_VERSION)
        self.assertIn("CREATE TABLE streams_1.streams (", scripts[0])
        self.assertNotIn("{", "".join(scripts))

    def test_a_schema_of_the_present_version_gets_none(self) -> None:
        self.assertEqual(migrations("streams", SCHEMA_VERSION), [])

    def test_a_name_that_would_need_quotes_is_refused(self) -> None:
        for name in ("", "Streams", "a-b", 'a"b', "a; drop table x", "1a", "a" * 64):
            self.assertRaises(ValueError, check_schema_name, name)
            self.assertRaises(ValueError, migrations, name, 0)
