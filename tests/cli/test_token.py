"""The commands ``token create``, ``token list`` and ``token revoke``."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path
from typing import Any
from unittest.mock import patch

from click.testing import Result
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity.credentials import BearerToken
from durable_streams.server.identity.principal import Principal
from durable_streams.server.identity.tokens.checker import StaticTokens
from durable_streams.server.identity.tokens.file import read_tokens
from tests.support.commands import COMMAND, command, environment

TOKEN = re.compile(r"dst_[A-Za-z0-9]{12}_[A-Za-z0-9]{43}\n")


class TokenCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.path = self.folder / "tokens"

    def token(self, *arguments: object, **settings: str) -> Result:
        return command("token", *arguments, "--file", self.path, **settings)

    def create(self, *arguments: object) -> str:
        result = self.token("create", *arguments)
        self.assertEqual(0, result.exit_code, result.output)
        return result.stdout

    def ids(self) -> list[str]:
        return [loaded.record.id for loaded in read_tokens(str(self.path)).values()]

    def principal(self, token: str) -> Principal:
        checker = StaticTokens(str(self.path), Clock())
        principal: Principal = self.successResultOf(checker.requestAvatarId(BearerToken(token.strip().encode())))
        return principal

    def assert_refused(self, result: Result, status: int, *texts: str) -> None:
        self.assertEqual((status, ""), (result.exit_code, result.stdout), result.output)
        for text in texts:
            self.assertIn(text, result.stderr)
        self.assertNotIn("Traceback", result.output)


class CreateTests(TokenCase):
    def test_only_the_token_is_on_stdout_and_what_it_is_for_on_stderr(self) -> None:
        result = self.token("create", "--subject", "alice")
        self.assertRegex(result.stdout, TOKEN)
        [token_id] = self.ids()
        self.assertEqual(
            f"Token {token_id} of alice is valid until it is revoked. It is in {self.path}, as a hash: keep what was "
            "printed.",
            result.stderr.splitlines()[0],
        )

    def test_the_server_accepts_the_token_with_what_was_given(self) -> None:
        token = self.create(
            *("--subject", "alice", "--group", "staff", "--group", "ops", "--group", "staff"),
            *("--claim", "tenant=acme", "--claim", "note=a=b", "--expires-in", "90d"),
        )
        found = self.principal(token)
        self.assertEqual(("alice", frozenset({"staff", "ops"})), (found.subject, found.groups))
        self.assertEqual({"tenant": "acme", "note": "a=b"}, dict(found.claims))
        [loaded] = read_tokens(str(self.path)).values()
        created, expires = loaded.record.created_at, loaded.record.expires_at
        assert created is not None
        assert expires is not None
        self.assertEqual((90, found.expires_at), ((expires - created).days, expires.timestamp()))

    def test_the_file_is_made_for_its_owner_only_and_has_no_secret(self) -> None:
        token = self.create("--subject", "alice").strip()
        self.assertEqual(0o600, stat.S_IMODE(self.path.stat().st_mode))
        self.assertNotIn(token.split("_")[2], self.path.read_text())

    def test_a_new_file_of_root_is_told_with_the_command_that_gives_it_away(self) -> None:
        for user, told in ((0, True), (1000, False)):
            with patch("os.geteuid", return_value=user):
                first = self.token("create", "--subject", "alice")
                second = self.token("create", "--subject", "bob")
            self.assertEqual(told, f"chown USER {self.path}" in first.stderr)
            self.assertNotIn("chown", second.stderr)
            self.path.unlink()

    def test_json_has_the_token_and_its_record(self) -> None:
        document = json.loads(self.create("--subject", "alice", "--json"))
        self.assertEqual("alice", self.principal(document["token"]).subject)
        self.assertEqual(
            {"token", "id", "subject", "groups", "claims", "created_at", "expires_at", "expired"}, set(document)
        )

    def test_the_file_is_that_of_the_settings_by_default(self) -> None:
        result = command("token", "create", "--subject", "alice", auth__token_file=str(self.path))
        self.assertEqual(0, result.exit_code, result.output)
        config = self.folder / "given.toml"
        config.write_text(f"auth.token_file = '{self.path}'")
        result = command("--config", config, "token", "create", "--subject", "bob")
        self.assertEqual(0, result.exit_code, result.output)
        self.assertEqual(2, len(self.ids()))

    def test_without_a_file_the_command_says_how_to_name_one(self) -> None:
        self.assert_refused(command("token", "create", "--subject", "alice"), 2, "--file FILE", "auth.token_file")
        self.assert_refused(
            command("--config", self.folder / "none", "token", "list"), 1, "[load_config]", f"{self.folder}/none"
        )

    def test_wrong_arguments_are_usage_errors(self) -> None:
        for arguments, text in (
            ((), "--subject"),
            (("--subject", ""), "the subject"),
            (("--subject", "a\nb"), "the subject"),
            (("--subject", "a", "--group", " b"), "a group"),
            (("--subject", "a", "--claim", "tenant"), "'tenant' is not NAME=VALUE"),
            (("--subject", "a", "--claim", "a=1", "--claim", "a=2"), "given twice"),
            (("--subject", "a", "--expires-in", "soon"), "'soon' is not a duration"),
            (("--subject", "a", "--expires-in", "999999999w"), "after the year 9999"),
        ):
            self.assert_refused(self.token("create", *arguments), 2, text)
        self.assertFalse(self.path.exists())

    def test_a_damaged_or_shared_file_is_not_changed(self) -> None:
        for content, mode, text in ((b"{\n", 0o600, "Line 1 of"), (b"", 0o644, f"chmod 600 {self.path}")):
            self.path.write_bytes(content)
            self.path.chmod(mode)
            self.assert_refused(self.token("create", "--subject", "alice"), 1, text)
            self.assertEqual((content, mode), (self.path.read_bytes(), stat.S_IMODE(self.path.stat().st_mode)))

    def test_a_file_that_cannot_be_made_is_an_error(self) -> None:
        self.path = self.folder / "none" / "tokens"
        self.assert_refused(self.token("create", "--subject", "alice"), 1, "Create its folder first")

    def test_a_token_that_could_not_be_printed_is_not_in_the_file(self) -> None:
        self.create("--subject", "alice")
        before = self.path.read_bytes()
        with Path("/dev/full").open("wb") as full:
            ended = subprocess.run(
                [*COMMAND, "token", "create", "--subject", "bob", "--file", str(self.path)],
                stdout=full,
                stderr=subprocess.PIPE,
                timeout=60,
                env=environment(),
                check=False,
            )
        self.assertEqual(1, ended.returncode)
        self.assertIn(b"Cannot write the output", ended.stderr)
        self.assertEqual(before, self.path.read_bytes())

    def test_two_commands_at_once_both_add_their_token(self) -> None:
        arguments = [*COMMAND, "token", "create", "--file", str(self.path), "--subject"]
        options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "env": environment()}
        running = [subprocess.Popen([*arguments, name], **options) for name in ("alice", "bob", "carol")]
        tokens = [process.communicate(timeout=60)[0].decode() for process in running]
        self.assertEqual([0, 0, 0], [process.returncode for process in running])
        self.assertEqual(["alice", "bob", "carol"], [self.principal(token).subject for token in tokens])
        self.assertEqual(["tokens"], os.listdir(self.folder))


class ListTests(TokenCase):
    def test_tokens_are_listed_without_secrets(self) -> None:
        token = self.create("--subject", "alice", "--group", "staff", "--claim", "tenant=acme", "--expires-in", "1d")
        self.create("--subject", "bob")
        result = self.token("list")
        self.assertEqual((0, ""), (result.exit_code, result.stderr))
        lines = result.stdout.splitlines()
        self.assertEqual(["ID", "Subject", "Groups", "Claims", "Created", "Expires"], lines[0].split())
        first, second = self.ids()
        self.assertRegex(lines[2], rf"^{first}  alice    staff   tenant=acme  \S+ \S+  \S+ \S+$")
        self.assertRegex(lines[3], rf"^{second}  bob      -       -            \S+ \S+  never$")
        for secret in (token.strip().split("_")[2], "scrypt"):
            self.assertNotIn(secret, result.stdout)

    def test_json_is_an_array_of_objects_without_secrets(self) -> None:
        self.create("--subject", "alice", "--expires-in", "1d")
        self.create("--subject", "bob")
        result = self.token("list", "--json")
        first, second = json.loads(result.stdout)
        self.assertEqual(
            ("alice", False, "bob", None),
            tuple(first[x] for x in ("subject", "expired")) + tuple(second[x] for x in ("subject", "expires_at")),
        )
        self.assertNotIn("scrypt", result.stdout)
        self.assertNotIn("token", first)

    def test_expired_tokens_are_marked(self) -> None:
        self.create("--subject", "alice", "--expires-in", "1d")
        text = self.path.read_text()
        self.path.write_text(re.sub(r'"expires_at":"\d{4}', '"expires_at":"2020', text))
        self.assertIn("(expired)", self.token("list").stdout)
        self.assertTrue(json.loads(self.token("list", "--json").stdout)[0]["expired"])

    def test_an_empty_file_is_told_on_stderr(self) -> None:
        self.path.touch(0o600)
        result = self.token("list")
        self.assertEqual((0, ""), (result.exit_code, result.stdout))
        self.assertIn("has no token", result.stderr)
        self.assertEqual("[]\n", self.token("list", "--json").stdout)

    def test_a_missing_file_is_an_error(self) -> None:
        self.assert_refused(self.token("list"), 1, f"There is no file {self.path}")


class RevokeTests(TokenCase):
    def test_a_revoked_token_is_removed_from_the_file(self) -> None:
        self.create("--subject", "alice")
        self.create("--subject", "bob")
        first, second = self.ids()
        result = self.token("revoke", first)
        self.assertEqual((0, f"Revoked token {first} of alice.\n"), (result.exit_code, result.stdout))
        self.assertEqual([second], self.ids())
        [removed] = json.loads(self.token("revoke", second, "--json").stdout)
        self.assertEqual(("bob", []), (removed["subject"], self.ids()))

    def test_an_unknown_id_revokes_nothing(self) -> None:
        self.create("--subject", "alice")
        [known] = self.ids()
        self.assert_refused(self.token("revoke", known, "nobody"), 1, "no token of the id nobody", "token list")
        self.assertEqual([known], self.ids())

    def test_a_token_stands_for_its_id_and_its_secret_is_in_no_message(self) -> None:
        token = self.create("--subject", "alice").strip()
        self.assertIn("of alice.", self.token("revoke", token).stdout)
        self.assertEqual([], self.ids())
        result = self.token("revoke", token)
        token_id, _, secret = token.removeprefix("dst_").partition("_")
        self.assert_refused(result, 1, f"no token of the id {token_id}.")
        self.assertNotIn(secret, result.stderr)

    def test_an_id_is_required(self) -> None:
        self.assert_refused(self.token("revoke"), 2, "ID")

    def test_ids_are_completed_with_those_of_the_file(self) -> None:
        self.create("--subject", "alice")
        [known] = self.ids()
        for words in (
            f"durable-streams-server token revoke --file {self.path} {known[:3]}",
            f"durable-streams-server token revoke --file {self.folder}/none x",
            "durable-streams-server token rev",
        ):
            variables = {
                "_DURABLE_STREAMS_SERVER_COMPLETE": "bash_complete",
                "COMP_WORDS": words,
                "COMP_CWORD": str(len(words.split()) - 1),
            }
            ended = subprocess.run(
                COMMAND, capture_output=True, text=True, env=environment() | variables, timeout=60, check=False
            )
            expected = [] if "none" in words else [known if known[:3] in words else "revoke"]
            found = [line.partition(",")[2] for line in ended.stdout.splitlines() if line]
            self.assertEqual((expected, ""), (found, ended.stderr))
