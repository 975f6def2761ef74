"""Runs the commands of the page about TLS in an empty directory."""

from __future__ import annotations

import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import CHECKOUT, PATIENCE, free_port
from tests.support.programs import program
from tests.support.shell import Shell, blocks_of


class PageCase(SynchronousTestCase):
    """A folder in which the commands of the page run."""

    def setUp(self) -> None:
        program("curl")
        program("openssl")
        self.folder = Path(self.mktemp()).absolute()
        self.port = free_port()
        self.shell = Shell(
            self.folder,
            {"localhost:4437": f"localhost:{self.port}"},
            {"DS_SERVER__BIND_ADDRESS": f"127.0.0.1:{self.port}"},
        )
        self.blocks = blocks_of(CHECKOUT / "docs" / "tls.rst")

    def wait_until_it_listens(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while f":{self.port} (mtls" not in (self.folder / "twistd.log").read_text():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)


class PageTests(PageCase):
    def test_every_command_of_the_page_works_and_a_client_can_append_and_read(self) -> None:
        certificates, settings, checks, start, use, endpoints = (
            "\n".join(self.blocks[:3]),
            *self.blocks[3:],
        )
        self.shell.run(certificates)
        self.assertEqual((self.folder / "tls" / "key.pem").stat().st_mode & 0o077, 0)
        self.shell.run(settings)
        told = self.shell.run(checks)
        self.assertIn("client_ca_path", told)
        self.assertIn(f"https://127.0.0.1:{self.port} (mtls, HTTP/1.1 and HTTP/2)", told)
        self.addCleanup(self.shell.stop_daemon)
        self.shell.run(start)
        self.wait_until_it_listens()
        self.assertTrue(self.shell.run(use).endswith("all is well"))
        stranger = self.shell.attempt(f"curl -sS --cacert tls/ca.pem https://localhost:{self.port}/healthz")
        self.assertNotEqual(stranger.returncode, 0)
        self.assertNotIn("ok", stranger.stdout)
        log = (self.folder / "twistd.log").read_text()
        self.assertNotIn("Traceback", log)
        # The last block is one that stays in the foreground.
        self.assertIn("Would listen on", self.shell.run(f"{endpoints} --check"))
