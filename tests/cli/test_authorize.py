"""The command ``authorize``."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import Result
from twisted.trial.unittest import SynchronousTestCase

from tests.support.commands import command

RULES = """\
deny anonymous all **
allow subject:alice create,append,read chats/{subject}/**
allow group:staff read **
allow claim:tenant=acme all {claim.tenant}/**
allow claim:roles=ops admin
allow anyone read public/** cache:public
"""


class FileTests(SynchronousTestCase):
    """``--rules-file``: the settings do not matter."""

    def setUp(self) -> None:
        self.file = Path(self.mktemp())
        self.file.write_text(RULES)

    def authorize(self, *arguments: str) -> Result:
        return command("authorize", "--rules-file", self.file, *arguments)

    def test_an_allowed_request_exits_0_and_prints_the_rule(self) -> None:
        result = self.authorize("--as", "alice", "append", "chats/alice/a")
        expected = (
            "allowed: alice (token), append chats/alice/a\n"
            f"  {self.file} 2: allow subject:alice create,append,read chats/{{subject}}/**\n"
            "    This is the first rule that matches, and it allows it.\n"
        )
        self.assertEqual((0, expected, ""), (result.exit_code, result.stdout, result.stderr))

    def test_a_denied_request_exits_1_and_prints_why(self) -> None:
        result = self.authorize("read", "a")
        self.assertEqual(1, result.exit_code)
        self.assertIn("denied: anonymous, read a\n", result.stdout)
        self.assertIn("1: deny anonymous all **\n    This is the first rule that matches, and it denies", result.stdout)
        result = self.authorize("--as", "alice", "append", "chats/bob/a")
        expected = (
            "denied: alice (token), append chats/bob/a\n"
            "  No rule matches, and what no rule allows is denied.\n"
            "  --verbose shows why the rules do not match.\n"
        )
        self.assertEqual((1, expected), (result.exit_code, result.stdout))

    def test_verbose_prints_each_rule_with_its_reason(self) -> None:
        result = self.authorize("--verbose", "--as", "bob", "--group", "staff", "read", "a")
        self.assertEqual(0, result.exit_code)
        lines = [line.strip() for line in result.stdout.splitlines()]
        self.assertEqual(["WHO does not hold: anonymous.", "WHO does not hold: subject:alice."], lines[2:5:2])
        self.assertEqual(7, len(lines))

    def test_options_make_the_principal(self) -> None:
        for arguments, exit_code in (
            (("--as", "bob", "--claim", "tenant=acme", "delete", "acme/a"), 0),
            (("--as", "bob", "--claim", 'tenant="acme"', "delete", "acme/a"), 0),
            (("--as", "bob", "--claim", "tenant=other", "delete", "other/a"), 1),
            (("--as", "bob", "--claim", "roles=dev", "--claim", "roles=ops", "admin"), 0),
            (("--as", "bob", "--claim", 'roles=["ops"]', "admin"), 0),
            (("--as", "bob", "--claim", "roles=dev", "admin"), 1),
            (("--as", "bob", "--kind", "jwt", "read", "public/a"), 0),
            (("--kind", "certificate", "read", "public/a"), 0),
            (("--as", "alice", "--grant", "read", "chats/*/a", "read", "chats/alice/a"), 0),
            (("--as", "alice", "--grant", "read", "chats/*/a", "read", "chats/alice/b"), 1),
            (("--as", "alice", "--grant", "read", "chats/*/a", "append", "chats/alice/a"), 1),
            (("--kind", "signed-url", "--grant", "read", "a/*", "read", "a/*"), 0),
            (("--kind", "signed-url", "--grant", "read", "a/*", "read", "a/b"), 1),
        ):
            result = self.authorize(*arguments)
            self.assertEqual(exit_code, result.exit_code, (arguments, result.output))

    def test_a_pattern_is_allowed_only_as_a_whole(self) -> None:
        for pattern, exit_code in (("chats/alice/*", 0), ("chats/*", 1), ("**", 1)):
            result = self.authorize("--pattern", "--as", "alice", "read", pattern)
            self.assertEqual(exit_code, result.exit_code, (pattern, result.output))

    def test_json_has_the_decision_and_the_rules(self) -> None:
        result = self.authorize("--json", "--as", "bob", "read", "public/a")
        self.assertEqual(0, result.exit_code)
        found = json.loads(result.stdout)
        self.assertEqual(
            (True, "bob", "token", "read", "public/a", True),
            tuple(found[key] for key in ("allowed", "subject", "kind", "operation", "name", "public")),
        )
        self.assertEqual([False] * 5 + [True], [rule["matches"] for rule in found["rules"]])
        self.assertEqual(found["rule"], found["rules"][-1]["rule"])
        self.assertEqual(1, self.authorize("--json", "read", "a").exit_code)

    def test_a_rule_that_never_decides_is_warned_about(self) -> None:
        self.file.write_text("allow anyone read **\ndeny anonymous read secret/**\n")
        result = self.authorize("--as", "alice", "read", "a")
        self.assertEqual(0, result.exit_code)
        self.assertEqual(
            f"Warning: {self.file} 2 never decides, since {self.file} 1 matches whatever it matches. Put it before "
            "that rule, or remove it.\n",
            result.stderr,
        )

    def test_an_answer_for_everybody_is_noted(self) -> None:
        self.assertIn("Shared caches may keep it", self.authorize("--as", "bob", "read", "public/a").stdout)
        self.assertNotIn("Shared caches", self.authorize("--as", "alice", "read", "chats/alice").stdout)

    def test_a_wrong_command_line_exits_2_with_what_to_write(self) -> None:
        for arguments, message in (
            (("write", "a"), "'write' is not one of"),
            (("--as", "alice", "read"), "Give NAME"),
            (("--as", "alice", "admin", "a"), "leave out NAME"),
            (("--group", "staff", "read", "a"), "need --as"),
            (("--as", "", "read", "a"), "Leave out --as"),
            (("--as", "alice", "--kind", "anonymous", "read", "a"), "Leave out --as"),
            (("--as", "alice", "--claim", "tenant", "read", "a"), "write NAME=VALUE"),
            (("--as", "alice", "--grant", "write", "a", "read", "a"), "no operation 'write'"),
            (("--as", "alice", "--grant", "read", "a*", "read", "a"), "whole segments"),
            (("--as", "alice", "read", "a//b"), "empty, . or .."),
            (("--as", "alice", "read", "__ds/subscriptions/a"), "reserved"),
            (("--as", "alice", "--pattern", "read", "a*"), "whole segments"),
        ):
            result = self.authorize(*arguments)
            self.assertEqual((2, ""), (result.exit_code, result.stdout), arguments)
            self.assertIn(message, result.stderr, arguments)

    def test_rules_that_cannot_be_read_exit_2(self) -> None:
        self.file.write_text("# rules\nallow alice read **\n")
        result = self.authorize("--as", "alice", "read", "a")
        self.assertEqual((2, ""), (result.exit_code, result.stdout))
        self.assertIn(f"{self.file}, line 2: WHO is 'alice'. Write anyone", result.stderr)
        self.file.unlink()
        result = self.authorize("--as", "alice", "read", "a")
        self.assertEqual(2, result.exit_code)
        self.assertIn(f"Cannot read {self.file}: No such file or directory.", result.stderr)


