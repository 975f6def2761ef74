"""Runs the commands of the page about TLS in an empty directory."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import CHECKOUT, PATIENCE, free_port
from tests.support.programs import program

_SHIMS = {
    "twistd": "from twisted.scripts.twistd import run; run()",
    "durable-streams-server": "from durable_streams.server.cli import main; main()",
}


def blocks_of(page: str) -> list[str]:
    """Return the commands of a page: each block that follows a double colon."""
    found = re.findall(r"::\n\n((?:    .*\n|\n)+)", page)
    return [textwrap.dedent(block).strip() for block in found]


class PageTests(SynchronousTestCase):
    def setUp(self) -> None:
        program("curl")
        program("openssl")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        commands = self.folder / "bin"
        commands.mkdir()
        for name, source in _SHIMS.items():
            shim = commands / name
            shim.write_text(f"#!/bin/sh\nexec {sys.executable} -c '{source}' \"$@\"\n")
            shim.chmod(0o755)
        self.port = free_port()
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("DS_")} | {
            "PATH": f"{commands}:{os.environ['PATH']}",
            "PYTHONPATH": str(CHECKOUT),
            "DS_SERVER__BIND_ADDRESS": f"127.0.0.1:{self.port}",
        }
        page = (CHECKOUT / "docs" / "tls.rst").read_text().replace("localhost:4437", f"localhost:{self.port}")
        self.blocks = blocks_of(page)

    def run_block(self, block: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-euc", block],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def follow(self, block: str) -> str:
        ended = self.run_block(block)
        self.assertEqual(ended.returncode, 0, f"{block}\n{ended.stdout}{ended.stderr}")
        return ended.stdout

    def stop(self) -> None:
        pid_file = self.folder / "twistd.pid"
        if pid_file.exists():
            os.kill(int(pid_file.read_text()), signal.SIGTERM)
            deadline = time.monotonic() + PATIENCE
            while pid_file.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertFalse(pid_file.exists())

    def test_every_command_of_the_page_works_and_a_client_can_append_and_read(self) -> None:
        certificates, settings, checks, start, use, endpoints = (
            "\n".join(self.blocks[:3]),
            *self.blocks[3:],
        )
        self.follow(certificates)
        self.assertEqual((self.folder / "tls" / "key.pem").stat().st_mode & 0o077, 0)
        self.follow(settings)
        told = self.follow(checks)
        self.assertIn("client_ca_path", told)
        self.assertIn(f"https://127.0.0.1:{self.port} (mtls, HTTP/1.1 and HTTP/2)", told)
        self.addCleanup(self.stop)
        self.follow(start)
        self.wait_until_it_listens()
        self.assertTrue(self.follow(use).endswith("all is well"))
        stranger = self.run_block(f"curl -sS --cacert tls/ca.pem https://localhost:{self.port}/healthz")
        self.assertNotEqual(stranger.returncode, 0)
        self.assertNotIn("ok", stranger.stdout)
        log = (self.folder / "twistd.log").read_text()
        self.assertNotIn("Traceback", log)
        # The last block is one that stays in the foreground.
        self.assertIn("Would listen on", self.follow(f"{endpoints} --check"))

    def wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while f":{self.port} (mtls" not in (self.folder / "twistd.log").read_text():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
