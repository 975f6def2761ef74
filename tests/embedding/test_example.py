"""The program of the documentation, as it stands there."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import CHECKOUT, PATIENCE, environment


class ExampleTests(SynchronousTestCase):
    def test_it_serves_a_page_and_a_stream_that_it_appends_to(self) -> None:
        program = subprocess.Popen(
            [sys.executable, str(CHECKOUT / "docs/examples/embedded.py"), "0"],
            env=environment(0),
            stdout=subprocess.PIPE,
            text=True,
        )
        self.addCleanup(program.wait)
        self.addCleanup(program.kill)
        assert program.stdout is not None
        self.addCleanup(program.stdout.close)
        site = program.stdout.readline().strip()
        with urllib.request.urlopen(site, timeout=PATIENCE) as page:
            self.assertIn(b"/streams/clock", page.read())
        deadline = time.monotonic() + PATIENCE
        clock = b""
        while b"tick 1\n" not in clock and time.monotonic() < deadline:
            with urllib.request.urlopen(f"{site}streams/clock?offset=-1", timeout=PATIENCE) as answer:
                clock = answer.read()
            time.sleep(0.1)
        self.assertTrue(clock.startswith(b"tick 0\ntick 1\n"), clock)
