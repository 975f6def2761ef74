"""The commands ``signing-key`` and ``sign-url``."""

from __future__ import annotations

import json
import stat
import subprocess
import time
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

from click.testing import Result
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.identity import locked_file
from durable_streams.server.identity.credentials import SignedUrlCredentials
from durable_streams.server.identity.principal import Principal
from durable_streams.server.identity.signed_url_checker import SignedUrlChecker
from durable_streams.server.identity.signing_keys import load_signing_keys
from tests.support.commands import COMMAND, command, environment

URL = "https://streams.example.com/v1/stream/chats/a"


class KeyTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.path = self.folder / "keys"

    def run_command(self, *arguments: object, **settings: str) -> Result:
        return command(*map(str, arguments), auth__signing_keys_file=str(self.path), **settings)

    def succeed(self, *arguments: object, **settings: str) -> str:
        result = self.run_command(*arguments, **settings)
        self.assertEqual(0, result.exit_code, result.output)
        return result.stdout.strip()

    def refuse(self, status: int, reason: str, *arguments: object) -> None:
        result = self.run_command(*arguments)
        self.assertEqual(status, result.exit_code, result.output)
        self.assertIn(reason, " ".join(result.stderr.split()))
        self.assertNotIn("Traceback", result.output)

    def add(self, key_id: str) -> None:
        self.succeed("signing-key", "add", "--id", key_id)


