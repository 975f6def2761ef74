"""Tests of the command ``durable-streams-server``: output, streams and exit status."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from unittest.mock import patch

from click.testing import CliRunner, Result
from twisted.trial.unittest import SynchronousTestCase, TestCase

from durable_streams.server.cli import main
from durable_streams.server.storage.findings import Counts, Finding
from tests.storage.file.directories import digests, fill, flip, only, opened
from tests.support.skipping import skip_not_installed


def command(name: str, *arguments: object, **settings: str) -> Result:
    """Run a command: ``storage__mode="memory"`` sets DS_STORAGE__MODE."""
    unset = {name: None for name in os.environ if name.startswith("DS_") or name == "RUST_LOG"}
    inherited: dict[str, str | None] = {**unset}
    chosen = {f"DS_{name.upper()}": value for name, value in settings.items()}
    return CliRunner().invoke(main, [name, *map(str, arguments)], env=inherited | chosen)


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
            self.assertIn('Write one line into it: {"storage":"file","version":1}', result.output)
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
            ('{"storage":"file","version":2}', "has format 2 of the file storage"),
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

        self.patch(sys.modules["durable_streams.server.cli"], "check_files", refuse)
        self.assert_refused(check("--data-dir", directory), "Cannot read the journal: permission denied.")


class VersionTests(SynchronousTestCase):
    def test_the_version_is_that_of_the_distribution(self) -> None:
        result = CliRunner().invoke(main, ["--version"])
        installed = version("durable-streams-server")
        self.assertEqual((result.exit_code, result.stdout), (0, f"durable-streams-server, version {installed}\n"))


class ConfigTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def config(self, *arguments: object, **settings: str) -> Result:
        return command("config", "--config-dir", self.folder, *arguments, **settings)

    def test_config_prints_a_configuration_file(self) -> None:
        (self.folder / "default.toml").write_text("limits.max_streams = 5")
        given = self.folder / "given.toml"
        given.write_text("storage.mode = 'acid'")
        result = self.config("--profile", "prod", "--config", given, http__cors_origins="https://a.example")
        self.assertEqual((0, ""), (result.exit_code, result.stderr), result.output)
        for line in (
            f"limits.max_streams = 5  # {self.folder}/default.toml",
            f'storage.mode = "acid"  # {given}',
            'storage.data_dir = "/var/lib/durable-streams"  # profile prod',
            'http.cors_origins = ["https://a.example"]  # environment variable DS_HTTP__CORS_ORIGINS',
        ):
            self.assertIn(line, result.stdout.splitlines())
        given.write_text(result.stdout)
        again = command("config", "--json", "--config", given)
        self.assertEqual(0, again.exit_code, again.output)
        settings = json.loads(again.stdout)["settings"]
        self.assertEqual({"value": 5, "source": str(given)}, settings["limits.max_streams"])

    def test_config_prints_warnings_on_stderr(self) -> None:
        for arguments in ((), ("--json",)):
            result = self.config(*arguments)
            self.assertEqual(0, result.exit_code, result.output)
            self.assertRegex(result.stderr, r"^Warning: http\.cors_origins is \*: .*\n$")
            self.assertNotIn("Warning: ", result.stdout)
        self.assertEqual(1, len(json.loads(self.config("--json").stdout)["warnings"]))

    def test_config_prints_no_secrets(self) -> None:
        for arguments in ((), ("--json",)):
            result = self.config(*arguments, server__listen="tls:443:privateKey=hush, x:password=hush")
            self.assertEqual(0, result.exit_code, result.output)
            self.assertNotIn("hush", result.output)
            self.assertIn("tls:443:privateKey=***", result.stdout)

    def test_config_prints_the_error_and_its_phase_for_invalid_settings(self) -> None:
        for result, line in (
            (
                self.config(limits__max_streams="0"),
                (
                    "[validate_config] limits.max_streams must be 1 or more; environment variable "
                    "DS_LIMITS__MAX_STREAMS sets it to 0.\n"
                ),
            ),
            (
                self.config("--config", "/nowhere"),
                "[load_config] Cannot read the configuration file /nowhere: No such file or directory.\n",
            ),
        ):
            self.assertEqual((1, "", line), (result.exit_code, result.stdout, result.stderr))


class CommandTests(SynchronousTestCase):
    def test_the_command_imports_no_reactor(self) -> None:
        code = "import sys, durable_streams.server.cli; sys.exit('twisted.internet.reactor' in sys.modules)"
        self.assertEqual(0, subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode)

    def test_the_installed_command_runs(self) -> None:
        command = Path(sys.executable).with_name("durable-streams-server")
        if not command.exists():
            command = Path(shutil.which("durable-streams-server") or "")
        if not command.is_file():
            skip_not_installed("durable-streams-server", "pip install -e .")
        done = subprocess.run([command, "check", "--help"], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(0, done.returncode, done.stderr)
        self.assertIn("--data-dir", done.stdout)
