"""The command ``config``."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import Result
from twisted.trial.unittest import SynchronousTestCase

from tests.support.commands import command


class ConfigTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def config(self, *arguments: object, **settings: str) -> Result:
        return command("config", "--config-dir", self.folder, *arguments, **settings)

    def test_config_prints_a_configuration_file(self) -> None:
        (self.folder / "default.toml").write_text("limits.max_streams = 5")
        given = self.folder / "given.toml"
        given.write_text("storage.mode = 'acid'")
        known = {"http__cors_origins": "https://a.example", "http__public_url": "https://streams.example"}
        known["auth__allow_anonymous"] = "true"
        result = self.config("--profile", "prod", "--config", given, **known)
        self.assertEqual((0, ""), (result.exit_code, result.stderr), result.output)
        for line in (
            f"limits.max_streams = 5  # {self.folder}/default.toml",
            f'storage.mode = "acid"  # {given}',
            'storage.data_dir = "/var/lib/durable-streams"  # profile prod',
            'http.cors_origins = ["https://a.example"]  # environment variable DS_HTTP__CORS_ORIGINS',
        ):
            self.assertIn(line, result.stdout.splitlines())
        given.write_text(result.stdout)
        again = command("config", "--json", "--config", given)
        self.assertEqual(0, again.exit_code, again.output)
        settings = json.loads(again.stdout)["settings"]
        self.assertEqual({"value": 5, "source": str(given)}, settings["limits.max_streams"])

    def test_config_prints_warnings_on_stderr(self) -> None:
        for arguments in ((), ("--json",)):
            result = self.config(*arguments, auth__allow_anonymous="true")
            self.assertEqual(0, result.exit_code, result.output)
            self.assertRegex(result.stderr, r"^Warning: http\.cors_origins is \*: .*\n$")
            self.assertNotIn("Warning: ", result.stdout)
        self.assertEqual(1, len(json.loads(self.config("--json", auth__allow_anonymous="true").stdout)["warnings"]))

    def test_config_prints_no_secrets(self) -> None:
        for arguments in ((), ("--json",)):
            result = self.config(*arguments, server__listen="tls:443:privateKey=hush, x:password=hush")
            self.assertEqual(0, result.exit_code, result.output)
            self.assertNotIn("hush", result.output)
            self.assertIn("tls:443:privateKey=***", result.stdout)

    def test_config_prints_the_error_and_its_phase_for_invalid_settings(self) -> None:
        for result, line in (
            (
                self.config(limits__max_streams="0"),
                (
                    "[validate_config] limits.max_streams must be 1 or more; environment variable "
                    "DS_LIMITS__MAX_STREAMS sets it to 0.\n"
                ),
            ),
            (
                self.config("--config", "/nowhere"),
                "[load_config] Cannot read the configuration file /nowhere: No such file or directory.\n",
            ),
        ):
            self.assertEqual((1, "", line), (result.exit_code, result.stdout, result.stderr))
