"""The first session of the README, followed to the letter."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import CHECKOUT, PATIENCE, Daemon, free_port
from tests.support.programs import program
from tests.support.shell import Shell, blocks_of

#: The creation time of a stream, which is the first half of its offsets, and the cursor of its tails.
_INCARNATION = "1795472569642189"
_CURSOR = "3352028"


def commands_of(section: str) -> list[tuple[str, list[str]]]:
    """Return the commands of a section, each with what it prints by the page, without a file before them."""
    text = (CHECKOUT / "README.rst").read_text().partition(f"{section}\n")[2].partition("\n\n\n")[0]
    commands: list[tuple[str, list[str]]] = []
    for line in re.findall(r"(?m)^    (.*)$", text):
        if line.startswith("$ "):
            commands.append((line[2:], []))
        elif commands:
            commands[-1][1].append(line)
    return commands


class SessionTests(SynchronousTestCase):
    def test_each_command_prints_what_the_page_says(self) -> None:
        program("curl")
        commands = commands_of("A first session")
        self.assertGreater(len(commands), 7)
        incarnation = _INCARNATION
        with Daemon() as daemon:
            for command, expected in commands:
                local = command.replace("localhost:4437", f"127.0.0.1:{daemon.port}").replace(_INCARNATION, incarnation)
                # A tail is left after a second.
                ended = subprocess.run(
                    ["bash", "-c", local.replace("curl -N", "curl -sN -m 1").replace("curl ", "curl -sS ", 1)],
                    capture_output=True,
                    text=True,
                    timeout=30,
                    check=False,
                )
                if found := re.search(r"(?m)^Stream-Next-Offset: (\d{16})_", ended.stdout):
                    incarnation = found[1]
                printed = ended.stdout.replace(incarnation, _INCARNATION).replace(
                    f"127.0.0.1:{daemon.port}", "localhost:4437"
                )
                printed = re.sub(r'"streamCursor":"\d+"', f'"streamCursor":"{_CURSOR}"', printed)
                self.assertNotIn('"status":4', printed, command)
                if "-i" in command:
                    for line in expected:
                        self.assertIn(line, printed.splitlines(), command)
                else:
                    self.assertEqual([line for line in printed.splitlines() if line], expected, command)

    def test_the_commands_for_streams_print_what_the_page_says(self) -> None:
        commands = commands_of("The same from the command line")
        self.assertGreater(len(commands), 3)
        with tempfile.TemporaryDirectory() as folder, Daemon() as daemon:
            shim = Path(folder, ".venv", "bin", "durable-streams-server")
            shim.parent.mkdir(parents=True)
            shim.write_text(f'#!/bin/sh\nexec {sys.executable} -m durable_streams.server "$@"\n')
            shim.chmod(0o755)
            script = "\n".join(["exec 2>&1", *(command for command, _ in commands)])
            ended = subprocess.run(
                ["bash", "-c", script.replace("localhost:4437", f"127.0.0.1:{daemon.port}")],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(CHECKOUT)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                text=True,
                timeout=60,
                check=False,
            )
        printed = ended.stdout.replace(f"127.0.0.1:{daemon.port}", "localhost:4437")
        printed = re.sub(r"\d{16}_", f"{_INCARNATION}_", printed)
        self.assertEqual([line for _, lines in commands for line in lines], printed.splitlines())

    def test_rules_and_a_token_decide_as_the_page_says(self) -> None:
        (settings,) = (block for block in blocks_of(CHECKOUT / "README.rst") if block.startswith("[auth]"))
        commands = commands_of("Decide who may do what")
        start = next(command for command, _ in commands if "twistd" in command)
        port = free_port()
        with tempfile.TemporaryDirectory() as folder:
            shell = Shell(
                Path(folder, "page"),
                {"localhost:4437": f"127.0.0.1:{port}", ".venv/bin/": ""},
                {"DS_SERVER__BIND_ADDRESS": f"127.0.0.1:{port}", "DS_URL": f"http://127.0.0.1:{port}"},
            )
            self.addCleanup(shell.stop)
            (shell.folder / "access.toml").write_text(settings)
            for command, expected in commands:
                if command == start:
                    shell.start(f"exec {command}")
                    self._wait_for_401(f"http://127.0.0.1:{port}/v1/stream/x")
                    continue
                ended = shell.attempt(f"umask 077; {command} 2>&1" if expected else f"umask 077; {command}")
                printed = ended.stdout.replace(f"127.0.0.1:{port}", "localhost:4437")
                self.assertEqual(expected, re.sub(r"\d{16}_", f"{_INCARNATION}_", printed).splitlines(), command)
                self.assertEqual(1 if "Error" in printed else 0, ended.returncode, command)
            shell.stop()

    def _wait_for_401(self, url: str) -> None:
        """Wait until the server answers, and check that it refuses a request without a token."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                urllib.request.urlopen(url, timeout=PATIENCE)
            except urllib.error.HTTPError as answer:
                self.assertEqual(401, answer.code)
                return
            except OSError:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.05)
