"""The command ``list`` on a data directory."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.commands import COMMAND, command, environment, run_command
from tests.support.data import MODES, make_directory, make_many, opened_streams, storage_settings
from tests.support.skipping import skip_not_permitted


class LocalTests(TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()

    def run_list(self, *arguments: str, mode: str = "file-durable") -> subprocess.CompletedProcess[bytes]:
        return run_command("list", *arguments, **storage_settings(self.directory, mode))

    async def test_the_table_has_a_row_for_each_stream_and_the_total(self) -> None:
        for mode in MODES:
            self.directory = Path(self.mktemp()).absolute()
            await make_directory(self.directory, mode)
            ended = self.run_list(mode=mode)
            self.assertEqual((0, b""), (ended.returncode, ended.stderr))
            lines = ended.stdout.decode().splitlines()
            self.assertEqual(("Name", "-" * 132), (lines[0].split()[0], lines[1]))
            self.assertRegex(
                lines[2], r"^chat/1 {25}open {14}[-2] {9}16 B application/json {9}20\d\d-\d\d-\d\d \d\d:\d\d:\d\d "
            )
            self.assertRegex(lines[3], r"^log {28}closed {12}[-2] {7}2\.0 KB text/plain ")
            self.assertTrue(lines[4].startswith("n" * 27 + "... open "), lines[4])
            self.assertEqual(["", "3 stream(s) total"], lines[5:])

    async def test_json_is_an_array_of_objects(self) -> None:
        await make_directory(self.directory)
        ended = self.run_list("--json")
        self.assertEqual((0, b""), (ended.returncode, ended.stderr))
        chat, log, timed = json.loads(ended.stdout)
        self.assertEqual(
            [
                *("name", "status", "message_count", "total_bytes", "content_type", "created_at", "updated_at"),
                *("ttl_seconds", "expires_at"),
            ],
            list(chat),
        )
        self.assertEqual(("chat/1", "open", "application/json"), (chat["name"], chat["status"], chat["content_type"]))
        self.assertEqual(("closed", 2001, None), (log["status"], log["total_bytes"], log["expires_at"]))
        self.assertEqual((3600, "n" * 40), (timed["ttl_seconds"], timed["name"]))
        for stream in (chat, log, timed):
            self.assertRegex(stream["created_at"], r"^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?\+00:00$")

    async def test_a_list_of_no_streams(self) -> None:
        await make_many(self.directory, [])
        self.assertEqual((0, b"No streams found.\n"), self.outcome())
        self.assertEqual((0, b"[]\n"), self.outcome("--json"))

    def outcome(self, *arguments: str) -> tuple[int, bytes]:
        ended = self.run_list(*arguments)
        self.assertEqual(b"", ended.stderr)
        return ended.returncode, ended.stdout

    async def test_streams_of_several_pages_are_listed_once_in_the_order_of_their_names(self) -> None:
        names = [f"s/{number:05d}" for number in range(2500)]
        await make_many(self.directory, reversed(names))
        ended = self.run_list("--json")
        self.assertEqual(names, [stream["name"] for stream in json.loads(ended.stdout)])
        table = self.run_list().stdout.decode().splitlines()
        self.assertEqual("2500 stream(s) total", table[-1])
        self.assertEqual(names, [line.split()[0] for line in table[2:-2]])

    async def test_a_reader_that_goes_away_ends_the_list_quietly(self) -> None:
        await make_many(self.directory, [f"s/{number:05d}" for number in range(3000)])
        ended = subprocess.run(
            ["bash", "-c", '"$@" | head -n 1; echo "${PIPESTATUS[0]}"', "bash", *COMMAND, "list"],
            env=environment(**storage_settings(self.directory)),
            capture_output=True,
            timeout=60,
            check=False,
        )
        head, status = ended.stdout.decode().splitlines()
        self.assertTrue(head.startswith("Name "), head)
        self.assertEqual(("0", b""), (status, ended.stderr))
        # The lock was released.
        self.assertEqual(0, self.run_list().returncode)

    async def test_names_with_control_characters_do_not_reach_the_terminal(self) -> None:
        await make_many(self.directory, ["a\x1b]0;title\x07b"])
        ended = self.run_list()
        self.assertNotIn(b"\x1b", ended.stdout)
        self.assertIn(rb"a\x1b]0;title\x07b", ended.stdout)
        [stream] = json.loads(self.run_list("--json").stdout)
        self.assertEqual("a\x1b]0;title\x07b", stream["name"])

    async def test_names_that_the_output_cannot_encode_are_escaped(self) -> None:
        await make_many(self.directory, ["日本"])
        ended = subprocess.run(
            [*COMMAND, "list"],
            capture_output=True,
            env=environment(**storage_settings(self.directory)) | {"PYTHONIOENCODING": "ascii"},
            timeout=60,
            check=False,
        )
        self.assertEqual((0, b""), (ended.returncode, ended.stderr))
        self.assertIn(rb"\u65e5\u672c ", ended.stdout)

    async def test_a_directory_that_a_server_has_open_is_refused_with_the_url_to_use(self) -> None:
        await make_directory(self.directory)
        streams = await opened_streams(self.directory)
        settings = {**storage_settings(self.directory), "server__bind_address": "0.0.0.0:4437"}
        cases: tuple[tuple[dict[str, str], str], ...] = (
            ({}, "--url http://localhost:4437/admin/streams, after a start with admin.enabled = true."),
            (
                {"admin__enabled": "true", "admin__bind_address": "127.0.0.1:9", "admin__base_path": "/ops"},
                "--url http://127.0.0.1:9/ops/streams.",
            ),
        )
        for admin, url in cases:
            ended = run_command("list", **{**settings, **admin})
            self.assertEqual((1, b""), (ended.returncode, ended.stdout))
            self.assertEqual(
                f"Error: The data directory {self.directory} is in use by process {os.getpid()}. Reach the running "
                f"server with {url} Or stop that process.\n",
                ended.stderr.decode(),
            )
        await streams.stopService()

    async def test_listing_changes_no_more_than_a_servers_start_and_stop(self) -> None:
        await make_directory(self.directory)
        streams = await opened_streams(self.directory)
        await streams.stopService()
        before = self.files()
        self.assertEqual(0, self.run_list().returncode)
        after = self.files()
        # A start adds a segment to the journal, and releases the room that the last one does not need.
        self.assertEqual(1, len(after.keys() - before.keys()))
        changed = {path for path, content in after.items() if before.get(path) != content}
        self.assertEqual({"journal"}, {path.relative_to(self.directory).parts[0] for path in changed})
        self.assertEqual(set(), before.keys() - after.keys())
        self.assertEqual({os.geteuid()}, {path.stat().st_uid for path in after})

    def files(self) -> dict[Path, bytes]:
        return {
            path: path.read_bytes().rstrip(b"\0")
            for path in self.directory.rglob("*")
            if path.is_file() and path.name not in ("LOCK", "FRONTIER")
        }

    async def test_root_does_not_open_the_directory_of_another_user(self) -> None:
        if os.geteuid() != 0:
            skip_not_permitted("only root can give files to another user")
        await make_directory(self.directory)
        paths = [self.directory, *self.directory.rglob("*")]
        for path in paths:
            os.chown(path, 65_534, 65_534)
        for arguments in (("list",), ("export",), ("import",), ("backup",), ("restore",)):
            ended = run_command(*arguments, **storage_settings(self.directory))
            self.assertEqual((1, b""), (ended.returncode, ended.stdout))
            self.assertIn(b"belongs to the user ", ended.stderr)
            self.assertIn(b"Run the command as that user: sudo -u ", ended.stderr)
        self.assertEqual(sorted(paths), sorted([self.directory, *self.directory.rglob("*")]))
        self.assertEqual({65_534}, {path.stat().st_uid for path in paths})

    async def test_a_damaged_directory_is_a_failure_with_a_sentence(self) -> None:
        await make_directory(self.directory, "acid")
        (self.directory / "acid.sqlite").write_bytes(b"?" * 8192)
        ended = self.run_list(mode="acid")
        self.assertEqual((1, b""), (ended.returncode, ended.stdout))
        self.assertIn(b"Cannot open the data directory", ended.stderr)
        self.assertIn(b"durable-streams-server check", ended.stderr)
        self.assertNotIn(b"Traceback", ended.stderr)


class RefusalTests(SynchronousTestCase):
    def assert_refused(self, part: str, **settings: str) -> None:
        result = command("list", **settings)
        self.assertEqual((1, ""), (result.exit_code, result.stdout), result.output)
        self.assertIn(part, result.stderr)

    def test_storage_in_memory_is_refused_with_the_setting_and_the_url(self) -> None:
        self.assert_refused("Error: storage.mode is memory: the streams are in the memory of the server")
        self.assert_refused("--url http://localhost:4437/admin/streams")
        self.assert_refused(
            "Error: storage.acid_backend is in-memory: ", storage__mode="acid", storage__acid_backend="in-memory"
        )

    def test_a_directory_that_is_none_of_ours_is_refused_and_not_changed(self) -> None:
        directory = Path(self.mktemp()).absolute()
        settings = storage_settings(directory)
        self.assert_refused(f"The data directory {directory} does not exist.", **settings)
        self.assertFalse(directory.exists())
        directory.mkdir()
        self.assert_refused(f"{directory} is empty. Correct storage.data_dir", **settings)
        self.assertEqual([], list(directory.iterdir()))
        (directory / "mine").write_text("?")
        self.assert_refused("is not a data directory of this server: it has no file FORMAT", **settings)
        (directory / "journal").mkdir()
        self.assert_refused("If it was lost, durable-streams-server check says what to write into it.", **settings)
        self.assert_refused("is not a directory", **storage_settings(directory / "mine"))

    def test_another_users_directory_is_refused_even_for_root(self) -> None:
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        (directory / "FORMAT").write_text('{"storage":"file","version":1}')
        self.patch(os, "geteuid", lambda: 4_000_000)
        self.assert_refused("Run the command as that user: sudo -u ", **storage_settings(directory))
        self.assertEqual(["FORMAT"], [path.name for path in directory.iterdir()])

    def test_invalid_settings_are_reported_with_their_phase(self) -> None:
        self.assert_refused("[load_config] storage.mode must be", storage__mode="tape")

    def test_settings_that_only_a_server_needs_are_not_required(self) -> None:
        directory = Path(self.mktemp()).absolute()
        # A server of this profile needs certificates and origins.
        result = command("list", "--profile", "prod-tls", storage__data_dir=str(directory))
        self.assertIn(f"The data directory {directory} does not exist.", result.stderr)
