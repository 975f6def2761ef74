"""The ways to make a backup that ``docs/storage.rst`` describes: each copy has all that was acknowledged before it."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Final

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from durable_streams.server.storage.acid.checking import check_acid
from durable_streams.server.storage.file import FileSettings
from durable_streams.server.storage.findings import Finding
from tests.support.daemon import CHECKOUT, Daemon

from .directories import append, contents, create, opened
from .test_checking import checked

STREAMS: Final = 4


def documented(first: str) -> str:
    """Find the commands in the page for operators that begin so."""
    page = (CHECKOUT / "docs" / "storage.rst").read_text()
    found = re.search(rf"^( +){re.escape(first)}.*(?:\n\1.*)*", page, re.MULTILINE)
    assert found is not None, first
    return found[0]


class Writing:
    """A client that appends numbers, one after the other, to some streams in turn, as fast as it is answered."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self.acknowledged = -1
        self._ended = False
        for number in range(STREAMS):
            daemon.create(f"s{number}")
        self._thread = threading.Thread(target=self._write)
        self._thread.start()

    def _write(self) -> None:
        number = 0
        while not self._ended:
            self._daemon.append(f"s{number % STREAMS}", b"%d," % number)
            self.acknowledged = number
            number += 1

    def wait_for(self, number: int) -> None:
        """Wait until so much is acknowledged."""
        deadline = time.monotonic() + 60
        while self.acknowledged < number:
            assert time.monotonic() < deadline
            assert self._thread.is_alive()
            time.sleep(0.005)

    def end(self) -> None:
        self._ended = True
        self._thread.join()


def numbers(streams: dict[str, bytes]) -> list[int]:
    """Parse the data that such a client has written."""
    return sorted(int(number) for data in streams.values() for number in data.decode().split(",") if number)


def whole(directory: Path) -> bool:
    """Check a copy."""
    if (directory / "acid.sqlite").exists():
        findings: list[Finding] = []
        counts = check_acid(directory, findings.append)
    else:
        counts, findings = checked(directory)
    return counts.streams == STREAMS and not any(finding.serious for finding in findings)


def assert_restored(case: SynchronousTestCase, copy: Path, mode: str, before: int) -> None:
    """Assert that a server starts on the copy with all acknowledged data, and accepts writes."""
    with Daemon(storage__mode=mode, storage__data_dir=copy) as restored:
        streams = {f"s{number}": restored.request("GET", f"/v1/stream/s{number}")[2] for number in range(STREAMS)}
        found = numbers(streams)
        case.assertEqual(list(range(len(found))), found)
        case.assertGreater(len(found), before)
        restored.append("s0", b"and on")
        case.assertEqual(restored.stop(), 0)


class PausedTests(SynchronousTestCase):
    """A copy of a server that was stopped by SIGSTOP, which is what a snapshot would have."""

    mode = "file-durable"

    def test_a_copy_of_a_paused_server_has_all_acknowledged_data(self) -> None:
        place = Path(self.mktemp()).absolute()
        directory, copy = place / "live", place / "copy"
        place.mkdir()
        line = documented("kill -STOP").strip()
        for old, new in (("always", "auto"), ("/var/lib/durable-streams", directory), ("/backup/today", copy)):
            self.assertIn(old, line)
            line = line.replace(old, str(new))
        with Daemon(storage__mode=self.mode, storage__data_dir=directory) as daemon:
            writing = Writing(daemon)
            try:
                for goal in (100, 200, 300):
                    writing.wait_for(goal)
                    shutil.rmtree(copy, ignore_errors=True)
                    before = writing.acknowledged
                    subprocess.run(
                        ["/bin/sh", "-ec", line], env={"PID": str(daemon.process.pid), **os.environ}, check=True
                    )
                    self.assertTrue(whole(copy))
                    writing.wait_for(writing.acknowledged + 10)
            finally:
                daemon.process.send_signal(signal.SIGCONT)
                writing.end()
        assert_restored(self, copy, self.mode, before)


