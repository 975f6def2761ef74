"""A restore that is killed leaves whole streams, old or new, and a second one completes it."""

from __future__ import annotations

import json
import random
import shutil
import signal
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.process import restoring
from tests.process.restoring import FAMILIES, FEW, OTHERS
from tests.support.forks import ForkedProgram

#: The number of streams that clients find: half of the families have a source that is deleted.
_STREAMS = 3 * FAMILIES - FAMILIES // 2 + OTHERS

#: How often the restore is killed at least and at most: until more than one kill came between two streams.
_MIN_KILLS = 5
_MAX_KILLS = 30

#: How long a program may take, in seconds.
_PATIENCE = 60


class KilledRestoreTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="killed-restore-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.archive = self.folder / "archive.tar.zst"
        self.rng = random.Random(self.id())

    def run_program(self, what: str, mode: str, directory: str, *more: str) -> str:
        """Run the program to its end; return the last line that it prints."""
        status, lines = self.ended(what, mode, directory, *more)
        self.assertEqual(status, 0)
        return lines[-1].decode() if lines else ""

    def status_of(self, what: str, mode: str, directory: str, *more: str) -> int:
        """Run the program to its end; return its exit status."""
        return self.ended(what, mode, directory, *more)[0]

    def ended(self, what: str, mode: str, directory: str, *more: str) -> tuple[int, list[bytes]]:
        """Run the program to its end; return its exit status, and the lines that it prints."""
        with ForkedProgram(restoring.__name__, what, mode, self.folder / directory, *more) as program:
            return program.run(_PATIENCE)

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
        kills = mixed = 0
        for _ in range(_MAX_KILLS):
            if kills >= _MIN_KILLS and mixed > 1:
                break
            if policy == "skip":
                # A restore goes on where the last one was killed: then it would have less and less to do.
                shutil.rmtree(self.folder / "target", ignore_errors=True)
            passage = str(self.rng.randrange(1, writes))
            # How many writes there are depends on how many changes share one, so that a late kill may not come.
            status = self.status_of("restore", mode, "target", str(self.archive), policy, passage)
            self.assertIn(status, (0, -signal.SIGKILL))
            kills += status != 0
            found = self.contents(mode, "target")
            for name, digest in found.items():
                self.assertIn(digest, (new[name], old.get(name)), f"{name} is neither old nor new")
            self.assertLessEqual(old.keys(), found.keys())
            mixed += 0 < sum(digest == new[name] for name, digest in found.items()) < len(new)
        self.assertGreaterEqual(kills, _MIN_KILLS)
        self.assertGreater(mixed, 1)
        self.run_program("restore", mode, "target", str(self.archive), policy)
        self.assertEqual(self.contents(mode, "target"), new)

    def killed_before_a_deletion(self, mode: str) -> None:
        self.run_program("make", mode, "source", str(self.archive), "new")
        new = self.contents(mode, "source")
        status = self.status_of("restore", mode, "target", str(self.archive), "skip", "delete")
        self.assertIn(status, (0, -signal.SIGKILL))
        found = self.contents(mode, "target")
        self.assertEqual(found.keys() - new.keys(), set())
        self.run_program("restore", mode, "target", str(self.archive), "skip")
        self.assertEqual(self.contents(mode, "target"), new)

    def test_a_deleted_source_is_not_live_after_a_kill_in_file_durable(self) -> None:
        self.killed_before_a_deletion("file-durable")

    def test_a_deleted_source_is_not_live_after_a_kill_in_acid(self) -> None:
        self.killed_before_a_deletion("acid")

    def test_into_an_empty_file_durable(self) -> None:
        self.killed("file-durable", "skip")

    def test_replacing_all_of_file_durable(self) -> None:
        self.killed("file-durable", "replace")

    def test_into_an_empty_acid(self) -> None:
        self.killed("acid", "skip")

    def test_replacing_all_of_acid(self) -> None:
        self.killed("acid", "replace")
