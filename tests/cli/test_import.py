"""The command ``import`` into a data directory and into a running server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.canned_server import CannedServer
from tests.support.commands import COMMAND, environment, run_command
from tests.support.daemon import PATIENCE, Daemon
from tests.support.data import MODES, make_directory, opened_streams, storage_settings
from tests.support.terminals import TerminalProcess


class ImportTestCase(TestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        await make_directory(self.folder / "source")
        self.document = self.folder / "document.json"
        exported = run_command("export", "-o", self.document, **storage_settings(self.folder / "source"))
        self.assertEqual(0, exported.returncode, exported.stderr)

    def content(self, directory: Path, mode: str = "file-durable") -> list[object]:
        """Return the streams of an export, without what an import does not keep."""
        ended = run_command("export", **storage_settings(directory, mode))
        self.assertEqual(0, ended.returncode, ended.stderr)
        streams: list[dict[str, object]] = json.loads(ended.stdout)["streams"]
        return [(stream["name"], stream["closed"], stream["messages"]) for stream in streams]


class LocalTests(ImportTestCase):
    def run_import(self, *arguments: object, stdin: bytes = b"", mode: str = MODES[0]) -> tuple[int, str, str]:
        ended = run_command("import", *arguments, stdin=stdin, **storage_settings(self.folder / "target", mode))
        self.assertNotIn(b"Traceback", ended.stderr)
        return ended.returncode, ended.stdout.decode(), ended.stderr.decode()

    def test_a_file_is_imported_into_a_new_directory(self) -> None:
        summary = "Imported 3 stream(s), skipped 0, 4 message(s) total\n"
        for mode in MODES:
            target = self.folder / "target"
            self.assertEqual((0, "", summary), self.run_import("-i", self.document, mode=mode))
            self.assertEqual(self.content(self.folder / "source"), self.content(target, mode))
            target.rename(self.folder / f"was-{mode}")

    def test_a_document_on_stdin_is_imported(self) -> None:
        text = self.document.read_bytes()
        self.assertEqual(0, self.run_import(stdin=text)[0])
        self.assertEqual(self.content(self.folder / "source"), self.content(self.folder / "target"))
        status, _, errors = self.run_import("--input", "-", stdin=text)
        self.assertEqual(0, status)
        self.assertIn("Imported 0 stream(s), skipped 3, 0 message(s) total\n", errors)

    def test_existing_streams_are_skipped_refused_or_replaced(self) -> None:
        self.assertEqual(0, self.run_import("-i", self.document)[0])
        status, out, errors = self.run_import("-i", self.document)
        skips = "".join(f"Skipping existing stream: {name}\n" for name in ("chat/1", "log", "n" * 40))
        self.assertEqual(
            (0, "", f"{skips}Imported 0 stream(s), skipped 3, 0 message(s) total\n"), (status, out, errors)
        )
        status, out, errors = self.run_import("-i", self.document, "--on-conflict", "fail")
        self.assertEqual((1, ""), (status, out))
        self.assertTrue(errors.startswith("import failed: import conflict: stream 'chat/1' already exists"), errors)
        self.assertEqual(
            (0, "", "Imported 3 stream(s), skipped 0, 4 message(s) total\n"),
            self.run_import("-i", self.document, "--on-conflict", "replace"),
        )
        self.assertEqual(self.content(self.folder / "source"), self.content(self.folder / "target"))

    def test_json_prints_the_numbers_and_the_skipped_streams(self) -> None:
        status, out, _ = self.run_import("--json", "-i", self.document)
        self.assertEqual(0, status)
        done = json.loads(out)
        self.assertEqual((3, 0, 4, []), (*list(done.values())[:3], done["skipped"]))
        done = json.loads(self.run_import("--json", "-i", self.document)[1])
        self.assertEqual((3, ["chat/1", "log", "n" * 40]), (done["streams_skipped"], done["skipped"]))

    def test_a_bad_document_changes_nothing_and_is_status_1(self) -> None:
        self.assertEqual(0, self.run_import("-i", self.document)[0])
        before = self.content(self.folder / "target")
        text = self.document.read_bytes()
        for bad, reason in (
            (text[:-40], "invalid document: "),
            (b"", "invalid document: "),
            (text.replace(b'"format_version": 1', b'"format_version": 2'), "unsupported format version: 2"),
            (text.replace(b'"data_base64": "', b'"data_base64": "?'), "base64"),
        ):
            status, out, errors = self.run_import("--on-conflict", "replace", stdin=bad)
            self.assertEqual((1, ""), (status, out))
            self.assertTrue(errors.startswith("import failed: "), errors)
            self.assertIn(reason, errors)
            self.assertEqual(before, self.content(self.folder / "target"))

    def test_what_cannot_be_read_is_a_failure(self) -> None:
        for path, reason in ((self.folder / "none", "No such file or directory"), (self.folder, "Is a directory")):
            self.assertEqual((1, "", f"failed to open input file: {path}: {reason}\n"), self.run_import("-i", path))
            self.assertFalse((self.folder / "target").exists())

    def test_another_policy_is_a_usage_error(self) -> None:
        status, out, errors = self.run_import("-i", self.document, "--on-conflict", "merge")
        self.assertEqual((2, ""), (status, out))
        self.assertIn("'skip', 'fail', 'replace'", errors)

    async def test_a_directory_in_use_is_refused(self) -> None:
        streams = await opened_streams(self.folder / "target")
        status, _, errors = self.run_import("-i", self.document)
        self.assertEqual(1, status)
        self.assertIn(f"is in use by process {os.getpid()}. Reach the running server with --url ", errors)
        await streams.stopService()

    def test_ctrl_c_while_the_document_is_awaited_writes_nothing(self) -> None:
        process = subprocess.Popen(
            [*COMMAND, "import"],
            env=environment(**storage_settings(self.folder / "target")),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert process.stdin is not None
        process.stdin.write(self.document.read_bytes()[:100])
        process.stdin.flush()
        deadline = time.monotonic() + PATIENCE
        while not (self.folder / "target" / "FORMAT").exists():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        self.assertEqual(130, process.wait(PATIENCE))
        self.assertEqual((b"", b""), process.communicate())
        self.assertEqual([], self.content(self.folder / "target"))

    def test_a_terminal_is_asked_for_the_document(self) -> None:
        process = TerminalProcess([*COMMAND, "import"], environment(**storage_settings(self.folder / "target")))
        process.read_until(b"Reading from the terminal. End the input with Ctrl-D.")
        process.type(b"{}\n\x04")
        self.assertEqual(1, process.wait(), process.printed)
        self.assertIn(b"import failed: invalid document", process.printed)


class RemoteTests(ImportTestCase):
    def run_import(self, url: str, *arguments: object) -> tuple[int, str, str]:
        ended = run_command("import", "--url", url, "-i", self.document, *arguments)
        self.assertNotIn(b"Traceback", ended.stderr)
        return ended.returncode, ended.stdout.decode(), ended.stderr.decode()

    def test_a_document_is_imported_into_a_running_server(self) -> None:
        directory = self.folder / "target"
        settings = storage_settings(directory)
        with Daemon(None, admin__enabled="true", **settings) as daemon:
            url = f"http://127.0.0.1:{daemon.port}/admin/streams"
            self.assertEqual((0, "", "Imported 3 stream(s), skipped 0, 4 message(s) total\n"), self.run_import(url))
            status, out, errors = self.run_import(url, "--json")
            self.assertEqual((0, 3), (status, json.loads(out)["streams_skipped"]))
            self.assertTrue(errors.startswith("Skipping existing stream: chat/1\nSkipping "), errors)
            status, out, errors = self.run_import(url, "--on-conflict", "fail")
            self.assertEqual((1, ""), (status, out))
            self.assertIn("import failed: ", errors)
            self.assertIn("the server answered 409: ", errors)
            self.document.write_bytes(self.document.read_bytes()[:-50])
            status, out, errors = self.run_import(url, "--on-conflict", "replace")
            self.assertEqual((1, ""), (status, out))
            self.assertIn("the server answered 400: Invalid document: ", errors)
            self.assertEqual(0, daemon.stop())
        self.assertEqual(self.content(self.folder / "source"), self.content(directory))

    def test_an_answer_of_something_else_is_a_failure(self) -> None:
        with CannedServer("HTTP/1.1 200 OK\nContent-Type: text/html\nContent-Length: 6", b"<html>") as server:
            status, out, errors = self.run_import(server.url)
        self.assertEqual((1, ""), (status, out))
        self.assertIn("import failed: ", errors)
        self.assertIn("/admin/import?on_conflict=skip: the answer is not that of the page", errors)


class MemoryTests(SynchronousTestCase):
    def test_an_import_into_memory_warns_that_nothing_stays(self) -> None:
        document = b'{"format_version":1,"exported_at":"2026-11-30T12:00:00Z","server_version":"0","streams":[]}'
        ended = run_command("import", stdin=document)
        self.assertEqual(0, ended.returncode, ended.stderr)
        self.assertIn(b"Warning: storage.mode is memory", ended.stderr)
        self.assertIn(b"Imported 0 stream(s), skipped 0, 0 message(s) total\n", ended.stderr)
