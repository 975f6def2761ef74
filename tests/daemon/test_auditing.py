"""The audit log of a server by its settings: its file, and the changes of tokens, keys and rules that it records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.clocks import clock_of
from durable_streams.server.config.settings import Settings
from durable_streams.server.daemon.access import access_control_from
from durable_streams.server.daemon.auditing import audit_from, open_audit_log, record_access_changes
from durable_streams.server.identity.control import AccessControl
from durable_streams.server.identity.policy import parse_rules
from durable_streams.server.identity.tokens.file import add_token, remove_tokens
from durable_streams.server.identity.tokens.records import new_token
from durable_streams.server.startup import StartupError
from durable_streams.server.telemetry.audit import AuditLog


class AuditingCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.clock = Clock()

    def settings(self, **values: Any) -> Settings:
        return Settings.from_mapping({"audit.file": str(self.folder / "audit.jsonl")} | values)

    def audit(self, settings: Settings) -> AuditLog:
        audit = audit_from(settings, clock_of(self.clock))
        open_audit_log(audit, settings)
        self.addCleanup(audit.close)
        return audit

    def lines(self) -> list[dict[str, Any]]:
        self.clock.advance(0)
        return [json.loads(line) for line in (self.folder / "audit.jsonl").read_text().splitlines()]


class FileTests(AuditingCase):
    def test_without_a_file_denials_are_counted_only(self) -> None:
        audit = audit_from(Settings(), clock_of(self.clock))
        open_audit_log(audit, Settings())
        audit.record("tokens_changed", {})
        audit.reopen()
        audit.close()
        self.assertEqual([], list(self.folder.iterdir()))
        self.assertIsNone(audit.sink)

    def test_a_file_that_cannot_be_opened_is_an_error_of_the_start(self) -> None:
        settings = self.settings(**{"audit.file": str(self.folder / "missing" / "audit.jsonl")})
        error: StartupError = self.assertRaises(
            StartupError, open_audit_log, audit_from(settings, clock_of(self.clock)), settings
        )
        self.assertIn("Cannot open the audit log", str(error))
        self.assertIn("(audit.file): No such file or directory. Create its directory", str(error))

    def test_the_settings_choose_what_is_recorded(self) -> None:
        self.audit(self.settings(**{"audit.events": "denied"})).record("tokens_changed", {})
        self.assertEqual([], self.lines())
        self.audit(self.settings()).record("tokens_changed", {})
        self.assertEqual(["opened", "tokens_changed"], [line["event"] for line in self.lines()])


class ChangeTests(AuditingCase):
    def setUp(self) -> None:
        super().setUp()
        self.tokens, self.keys = self.folder / "tokens", self.folder / "keys"
        self.records = [new_token(subject)[1] for subject in ("alice", "bob")]
        for record in self.records:
            add_token(str(self.tokens), record)
        self.write_keys("k1")
        settings = self.settings(
            **{
                "auth.methods": ["token", "signed-url"],
                "auth.token_file": str(self.tokens),
                "auth.signing_keys_file": str(self.keys),
                "auth.rules": ["allow subject:alice all **"],
            }
        )
        control = access_control_from(settings, self.clock)
        assert control is not None
        self.control: AccessControl = control
        self.addCleanup(control.authentication.close)
        record_access_changes(self.audit(settings), control)

    def write_keys(self, *ids: str, secret: str = "0") -> None:
        self.keys.touch(0o600)
        self.keys.write_text("".join(f"{key_id} {secret * 32}\n" for key_id in ids))

    def changes(self) -> list[dict[str, Any]]:
        """Read all files again, and return the lines about it."""
        self.successResultOf(self.control.reload())
        lines = [line for line in self.lines() if line["event"] != "opened"]
        for line in lines:
            del line["time"]
        return lines

    def test_tokens_that_are_added_and_revoked_are_named_by_their_ids(self) -> None:
        added = new_token("carol")[1]
        add_token(str(self.tokens), added)
        remove_tokens(str(self.tokens), [self.records[0].id])
        self.assertEqual(
            [{"event": "tokens_changed", "added": [added.id], "removed": [self.records[0].id]}], self.changes()
        )

    def test_keys_that_are_added_removed_and_replaced_are_named_by_their_ids(self) -> None:
        self.write_keys("k2", "k1")
        self.assertEqual([{"event": "keys_changed", "added": ["k2"]}], self.changes())
        self.write_keys("k2", secret="1")
        self.assertEqual({"event": "keys_changed", "removed": ["k1"], "changed": ["k2"]}, self.changes()[-1])

    def test_rules_are_named_by_their_text(self) -> None:
        self.control.set_policy(parse_rules(["allow subject:bob read **"], "auth.rules"))
        self.assertEqual(
            [
                {
                    "event": "rules_changed",
                    "added": ["allow subject:bob read **"],
                    "removed": ["allow subject:alice all **"],
                }
            ],
            self.changes(),
        )

    def test_files_that_are_read_again_unchanged_have_no_line(self) -> None:
        self.assertEqual([], self.changes())
        self.assertEqual([], self.changes())

    def test_no_line_has_a_secret_or_a_hash(self) -> None:
        added = new_token("carol")[1]
        add_token(str(self.tokens), added)
        self.write_keys("k2", secret="s")
        text = json.dumps(self.changes())
        for secret in (added.hash, "$scrypt", "s" * 32):
            self.assertNotIn(secret, text)
