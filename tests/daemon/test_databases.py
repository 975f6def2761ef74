"""The settings of a storage in a database: the file of the connection string, and the extra."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from unittest.mock import patch

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.config.settings import Settings
from durable_streams.server.config.validation import ConfigError
from durable_streams.server.daemon import databases
from durable_streams.server.daemon.databases import postgres_settings_from
from durable_streams.server.daemon.service import Daemon
from durable_streams.server.startup import StartupError
from durable_streams.server.storage.postgres.settings import PostgresSettings

DSN = "postgresql://streams:hush@db.example.com/streams"


class DatabaseCase(SynchronousTestCase):
    def setUp(self) -> None:
        # What is tested here does not use psycopg.
        self.patch(databases, "import_module", lambda name: None)

    def settings(self, **values: Any) -> Settings:
        chosen = {f"storage.postgres.{name}": value for name, value in values.items()}
        return Settings.from_mapping({"storage.mode": "postgres", **chosen})

    def file(self, text: str, mode: int = 0o600) -> str:
        path = Path(self.mktemp()).absolute()
        path.write_bytes(text.encode("latin-1"))
        path.chmod(mode)
        return str(path)

    def refusal(self, **values: Any) -> str:
        error = self.assertRaises(ConfigError, postgres_settings_from, self.settings(**values))
        self.assertEqual("validate_config", error.phase)
        self.assertNotIn("hush", str(error))
        return str(error)


class SettingsTests(DatabaseCase):
    def test_the_defaults_of_the_storage_are_those_of_the_settings(self) -> None:
        self.assertEqual(PostgresSettings(), postgres_settings_from(self.settings()))

    def test_each_setting_reaches_the_storage(self) -> None:
        values: dict[str, Any] = {
            "schema": "other",
            "connections": 7,
            "lock_timeout_ms": 11,
            "commit_deadline_ms": 12,
            "wait_ms": 13,
            "cache_bytes": 0,
            "migrate": False,
        }
        made = postgres_settings_from(self.settings(dsn=DSN, **values))
        self.assertEqual(PostgresSettings(dsn=DSN, **values), made)
        shared = Settings.from_mapping(
            {"storage.mode": "postgres", "limits.max_queued_bytes": 5, "storage.verify_reads": False}
        )
        self.assertEqual(PostgresSettings(queued_bytes=5, verify_reads=False), postgres_settings_from(shared))

    def test_the_connection_string_is_not_in_the_repr(self) -> None:
        made = postgres_settings_from(self.settings(dsn=DSN))
        for text in (repr(made), str(made), f"{made}"):
            self.assertNotIn("hush", text)
            self.assertIn("dsn='***', schema='durable_streams'", text)
        self.assertIn("dsn=''", repr(PostgresSettings()))

    def test_without_psycopg_the_start_fails_with_the_command_that_installs_it(self) -> None:
        for error, reason in (
            (ModuleNotFoundError("No module named 'psycopg'", name="psycopg"), "and it is not installed"),
            (
                ImportError("no pq wrapper available.\n- couldn't import psycopg 'c'"),
                "and that cannot be imported (no pq wrapper available. - couldn't import psycopg 'c')",
            ),
        ):
            with patch.object(databases, "import_module", side_effect=error):
                failure = self.assertRaises(StartupError, Daemon, self.settings(dsn=DSN), Clock())
            self.assertEqual(
                f"[validate_config] storage.mode is postgres, which needs psycopg, {reason}. Run: pip install "
                "'durable-streams-server[postgres]'",
                str(failure),
            )


class FileTests(DatabaseCase):
    def test_the_connection_string_is_read_from_its_file(self) -> None:
        for text in (DSN, f"{DSN}\n", f" {DSN}\r\n"):
            path = self.file(text)
            self.assertEqual(DSN, postgres_settings_from(self.settings(dsn_file=path)).dsn)
        self.assertEqual(DSN, postgres_settings_from(self.settings(dsn_file=os.path.relpath(path))).dsn)

    def test_a_file_that_others_can_use_is_refused(self) -> None:
        for mode in (0o640, 0o604, 0o620, 0o644, 0o777):
            path = self.file(DSN, mode)
            self.assertIn(f"its mode is {mode:04o}. Run: chmod 600 {path}", self.refusal(dsn_file=path))

    def test_a_missing_file_and_what_is_no_file_are_refused(self) -> None:
        self.assertIn("No such file", self.refusal(dsn_file="/nonexistent/dsn"))
        self.assertIn("is not a file", self.refusal(dsn_file=os.getcwd()))
        fifo = self.mktemp()
        os.mkfifo(fifo, 0o600)
        self.addCleanup(os.remove, fifo)
        self.assertIn("is not a file", self.refusal(dsn_file=fifo))

    def test_a_file_without_one_line_of_text_is_refused(self) -> None:
        for text in ("", "\n \n", f"{DSN}\n{DSN}", f"{DSN}\0", "\xff\xfe", "x" * 70_000):
            self.assertIn("must have one line of text", self.refusal(dsn_file=self.file(text)))
