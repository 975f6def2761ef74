"""Kills of a process that imports: each stream is whole afterwards, as it was before or as it is in the document."""

from __future__ import annotations

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.process import imports
from tests.support.forks import ForkedProgram
from tests.support.transfers import document_object, pretty, stream_object

#: How often the process is killed, in each mode.
KILLS = 20

#: More than are written at the same time.
STREAMS = 400


def _document(rng: random.Random, generation: int) -> list[dict[str, Any]]:
    """Make streams whose messages all have the number of a generation in them."""
    streams = []
    for number in range(STREAMS):
        if number % 3:
            messages = [b"%d:%b" % (generation, rng.randbytes(rng.choice((1, 100, 5000)))) for _ in range(5)]
            streams.append(stream_object(f"s/{number:03}", "text/plain", *messages, closed=number == 7))
        else:
            values = [b'{"generation":%d,"number":%d}' % (generation, each) for each in range(20)]
            streams.append(stream_object(f"s/{number:03}", "application/json", *values))
    return streams


def _summary(stream: dict[str, Any]) -> tuple[Any, ...]:
    return (stream["config"]["content_type"], stream["closed"], [entry["data_base64"] for entry in stream["messages"]])


class Generations:
    """
    A data directory into which one document after the other is imported.

    :ivar kills: how often the process was killed before it ended.
    :ivar seen: how many streams were new after an import that was killed.
    :ivar duration: about how long a whole import takes, in seconds. It follows the speed of the machine.
    """

    def __init__(self, mode: str, folder: Path) -> None:
        self._mode = mode
        self._folder = folder
        self._export = folder / "export.json"
        self._rng = random.Random(mode)
        self.number = 0
        self.kills = 0
        self.duration = 0.0
        self.seen: set[int] = set()
        self._allowed: dict[str, list[tuple[Any, ...] | None]] = {}

    def run(self, patience: float | None) -> None:
        """Import the next document, and kill the process so many seconds after it began to; None for never."""
        self.number += 1
        streams = _document(self._rng, self.number)
        path = self._folder / "document.json"
        path.write_bytes(pretty(document_object(*streams)))
        with ForkedProgram(imports.__name__, self._mode, self._folder / "data", path, self._export) as program:
            line = program.output.readline()
            assert line == b"exported\n", line
            self._check()
            started = time.monotonic()
            if patience is not None:
                time.sleep(patience)
                program.kill()
            rest = program.output.readline()
            if rest:
                self.duration = time.monotonic() - started
            status = program.wait(60)
        assert patience is not None or (status, rest) == (0, b"imported\n"), (status, rest)
        self.kills += status != 0
        for stream in streams:
            self._allowed.setdefault(stream["name"], [None]).append(_summary(stream))

    def _check(self) -> None:
        """Compare what the process has found with what there may be."""
        found = {stream["name"]: _summary(stream) for stream in json.loads(self._export.read_bytes())["streams"]}
        assert set(found) <= set(self._allowed), f"unknown streams: {set(found) - set(self._allowed)}"
        new = 0
        for name, allowed in self._allowed.items():
            assert found.get(name) in allowed, f"{name} is not whole, in generation {self.number}"
            new += found.get(name) == allowed[-1]
            allowed[:] = [found.get(name)]
        if not new:
            # The kill came early.
            self.duration *= 1.1
        self.seen.add(new)

    def between(self) -> int:
        """Return how many different numbers of new streams were found, besides none and all."""
        return len(self.seen - {0, STREAMS})


class ImportKillTests(SynchronousTestCase):
    def is_whole(self, mode: str) -> None:
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        self.addCleanup(shutil.rmtree, folder)
        generations = Generations(mode, folder)
        generations.run(None)
        rng = random.Random(f"{mode} kills")
        while (generations.kills < KILLS or generations.between() <= 3) and generations.number < 4 * KILLS:
            # Kills are spread over the time that a whole import takes.
            generations.run(rng.uniform(0, generations.duration))
        self.assertGreaterEqual(generations.kills, KILLS)
        generations.run(None)
        generations.run(None)
        # Some imports were killed between two streams.
        self.assertGreater(generations.between(), 3)

    def test_an_import_that_is_killed_leaves_whole_streams_in_files(self) -> None:
        self.is_whole("file-durable")

    def test_an_import_that_is_killed_leaves_whole_streams_in_a_database(self) -> None:
        self.is_whole("acid")
