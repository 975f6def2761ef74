"""A restore that is killed leaves whole streams, old or new, and a second one completes it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.process.restoring import FAMILIES, FEW, OTHERS

ROOT = Path(__file__).resolve().parent.parent.parent

#: The number of streams that clients find: half of the families have a source that is deleted.
_STREAMS = 3 * FAMILIES - FAMILIES // 2 + OTHERS

#: How often the restore is killed, and how long a program may take, in seconds.
_KILLS = 5
_PATIENCE = 60


class KilledRestoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="killed-restore-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.archive = self.folder / "archive.tar.zst"
        self.rng = random.Random(self.id())

    def run_program(self, what: str, mode: str, directory: str, *more: str, status: int = 0) -> str:
        """Run the program to its end; return the last line that it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.process.restoring", what, mode, str(self.folder / directory), *more],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stdout.splitlines()[-1] if done.stdout else ""

    def contents(self, mode: str, directory: str) -> dict[str, str]:
        found: dict[str, str] = json.loads(self.run_program("contents", mode, directory))
        return found

    def killed(self, mode: str, policy: str) -> None:
        self.run_program("make", mode, "source", str(self.archive), "new")
        new = self.contents(mode, "source")
        self.assertEqual(len(new), _STREAMS)
        old: dict[str, str] = {}
        if policy == "replace":
            self.run_program("make", mode, "old", "", "old")
            old = self.contents(mode, "old")
            self.assertEqual(old.keys(), new.keys())
            shutil.copytree(self.folder / "old", self.folder / "target")
            shutil.copytree(self.folder / "old", self.folder / "whole")
        writes = int(self.run_program("restore", mode, "whole", str(self.archive), policy).split()[0])
        self.assertGreater(writes, FEW * _STREAMS)
        self.assertEqual(self.contents(mode, "whole"), new)
        mixed = 0
        for _ in range(_KILLS):
            # With the policy skip, each restore goes on where the last one was killed, so that it has less to do. The
            # first installation comes when many streams are staged.
            first, last = (writes // 4, writes // 3) if policy == "skip" else (1, writes)
            passage = str(self.rng.randrange(first, last))
            self.run_program("restore", mode, "target", str(self.archive), policy, passage, status=-signal.SIGKILL)
            found = self.contents(mode, "target")
            for name, digest in found.items():
                self.assertIn(digest, (new[name], old.get(name)), f"{name} is neither old nor new")
            self.assertLessEqual(old.keys(), found.keys())
            mixed += 0 < sum(digest == new[name] for name, digest in found.items()) < len(new)
        self.assertGreater(mixed, 1)
        self.run_program("restore", mode, "target", str(self.archive), policy)
        self.assertEqual(self.contents(mode, "target"), new)

    def test_into_an_empty_file_durable(self) -> None:
        self.killed("file-durable", "skip")

    def test_replacing_all_of_file_durable(self) -> None:
        self.killed("file-durable", "replace")

    def test_into_an_empty_acid(self) -> None:
        self.killed("acid", "skip")

    def test_replacing_all_of_acid(self) -> None:
        self.killed("acid", "replace")
