"""Kills a process while it writes values: each call is there as a whole or not at all, and those acknowledged are."""

from __future__ import annotations

import random
import time
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from durable_streams.server.testing import settled
from tests.support import values_program
from tests.support.killed_program import lines_until_killed, small_storage
from tests.support.values_program import COUNTERS, after

_KILLS = 5


class ValueKillTests(TestCase):
    timeout = 120

    def killed(self, mode: str, directory: Path, seconds: float) -> dict[int, int]:
        """Run the program for some time after its first write, kill it; return the last number of each counter."""
        lines = lines_until_killed(values_program.__name__, mode, directory, seconds=seconds)
        return {int(counter): int(number) for counter, number in map(bytes.split, lines)}

    async def found(self, mode: str, directory: Path) -> dict[int, int]:
        """Return the number that each counter has written; fail if its values or its stream do not fit it."""
        storage = small_storage(mode, directory, reactor)
        storage.open()
        numbers = {}
        rest = dict(await settled(storage.values("", "", 100_000)))
        for counter in range(COUNTERS):
            number = numbers[counter] = int(rest.get(f"count/{counter}", b"0"))
            for key, value in after(counter, number).items():
                self.assertEqual(rest.pop(key, None), value, f"{key} after {number}")
            tail = (await settled(storage.status(f"{counter}", time.time()))).tail if number else 0
            self.assertGreaterEqual(tail // 9, number)
        self.assertEqual(rest, {})
        await settled(storage.close())
        return numbers

    async def assert_kept(self, mode: str) -> None:
        chance = random.Random(self.id())
        directory = Path(self.mktemp()).absolute()
        for _ in range(_KILLS):
            acknowledged = self.killed(mode, directory, chance.uniform(0.1, 0.5))
            numbers = await self.found(mode, directory)
            for counter, number in acknowledged.items():
                self.assertIn(numbers[counter], (number, number + 1))
        self.assertGreater(sum(numbers.values()), 100)

    def test_file_durable(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.assert_kept("file-durable"))

    def test_file_fast(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.assert_kept("file-fast"))

    def test_acid(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self.assert_kept("acid"))
