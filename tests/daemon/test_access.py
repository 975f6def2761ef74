"""The access control of a server by its settings: what is read, refused and logged."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import capturedLogs, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.config.settings import Settings
from durable_streams.server.config.validation import ConfigError
from durable_streams.server.daemon.access import access_control_from, check_access_files, log_access
from durable_streams.server.daemon.subscribing import log_subscriptions
from durable_streams.server.errors import NotAuthenticated
from durable_streams.server.identity.control import AccessControl
from durable_streams.server.identity.credentials import ClientCertificate, Presented
from durable_streams.server.identity.principal import ANONYMOUS, Principal
from durable_streams.server.identity.tokens.records import new_token, render_record
from durable_streams.server.interfaces import NowOrLater

ALL = "allow authenticated all **"
SECRET = "s" * 32


class AccessCase(SynchronousTestCase):
    def file(self, text: str, mode: int = 0o600) -> str:
        path = Path(self.mktemp()).absolute()
        path.write_text(text)
        path.chmod(mode)
        return str(path)

    def settings(self, values: dict[str, Any]) -> Settings:
        return Settings.from_mapping({f"auth.{name}": value for name, value in values.items() if "." not in name})

    def control(self, **values: Any) -> AccessControl:
        control = access_control_from(self.settings(values), Clock())
        assert control is not None
        return control

    def now(self, found: NowOrLater[Principal]) -> Principal:
        return self.successResultOf(found) if isinstance(found, Deferred) else found

    def refusal(self, **values: Any) -> ConfigError:
        error: ConfigError = self.assertRaises(ConfigError, access_control_from, self.settings(values), Clock())
        self.assertEqual("validate_config", error.phase)
        return error


class CreationTests(AccessCase):
    def test_an_open_server_has_no_access_control(self) -> None:
        self.assertIsNone(access_control_from(Settings(), Clock()))

    def test_rules_alone_are_about_anonymous_requests(self) -> None:
        control = self.control(rules=["allow anyone read a"])
        self.assertIs(ANONYMOUS, control.authentication.principal_of(Presented()))
        self.assertTrue(control.policy.decide(ANONYMOUS, "read", "a").allowed)
        self.assertFalse(control.policy.decide(ANONYMOUS, "append", "a").allowed)

    def test_anonymous_requests_are_refused_by_setting(self) -> None:
        control = self.control(methods=["certificate"], rules=[ALL], allow_anonymous=False)
        self.assertRaises(NotAuthenticated, control.authentication.principal_of, Presented())

    def test_certificates_become_principals_by_the_configured_name(self) -> None:
        control = self.control(methods=["certificate"], rules=[ALL], certificate_name="cn")
        presented = Presented(certificate=ClientCertificate("CN=a,O=b", common_name="a"))
        principal = self.now(control.authentication.principal_of(presented))
        self.assertEqual(("a", "certificate"), (principal.subject, principal.kind))

    def test_rules_of_a_file_replace_the_present_ones_when_it_changes(self) -> None:
        path = self.file("deny anyone read a", 0o644)
        control = self.control(rules_file=path)
        heard: list[bool] = []
        control.on_change(lambda: heard.append(control.policy.decide(ANONYMOUS, "read", "a").allowed))
        Path(path).write_text("allow anyone read a")
        self.successResultOf(control.reload())
        self.assertEqual([True], heard)

    def test_a_token_is_accepted_until_it_is_removed_from_the_file(self) -> None:
        token, record = new_token("alice", ("staff",))
        path = self.file(render_record(record).decode())
        control = self.control(methods=["token"], token_file=path, rules=["allow group:staff read **"])
        presented = Presented(authorization=b"Bearer " + token.encode())
        principal = self.now(control.authentication.principal_of(presented))
        self.assertEqual("alice", principal.subject)
        self.assertTrue(control.policy.decide(principal, "read", "a").allowed)
        self.assertTrue(control.authentication.is_current(principal, 0.0))
        Path(path).write_text("# none\n")
        self.successResultOf(control.reload())
        self.assertEqual(1, control.generation)
        self.assertFalse(control.authentication.is_current(principal, 0.0))
        self.assertIsNone(control.authentication.cached(presented.authorization))

    def test_a_token_file_that_cannot_be_used_keeps_the_tokens(self) -> None:
        token, record = new_token("alice")
        path = self.file(render_record(record).decode())
        control = self.control(methods=["token"], token_file=path, rules=[ALL])
        Path(path).write_text("nonsense\n")
        self.successResultOf(control.reload())
        self.assertEqual(0, control.generation)
        found = control.authentication.principal_of(Presented(authorization=b"Bearer " + token.encode()))
        self.assertEqual("alice", self.now(found).subject)

    def test_changed_signing_keys_are_a_change(self) -> None:
        path = self.file(f"a {SECRET}\n")
        control = self.control(methods=["signed-url"], signing_keys_file=path, rules=[ALL])
        Path(path).write_text(f"b {SECRET}\n")
        self.successResultOf(control.reload())
        self.assertEqual(1, control.generation)


class RefusalTests(AccessCase):
    def test_a_file_of_tokens_that_others_may_read_is_refused(self) -> None:
        path = self.file("", 0o644)
        error = self.refusal(methods=["token"], token_file=path, rules=[ALL])
        self.assertEqual("InvalidTokenFile", error.rule)
        self.assertIn(f"chmod 600 {path}", str(error))

    def test_an_invalid_rule_is_refused_with_its_number(self) -> None:
        error = self.refusal(rules=[ALL, "allow me"])
        self.assertEqual("InvalidRule", error.rule)
        self.assertTrue(str(error).startswith("auth.rules, rule 2: "), str(error))

    def test_an_invalid_file_of_rules_is_refused_with_the_line(self) -> None:
        path = self.file(f"# rules\n{ALL}\nallow me\n")
        error = self.refusal(rules_file=path)
        self.assertEqual("InvalidRulesFile", error.rule)
        self.assertTrue(str(error).startswith(f"auth.rules_file: {path}, line 3: "), str(error))
        self.assertIn("Cannot read /nowhere: No such file", str(self.refusal(rules_file="/nowhere")))

    def test_signing_keys_that_others_may_read_are_refused_without_a_secret_in_the_message(self) -> None:
        error = self.refusal(methods=["signed-url"], signing_keys_file=self.file(f"a {SECRET}", 0o644), rules=[ALL])
        self.assertEqual("InvalidSigningKeysFile", error.rule)
        self.assertIn("chmod 600", str(error))
        self.assertNotIn(SECRET, str(error))

    def test_settings_of_jwt_that_do_not_fit_are_refused(self) -> None:
        settings = Settings.from_mapping(
            {"auth": {"methods": ["jwt"], "rules": [ALL], "jwt": {"jwks_url": "http://a.example/keys"}}}
        )
        error = self.assertRaises(ConfigError, access_control_from, settings, Clock())
        self.assertEqual("InvalidJwtSettings", error.rule)
        self.assertIn("auth.jwt.jwks_url: must be https", str(error))

    def test_a_public_cache_needs_a_public_rule(self) -> None:
        for rules, is_refused in (([ALL], True), ([ALL, "allow anyone read a cache:public"], False)):
            settings = Settings.from_mapping({"http.cache": "public", "auth.rules": rules})
            if is_refused:
                error = self.assertRaises(ConfigError, access_control_from, settings, Clock())
                self.assertEqual("PublicCacheRequiresPublicRule", error.rule)
                self.assertIn("http.cache is public, and no rule has cache:public", str(error))
            else:
                self.assertIsNotNone(access_control_from(settings, Clock()))

    def test_files_are_checked_in_the_folder_of_the_start(self) -> None:
        path = self.file(ALL)
        folder, name = os.path.split(path)
        check_access_files(self.settings({"rules_file": name}), Clock(), folder)
        Path(path).write_text("allow me")
        settings = self.settings({"rules_file": name})
        error = self.assertRaises(ConfigError, check_access_files, settings, Clock(), folder)
        self.assertIn(f"{path}, line 1: ", str(error))


class LogTests(AccessCase):
    def logged(self, values: dict[str, Any]) -> str:
        events = EventLoggingObserver()
        globalLogPublisher.addObserver(events)
        self.addCleanup(globalLogPublisher.removeObserver, events)
        settings = self.settings(values)
        log_access(settings, access_control_from(settings, Clock()))
        [event] = events
        return str(formatEvent(event))

    def test_the_log_warns_of_rules_that_never_decide(self) -> None:
        events = EventLoggingObserver()
        globalLogPublisher.addObserver(events)
        self.addCleanup(globalLogPublisher.removeObserver, events)
        settings = self.settings({"rules": ["allow anyone read **", "deny anyone read a"]})
        log_access(settings, access_control_from(settings, Clock()))
        self.assertEqual(2, len(events))
        self.assertIn("auth.rules 2 never decides, since auth.rules 1 matches", str(formatEvent(events[0])))

    def test_the_log_has_who_may_use_subscriptions(self) -> None:
        settings = Settings.from_mapping({"http.public_url": "https://streams.example.com"})
        for is_open, whoever in (
            (True, "Whoever can reach the streams"),
            (False, "Clients whom a rule allows subscribe"),
        ):
            with capturedLogs() as events:
                log_subscriptions(settings, is_open)
            self.assertEqual(
                [f"Subscriptions: /v1/stream/__ds/subscriptions/ID. {whoever} can create and claim them."],
                [formatEvent(event) for event in events],
            )

    def test_the_log_has_methods_rules_and_whether_anonymous_requests_are_accepted(self) -> None:
        rules = self.file(f"{ALL}\nallow anyone read a\n")
        for values, line in (
            ({}, "Access: open. Everybody who can reach the server may use all streams (auth.methods is not set)."),
            (
                {"methods": ["certificate", "signed-url"], "signing_keys_file": self.file(""), "rules_file": rules},
                (
                    "Access: methods certificate, signed-url; 2 rules in auth.rules_file; anonymous requests are "
                    "accepted as far as a rule allows."
                ),
            ),
            (
                {"methods": ["certificate"], "rules": [ALL], "allow_anonymous": False},
                "Access: methods certificate; 1 rule in auth.rules; anonymous requests are refused.",
            ),
            (
                {"rules": ["allow anyone read a"]},
                "Access: no method; 1 rule in auth.rules; anonymous requests are accepted as far as a rule allows.",
            ),
        ):
            self.assertEqual(line, self.logged(values))