class PausedFastTests(PausedTests):
    """The same, of a server that answers before the disk has it."""

    mode = "file-fast"


class PausedAcidTests(PausedTests):
    """The same, of a database."""

    mode = "acid"


class AcidTests(SynchronousTestCase):
    def test_sqlite_copies_a_database_that_is_written_to(self) -> None:
        place = Path(self.mktemp()).absolute()
        directory, copy = place / "live", place / "copy"
        place.mkdir()
        statement = re.search(r"VACUUM INTO '.*'", documented("sqlite3 "))
        assert statement is not None
        with Daemon(storage__mode="acid", storage__data_dir=directory) as daemon:
            writing = Writing(daemon)
            try:
                writing.wait_for(100)
                before = writing.acknowledged
                copy.mkdir(0o700)
                shutil.copy2(directory / "FORMAT", copy)
                connection = sqlite3.connect(directory / "acid.sqlite")
                connection.execute(statement[0].replace("/backup/today", str(copy)))
                connection.close()
                writing.wait_for(writing.acknowledged + 10)
            finally:
                writing.end()
        self.assertTrue(whole(copy))
        assert_restored(self, copy, "acid", before)


class StoppedTests(TestCase):
    async def test_a_copy_of_a_stopped_server_has_all_streams(self) -> None:
        directory = Path(self.mktemp()).absolute()
        copy = directory.with_suffix(".copy")
        storage = opened(directory)
        for number in range(STREAMS):
            await create(storage, f"s{number}", b"%d," % number)
        await storage.close()
        shutil.copytree(directory, copy)
        self.assertTrue(whole(copy))
        self.assertEqual(list(range(STREAMS)), numbers(await contents(copy)))


class RunningTests(TestCase):
    """A plain copy, in the documented order, of a storage that is written to and makes checkpoints."""

    timeout = 120
    settings = FileSettings(checkpoint_bytes=1_000_000, segment_sizes=(1 << 20,), slice_streams=2)

    async def test_a_copy_of_a_running_storage_that_passes_the_check_is_complete(self) -> None:
        place = Path(self.mktemp()).absolute()
        directory, copy = place / "live", place / "copy"
        place.mkdir()
        storage = opened(directory, self.settings)
        for number in range(STREAMS):
            await create(storage, f"s{number}")
        acknowledged = -1
        going_on = True

        async def write() -> None:
            nonlocal acknowledged
            number = 0
            while going_on:
                await append(storage, f"s{number % STREAMS}", b"%07d," % number)
                acknowledged = number
                number += 1
                await deferLater(reactor, 0.002)

        writing = ensureDeferred(write())
        for _ in range(3):
            await deferLater(reactor, 0.7)
            before = acknowledged
            self.assertGreater(before, 0)
            await self.copy(directory, copy)
            streams = await contents(copy)
            found = numbers(streams)
            self.assertEqual(list(range(len(found))), found)
            self.assertGreater(len(found), before)
        going_on = False
        await writing
        self.assertGreater(storage._checkpointer._number, 1)
        await storage.close()

    def copy(self, directory: Path, copy: Path) -> Deferred[Any]:
        """Run the commands of the page."""
        script = documented("cd /var/lib/durable-streams")
        for old, new in (("/var/lib/durable-streams", directory), ("/backup/today", copy), ("sleep 10", "sleep 0.1")):
            self.assertIn(old, script)
            script = script.replace(old, str(new))
        command = directory.parent / "durable-streams-server"
        code = "from durable_streams.server.cli import main; main()"
        command.write_text(f'#!/bin/sh\nPYTHONPATH={CHECKOUT} exec {sys.executable} -c "{code}" "$@"\n')
        command.chmod(0o700)
        path = f"{directory.parent}:{os.environ['PATH']}"
        return deferToThread(
            subprocess.run,
            ["/bin/sh", "-c", script],
            env=os.environ | {"PATH": path},
            check=True,
            capture_output=True,
            timeout=60,
        )
