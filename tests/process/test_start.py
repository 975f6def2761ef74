"""Tests of starting the daemon, and of refused starts."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import PATIENCE, TWISTD, Daemon, environment, free_port


class TwistDaemon(Daemon):
    """The daemon as ``twist`` runs it."""

    command = (
        *(sys.executable, "-c", "from twisted.application.twist._twist import Twist; Twist.main()"),
        "durable-streams",
    )


class TwistTests(SynchronousTestCase):
    def test_twist_serves_and_ends_with_status_0(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            with TwistDaemon() as daemon:
                daemon.create("first", body=b"hello")
                self.assertEqual(daemon.request("GET", "/v1/stream/first")[2], b"hello")
                self.assertEqual(daemon.stop(number), 0)
                self.assertNotIn("Traceback", daemon.log())

    def test_twist_ends_with_status_1_and_a_line_when_the_settings_are_wrong(self) -> None:
        result = subprocess.run(
            TwistDaemon.command,
            env=environment(1, storage__mode="tape"),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual(result.returncode, 1)
        self.assertTrue(result.stderr.startswith("[load_config] storage.mode must be"), result.stderr)
        self.assertEqual(result.stderr.count("\n"), 1)


class StartTests(SynchronousTestCase):
    def test_a_started_daemon_serves_streams(self) -> None:
        with Daemon() as daemon:
            self.assertEqual(daemon.request("GET", "/healthz")[2], b"ok")
            daemon.create("first", body=b"hello")
            status, headers, body = daemon.request("GET", "/v1/stream/first")
            self.assertEqual((status, body, headers["stream-up-to-date"]), (200, b"hello", "true"))
            self.assertEqual(daemon.request("GET", "/elsewhere")[0], 404)
            self.assertEqual(daemon.request("POST", "/healthz", b"")[0], 405)
            ready = f" is ready (process {daemon.process.pid}). Streams: /v1/stream/NAME. Storage: memory.\n"
            self.assertIn(f"durable-streams-server {version('durable-streams-server')}{ready}", daemon.log())
            self.assertNotIn("Traceback", daemon.log())

    def test_the_base_path_is_a_setting(self) -> None:
        with Daemon(http__stream_base_path="/s") as daemon:
            self.assertEqual(daemon.request("PUT", "/s/a")[0], 201)
            self.assertEqual(daemon.request("PUT", "/v1/stream/a")[0], 404)

    def test_base_path_root_leaves_the_probes_reachable(self) -> None:
        with Daemon(http__stream_base_path="/") as daemon:
            self.assertEqual(daemon.request("PUT", "/a/b")[0], 201)
            self.assertEqual(daemon.request("GET", "/healthz?x=y")[2], b"ok")

    def test_environment_variables_of_other_programs_are_ignored(self) -> None:
        with Daemon(port_4437_tcp="tcp://10.0.0.1:4437", service_host="10.0.0.1") as daemon:
            self.assertEqual(daemon.request("GET", "/healthz")[0], 200)

    def test_a_killed_daemon_can_be_started_again_at_once(self) -> None:
        with Daemon() as daemon:
            daemon.create("gone")
            following = daemon.get("/v1/stream/gone?offset=-1&live=sse")
            self.addCleanup(following.close)
            self.assertEqual(daemon.stop(signal.SIGKILL), -signal.SIGKILL)
            with Daemon(daemon.port) as again:
                self.assertEqual(again.request("GET", "/v1/stream/gone")[0], 404)

    def test_each_request_can_be_logged_without_its_body_or_secrets(self) -> None:
        with Daemon(observability__access_log="all") as daemon:
            daemon.create("logged")
            daemon.request("POST", "/v1/stream/logged?token=hush", b"a secret", content_type="text/plain")
            daemon.request("GET", "/v1/stream/logged", authorization="Bearer hush")
            daemon.stop()
            log = daemon.log()
        for line in ("PUT /v1/stream/logged 201", "POST /v1/stream/logged 204", "GET /v1/stream/logged 200"):
            self.assertEqual(log.count(line), 1, log)
        self.assertNotIn("secret", log)
        self.assertNotIn("hush", log)

    def test_successful_requests_are_not_logged_by_default(self) -> None:
        with Daemon() as daemon:
            daemon.create("unlogged")
            daemon.stop()
            self.assertNotIn("unlogged", daemon.log())


class RefusalTests(SynchronousTestCase):
    """A mistake of the user is one line on stderr and a non-zero exit status; no file is left behind."""

    def refusal(self, *arguments: str, port: int | None = None, **settings: object) -> str:
        with tempfile.TemporaryDirectory() as folder:
            ended = subprocess.run(
                [*TWISTD, *arguments],
                env=environment(free_port() if port is None else port, **settings),
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            self.assertEqual([path.name for path in Path(folder).iterdir()], [])
        self.assertNotEqual(ended.returncode, 0)
        output = ended.stdout + ended.stderr
        self.assertNotIn("Traceback", output)
        return output

    def test_a_port_in_use_is_an_error_that_names_the_setting(self) -> None:
        with Daemon() as daemon:
            output = self.refusal(port=daemon.port)
            self.assertIn("[bind_listener]", output)
            self.assertIn(f"Cannot listen on 127.0.0.1:{daemon.port} (server.bind_address)", output)
            self.assertEqual(daemon.request("GET", "/healthz")[0], 200)

    def test_an_unknown_setting_is_refused_with_a_suggestion(self) -> None:
        output = self.refusal(limits__max_stream_byte=1)
        self.assertIn("limits.max_stream_byte", output)
        self.assertIn("DS_LIMITS__MAX_STREAM_BYTE", output)
        self.assertIn("limits.max_stream_bytes?", output)

    def test_an_unknown_storage_mode_is_refused(self) -> None:
        output = self.refusal(storage__mode="tape")
        self.assertIn("storage.mode must be memory", output)
        self.assertIn("'tape'", output)

    def test_an_unknown_profile_is_refused(self) -> None:
        self.assertIn("There is no profile staging", self.refusal("--profile", "staging"))

    def test_a_missing_configuration_file_is_refused(self) -> None:
        output = self.refusal("--config", "/no/such/file.toml")
        self.assertIn("Cannot read the configuration file /no/such/file.toml", output)
