"""Runs the commands of the page about the commands for streams, in their order, on one server."""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.support.commands import COMMAND, environment
from tests.support.daemon import CHECKOUT, Daemon

PAGE: Final = (CHECKOUT / "docs" / "stream-commands.rst").read_text()


def examples() -> list[tuple[str, str]]:
    """Return the commands of the page, each with the output that is shown below it."""
    found = re.findall(r"^    \$ ([^\n]*)\n((?:    [^$\n].*\n)*)", PAGE, re.M)
    return [(command, re.sub(r"^    ", "", output, flags=re.M)) for command, output in found]


def comparable(text: str) -> str:
    """Return an output without the incarnations of streams."""
    return re.sub(r"[0-9]{16}_", "INCARNATION_", text)


class ExampleTests(SynchronousTestCase):
    def test_each_command_prints_what_the_page_shows(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.assertGreater(len(examples()), 15)
        with Daemon() as daemon:
            for command, output in examples():
                if command.startswith("export "):
                    continue
                done = subprocess.run(
                    ["bash", "-euc", f'durable-streams-server() {{ {shlex.join(COMMAND)} "$@"; }}; {command}'],
                    cwd=Path(folder.name),
                    env=environment(url=f"http://127.0.0.1:{daemon.port}"),
                    capture_output=True,
                    text=True,
                    timeout=60,
                    check=False,
                )
                self.assertEqual((0, ""), (done.returncode, done.stderr), command)
                shown = output.replace("127.0.0.1:4437", f"127.0.0.1:{daemon.port}")
                self.assertEqual(comparable(shown), comparable(done.stdout), command)
