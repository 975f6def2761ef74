"""Tests of kills under load, at random moments and at each point that changes the disk."""

from __future__ import annotations

import json
import random

from twisted.trial.unittest import SynchronousTestCase

from .kills import Campaign, run

#: How often a server is killed at random moments, in each mode. ``python -m tests.process.kills`` goes on for longer.
GENERATIONS = 6

#: Few bytes, so that a checkpoint comes soon.
_SOON = {"checkpoint_bytes": 128 << 10, "segment_sizes": (1 << 20, 512 << 10), "open_files": 8}

#: What a server does to its disk while it serves, and at which passage at the latest it dies there.
JOURNAL = {"journal/write": 100, "answers": 100}
SEGMENTS = dict.fromkeys(
    ["journal/make", "journal/reserve", "journal/folder", "journal/opening", "journal/cut", "journal/remove"], 5
) | {"journal/sync": 8}
CHECKPOINTS = dict.fromkeys(
    [f"packs/{step}" for step in ("make", "write", "sync", "folder", "remove")]
    + [f"checkpoint/{step}" for step in ("make", "write", "sync", "rename", "folder", "remove")],
    3,
)
FILES = dict.fromkeys(["data/write", "data/sync", "index/write", "index/sync"], 4) | dict.fromkeys(
    ["data/make", "index/make", "streams/folder", "data/remove", "index/remove"], 1
)

#: What it does to its database in mode acid.
DATABASE = {
    "sqlite/begin": 100,
    "sqlite/insert": 100,
    "sqlite/commit": 100,
    "answers": 100,
    "sqlite/checkpoint": 4,
    "sqlite/collect": 3,
    "sqlite/collected": 3,
}

#: What comes after these is the beginning of something else.
_BEFORE_ANOTHER = ("/make", "/reserve", "/begin", "/insert")

#: What it does to an empty directory, besides.
BEGINNING = [
    *("FORMAT.new/make", "FORMAT.new/write", "FORMAT.new/sync", "FORMAT/rename", "top/folder"),
    *("FRONTIER/make", "FRONTIER/write", "FRONTIER/sync"),
]


class RandomKillTests(SynchronousTestCase):
    """Kills at random moments: every acknowledged append is there afterwards."""

    def keeps_its_word(self, mode: str) -> None:
        campaign = run(mode, GENERATIONS, f"{mode} in the tests")
        self.assertEqual(campaign.figures.kills, GENERATIONS)
        self.assertGreater(campaign.figures.checked, 500)
        for what in ("appends", "duplicates", "creations", "closures", "deletions", "forks", "reads"):
            self.assertGreater(campaign.done.get(what, 0), 0, what)

    def test_file_durable_loses_no_acknowledged_append_when_killed_at_random(self) -> None:
        self.keeps_its_word("file-durable")

    def test_file_fast_loses_no_acknowledged_append_when_killed_at_random(self) -> None:
        self.keeps_its_word("file-fast")

    def test_acid_loses_no_acknowledged_append_when_killed_at_random(self) -> None:
        self.keeps_its_word("acid")


