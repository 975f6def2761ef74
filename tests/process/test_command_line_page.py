"""Runs the commands of the page about the command line, and compares what they print."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.cli.program import COMMANDS
from tests.support.commands import environment
from tests.support.daemon import CHECKOUT, free_port
from tests.support.programs import program

_PAGE: Final = (CHECKOUT / "docs" / "command-line.rst").read_text()

#: What differs in each run: times, sizes of archives, the version.
_DIFFERENT: Final = (
    (re.compile(r"20\d\d-\d\d-\d\d([ T])\d\d:\d\d:\d\d(?:\.\d+)?"), r"TIME\1"),
    (re.compile(r"\d+\.\d KB, verified"), "SIZE, verified"),
    (re.compile(r"by version [^,]+,"), "by version V,"),
)
_MARK: Final = "@@ "


def session() -> list[tuple[str, list[str]]]:
    """Return the commands of the page that have a prompt, each with the lines that it prints."""
    commands: list[tuple[str, list[str]]] = []
    for block in re.findall(r"::\n\n((?:    .*\n|\n)+)", _PAGE):
        if not block.startswith("    $ "):
            continue
        for line in block.rstrip("\n").split("\n"):
            text = line[4:]
            if text.startswith("$ "):
                commands.append((text[2:], []))
            else:
                commands[-1][1].append(text)
    return commands


def normal(line: str) -> str:
    """Return a line without what differs in each run."""
    for pattern, replacement in _DIFFERENT:
        line = pattern.sub(replacement, line)
    return line.rstrip()


class PageTests(SynchronousTestCase):
    def test_each_command_prints_what_the_page_says(self) -> None:
        program("curl")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        commands = session()
        self.assertGreater(len(commands), 12)
        shim = Path(folder.name, "durable-streams-server")
        shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m durable_streams.server "$@"\n')
        shim.chmod(0o755)
        script = "set -m\ntrap 'kill %1 2>/dev/null' EXIT\n" + "".join(
            f"printf '{_MARK}%s\\n' {number}\n{command}\n" for number, (command, _) in enumerate(commands)
        )
        ended = subprocess.run(
            ["bash", "-c", f"exec 2>&1\n{script}".replace(":4437", f":{free_port()}")],
            cwd=folder.name,
            env=environment() | {"PATH": f"{folder.name}:{os.environ['PATH']}"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
            check=False,
        )
        printed = re.split(rf"(?m)^{_MARK}\d+\n", ended.stdout)[1:]
        self.assertEqual(len(commands), len(printed), ended.stdout)
        for (command, expected), lines in zip(commands, printed, strict=True):
            if command.endswith("&") or command.startswith("kill"):
                continue
            self.assertEqual(
                [normal(line) for line in expected], [normal(line) for line in lines.rstrip("\n").splitlines()], command
            )

    def test_the_table_has_every_command(self) -> None:
        table = re.findall(r"(?m)^``([a-z-]+)`` +\S", _PAGE)
        named = [name for entries in COMMANDS.values() for name in entries]
        self.assertEqual([], [name for name in named if name not in table])
