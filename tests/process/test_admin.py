"""The pages for operators of a daemon: its file of tokens, and refusals to start."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import PATIENCE, TWISTD, Daemon, environment, free_port

OLD = "0123456789abcdef-old"
NEW = "0123456789abcdef-new"


class TokenFileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()
        self.write(OLD)

    def write(self, token: str) -> None:
        self.path.write_text(token + "\n")
        self.path.chmod(0o600)

    def status(self, daemon: Daemon, token: str | None) -> int:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        return daemon.request("GET", "/admin/streams", None, **headers)[0]

    def reloaded(self, daemon: Daemon, line: str) -> None:
        daemon.process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + PATIENCE
        while line not in daemon.log() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertIn(line, daemon.log())

    def test_tokens_are_required_reloaded_and_never_logged(self) -> None:
        with Daemon(
            admin__enabled="true",
            admin__token_file=str(self.path),
            observability__log_level="debug",
            observability__access_log="all",
        ) as daemon:
            self.assertEqual([self.status(daemon, token) for token in (None, NEW, OLD)], [401, 401, 200])
            self.write(NEW)
            self.reloaded(daemon, "Reloaded admin.token_file; number of tokens: 1.")
            self.assertEqual([self.status(daemon, token) for token in (NEW, OLD)], [200, 401])
            self.path.chmod(0o644)
            self.reloaded(daemon, f"its mode is 0644. Run: chmod 600 {self.path}")
            self.assertEqual(self.status(daemon, NEW), 200)
            daemon.stop()
            for token in (OLD, NEW):
                self.assertNotIn(token, daemon.log())

    def test_a_token_file_that_others_can_read_stops_the_start(self) -> None:
        self.path.chmod(0o640)
        message = self.refusal(admin__token_file=str(self.path))
        self.assertEqual(
            f"[validate_config] admin.token_file: Other users may use {self.path}: its mode is 0640. "
            f"Run: chmod 600 {self.path}\n",
            message,
        )

    def test_pages_that_other_machines_reach_without_tokens_stop_the_start(self) -> None:
        message = self.refusal(server__bind_address="0.0.0.0:0")
        self.assertTrue(message.startswith("[validate_config] admin.token_file must be the path of a file "), message)

    def refusal(self, **settings: str) -> str:
        ended = subprocess.run(
            TWISTD,
            env=environment(free_port(), admin__enabled="true", **settings),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual(ended.returncode, 1)
        return ended.stderr


class LocalTests(SynchronousTestCase):
    def test_without_tokens_the_pages_are_for_this_machine_and_no_proxy_on_it(self) -> None:
        with Daemon(admin__enabled="true") as daemon:
            self.assertEqual(daemon.request("GET", "/admin/streams")[0], 200)
            self.assertEqual(daemon.request("GET", "/admin/streams", x_forwarded_for="192.0.2.1")[0], 403)
            self.assertEqual(daemon.request("GET", "/admin/streams", host="streams.example")[0], 403)
            self.assertEqual(daemon.request("GET", "/healthz", host="streams.example")[0], 200)
