"""The commands of a page of the documentation, run in a folder of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from .daemon import CHECKOUT, PATIENCE
from .process_case import wait_for

#: The server's commands, as the environment of the tests has them, for a ``PATH``.
_COMMANDS: Final = {
    "twistd": "from twisted.scripts.twistd import run; run()",
    "durable-streams-server": "from durable_streams.server.cli import main; main()",
}


def blocks_of(page: Path) -> list[str]:
    """Return the blocks of a page: those that follow a double colon."""
    found = re.findall(r"::\n\n((?:    .*\n|\n)+)", page.read_text())
    return [textwrap.dedent(block).strip() for block in found]


class Shell:
    """
    Runs blocks of commands in a folder; ``twistd`` and ``durable-streams-server`` are those of the checkout.

    :param folder: where the commands run.
    :param changes: replaced texts of each block: ports, and paths of the system.
    :param variables: the environment, besides that of the tests.
    """

    def __init__(
        self, folder: Path, changes: Mapping[str, str] | None = None, variables: Mapping[str, str] | None = None
    ) -> None:
        self.folder = folder
        self._changes = changes or {}
        commands = folder / "bin"
        commands.mkdir(parents=True)
        for name, source in _COMMANDS.items():
            self.add_command(name, f"#!/bin/sh\nexec {sys.executable} -c '{source}' \"$@\"\n")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("DS_")}
        self.environment |= {"PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": str(CHECKOUT)}
        self.environment |= variables or {}
        self._background: list[subprocess.Popen[bytes]] = []

    def add_command(self, name: str, text: str) -> None:
        """Put a script into the ``PATH``."""
        path = self.folder / "bin" / name
        path.write_text(text)
        path.chmod(0o755)

    def changed(self, block: str) -> str:
        """Return a block with the replaced texts."""
        for old, new in self._changes.items():
            block = block.replace(old, new)
        return block

    def attempt(self, block: str) -> subprocess.CompletedProcess[str]:
        """Run a block to its end."""
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self.changed(block)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def run(self, block: str) -> str:
        """Run a block to its end, which must be a success, and return its output."""
        ended = self.attempt(block)
        if ended.returncode:
            raise AssertionError(f"status {ended.returncode}: {block}\n{ended.stdout}{ended.stderr}")
        return ended.stdout

    def start(self, block: str) -> None:
        """Start a block whose last command stays in the foreground."""
        with (self.folder / "output").open("ab") as output:
            self._background.append(
                subprocess.Popen(
                    ["bash", "-euc", self.changed(block)],
                    cwd=self.folder,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            )

    def stop(self) -> None:
        """Stop what ``start`` has started."""
        for process in self._background:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
            process.wait(2 * PATIENCE)
        self._background.clear()

    def stop_daemon(self) -> None:
        """Stop the daemon that a block has started in the folder, if it runs."""
        pid_file = self.folder / "twistd.pid"
        if pid_file.exists():
            os.kill(int(pid_file.read_text()), signal.SIGTERM)
            wait_for(lambda: not pid_file.exists(), "the end of the daemon")

    def output(self) -> str:
        """Return what the blocks in the background have printed."""
        return (self.folder / "output").read_text(errors="replace")
