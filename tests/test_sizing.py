"""docs/sizing.rst: the program prints what the page shows, and counts what the other pages say."""

from __future__ import annotations

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.config.settings import Settings
from tests.support.daemon import Daemon
from tests.support.shell import Shell, blocks_of

ROOT: Final = Path(__file__).resolve().parent.parent
PROGRAM: Final = ROOT / "docs" / "examples" / "sizing.py"


class SizingTests(SynchronousTestCase):
    def estimate(self, **needs: int) -> str:
        options = [word for name, value in needs.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        return subprocess.run(
            [sys.executable, str(PROGRAM), *options], capture_output=True, text=True, check=True
        ).stdout

    def test_the_program_prints_what_the_page_shows(self) -> None:
        command, *printed = blocks_of(ROOT / "docs" / "sizing.rst")[0].splitlines()
        program, path, *options = shlex.split(command.removeprefix("$ "))
        self.assertEqual("python3", program)
        done = subprocess.run([sys.executable, path, *options], cwd=ROOT, capture_output=True, text=True, check=True)
        self.assertEqual(printed, done.stdout.splitlines())

    def test_the_load_of_the_page_is_served_and_leaves_no_stream(self) -> None:
        with Daemon() as daemon:
            shell = Shell(
                Path(self.mktemp()).absolute(),
                {"127.0.0.1:4437": f"127.0.0.1:{daemon.port}", "--seconds 5": "--seconds 0.2"},
            )
            printed = shell.run(blocks_of(ROOT / "docs" / "sizing.rst")[1])
            self.assertIn("p99", printed)
            metrics = daemon.request("GET", "/metrics")[2].decode()
            self.assertIn("\ndurable_streams_storage_streams 0.0\n", metrics)

    def test_the_limits_are_settings(self) -> None:
        names = re.findall(r"(?m)^limits\.([a-z_]+) ", self.estimate(streams=1, appends=1, bytes=1, rate=1, readers=1))
        self.assertGreater(len(names), 4)
        for name in names:
            self.assertTrue(hasattr(Settings().limits, name), name)

    def test_it_counts_what_the_pages_about_storage_and_limits_say(self) -> None:
        constants = runpy.run_path(str(PROGRAM))
        storage = (ROOT / "docs" / "storage.rst").read_text()
        for name, sentence in (
            ("APPEND", f"{constants['APPEND']} bytes for each append"),
            ("JOURNAL", f"can reach {constants['JOURNAL'] >> 20}\n  MiB"),
            ("SMALL", f"up to {constants['SMALL'] >> 10} KiB"),
            ("CHECKPOINT", f"about {constants['CHECKPOINT'] // 2} bytes for each stream"),
        ):
            self.assertIn(sentence, storage, name)

    def test_too_many_appends_for_one_core_are_named(self) -> None:
        self.assertIn(": too much", self.estimate(streams=1, appends=1, bytes=1, rate=20_000, readers=1))
        self.assertNotIn(": too much", self.estimate(streams=1, appends=1, bytes=1, rate=2_000, readers=1))
