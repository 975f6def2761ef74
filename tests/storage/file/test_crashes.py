"""Random walks of the file storage over power failures, kills and disk errors, which must find planted bugs."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from .crashes import first_failure
from .planted import BUGS


class WalkTests(SynchronousTestCase):
    """Acknowledged data is kept, whatever the disk does. ``python -m tests.storage.file.crashes`` walks further."""

    def walk(self, seeds: int, often: str = "") -> None:
        failure = first_failure(range(seeds), often=often)
        seed, wrong = failure or (0, "")
        self.assertIsNone(failure, f"python -m tests.storage.file.crashes -v --often '{often}' --seed {seed}: {wrong}")

    def test_random_walks_with_all_faults_lose_nothing_acknowledged(self) -> None:
        self.walk(300)

    def test_random_walks_with_disk_errors_lose_nothing_acknowledged(self) -> None:
        self.walk(100, "errors")

    def test_shortages_of_descriptors_stop_no_storage_and_lose_nothing(self) -> None:
        self.walk(150, "shortages")

    def test_random_walks_with_lost_writes_lose_nothing_acknowledged(self) -> None:
        self.walk(100, "lost writes")

    def test_random_walks_with_kills_lose_nothing_acknowledged(self) -> None:
        self.walk(100, "kills")

    def test_flipped_bits_are_never_served(self) -> None:
        self.walk(300, "rot")

    def test_random_walks_with_set_clocks_lose_nothing_acknowledged(self) -> None:
        self.walk(50, "clocks")


class PlantedTests(SynchronousTestCase):
    """Each bug that is planted is found within so many seeds."""

    def found(self, name: str) -> None:
        bug = BUGS[name]
        with bug.plant():
            failure = first_failure(range(bug.seeds), disk_of=bug.disk, often=bug.often)
        # What it makes of the storage may be logged, now or when the last of it goes.
        gc.collect()
        self.flushLoggedErrors()
        self.assertIsNotNone(failure, f"{bug.seeds} seeds do not find it: {name}")


def _test(name: str) -> Callable[[PlantedTests], None]:
    return lambda self: self.found(name)


for _name in BUGS:
    setattr(PlantedTests, "test_" + "_".join(re.findall("[a-z]+", _name)), _test(_name))