class SigningKeyTests(KeyTestCase):
    def test_the_file_is_created_for_its_owner_and_the_secret_is_not_printed(self) -> None:
        key_id = self.succeed("signing-key", "add")
        self.assertRegex(key_id, r"\A[0-9]{8}-[0-9a-f]{6}\Z")
        self.assertEqual(0o600, stat.S_IMODE(self.path.stat().st_mode))
        [key] = load_signing_keys(str(self.path))
        self.assertEqual((key_id, 43), (key.id, len(key.secret)))

    def test_the_newest_key_signs_and_the_others_verify(self) -> None:
        self.add("old")
        self.add("new")
        self.assertEqual("new  signs and verifies\nold  verifies", self.succeed("signing-key", "list"))
        self.assertEqual(
            [{"id": "new", "signs": True}, {"id": "old", "signs": False}],
            json.loads(self.succeed("signing-key", "list", "--json")),
        )
        self.succeed("signing-key", "remove", "new")
        self.assertEqual({"id": "newer"}, json.loads(self.succeed("signing-key", "add", "--id", "newer", "--json")))
        self.succeed("signing-key", "remove", "newer")
        self.assertEqual("old  signs and verifies", self.succeed("signing-key", "list"))
        self.succeed("signing-key", "remove", "old")
        self.assertEqual("", self.succeed("signing-key", "list"))

    def test_comments_and_the_mode_of_the_file_stay(self) -> None:
        self.path.touch(0o600)
        self.path.write_text("# ours\n\nold 0123456789abcdef0123456789abcdef\n# the end")
        self.path.chmod(0o400)
        self.add("new")
        self.succeed("signing-key", "remove", "old")
        lines = self.path.read_text().splitlines()
        self.assertEqual(["# ours", "", "# the end"], lines[:2] + lines[3:])
        self.assertTrue(lines[2].startswith("new "))
        self.assertEqual(0o400, stat.S_IMODE(self.path.stat().st_mode))

    def test_mistakes_are_explained_and_change_nothing(self) -> None:
        self.refuse(1, "No such file", "signing-key", "remove", "old")
        self.refuse(1, "No such file", "signing-key", "list")
        self.assertEqual([], list(self.folder.iterdir()))
        self.add("old")
        content = self.path.read_bytes()
        self.refuse(1, "has a key with the id old", "signing-key", "add", "--id", "old")
        self.refuse(1, "has no key with the id other", "signing-key", "remove", "other")
        self.refuse(2, "1 to 64 letters, digits", "signing-key", "add", "--id", "a b")
        self.path.chmod(0o644)
        self.refuse(1, "Run chmod 600", "signing-key", "add")
        self.assertEqual(content, self.path.read_bytes())
        self.assertEqual([self.path], list(self.folder.iterdir()))

    def test_a_file_that_another_command_has_locked_is_refused_after_the_timeout(self) -> None:
        self.add("old")
        with patch.object(locked_file, "LOCK_TIMEOUT", 0.05), locked_file.locked_file(str(self.path), create=False):
            self.refuse(1, f"Another command has locked {self.path}", "signing-key", "add", "--id", "new")
        self.assertEqual("old  signs and verifies", self.succeed("signing-key", "list"))

    def test_without_a_file_the_option_is_asked_for(self) -> None:
        result = command("signing-key", "list")
        self.assertEqual(2, result.exit_code)
        self.assertIn("No file of keys is given. Give --key-file FILE, or the settings", result.stderr)

    def test_the_file_and_the_base_path_of_settings_are_the_defaults(self) -> None:
        (self.folder / "default.toml").write_text(
            f'[auth]\nsigning_keys_file = "{self.path}"\n[http]\nstream_base_path = "/streams"\n'
        )
        for arguments in (["signing-key", "add", "--id", "new"], ["sign-url", "https://example.com/streams/a"]):
            result = command(*arguments, "--config-dir", self.folder)
            self.assertEqual(0, result.exit_code, result.output)
        self.assertTrue(result.stdout.startswith("https://example.com/streams/a?ds_key=new&"), result.stdout)
        result = command("signing-key", "list", "--config", self.folder / "missing.toml")
        self.assertEqual(1, result.exit_code)
        self.assertIn("missing.toml", result.stderr)

    def test_commands_at_the_same_time_lose_no_key(self) -> None:
        self.add("first")
        arguments = [*COMMAND, "signing-key", "add", "--key-file", str(self.path), "--id"]
        running = [
            subprocess.Popen(
                [*arguments, f"k{number}"],
                env=environment(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            for number in range(4)
        ]
        self.assertEqual([0] * 4, [process.wait(60) for process in running])
        ids = {key.id for key in load_signing_keys(str(self.path))}
        self.assertEqual({"first", "k0", "k1", "k2", "k3"}, ids)


class SignUrlTests(KeyTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.add("old")
        self.add("new")

    def check(self, url: str, base: str = "/v1/stream/") -> Principal:
        """Return the principal of a URL, as a server with the file has it."""
        parts = urlsplit(url)
        self.assertTrue(parts.path.startswith(base))
        checker = SignedUrlChecker(time.time, load_signing_keys(str(self.path)))
        return checker.requestAvatarId(
            SignedUrlCredentials(parts.query.encode(), parts.path[len(base) :].encode(), b"GET")
        )

    def test_the_url_reads_its_stream_for_an_hour(self) -> None:
        url = self.succeed("sign-url", URL)
        self.assertTrue(url.startswith(f"{URL}?ds_key=new&ds_expires="), url)
        principal = self.check(url)
        assert principal.grants is not None
        assert principal.expires_at is not None
        self.assertEqual(
            (frozenset({"read"}), "chats/a"), (principal.grants[0].operations, principal.grants[0].pattern)
        )
        self.assertLess(abs(principal.expires_at - time.time() - 3600), 60)

    def test_operations_validity_and_subject_are_options(self) -> None:
        url = self.succeed(
            *("sign-url", "--operation", "create", "--operation", "append", "--expires-in", "2d"),
            *("--subject", "alice é", URL),
        )
        principal = self.check(url)
        assert principal.grants is not None
        assert principal.expires_at is not None
        self.assertEqual(
            (frozenset({"append", "create"}), "alice é"), (principal.grants[0].operations, principal.subject)
        )
        self.assertLess(abs(principal.expires_at - time.time() - 172_800), 60)

    def test_other_parameters_of_the_url_stay(self) -> None:
        url = self.succeed("sign-url", f"{URL}?offset=-1&live=sse")
        self.assertTrue(url.startswith(f"{URL}?offset=-1&live=sse&ds_key=new&"), url)
        self.check(url)

    def test_another_base_path_is_an_option_and_a_variable(self) -> None:
        for arguments, settings in (
            (["--base-path", "/streams/"], {}),
            ([], {"http__stream_base_path": "/streams"}),
        ):
            url = self.succeed("sign-url", *arguments, "https://example.com/streams/chats/a", **settings)
            self.assertEqual("new", self.check(url, "/streams/").credential)

    def test_json_has_the_parts(self) -> None:
        printed = json.loads(self.succeed("sign-url", "--json", "--operation", "append", URL))
        self.assertEqual(("new", ["append"]), (printed["key"], printed["operations"]))
        self.assertEqual(printed["expires_at"], self.check(printed["url"]).expires_at)

    def test_mistakes_are_explained(self) -> None:
        for status, reason, arguments in (
            (2, "is not a URL", ["chats/a"]),
            (2, "is not a URL", ["ftp://example.com/v1/stream/a"]),
            (2, "is not a URL", ["https:///v1/stream/a"]),
            (2, "is not a URL", ["https://example.com:x/v1/stream/a"]),
            (2, "in ASCII", ["https://example.com/v1/stream/é"]),
            (2, "--base-path", ["https://example.com/streams/a"]),
            (2, "user name", ["https://u:p@example.com/v1/stream/a"]),
            (2, "fragment", [f"{URL}#x"]),
            (2, "signed already", [f"{URL}?ds_sig=x"]),
            (1, "not that of a stream", ["https://example.com/v1/stream/"]),
            (1, "not that of a stream", ["https://example.com/v1/stream/__ds/subscriptions/a"]),
            (2, "more than 7d", ["--expires-in", "8d", URL]),
            (2, "not a duration", ["--expires-in", "0s", URL]),
            (2, "not a duration", ["--expires-in", "90", URL]),
            (2, "'admin' is not one of", ["--operation", "admin", URL]),
            (2, "create,append is more than one: repeat the option", ["--operation", "create,append", URL]),
            (1, "printable", ["--subject", "a\nb", URL]),
        ):
            self.refuse(status, reason, "sign-url", *arguments)

    def test_a_file_without_a_key_is_explained(self) -> None:
        for key_id in ("old", "new"):
            self.succeed("signing-key", "remove", key_id)
        self.refuse(1, "has no key. Make one: durable-streams-server signing-key add", "sign-url", URL)
