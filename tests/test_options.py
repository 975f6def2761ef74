"""The command line of ``twistd durable-streams``."""

from __future__ import annotations

import os
import sys
from io import StringIO
from pathlib import Path

from twisted.internet.testing import EventLoggingObserver
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

from durable_streams.server.daemon.process import StartupExit
from durable_streams.server.tap import Options


class OptionsTests(TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.patch(os, "environ", {"DS_HTTP__ALLOW_WILDCARD_CORS": "true"})

    def parsed(self, *arguments: str) -> Options:
        options = Options()
        options.parseOptions(["--config-dir", str(self.folder), *arguments])
        return options

    def refused(self, *arguments: str) -> str:
        error: StartupExit = self.assertRaises(StartupExit, self.parsed, *arguments)
        self.assertEqual(1, error.code)
        return str(error)

    def test_options_load_settings_from_all_layers(self) -> None:
        (self.folder / "default.toml").write_text("limits.max_streams = 5")
        given = self.folder / "given"
        given.write_text("limits.max_connections = 6")
        os.environ["DS_LIMITS__MAX_TARGET_BYTES"] = "7"
        settings = self.parsed("--profile", "dev", "--config", str(given))["settings"]
        limits = settings.limits
        self.assertEqual((5, 6, 7), (limits.max_streams, limits.max_connections, limits.max_target_bytes))
        self.assertEqual("127.0.0.1:4437", settings.server.bind_address)

    def test_listen_options_override_all_settings(self) -> None:
        os.environ["DS_SERVER__LISTEN"] = "tcp:1"
        self.assertEqual(("tcp:1",), self.parsed()["settings"].server.listen)
        options = self.parsed("--listen", "tcp:2:interface=127.0.0.1", "--listen=unix:/run/x")
        self.assertEqual(("tcp:2:interface=127.0.0.1", "unix:/run/x"), options["settings"].server.listen)
        self.assertEqual(("tcp:1",), self.parsed()["settings"].server.listen)

    def test_the_check_option_warns_of_doubtful_rules(self) -> None:
        os.environ["DS_AUTH__RULES"] = "allow subject:alice,bob read **"
        out, err = StringIO(), StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", err)
        ended: SystemExit = self.assertRaises(SystemExit, self.parsed, "--check")
        self.assertEqual(0, ended.code)
        self.assertIn("Warning: auth.rules 1 is about one subject whose value is alice,bob", err.getvalue())

    def test_the_check_option_exits_after_the_check(self) -> None:
        del os.environ["DS_HTTP__ALLOW_WILDCARD_CORS"]
        out, err = StringIO(), StringIO()
        self.patch(sys, "stdout", out)
        self.patch(sys, "stderr", err)
        ended: SystemExit = self.assertRaises(SystemExit, self.parsed, "--check", "--listen", "tcp:4439")
        self.assertEqual(0, ended.code)
        self.assertEqual("Configuration OK. Would listen on tcp:4439.\n", out.getvalue())
        self.assertIn("Warning: http.cors_origins is *", err.getvalue())

    def test_an_invalid_configuration_is_reported_with_its_phase(self) -> None:
        self.assertEqual(
            "[load_config] There is no profile nobody. Choose one of default, dev, prod, prod-mtls, prod-tls, "
            f"or create {self.folder}/nobody.toml.",
            self.refused("--profile", "nobody"),
        )
        self.assertEqual(
            "[validate_config] server.listen must be a list of endpoints such as tcp:4437; --listen sets it to ''.",
            self.refused("--listen", ""),
        )

    def test_warnings_are_logged(self) -> None:
        del os.environ["DS_HTTP__ALLOW_WILDCARD_CORS"]
        os.environ["DS_AUTH__ALLOW_ANONYMOUS"] = "true"
        logged = EventLoggingObserver.createWithCleanup(self, globalLogPublisher)
        self.parsed()
        [warning] = [formatEvent(event) for event in logged if event["log_level"] is LogLevel.warn]
        self.assertIn("http.cors_origins is *", warning)
