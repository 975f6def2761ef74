"""Tests of the rules for the audit log."""

from __future__ import annotations

from durable_streams.server.config.settings import Settings
from durable_streams.server.config.validation import ConfigError

from .test_layers import LoadTests, variable


class AuditRuleTests(LoadTests):
    def by_names(self, given: dict[str, str]) -> Settings:
        given = {"auth.rules": "allow anyone read **"} | given
        return Settings.of(self.loaded(None, None, {variable(name): value for name, value in given.items()}).settings)

    def broken(self, given: dict[str, str]) -> tuple[str, str]:
        error: ConfigError = self.assertRaises(ConfigError, self.by_names, given)
        return error.rule, str(error)

    def test_a_file_alone_records_changes_and_denials(self) -> None:
        audit = self.by_names({"audit.file": "/audit.jsonl"}).audit
        self.assertEqual(("/audit.jsonl", "changes", False), (audit.file, audit.events, audit.required))
        self.assertIsNone(self.by_names({}).audit.file)

    def test_an_empty_path_is_refused(self) -> None:
        rule, message = self.broken({"audit.file": " "})
        self.assertEqual("EmptyPath", rule)
        self.assertIn("audit.file must be the path of a file, or left out", message)

    def test_the_log_file_is_no_audit_log(self) -> None:
        rule, message = self.broken({"audit.file": "/log", "observability.log_file": "/log"})
        self.assertEqual("AuditFileConflictsWithLogFile", rule)
        self.assertIn("audit.file must be another file while observability.log_file is '/log'", message)

    def test_an_unknown_selection_is_refused(self) -> None:
        _, message = self.broken({"audit.file": "/audit", "audit.events": "reads"})
        self.assertIn("none, denied, changes or all", message)

    def test_an_audit_log_that_is_required_must_have_lines(self) -> None:
        rule, message = self.broken({"audit.required": "true"})
        self.assertEqual("RequiredAuditRequiresFile", rule)
        self.assertIn("audit.file must be the path of a file while audit.required is true", message)
        rule, message = self.broken({"audit.required": "true", "audit.file": "/audit", "audit.events": "none"})
        self.assertEqual("RequiredAuditRequiresFile", rule)
        self.assertIn("audit.events must be denied, changes or all while audit.required is true", message)

    def test_the_daemon_needs_access_control_for_an_audit_log(self) -> None:
        environment = {"DS_AUDIT__FILE": "/audit"}
        error: ConfigError = self.assertRaises(ConfigError, self.loaded, None, None, environment)
        self.assertEqual("AuditRequiresAccessControl", error.rule)
        rule = "allow anyone create,append,close,read,delete,fork-from,subscribe **"
        self.assertIn(f"auth.rules set to ['{rule}']", str(error))
        self.assertIsNotNone(self.loaded(None, None, environment | {"DS_AUTH__RULES": rule}).settings.audit.file)
        self.assertIsNotNone(Settings.from_mapping({"audit.file": "/audit"}).audit.file)

    def test_a_file_without_lines_is_warned_about(self) -> None:
        for events, count in (("none", 1), ("denied", 0)):
            environment = {
                "DS_AUDIT__FILE": "/audit",
                "DS_AUDIT__EVENTS": events,
                "DS_AUTH__RULES": "allow anyone read **",
            }
            warnings = [line for line in self.loaded(None, None, environment).warnings if "audit" in line]
            self.assertEqual(count, len(warnings), warnings)
