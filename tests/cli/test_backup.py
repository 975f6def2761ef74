"""The commands ``backup`` and ``restore`` on data directories."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import TestCase

from durable_streams.server.testing import settled
from tests.support.canned_server import CannedServer
from tests.support.commands import COMMAND, environment, run_command
from tests.support.daemon import PATIENCE, Daemon
from tests.support.data import MODES, make_directory, make_many, opened_streams, storage_settings
from tests.support.terminals import run_on_terminal
from tests.transfer.archive.samples import archive, sample


class ArchiveTestCase(TestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.source = self.folder / "source"
        self.target = self.folder / "target"
        self.archive = self.folder / "today.tar.zst"

    def run_on(self, directory: Path, *arguments: object, mode: str = "file-durable") -> tuple[int, str, str]:
        ended = run_command(*arguments, **storage_settings(directory, mode))
        self.assertNotIn(b"Traceback", ended.stderr)
        return ended.returncode, ended.stdout.decode(), ended.stderr.decode()

    async def offsets(self, directory: Path, mode: str = "file-durable") -> list[tuple[str, int, int, bool]]:
        """Return each stream's name, incarnation, tail and closure."""
        streams = await opened_streams(directory, mode)
        statuses = await settled(streams.statuses())
        await streams.stopService()
        return [(each.facts.name, each.facts.incarnation, each.tail, each.closed) for each in statuses]


