"""The command ``export`` on a data directory."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.commands import COMMAND, command, environment, run_command
from tests.support.daemon import PATIENCE
from tests.support.data import MODES, make_directory, make_many, opened_streams, storage_settings
from tests.support.terminals import run_on_terminal


class ExportTests(TestCase):
    async def setUp(self) -> None:  # type: ignore[override]
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.directory = self.folder / "data"
        await make_directory(self.directory)

    def export(self, *arguments: object, mode: str = "file-durable") -> subprocess.CompletedProcess[bytes]:
        return run_command("export", *arguments, **storage_settings(self.directory, mode))

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())

    async def test_the_document_is_on_stdout_and_nothing_on_stderr(self) -> None:
        for mode in MODES:
            if mode != "file-durable":
                self.directory = self.folder / mode
                await make_directory(self.directory, mode)
            ended = self.export(mode=mode)
            self.assertEqual((0, b""), (ended.returncode, ended.stderr))
            chat, log, timed = json.loads(ended.stdout)["streams"]
            self.assertEqual(("chat/1", "log", "n" * 40), (chat["name"], log["name"], timed["name"]))
            self.assertEqual(
                [b'{"a":1}', b'{"b":2}'], [base64.b64decode(message["data_base64"]) for message in chat["messages"]]
            )
            self.assertEqual((True, 2001, 3600), (log["closed"], log["total_bytes"], timed["config"]["ttl_seconds"]))

    def test_a_file_gets_the_document_and_stderr_the_summary(self) -> None:
        ended = self.export("-o", self.folder / "out.json")
        self.assertEqual(
            (0, b"", b"Exported 3 stream(s) with 4 message(s)\n"), (ended.returncode, ended.stdout, ended.stderr)
        )
        self.assertEqual(["data", "out.json"], self.names())
        document = json.loads((self.folder / "out.json").read_bytes())
        again = json.loads(self.export().stdout)
        self.assertEqual(again["streams"][:2], document["streams"][:2])

    def test_streams_can_be_chosen_and_unknown_names_cause_a_warning(self) -> None:
        ended = self.export("--stream", "log", "--stream", "unknown", "--stream", "chat/1")
        warning = b"Warning: of the streams named by --stream, 2 of 3 exist. The others are left out.\n"
        self.assertEqual((0, warning), (ended.returncode, ended.stderr))
        self.assertEqual(["chat/1", "log"], [stream["name"] for stream in json.loads(ended.stdout)["streams"]])

    def test_json_prints_the_numbers_and_needs_a_file(self) -> None:
        ended = self.export("--json", "--output", self.folder / "out.json")
        self.assertEqual((0, b""), (ended.returncode, ended.stderr))
        numbers = json.loads(ended.stdout)
        self.assertEqual((3, 4), (numbers["streams_exported"], numbers["messages_exported"]))
        for output in ((), ("-o", "-")):
            ended = self.export("--json", *output)
            self.assertEqual((2, b""), (ended.returncode, ended.stdout))
            self.assertIn(b"--json needs --output", ended.stderr)

    def test_a_dash_is_stdout(self) -> None:
        ended = self.export("-o", "-")
        self.assertEqual((0, b""), (ended.returncode, ended.stderr))
        self.assertEqual(3, len(json.loads(ended.stdout)["streams"]))

    def test_a_file_that_cannot_be_created_is_a_failure(self) -> None:
        ended = self.export("-o", self.folder / "none" / "out.json")
        self.assertEqual((1, b""), (ended.returncode, ended.stdout))
        self.assertEqual(
            f"failed to create output file: {self.folder}/none/out.json: No such file or directory\n",
            ended.stderr.decode(),
        )

    def test_a_full_disk_is_a_failure(self) -> None:
        for arguments, output in ((("-o", "/dev/full"), "/dev/full"), ((), "the standard output")):
            ended = subprocess.run(
                ["sh", "-c", 'exec "$@" >/dev/full', "sh", *COMMAND, "export", *arguments],
                capture_output=True,
                text=True,
                env=environment(**storage_settings(self.directory)),
                timeout=60,
                check=False,
            )
            reason = f"cannot write {output}: No space left on device. Free space there, or choose another disk."
            self.assertEqual((1, f"export failed: {reason}\n"), (ended.returncode, ended.stderr))

    async def test_a_reader_that_goes_away_ends_the_export_quietly(self) -> None:
        self.directory = self.folder / "many"
        await make_many(self.directory, [f"s/{number:05d}" for number in range(3000)])
        ended = subprocess.run(
            ["bash", "-c", '"$@" | head -c 10; echo "${PIPESTATUS[0]}"', "bash", *COMMAND, "export"],
            env=environment(**storage_settings(self.directory)),
            capture_output=True,
            timeout=60,
            check=False,
        )
        self.assertEqual((b'{\n  "forma1\n', b""), (ended.stdout, ended.stderr))

    async def test_an_interrupted_export_leaves_no_file_and_a_killed_one_none_under_the_name(self) -> None:
        self.directory = self.folder / "many"
        await make_many(self.directory, [f"s/{number:05d}" for number in range(40_000)])
        path = self.folder / "out.json"
        path.write_text("old")
        for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)):
            process = subprocess.Popen(
                [*COMMAND, "export", "-o", str(path)],
                env=environment(**storage_settings(self.directory)),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            deadline = time.monotonic() + PATIENCE
            while not [part for part in self.folder.glob(".out.json.*.partial") if part.stat().st_size]:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.005)
            process.send_signal(number)
            out, err = process.communicate(timeout=PATIENCE)
            self.assertEqual((status, b"", b""), (process.returncode, out, err))
            self.assertEqual("old", path.read_text())
            if number != signal.SIGKILL:
                self.assertEqual(["data", "many", "out.json"], self.names())
        ended = self.export("-o", path)
        self.assertEqual(0, ended.returncode, ended.stderr)
        self.assertEqual(40_000, len(json.loads(path.read_bytes())["streams"]))

    def test_a_terminal_shows_the_summary_without_a_bar_left_over(self) -> None:
        status, shown = run_on_terminal(
            [*COMMAND, "export", "-o", str(self.folder / "out.json")],
            environment(**storage_settings(self.directory)),
        )
        self.assertEqual(0, status, shown)
        self.assertIn("Exported 3 stream(s) with 4 message(s)\r\n", shown)
        self.assertTrue((self.folder / "out.json").exists())

    async def test_a_directory_in_use_is_refused_before_a_file_is_written(self) -> None:
        streams = await opened_streams(self.directory)
        ended = self.export("-o", self.folder / "out.json")
        self.assertEqual(1, ended.returncode)
        self.assertIn(f"is in use by process {os.getpid()}. ".encode(), ended.stderr)
        self.assertEqual(["data"], self.names())
        await streams.stopService()


class MemoryTests(SynchronousTestCase):
    def test_storage_in_memory_gives_an_empty_document_and_a_warning(self) -> None:
        ended = run_command("export")
        self.assertEqual(0, ended.returncode, ended.stderr)
        self.assertEqual([], json.loads(ended.stdout)["streams"])
        self.assertIn(b"Warning: storage.mode is memory: this command has an empty storage of its own.", ended.stderr)

    def test_a_missing_directory_is_a_failure(self) -> None:
        result = command("export", **storage_settings(Path(self.mktemp()).absolute()))
        self.assertEqual((1, ""), (result.exit_code, result.stdout))
        self.assertIn("does not exist. Correct storage.data_dir", result.stderr)
