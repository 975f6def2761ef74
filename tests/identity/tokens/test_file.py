"""The file of static tokens: its content, its mode, and changes by several commands at once."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from pathlib import Path
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity import locked_file
from durable_streams.server.identity.tokens import file as file_module
from durable_streams.server.identity.tokens.file import (
    MAX_SIZE,
    NoSuchTokens,
    TokenFileDamaged,
    TokenFileError,
    add_token,
    read_tokens,
    remove_tokens,
)
from durable_streams.server.identity.tokens.hashes import ScryptCost
from durable_streams.server.identity.tokens.records import TokenRecord, new_token, parse_record, render_record

CHEAP = ScryptCost(ln=4, r=1, p=1)


def record(subject: str = "alice") -> TokenRecord:
    return new_token(subject, cost=CHEAP)[1]


class FileCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "tokens"
        self.name = str(self.path)

    def write(self, *lines: bytes, mode: int = 0o600) -> bytes:
        data = b"\n".join(lines) + b"\n"
        self.path.write_bytes(data)
        self.path.chmod(mode)
        return data

    def subjects(self) -> list[str]:
        return [loaded.record.subject for loaded in read_tokens(self.name).values()]

    def refusal(self, call: object = read_tokens, *arguments: object) -> str:
        before = self.path.read_bytes() if self.path.is_file() and os.access(self.path, os.R_OK) else None
        error = self.assertRaises(TokenFileError, call, self.name, *arguments)
        if before is not None:
            self.assertEqual(before, self.path.read_bytes())
        self.assertEqual([], [name for name in os.listdir(self.folder) if name != "tokens"])
        return str(error)


class ReadTests(FileCase):
    def test_comments_and_empty_lines_are_ignored(self) -> None:
        self.write(b"# tokens of staff", b"", render_record(record("alice")), b"  ", render_record(record("bob")))
        self.assertEqual(["alice", "bob"], self.subjects())

    def test_an_empty_file_has_no_tokens(self) -> None:
        self.write()
        self.assertEqual([], self.subjects())

    def test_a_damaged_line_is_named_by_its_number(self) -> None:
        self.write(b"#", render_record(record()), render_record(record())[:-9])
        text = self.refusal()
        self.assertIn(f"Line 3 of {self.name} is not a JSON object", text)
        self.assertIn("token create", text)

    def test_two_lines_with_one_id_are_refused(self) -> None:
        line = render_record(record())
        self.write(line, b"", line + b" ")
        self.assertIn("Lines 1 and 3", self.refusal())

    def test_a_file_that_others_may_use_is_refused_with_the_command_that_helps(self) -> None:
        for mode in (0o640, 0o604, 0o620, 0o610):
            self.write(render_record(record()), mode=mode)
            self.assertIn(f"chmod 600 {self.name}", self.refusal())
        self.write(render_record(record()), mode=0o400)
        self.assertEqual(["alice"], self.subjects())

    def test_a_missing_file_is_refused_with_the_command_that_makes_it(self) -> None:
        self.assertIn(f"durable-streams-server token create --file {self.name}", self.refusal())

    def test_a_path_that_is_no_file_is_refused(self) -> None:
        self.path.mkdir()
        self.assertIn("not a file", self.refusal())
        self.path.rmdir()
        os.mkfifo(self.path, 0o600)
        self.assertIn("not a file", self.refusal())

    def test_a_large_file_is_refused(self) -> None:
        self.write(b"#" * MAX_SIZE)
        self.assertIn("larger than", self.refusal())

    def test_known_lines_are_not_parsed_again(self) -> None:
        lines = [render_record(record()) for _ in range(3)]
        self.write(*lines)
        first = read_tokens(self.name)
        self.write(lines[0], render_record(record()), lines[2])
        with patch.object(file_module, "parse_record", wraps=parse_record) as parse:
            second = read_tokens(self.name, first)
        self.assertEqual(1, parse.call_count)
        self.assertIs(first[lines[2]], second[lines[2]])


class ChangeTests(FileCase):
    def test_a_new_file_can_be_used_by_its_owner_only(self) -> None:
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        add_token(self.name, record())
        self.assertEqual(0o600, stat.S_IMODE(self.path.stat().st_mode))
        add_token(self.name, record("bob"))
        self.assertEqual(0o600, stat.S_IMODE(self.path.stat().st_mode))
        self.assertEqual(["alice", "bob"], self.subjects())

    def test_other_lines_stay_as_they_are(self) -> None:
        first, second = record("alice"), record("bob")
        self.path.write_bytes(b"# staff\n\n" + render_record(first))
        self.path.chmod(0o600)
        add_token(self.name, second)
        self.assertEqual(
            b"# staff\n\n" + render_record(first) + b"\n" + render_record(second) + b"\n", self.path.read_bytes()
        )
        self.assertEqual([first], remove_tokens(self.name, [first.id]))
        self.assertEqual(b"# staff\n\n" + render_record(second) + b"\n", self.path.read_bytes())
        remove_tokens(self.name, [second.id])
        self.assertEqual(b"# staff\n\n", self.path.read_bytes())

    def test_a_damaged_or_shared_file_is_not_changed(self) -> None:
        self.write(b"{")
        self.assertIn("Line 1", self.refusal(add_token, record()))
        self.assertIn("Line 1", self.refusal(remove_tokens, ["a1"]))
        self.write(mode=0o644)
        self.assertIn("chmod 600", self.refusal(add_token, record()))

    def test_removal_of_an_unknown_id_changes_nothing(self) -> None:
        kept = record()
        self.write(render_record(kept))
        text = self.refusal(remove_tokens, [kept.id, "zzz", "yyy"])
        self.assertIn("no tokens of the ids yyy, zzz", text)
        error = self.assertRaises(NoSuchTokens, remove_tokens, self.name, ["zzz"])
        self.assertEqual(("zzz",), error.ids)

    def test_nothing_is_created_by_a_removal_or_an_error(self) -> None:
        self.assertIn("There is no file", self.refusal(remove_tokens, ["a1"]))
        with patch.object(os, "fsync", side_effect=OSError(28, "No space left on device")):
            self.assertIn("No space left on device", self.refusal(add_token, record()))
        self.assertEqual([], os.listdir(self.folder))

    def test_a_full_disk_leaves_the_file_as_it_was(self) -> None:
        self.write(render_record(record()))
        with patch.object(os, "fsync", side_effect=OSError(28, "No space left on device")):
            self.assertIn("It was not changed", self.refusal(add_token, record()))

    def test_a_missing_folder_is_named(self) -> None:
        error = self.assertRaises(TokenFileError, add_token, f"{self.folder}/none/tokens", record())
        self.assertIn("Create its folder first", str(error))

    def test_a_file_that_would_be_too_large_is_not_changed(self) -> None:
        self.write(b"#" * (MAX_SIZE - 100))
        self.assertIn("larger than", self.refusal(add_token, record()))

    def test_a_symbolic_link_stays(self) -> None:
        (self.folder / "real").mkdir()
        target = (self.folder / "real" / "tokens").absolute()
        target.touch(0o600)
        self.path.symlink_to(target)
        add_token(self.name, record())
        self.assertTrue(self.path.is_symlink())
        self.assertEqual(["alice"], [loaded.record.subject for loaded in read_tokens(str(target)).values()])

    def test_many_commands_at_once_lose_no_change(self) -> None:
        add_token(self.name, record("first"))
        errors: list[BaseException] = []

        def change(number: int) -> None:
            try:
                made = record(f"kept{number}"), record("removed")
                for each in made:
                    add_token(self.name, each)
                remove_tokens(self.name, [made[1].id])
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=change, args=(number,)) for number in range(6)]
        with patch.object(locked_file, "_LOCK_INTERVAL", 0.001):
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        self.assertEqual([], errors)
        self.assertEqual(sorted(["first", *(f"kept{number}" for number in range(6))]), sorted(self.subjects()))
        self.assertEqual(["tokens"], os.listdir(self.folder))

    def test_a_lock_that_stays_is_an_error(self) -> None:
        self.write(render_record(record()))
        with self.path.open("rb") as other, patch.object(locked_file, "LOCK_TIMEOUT", 0.05):
            fcntl.flock(other, fcntl.LOCK_EX)
            self.assertIn("Another command has locked", self.refusal(add_token, record()))

    def test_damage_is_told_from_files_that_cannot_be_read(self) -> None:
        self.write(b"{")
        self.assertRaises(TokenFileDamaged, read_tokens, self.name)
        self.write(mode=0o644)
        self.assertNotIsInstance(self.assertRaises(TokenFileError, read_tokens, self.name), TokenFileDamaged)
