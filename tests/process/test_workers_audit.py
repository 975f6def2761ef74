"""Several workers with one audit log: its lines are whole, and SIGHUP reaches all of them."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any, Final

from tests.support.process_case import ProcessTestCase, wait_for

from .test_workers import SharingDaemon

WORKERS: Final = 3
REQUESTS: Final = 60


class WorkerAuditTests(ProcessTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = self.folder / "audit.jsonl"

    def serve(self, **settings: object) -> SharingDaemon:
        daemon = SharingDaemon(
            WORKERS,
            auth__rules="allow anyone create,append,read **",
            audit__file=self.path,
            audit__events="all",
            **settings,
        )
        self.addCleanup(daemon.close)
        daemon.__enter__()
        wait_for(lambda: f"All {WORKERS} workers serve." in daemon.log(), "the last worker")
        return daemon

    def lines(self, path: Path) -> list[dict[str, Any]]:
        return [json.loads(line) for line in path.read_text().splitlines()]

    def count(self, path: Path, event: str) -> int:
        return sum(line["event"] == event for line in self.lines(path))

    def ask(self, daemon: SharingDaemon) -> None:
        """Send requests on many new connections, so that each worker gets some."""
        for _ in range(REQUESTS):
            daemon.request("GET", "/v1/stream/a")

    def test_all_workers_write_whole_lines_into_one_file_and_reopen_it(self) -> None:
        daemon = self.serve()
        self.assertEqual(WORKERS, len({line["process"] for line in self.lines(self.path)}))
        self.ask(daemon)
        wait_for(lambda: self.count(self.path, "request") == REQUESTS, "the lines")
        rotated = self.path.rename(self.path.with_suffix(".1"))
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "Reloaded certificates" in daemon.log(), "the reload")
        self.ask(daemon)
        wait_for(lambda: self.path.exists() and self.count(self.path, "request") == REQUESTS, "the lines")
        self.assertEqual(REQUESTS, self.count(rotated, "request"))
        self.assertEqual(0, daemon.stop(), daemon.log())
        self.assertEqual(WORKERS, self.count(self.path, "closed"))

    def test_the_file_is_reopened_though_another_file_cannot_be_used(self) -> None:
        tokens = self.folder / "admin"
        tokens.touch(0o600)
        tokens.write_text("0123456789abcdef\n")
        daemon = self.serve(admin__enabled="true", admin__token_file=tokens)
        tokens.chmod(0o644)
        rotated = self.path.rename(self.path.with_suffix(".1"))
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "chmod 600" in daemon.log(), "the refusal")
        wait_for(self.path.exists, "the new file")
        self.assertEqual(0, daemon.stop(), daemon.log())
        self.assertEqual((0, WORKERS), (self.count(rotated, "closed"), self.count(self.path, "closed")))
