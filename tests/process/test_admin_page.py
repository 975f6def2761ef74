"""Runs the examples of the page about the pages for operators, in their order, on one daemon."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import CHECKOUT, PATIENCE, Daemon
from tests.support.programs import program

PAGE: Final = (CHECKOUT / "docs" / "admin.rst").read_text()

TOKEN: Final = "0123456789abcdef"

#: What differs from run to run, by the shape of its values.
_VARYING: Final = (
    (re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z"), "TIME"),
    (re.compile(r"[0-9]{16}_"), "INCARNATION_"),
)


def examples() -> list[tuple[str, str]]:
    """Return the commands of the page that use its variables, each with the output that is shown below it."""
    return re.findall(r"^    \$ ([^\n]*\$ADMIN.*)\n((?:    [^$\n].*\n)*)", PAGE, re.M)


def comparable(text: str) -> Any:
    """Return an output without what differs from run to run."""
    for pattern, word in _VARYING:
        text = pattern.sub(word, text)
    found = json.loads(text) if text.strip() else None
    for name in ("incarnation", "metadata_bytes"):
        if isinstance(found, dict) and name in found:
            found[name] = 0
    return found


class ExampleTests(SynchronousTestCase):
    def setUp(self) -> None:
        program("curl")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        tokens = self.folder / "tokens"
        tokens.write_text(TOKEN + "\n")
        tokens.chmod(0o600)
        daemon = Daemon(admin__enabled="true", admin__token_file=str(tokens))
        self.daemon = daemon.__enter__()
        self.addCleanup(daemon.close)

    def run_example(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-euc", command],
            cwd=self.folder,
            env=os.environ
            | {"ADMIN": f"http://127.0.0.1:{self.daemon.port}/admin", "AUTH": f"Authorization: Bearer {TOKEN}"},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        self.assertEqual(done.returncode, 0, f"{command}\n{done.stdout}{done.stderr}")
        return done.stdout

    def test_each_example_gives_the_output_that_is_shown(self) -> None:
        self.daemon.create("chat/1", body=b"hello")
        self.daemon.create("chat/2")
        self.daemon.request("DELETE", "/v1/stream/chat/2")
        headers = {"content_type": "application/json", "stream_ttl": "3600"}
        self.daemon.request("PUT", "/v1/stream/jobs", None, **headers)
        writer = {"producer_id": "worker-1", "producer_epoch": "0", "producer_seq": "0", "stream_closed": "true"}
        status, _, _ = self.daemon.request("POST", "/v1/stream/jobs", b'{"number": 1}', **headers, **writer)
        self.assertEqual(status, 200)
        found = examples()
        self.assertGreater(len(found), 5)
        for command, shown in found:
            if "-i" in command.split():
                self.daemon.create("chat/2")
                output = self.run_example(command)
                self.assertIn(shown.strip(), output)
                self.daemon.request("DELETE", "/v1/stream/chat/2")
            else:
                self.assertEqual(comparable(self.run_example(command)), comparable(shown), command)
