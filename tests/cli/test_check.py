"""The command ``check``: output, streams and exit status."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

from click.testing import Result
from twisted.trial.unittest import SynchronousTestCase, TestCase

from durable_streams.server.storage.findings import Counts, Finding
from tests.storage.file.directories import digests, fill, flip, only, opened
from tests.support.commands import command


def check(*arguments: object, **settings: str) -> Result:
    """Run the check."""
    return command("check", *arguments, **settings)


class CheckTests(TestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        self.directory = Path(self.mktemp()).absolute()
        await fill(self.directory)

    def test_check_of_an_undamaged_directory_exits_with_status_0(self) -> None:
        before = digests(self.directory)
        result = check("--data-dir", self.directory)
        self.assertEqual(0, result.exit_code, result.output)
        [line] = result.output.splitlines()
        self.assertRegex(
            line,
            r"^.*: checked 10 streams, 31 appends and 150248 bytes in [0-9.]+ s: no damage\.$",
            result.output,
        )
        self.assertEqual(before, digests(self.directory))
        self.assertEqual(b"", (self.directory / "LOCK").read_bytes())

    def test_check_reports_damage_and_exits_with_status_1(self) -> None:
        data = only(self.directory, "streams/*/*.data")
        flip(data, 50_000)
        flip(self.directory / "packs/0000000000000001", 100)
        result = check("--data-dir", self.directory)
        self.assertEqual(1, result.exit_code, result.output)
        pack, own, summary = result.output.splitlines()
        self.assertTrue(pack.startswith("DAMAGED: packs/0000000000000001 at "), pack)
        self.assertTrue(
            own.startswith(
                f"DAMAGED: {data.relative_to(self.directory)} at 40000: Bytes 40000 to 80000 of the stream large "
            ),
            own,
        )
        self.assertIn("Restore the data directory from a backup", own)
        self.assertTrue(summary.endswith(" s: 2 findings of damage."), summary)

    def test_a_note_does_not_change_the_exit_status(self) -> None:
        (self.directory / "mine").write_text("?")
        result = check("--data-dir", self.directory)
        self.assertEqual(0, result.exit_code, result.output)
        note, summary = result.output.splitlines()
        self.assertTrue(note.startswith("note: mine: It does not belong "), note)
        self.assertTrue(summary.endswith("no damage."), summary)

    def test_check_prints_json(self) -> None:
        (self.directory / "mine").write_text("?")
        flip(only(self.directory, "streams/*/*.data"), 50_000)
        result = check("--data-dir", self.directory, "--json")
        self.assertEqual(1, result.exit_code, result.output)
        report = json.loads(result.output)
        self.assertEqual((str(self.directory), "file", 1, False), tuple(report[name] for name in _HEAD))
        self.assertEqual((10, 31, 150_248), tuple(report["counts"][name] for name in ("streams", "appends", "bytes")))
        damage, note = report["findings"]
        self.assertEqual({"serious", "where", "what", "advice"}, set(damage))
        self.assertEqual((True, False), (damage["serious"], note["serious"]))
        self.assertGreater(report["seconds"], 0)

    def test_the_json_report_of_an_undamaged_directory(self) -> None:
        result = check("--data-dir", self.directory, "--json")
        self.assertEqual(0, result.exit_code, result.output)
        report = json.loads(result.output)
        self.assertEqual((True, []), (report["whole"], report["findings"]))

    def test_check_uses_the_data_directory_of_the_settings(self) -> None:
        for mode in ("file-durable", "file-fast", "FILE"):
            result = check(storage__mode=mode, storage__data_dir=str(self.directory))
            self.assertEqual(0, result.exit_code, result.output)
        config = Path(self.mktemp())
        config.write_text(f'[storage]\nmode = "file-fast"\ndata_dir = "{self.directory}"\n')
        self.assertEqual(0, check("--config", config).exit_code)
        folder = Path(self.mktemp())
        folder.mkdir()
        config.rename(folder / "default.toml")
        self.assertEqual(0, check("--config-dir", folder).exit_code)

    async def test_a_directory_in_use_is_not_checked(self) -> None:
        storage = opened(self.directory)
        before = digests(self.directory)
        result = check("--data-dir", self.directory)
        self.assertEqual(2, result.exit_code, result.output)
        self.assertIn(f"is in use by process {os.getpid()}. Stop that process", result.output)
        self.assertEqual(b"%d\n" % os.getpid(), (self.directory / "LOCK").read_bytes())
        self.assertEqual(before, digests(self.directory))
        await storage.close()

    def test_a_check_releases_the_directorys_lock(self) -> None:
        # The lock is given back at the end, in whatever way that comes.
        (self.directory / "FORMAT").write_text('{"storage":"tape","version":1}')
        self.assertEqual(2, check("--data-dir", self.directory).exit_code)
        descriptor = os.open(self.directory / "LOCK", os.O_RDWR)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)

    def test_a_directory_without_a_lock_file_can_be_checked(self) -> None:
        (self.directory / "LOCK").unlink()
        self.assertEqual(0, check("--data-dir", self.directory).exit_code)
        self.assertEqual(self.directory.stat().st_uid, (self.directory / "LOCK").stat().st_uid)

    def test_a_damaged_format_file_is_reported(self) -> None:
        path = self.directory / "FORMAT"
        for text in (None, "{", '{"storage": 3}'):
            path.unlink(missing_ok=True)
            if text is not None:
                path.write_text(text)
            flip(only(self.directory, "streams/*/*.data"), 50_000)
            result = check("--data-dir", self.directory)
            self.assertEqual(1, result.exit_code, result.output)
            self.assertTrue(result.output.startswith("DAMAGED: FORMAT: "), result.output)
            self.assertIn('Write one line into it: {"storage":"file","version":3}', result.output)
            flip(only(self.directory, "streams/*/*.data"), 50_000)
            self.assertIn("31 appends", result.output)


_HEAD = ("directory", "storage", "version", "whole")


class RefusalTests(SynchronousTestCase):
    def assert_refused(self, result: Result, *parts: str) -> None:
        self.assertEqual(2, result.exit_code, result.output)
        self.assertNotIn("Traceback", result.output)
        said = " ".join(result.output.split())
        for part in parts:
            self.assertIn(part, said)

    def test_a_path_that_is_not_a_data_directory_is_rejected(self) -> None:
        directory = Path(self.mktemp()).absolute()
        self.assert_refused(check("--data-dir", directory), f"{directory} does not exist. Correct storage.data_dir")
        self.assertFalse(directory.exists())
        directory.mkdir()
        self.assert_refused(check("--data-dir", directory), "has no file FORMAT")
        self.assertEqual([], list(directory.iterdir()))
        path = directory / "x"
        path.write_text("?")
        self.assert_refused(check("--data-dir", directory), "has no file FORMAT")
        self.assert_refused(check("--data-dir", path), "is not a directory")

    def test_an_unknown_kind_or_a_later_version_is_rejected(self) -> None:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        for text, part in (
            ('{"storage":"tape","version":1}', "the storage kind tape"),
            ('{"storage":"file","version":4}', "has format 4 of the file storage"),
            ('{"storage":"acid","version":2}', "has format 2 of the acid storage"),
            ("", "cannot be decoded"),
        ):
            (directory / "FORMAT").write_text(text)
            self.assert_refused(check("--data-dir", directory), part)

    def test_a_database_of_a_development_version_can_not_be_checked_and_is_not_called_damaged(self) -> None:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        (directory / "FORMAT").write_text('{"storage":"acid","version":1}')
        connection = sqlite3.connect(directory / "acid.sqlite")
        connection.executescript("CREATE TABLE streams (id); PRAGMA application_id = 0x44537472;")
        connection.close()
        result = check("--data-dir", directory)
        self.assert_refused(result, f"{directory}/acid.sqlite can't be checked. It was made by a development version")
        self.assertNotIn("DAMAGED", result.output)

    def test_a_directory_is_checked_by_its_own_storage_kind(self) -> None:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        (directory / "FORMAT").write_text('{"storage":"acid","version":1}')
        asked: list[object] = []

        def check_acid(place: Path, found: Callable[[Finding], None]) -> Counts:
            asked.append(place)
            found(Finding(True, "shard", "It is damaged.", "Restore it."))
            return Counts(streams=3)

        package = "durable_streams.server.storage.acid"
        modules = {package: ModuleType(package), f"{package}.checking": ModuleType(f"{package}.checking")}
        vars(modules[f"{package}.checking"])["check_acid"] = check_acid
        with patch.dict(sys.modules, modules):
            result = check("--data-dir", directory)
        self.assertEqual(([directory], 1), (asked, result.exit_code))
        self.assertTrue(result.output.startswith("DAMAGED: shard: It is damaged. Restore it.\n"), result.output)
        self.assertIn("checked 3 streams, ", result.output)

    def test_a_directory_without_a_format_file_is_checked_and_reported_damaged(self) -> None:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        (directory / "acid.sqlite").write_bytes(b"?" * 4096)
        result = check("--data-dir", directory)
        self.assertEqual(1, result.exit_code, result.output)
        self.assertIn('Write one line into it: {"storage":"acid","version":1}', result.output)
        self.assertIn("DAMAGED: acid.sqlite: ", result.output)

    def test_check_with_invalid_settings_is_rejected(self) -> None:
        self.assert_refused(check(), "storage.mode is memory, which has no data directory")
        self.assert_refused(check("--profile", "nobody"), "There is no profile nobody.")
        self.assert_refused(check("--config", "/nowhere"), "Cannot read the configuration file /nowhere")
        self.assert_refused(check(storage__mode="tape"), "storage.mode must be", "DS_STORAGE__MODE", "'tape'")
        self.assert_refused(check("--nonsense"), "No such option")
        self.assert_refused(check("--config-dir", "/nowhere"), "[load_config] The folder /nowhere", "does not exist")

    def test_a_file_without_read_permission_is_an_error(self) -> None:
        directory = Path(self.mktemp()).absolute()
        (directory / "journal").mkdir(parents=True)
        (directory / "FORMAT").write_text('{"storage":"file","version":1}')
        (directory / "journal" / ("0" * 15 + "1")).write_bytes(b"?")

        def refuse(*_: object) -> None:
            raise PermissionError(13, "Permission denied", "the journal")

        self.patch(sys.modules["durable_streams.server.cli.check"], "check_files", refuse)
        self.assert_refused(check("--data-dir", directory), "Cannot read the journal: permission denied.")
