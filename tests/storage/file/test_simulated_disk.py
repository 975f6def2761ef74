"""Tests of the simulated disk: which writes survive a crash."""

from __future__ import annotations

import errno

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.storage.disk import Disk

from ...support.simulated_disk import SECTOR, PowerFailure, SimulatedDisk

SEEDS = range(60)
OLD = b"o" * SECTOR
NEW = b"n" * SECTOR


class SimulatedDiskTests(SynchronousTestCase):
    def made(self, seed: int) -> SimulatedDisk:
        """Make a disk with a file that is on it for sure."""
        disk = SimulatedDisk(seed)
        kept: Disk = disk
        kept.make_folder("folder")
        file = kept.open("folder/file", new=True)
        file.write([OLD, OLD], 0)
        file.sync()
        kept.sync_folder("folder")
        return disk

    def test_synced_data_survives_a_crash(self) -> None:
        for seed in SEEDS:
            after = self.made(seed).crash()
            self.assertEqual(after.content("folder/file"), OLD + OLD)
            self.assertEqual(after.names("folder"), ["file"])

    def test_an_unsynced_write_survives_wholly_partly_or_not_at_all(self) -> None:
        seen = set()
        for seed in SEEDS:
            disk = self.made(seed)
            disk.open("folder/file").write([NEW[:100]], 200)
            content = disk.crash().content("folder/file")
            self.assertEqual(content[:200] + content[300:], (OLD + OLD)[: 2 * SECTOR - 100])
            seen.add(content[200:300])
        self.assertLessEqual({OLD[:100], NEW[:100], bytes(100)}, seen)
        self.assertGreater(len(seen), 3)

    def test_sectors_are_written_in_any_order(self) -> None:
        seen = set()
        for seed in SEEDS:
            disk = self.made(seed)
            disk.open("folder/file").write([NEW, NEW], 0)
            content = disk.crash().content("folder/file")
            seen.add((content[0], content[SECTOR]))
        self.assertLessEqual({(x, y) for x in b"on" for y in b"on"}, seen)

    def test_a_durable_write_survives_a_crash(self) -> None:
        for seed in SEEDS:
            disk = self.made(seed)
            disk.open("folder/file").write([NEW], SECTOR, durable=True)
            self.assertEqual(disk.crash().content("folder/file"), OLD + NEW)

    def test_a_new_name_survives_only_if_its_folder_was_synced(self) -> None:
        seen = set()
        for seed in SEEDS:
            disk = self.made(seed)
            file = disk.open("folder/other", new=True)
            file.write([NEW], 0)
            file.sync()
            disk.rename("folder/file", "folder/new")
            seen.add(tuple(disk.crash().names("folder")))
        self.assertEqual(seen, {("file",), ("new",), ("file", "other"), ("new", "other")})

    def test_a_new_folder_survives_only_if_its_parent_was_synced(self) -> None:
        def killed(seed: int) -> SimulatedDisk:
            disk = SimulatedDisk(seed)
            disk.stop_at(1)
            self.assertRaises(PowerFailure, disk.make_folder, "folder")
            after = disk.killed()
            after.make_folder("folder")
            after.open("folder/file", new=True).sync()
            after.sync_folder("folder")
            return after

        self.assertEqual({tuple(killed(seed).crash().names("folder")) for seed in SEEDS}, {(), ("file",)})
        for seed in SEEDS:
            disk = killed(seed)
            disk.sync_folder("")
            self.assertEqual(disk.crash().names("folder"), ["file"])

    def test_a_kill_of_the_process_loses_no_writes(self) -> None:
        seen = set()
        for seed in SEEDS:
            disk = self.made(seed)
            disk.open("folder/file").write([NEW], 0)
            after = disk.killed()
            self.assertEqual(after.content("folder/file"), NEW + OLD)
            seen.add(after.crash().content("folder/file"))
        self.assertLessEqual({NEW + OLD, OLD + OLD}, seen)

    def test_data_lost_by_a_failed_sync_stays_lost(self) -> None:
        seen = set()
        for seed in SEEDS:
            disk = self.made(seed)
            file = disk.open("folder/file")
            file.write([NEW], 0)
            disk.fail_at(0, errno.EIO)
            self.assertRaises(OSError, file.sync)
            file.sync()
            seen.add((file.read(0, SECTOR), disk.crash().content("folder/file")[:SECTOR]))
        self.assertEqual(seen, {(NEW, NEW), (NEW, OLD), (OLD, OLD)})

    def test_a_full_disk_refuses_writes(self) -> None:
        disk = self.made(0)
        disk.capacity = disk.used + 100
        file = disk.open("folder/file")
        file.write([NEW], 0)
        error = self.assertRaises(OSError, file.write, [NEW], 2 * SECTOR)
        self.assertEqual(error.errno, errno.ENOSPC)
        error = self.assertRaises(OSError, file.reserve, 4 * SECTOR)
        self.assertEqual(error.errno, errno.ENOSPC)
        disk.stop_failing()
        file.write([NEW], 2 * SECTOR)

    def test_a_stopped_disk_does_nothing(self) -> None:
        disk = self.made(0)
        disk.stop_at(0)
        self.assertRaises(PowerFailure, disk.remove, "folder/file")
        self.assertRaises(OSError, disk.remove, "folder/file")
        self.assertEqual(disk.crash().names("folder"), ["file"])
