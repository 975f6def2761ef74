"""Tests of invalid configurations: the daemon ends with one line on stderr and an exit status."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import PATIENCE, TWISTD, Daemon, environment, free_port


class ConfigurationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()

    def file(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def refusal(self, *arguments: str, **settings: object) -> str:
        """Start the daemon in an empty folder; return the error line with which it ends."""
        variables = environment(free_port(), **settings)
        with tempfile.TemporaryDirectory() as folder:
            ended = subprocess.run(
                [*TWISTD, "--config-dir", str(self.folder), *arguments],
                env=variables,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            self.assertEqual([], [path.name for path in Path(folder).iterdir()])
        output = ended.stdout + ended.stderr
        self.assertEqual(1, ended.returncode, output)
        self.assertNotIn("Traceback", output)
        [line] = [line for line in output.splitlines() if "[load_config]" in line or "[validate_config]" in line]
        self.assertEqual(line, output.splitlines()[-1])
        return line[line.index("[") :]

    def test_a_missing_configuration_file_is_refused(self) -> None:
        self.assertEqual(
            "[load_config] Cannot read the configuration file /no/such.toml: No such file or directory.",
            self.refusal("--config", "/no/such.toml"),
        )

    def test_a_missing_configuration_folder_is_refused(self) -> None:
        self.assertEqual(
            "[load_config] The folder /no/such (--config-dir) does not exist.",
            self.refusal("--config-dir", "/no/such"),
        )

    def test_an_unknown_profile_is_refused_with_the_known_ones(self) -> None:
        self.assertEqual(
            "[load_config] There is no profile staging. Choose one of default, dev, prod, prod-mtls, prod-tls, "
            f"or create {self.folder}/staging.toml.",
            self.refusal("--profile", "staging"),
        )

    def test_a_profile_name_with_a_path_is_refused(self) -> None:
        message = self.refusal("--profile", "../staging")
        self.assertIn("[load_config] The profile name '../staging' is invalid: ", message)

    def test_a_file_that_is_not_toml_is_refused(self) -> None:
        path = self.file("local.toml", "server = [")
        self.assertIn(f"[load_config] The configuration file {path} is not valid TOML: ", self.refusal())

    def test_an_unknown_setting_is_refused_with_a_suggestion(self) -> None:
        path = self.file("default.toml", "[limits]\nmax_stream_byte = 5")
        self.assertEqual(
            f"[load_config] limits.max_stream_byte, set by {path}, is not a setting. "
            "Did you mean limits.max_stream_bytes?",
            self.refusal(),
        )

    def test_a_value_of_the_wrong_type_is_refused(self) -> None:
        path = self.file("default.toml", "limits.max_streams = 'many'")
        self.assertEqual(
            "[load_config] limits.max_streams must be a whole number of 18 digits at the most; "
            f"{path} sets it to 'many'.",
            self.refusal(),
        )

    def test_an_unknown_word_is_refused_with_the_known_ones(self) -> None:
        self.assertEqual(
            "[load_config] storage.mode must be memory, file-durable, file-fast, acid or postgres; environment "
            "variable DS_STORAGE__MODE sets it to 'tape'.",
            self.refusal(storage__mode="tape"),
        )

    def test_an_invalid_value_of_a_deprecated_name_is_refused(self) -> None:
        path = self.file("given.toml", "server.port = 65536")
        self.assertEqual(
            f"[load_config] server.port must be a port, from 0 to 65535; {path} sets it to 65536.",
            self.refusal("--config", path),
        )

    def test_an_invalid_log_filter_is_refused(self) -> None:
        self.assertIn("[load_config] log.rust_log must be a level ", self.refusal(log__rust_log="loud"))

    def test_a_broken_rule_is_refused_with_the_setting_and_its_source(self) -> None:
        self.assertEqual(
            "[validate_config] limits.max_streams must be 1 or more; environment variable DS_LIMITS__MAX_STREAMS sets "
            "it to 0.",
            self.refusal(limits__max_streams=0),
        )

    def test_a_broken_rule_between_layers_names_both_sources(self) -> None:
        path = self.file("prod-tls.toml", "transport.tls.cert_path = '/cert.pem'")
        self.assertEqual(
            "[validate_config] transport.tls.cert_path must be left out, or transport.mode set to tls or mtls, while "
            f"transport.mode is 'http' by environment variable DS_TRANSPORT__MODE; {path} sets it to '/cert.pem'.",
            self.refusal("--profile", "prod-tls", transport__mode="HTTP", http__allow_wildcard_cors="true"),
        )

    def test_a_profile_without_a_required_setting_is_refused(self) -> None:
        self.assertEqual(
            "[validate_config] http.cors_origins must be a list of the origins whose pages may use the streams, or "
            "http.allow_wildcard_cors set to true, in the profile prod; the default sets it to ['*'].",
            self.refusal("--profile", "prod"),
        )

    def test_a_blank_endpoint_is_refused(self) -> None:
        self.assertEqual(
            "[validate_config] server.listen must be a list of endpoints such as tcp:4437; --listen sets it to ''.",
            self.refusal("--listen", " "),
        )


class CheckTests(SynchronousTestCase):
    def check(self, *arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as folder:
            ended = subprocess.run(
                [*TWISTD, "--config-dir", folder, "--check", *arguments],
                env=environment(0, **settings),
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            self.assertEqual([], [path.name for path in Path(folder).iterdir()])
        return ended

    def test_check_of_valid_settings_exits_with_status_0(self) -> None:
        ended = self.check(storage__mode="file-durable")
        self.assertEqual(
            (0, "Configuration OK. Would listen on http://127.0.0.1:0.\n"),
            (ended.returncode, ended.stdout),
        )
        self.assertRegex(ended.stderr, r"^Warning: http\.cors_origins is \*: .*\n$")

    def test_check_of_invalid_settings_exits_with_status_1(self) -> None:
        ended = self.check(limits__max_streams=0)
        self.assertEqual((1, ""), (ended.returncode, ended.stdout))
        self.assertRegex(ended.stderr, r"^\[validate_config\] limits\.max_streams must be 1 or more; .*\n$")


class RelativePathTests(SynchronousTestCase):
    def test_relative_paths_begin_in_the_directory_in_which_twistd_was_started(self) -> None:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            (folder / "run").mkdir()
            # From where a Daemon is started, beside it.
            beside = f"../{folder.name}"
            given = folder / "given.toml"
            text = f"[storage]\nmode = 'file-durable'\ndata_dir = '{beside}/data'\n"
            given.write_text(text)

            class Elsewhere(Daemon):
                command = (
                    *TWISTD[:-1],
                    f"--rundir={folder}/run",
                    *(TWISTD[-1], "--config", f"{beside}/given.toml", "--config-dir", beside),
                )

            with Elsewhere() as daemon:
                daemon.create("a")
                self.assertTrue((folder / "data" / "FORMAT").exists())
                given.write_text(f"{text}[observability]\nlog_level = 'debug'\n")
                daemon.process.send_signal(signal.SIGHUP)
                deadline = time.monotonic() + PATIENCE
                while "level is debug" not in daemon.log() and time.monotonic() < deadline:
                    time.sleep(0.05)
                self.assertIn("level is debug", daemon.log())
                self.assertNotIn("are not valid", daemon.log())
                self.assertEqual(daemon.stop(), 0)
            self.assertEqual(os.listdir(folder / "run"), [])


class WarningTests(SynchronousTestCase):
    def test_risky_settings_are_logged_as_warnings(self) -> None:
        tokens = Path(self.mktemp())
        tokens.write_text("0123456789abcdef\n")
        tokens.chmod(0o600)
        with Daemon(
            admin__enabled="true", admin__bind_address="0.0.0.0:0", admin__token_file=str(tokens.absolute())
        ) as daemon:
            daemon.stop()
            log = daemon.log()
        self.assertEqual(1, log.count("http.cors_origins is *: "), log)
        self.assertEqual(1, log.count("admin.token_file is set, and admin.bind_address is '0.0.0.0:0', without"), log)

    def test_a_confirmed_wildcard_origin_is_not_warned_about(self) -> None:
        with Daemon(http__allow_wildcard_cors="true") as daemon:
            daemon.stop()
            self.assertNotIn("#warn", daemon.log())