class LocalTests(ArchiveTestCase):
    async def test_a_directory_is_backed_up_and_restored_with_its_offsets(self) -> None:
        for mode, other in zip(MODES, reversed(MODES), strict=True):
            self.source, self.target = self.folder / f"from-{mode}", self.folder / f"to-{other}"
            await make_directory(self.source, mode)
            before = await self.offsets(self.source, mode)
            status, out, errors = self.run_on(self.source, "backup", "-o", self.archive, mode=mode)
            self.assertEqual((0, ""), (status, out), errors)
            self.assertRegex(errors, r"^Backed up 3 stream\(s\) with 3 append\(s\), [0-9.]+ K?B, verified\n$")
            self.assertEqual(0o600, self.archive.stat().st_mode & 0o777)
            status, out, errors = self.run_on(self.target, "restore", self.archive, mode=other)
            self.assertEqual(
                (0, "", "Restored 3 stream(s), 0 of them replaced, skipped 0, 3 append(s) total\n"),
                (status, out, errors),
            )
            self.assertEqual(before, await self.offsets(self.target, other))

    async def test_existing_streams_are_skipped_refused_or_replaced(self) -> None:
        await make_directory(self.source)
        self.assertEqual(0, self.run_on(self.source, "backup", "-o", self.archive)[0])
        status, out, _ = self.run_on(self.source, "restore", "-i", self.archive, "--json")
        done = json.loads(out)
        self.assertEqual((0, 0, 3), (status, done["streams_restored"], done["streams_skipped"]))
        status, out, errors = self.run_on(self.source, "restore", self.archive, "--on-conflict", "fail")
        self.assertEqual((1, ""), (status, out))
        self.assertTrue(errors.startswith("restore failed: restore conflict: "), errors)
        before = await self.offsets(self.source)
        status, out, _ = self.run_on(
            self.source, "restore", self.archive, "--json", "--on-conflict", "replace", "--new-incarnation"
        )
        self.assertEqual((0, 3), (status, json.loads(out)["streams_replaced"]))
        after = await self.offsets(self.source)
        self.assertEqual([each[2:] for each in before], [each[2:] for each in after])
        for old, new in zip(before, after, strict=True):
            self.assertNotEqual(old[1], new[1])

    async def test_json_has_the_totals_and_the_size(self) -> None:
        await make_directory(self.source)
        status, out, errors = self.run_on(
            self.source, "backup", "--json", "--no-verify", "--level", "1", "--stream", "log", "-o", self.archive
        )
        self.assertEqual((0, ""), (status, errors))
        done = json.loads(out)
        self.assertEqual((str(self.archive), False), (done["archive"], done["verified"]))
        self.assertEqual((1, 2001), (done["totals"]["streams"], done["totals"]["bytes"]))
        self.assertEqual(self.archive.stat().st_size, done["archive_bytes"])
        status, out, errors = self.run_on(self.source, "backup", "--stream", "none", "-o", self.archive)
        self.assertEqual((0, ""), (status, out))
        self.assertIn("Warning: of the streams named by --stream, 0 of 1 exist.", errors)
        status, out, _ = self.run_on(self.source, "backup", "--json", "--prefix", "chat/", "-o", self.archive)
        self.assertEqual((0, 1, True), (status, json.loads(out)["totals"]["streams"], json.loads(out)["verified"]))

    async def test_archives_go_through_pipes(self) -> None:
        await make_directory(self.source)
        made = run_command("backup", **storage_settings(self.source))
        self.assertEqual((0, b""), (made.returncode, made.stderr))
        ended = run_command("restore", stdin=made.stdout, **storage_settings(self.target))
        self.assertEqual(0, ended.returncode, ended.stderr)
        self.assertEqual(await self.offsets(self.source), await self.offsets(self.target))

    async def test_a_damaged_archive_changes_nothing(self) -> None:
        await make_directory(self.target)
        before = await self.offsets(self.target)
        text = archive(sample("log", [b"new"]), sample("b", [b"x" * 5000]))
        for bad in (text[:-10], text[: len(text) // 2], b"", b"{}"):
            self.archive.write_bytes(bad)
            status, out, errors = self.run_on(self.target, "restore", self.archive, "--on-conflict", "replace")
            self.assertEqual((1, ""), (status, out))
            self.assertTrue(errors.startswith("restore failed: "), errors)
            self.assertEqual(before, await self.offsets(self.target))

    async def test_an_interrupted_backup_leaves_no_file(self) -> None:
        await make_many(self.source, [f"s/{number:05d}" for number in range(30_000)])
        process = subprocess.Popen(
            [*COMMAND, "backup", "-o", str(self.archive)],
            env=environment(**storage_settings(self.source)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + PATIENCE
        while not list(self.folder.glob(".today*")):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual((130, b"", b""), (process.returncode, out, err))
        self.assertEqual(["source"], [path.name for path in self.folder.iterdir()])

    async def test_a_directory_in_use_is_refused(self) -> None:
        streams = await opened_streams(self.source)
        self.archive.write_bytes(archive())
        for arguments in (("backup", "-o", self.folder / "x"), ("restore", self.archive)):
            status, out, errors = self.run_on(self.source, *arguments)
            self.assertEqual((1, ""), (status, out))
            self.assertIn(f"is in use by process {os.getpid()}. Reach the running server with --url ", errors)
        self.assertEqual(["source", "today.tar.zst"], sorted(path.name for path in self.folder.iterdir()))
        await streams.stopService()

    def test_storage_in_memory_is_refused(self) -> None:
        self.archive.write_bytes(archive())
        for arguments in (("backup", "-o", self.folder / "x"), ("restore", self.archive)):
            ended = run_command(*arguments)
            self.assertEqual((1, b""), (ended.returncode, ended.stdout))
            self.assertIn(b"storage.mode is memory: ", ended.stderr)

    def test_a_backup_of_nothing_is_a_failure(self) -> None:
        status, out, errors = self.run_on(self.source, "backup", "-o", self.archive)
        self.assertEqual((1, ""), (status, out))
        self.assertIn("does not exist", errors)
        self.assertEqual([], list(self.folder.iterdir()))

    async def test_an_archive_is_not_printed_on_a_terminal(self) -> None:
        await make_directory(self.source)
        settings = environment(**storage_settings(self.source))
        status, shown = run_on_terminal([*COMMAND, "backup"], settings)
        self.assertEqual(2, status, shown)
        self.assertIn("An archive is not for a terminal.", shown)
        status, shown = run_on_terminal([*COMMAND, "backup", "-o", str(self.archive)], settings)
        self.assertEqual(0, status, shown)
        self.assertIn("Backed up 3 stream(s)", shown)
        status, shown = run_on_terminal(
            [*COMMAND, "restore", str(self.archive)], environment(**storage_settings(self.target))
        )
        self.assertEqual(0, status, shown)
        self.assertIn("Restored 3 stream(s)", shown)

    def test_wrong_options_are_usage_errors(self) -> None:
        for arguments in (("backup", "--level", "20"), ("backup", "--json"), ("restore", "--on-conflict", "merge")):
            self.assertEqual(2, self.run_on(self.source, *arguments)[0])


class RemoteTests(ArchiveTestCase):
    async def test_a_running_server_is_backed_up_and_restored(self) -> None:
        settings = storage_settings(self.target)
        await make_directory(self.target)
        before = await self.offsets(self.target)
        with Daemon(None, admin__enabled="true", **settings) as daemon:
            url = f"http://127.0.0.1:{daemon.port}/admin/streams"
            ended = run_command("backup", "--url", url, "-o", self.archive)
            self.assertEqual((0, b""), (ended.returncode, ended.stdout), ended.stderr)
            self.assertRegex(ended.stderr, rb"^Backed up 3 stream\(s\) with 3 append\(s\), [0-9.]+ K?B, verified\n$")
            daemon.request("DELETE", "/v1/stream/log")
            ended = run_command("restore", "--url", url, self.archive, "--json")
            self.assertEqual(0, ended.returncode, ended.stderr)
            done = json.loads(ended.stdout)
            self.assertEqual((1, 2), (done["streams_restored"], done["streams_skipped"]))
            ended = run_command("restore", "--url", url, self.archive, "--on-conflict", "fail")
            self.assertEqual((1, b""), (ended.returncode, ended.stdout))
            self.assertIn(b"restore failed: ", ended.stderr)
            self.assertIn(b"the server answered 409: ", ended.stderr)
            self.archive.write_bytes(self.archive.read_bytes()[:-100])
            ended = run_command("restore", "--url", url, self.archive, "--on-conflict", "replace")
            self.assertEqual((1, b""), (ended.returncode, ended.stdout))
            self.assertIn(b"the server answered 400: ", ended.stderr)
            self.assertEqual(0, daemon.stop())
        self.assertEqual(before, await self.offsets(self.target))

    def test_an_archive_that_arrives_damaged_is_not_kept(self) -> None:
        text = archive(sample("a", [b"x" * 5000]))[:-30]
        head = f"HTTP/1.1 200 OK\nContent-Type: application/zstd\nContent-Length: {len(text)}"
        with CannedServer(head, text) as server:
            ended = run_command("backup", "--url", server.url, "-o", self.archive, "--prefix", "a", "--stream", "b c")
        self.assertEqual((1, b""), (ended.returncode, ended.stdout))
        self.assertTrue(ended.stderr.decode().startswith(f"backup failed: {self.archive}: "), ended.stderr)
        self.assertEqual([], list(self.folder.iterdir()))
        self.assertIn(b"GET /admin/backup?stream=b+c&level=3&prefix=a HTTP/1.1\r\n", server.requests[0])

    def test_a_refused_restore_is_a_failure_with_the_servers_sentence(self) -> None:
        self.archive.write_bytes(archive())
        with CannedServer("HTTP/1.1 409 No\nContent-Type: text/plain\nContent-Length: 10", b"It exists.") as server:
            ended = run_command("restore", "--url", server.url, self.archive, "--new-incarnation")
        self.assertEqual((1, b""), (ended.returncode, ended.stdout))
        self.assertEqual(f"restore failed: {server.url}: the server answered 409: It exists.\n", ended.stderr.decode())
        self.assertTrue(
            server.requests[0].startswith(b"POST /admin/restore?on_conflict=skip&new_incarnation=true HTTP/1.1\r\n")
        )
