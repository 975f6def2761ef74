"""The command ``verify``: archives that are whole, damaged or none at all."""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.commands import COMMAND, environment, run_command
from tests.support.terminals import run_on_terminal
from tests.transfer.archive.samples import archive, sample


class VerifyTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name, "backup.tar.zst")
        self.path.write_bytes(archive(sample("a", [b"x" * 1000, b"y"]), sample("b", [])))

    def test_a_whole_archive_is_described_with_status_0(self) -> None:
        expected = (
            "made at 2026-09-21T14:13:20Z by version 1.0, with 2 streams, 2 appends, 1001 B and 0 producers: whole.\n"
        )
        for arguments in ((self.path,), ("-i", self.path), ("--input", self.path)):
            ended = run_command("verify", *arguments)
            self.assertEqual((0, b""), (ended.returncode, ended.stderr))
            self.assertEqual(f"{self.path}: {expected}", ended.stdout.decode())
        for stdin in ((), ("-",)):
            ended = run_command("verify", *stdin, stdin=self.path.read_bytes())
            self.assertEqual((0, f"the standard input: {expected}"), (ended.returncode, ended.stdout.decode()))

    def test_json_has_the_header_and_the_totals(self) -> None:
        ended = run_command("verify", "--json", self.path)
        self.assertEqual((0, b""), (ended.returncode, ended.stderr))
        found = json.loads(ended.stdout)
        self.assertEqual((str(self.path), True, None), (found["archive"], found["whole"], found["error"]))
        self.assertEqual((1, "1.0"), (found["header"]["format_version"], found["header"]["server_version"]))
        self.assertEqual((2, 1001), (found["totals"]["streams"], found["totals"]["bytes"]))

    def test_a_damaged_archive_is_status_1_with_a_sentence(self) -> None:
        text = self.path.read_bytes()
        for bad in (text[:-5], text[: len(text) // 2], b"", b"?" * 1000, text[:100] + b"?" + text[101:], text + b"x"):
            self.path.write_bytes(bad)
            ended = run_command("verify", self.path)
            self.assertEqual((1, b""), (ended.returncode, ended.stdout), bad[:20])
            self.assertTrue(ended.stderr.decode().startswith(f"verify failed: {self.path}: "), ended.stderr)
            self.assertNotIn(b"Traceback", ended.stderr)
            ended = run_command("verify", "--json", "-i", self.path)
            self.assertEqual((1, b""), (ended.returncode, ended.stderr))
            found = json.loads(ended.stdout)
            self.assertEqual((False, None), (found["whole"], found["totals"]))
            self.assertTrue(found["error"])

    def test_what_cannot_be_read_is_a_failure(self) -> None:
        for path, reason in (("/nowhere/x", "No such file or directory"), ("/", "Is a directory")):
            ended = run_command("verify", path)
            self.assertEqual(
                (1, b"", f"verify failed: {path}: {reason}\n".encode()), (ended.returncode, ended.stdout, ended.stderr)
            )

    def test_two_archives_are_a_usage_error(self) -> None:
        ended = run_command("verify", self.path, "-i", self.path)
        self.assertEqual((2, b""), (ended.returncode, ended.stdout))

    def test_a_terminal_shows_the_result_alone_at_the_end(self) -> None:
        status, shown = run_on_terminal([*COMMAND, "verify", str(self.path)], environment())
        self.assertEqual(0, status, shown)
        self.assertIn("Verifying", shown)
        self.assertTrue(shown.endswith(": whole.\r\n"), shown)

    def test_a_closed_stdin_is_a_failure(self) -> None:
        ended = subprocess.run(
            ["sh", "-c", 'exec "$@" <&-', "sh", *COMMAND, "verify"],
            capture_output=True,
            env=environment(),
            timeout=60,
            check=False,
        )
        self.assertEqual((1, b"verify failed: the standard input is closed\n"), (ended.returncode, ended.stderr))