class SettingsTests(SynchronousTestCase):
    """The rules are those of the settings."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def authorize(self, *arguments: object, **settings: str) -> Result:
        return command("authorize", "--config-dir", self.folder, *arguments, **settings)

    def settings(self, text: str) -> None:
        (self.folder / "default.toml").write_text(text)

    def test_an_open_server_allows_everything_but_operators_pages(self) -> None:
        result = self.authorize("delete", "a")
        self.assertEqual(0, result.exit_code)
        self.assertIn("The server is open: auth.methods and auth.rules are not set", result.stdout)
        result = self.authorize("--as", "alice", "admin")
        self.assertEqual(1, result.exit_code)
        self.assertIn("admin.token_file decides", result.stdout)

    def test_the_rules_of_the_settings_decide(self) -> None:
        self.settings("auth.rules = ['allow anonymous read public/**', 'allow authenticated all **']")
        result = self.authorize("read", "public/a")
        self.assertEqual(0, result.exit_code)
        self.assertIn("auth.rules 1: allow anonymous read public/**", result.stdout)
        self.assertEqual(1, self.authorize("append", "public/a").exit_code)
        self.assertEqual(0, self.authorize("--as", "alice", "admin").exit_code)

    def test_the_file_of_rules_of_the_settings_decides(self) -> None:
        (self.folder / "rules").write_text(RULES)
        self.settings(f"auth.rules_file = '{(self.folder / 'rules').absolute()}'")
        self.assertEqual(0, self.authorize("--as", "alice", "read", "chats/alice").exit_code)
        self.assertEqual(1, self.authorize("--as", "alice", "delete", "chats/alice").exit_code)
        (self.folder / "rules").write_text("allow")
        result = self.authorize("--as", "alice", "read", "a")
        self.assertEqual(2, result.exit_code)
        self.assertRegex(result.stderr, r"^auth\.rules_file: .*/rules, line 1: The rule has no WHO\.")

    def test_requests_without_credentials_are_denied_if_the_settings_refuse_them(self) -> None:
        self.settings(
            "auth.allow_anonymous = false\nauth.methods = ['token']\nauth.rules = ['allow anyone read **']\n"
            "auth.token_file = '/nowhere'"
        )
        result = self.authorize("read", "a")
        self.assertEqual(1, result.exit_code, result.output)
        self.assertIn("auth.allow_anonymous is false", result.stdout)
        self.assertEqual(0, self.authorize("--as", "alice", "read", "a").exit_code)

    def test_invalid_rules_and_settings_exit_2(self) -> None:
        self.settings("auth.rules = ['allow anyone']")
        result = self.authorize("read", "a")
        self.assertEqual((2, ""), (result.exit_code, result.stdout))
        self.assertIn("auth.rules: rule 1: The rule has no OPERATIONS.", result.stderr)
        result = self.authorize("read", "a", limits__max_streams="0")
        self.assertEqual((2, ""), (result.exit_code, result.stdout))
        self.assertIn("[validate_config] limits.max_streams", result.stderr)