class PointTests(SynchronousTestCase):
    """Kills at each point of a write."""

    def campaign(self, mode: str = "file-durable") -> Campaign:
        campaign = Campaign(mode, self.id(), _SOON)
        self.addCleanup(campaign.close)
        return campaign

    def keeps_its_word(self, points: dict[str, int], mode: str = "file-durable") -> None:
        rng = random.Random(self.id())
        campaign = self.campaign(mode)
        for what, most in points.items():
            whens = ["before"]
            if what.endswith(("/write", "/opening", "/commit")):
                whens.append("amid")
            if not what.endswith(_BEFORE_ANOTHER):
                whens.append("after")
            for when in whens:
                campaign.trapped(f"{when} {what}", rng.randint((most + 1) // 2, most))
        campaign.look()
        self.assertGreaterEqual(campaign.figures.kills, len(points))
        self.assertGreater(campaign.figures.checked, 100)

    def test_kills_at_each_point_of_the_journal_lose_nothing(self) -> None:
        self.keeps_its_word(JOURNAL)

    def test_kills_at_each_point_of_the_journal_of_file_fast_lose_nothing(self) -> None:
        self.keeps_its_word(JOURNAL | {"journal/sync": 8}, mode="file-fast")

    def test_kills_at_each_point_of_a_segment_lose_nothing(self) -> None:
        self.keeps_its_word(SEGMENTS)

    def test_kills_at_each_point_of_a_checkpoint_lose_nothing(self) -> None:
        self.keeps_its_word(CHECKPOINTS)

    def test_kills_at_each_point_of_a_streams_file_lose_nothing(self) -> None:
        self.keeps_its_word(FILES)

    def test_kills_at_each_point_of_the_database_lose_nothing(self) -> None:
        self.keeps_its_word(DATABASE, mode="acid")

    def test_all_points_of_the_file_storage_are_tested(self) -> None:
        # A checkpoint that the end of the server interrupts gives back what it has written to streams' own files.
        interrupted = {"data/cut", "index/cut"}
        self.passes_no_others("file-durable", {*JOURNAL, *SEGMENTS, *CHECKPOINTS, *FILES, *BEGINNING, *interrupted})

    def test_all_points_of_the_database_are_tested(self) -> None:
        self.passes_no_others("acid", {*DATABASE, "sqlite/layout", "sqlite/open"})

    def passes_no_others(self, mode: str, known: set[str]) -> None:
        campaign = self.campaign(mode)
        passed: set[str] = set()
        for _ in range(2):
            with campaign.start() as daemon:
                campaign.check(daemon)
                campaign.renew(daemon, at_least=2)
                with campaign.loaded(daemon):
                    daemon.process.join(0.5)
                    self.assertEqual(daemon.terminate(), 0)
            points = json.loads((campaign.folder / "passages").read_text())
            passed |= {point.partition(" ")[2] for point in points}
        self.assertEqual(passed - known, set())
        self.assertGreater(len(passed), len(known) // 2)


class StartPointTests(SynchronousTestCase):
    """Kills while the daemon starts."""

    def campaign(self, mode: str = "file-durable") -> Campaign:
        campaign = Campaign(mode, self.id(), _SOON)
        self.addCleanup(campaign.close)
        return campaign

    def test_kills_during_a_start_in_an_empty_directory_lose_nothing(self) -> None:
        for what in [
            *BEGINNING,
            "journal/make",
            "journal/reserve",
            "journal/sync",
            "journal/folder",
            "journal/opening",
        ]:
            for when in ("before", "after"):
                campaign = self.campaign()
                campaign.trapped_at_start(f"{when} {what}")
                campaign.look()

    def test_kills_during_the_creation_of_the_database_lose_nothing(self) -> None:
        for point in ("before sqlite/open", "after sqlite/open", "before sqlite/layout", "after sqlite/layout"):
            campaign = self.campaign("acid")
            campaign.trapped_at_start(point)
            campaign.look()

    def test_kills_during_a_start_after_a_kill_lose_nothing(self) -> None:
        campaign = self.campaign()
        for first, passage, then in (
            ("before checkpoint/rename", 3, "checkpoint/remove"),
            ("before checkpoint/rename", 3, "packs/remove"),
            ("after packs/sync", 3, "packs/remove"),
            ("before journal/remove", 3, "journal/remove"),
            ("after data/make", 1, "data/remove"),
            ("after index/make", 1, "index/remove"),
            ("amid journal/write", 50, "journal/sync"),
            ("after journal/write", 50, "journal/folder"),
            ("after journal/write", 50, "journal/make"),
            ("after journal/write", 50, "journal/opening"),
        ):
            for when in ("before", "after"):
                campaign.trapped(first, passage)
                campaign.trapped_at_start(f"{when} {then}")
        campaign.look()
        self.assertGreaterEqual(campaign.figures.kills, 40)
