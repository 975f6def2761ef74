"""Test cases that start daemons and commands as processes of their own, in a temporary folder."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from .daemon import PATIENCE, environment, free_port


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.02)


class ProcessTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def run_to_end(
        self, command: tuple[str, ...], port: int | None = None, **settings: object
    ) -> subprocess.CompletedProcess[str]:
        """Run a command that ends by itself, and return its exit status and output."""
        return subprocess.run(
            command,
            env=environment(free_port() if port is None else port, **settings),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
