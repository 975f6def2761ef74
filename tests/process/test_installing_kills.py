"""Kills a process while it installs streams: the name has the old stream or the new one, whole, never a part."""

from __future__ import annotations

import random
import time
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from durable_streams.server.model import START
from durable_streams.server.testing import settled
from tests.support import installing_program
from tests.support.installing_program import NAME, content
from tests.support.killed_program import lines_until_killed, small_storage

_KILLS = 5


class InstallationKillTests(TestCase):
    timeout = 120

    def killed(self, mode: str, directory: Path, first: int, seconds: float) -> int:
        """Run the program for some time after its first installation, kill it; return the last number it printed."""
        return int(lines_until_killed(installing_program.__name__, mode, directory, first, seconds=seconds)[-1])

    async def found(self, mode: str, directory: Path) -> int:
        """Return the number of the installation that the directory has; fail if it is not whole."""
        storage = small_storage(mode, directory, reactor)
        storage.open()
        chunk = await settled(storage.read(NAME, START, 1 << 30, time.time()))
        listed = await settled(storage.statuses(time.time()))
        self.assertEqual([status.facts.name for status in listed], [NAME])
        # At most the stream that was being staged is left over, and it expires.
        self.assertLessEqual(storage.figures().streams, 1 + _KILLS)
        await settled(storage.sweep(time.time() + 4000, 1000))
        self.assertEqual(storage.figures().streams, 1)
        await settled(storage.close())
        number = int(chunk.data[:8])
        self.assertEqual(chunk.data, content(number))
        return number

    async def assert_whole(self, mode: str) -> None:
        chance = random.Random(self.id())
        directory = Path(self.mktemp()).absolute()
        first = 0
        for _ in range(_KILLS):
            acknowledged = self.killed(mode, directory, first, chance.uniform(0, 0.3))
            number = await self.found(mode, directory)
            self.assertIn(number, (acknowledged, acknowledged + 1))
            first = number + 1
        self.assertGreater(first, _KILLS)

    def test_file_durable(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.assert_whole("file-durable"))

    def test_file_fast(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.assert_whole("file-fast"))

    def test_acid(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.assert_whole("acid"))
