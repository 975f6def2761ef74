"""The file of audit lines: batches, failures, rotation, and several processes."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.telemetry import audit_file
from durable_streams.server.telemetry.audit_file import BATCH, MAX_WAITING, RETRY, AuditFile


class Disk:
    """A file system whose writes fail, or write a part, as told; and the writes that were tried."""

    def __init__(self) -> None:
        self.limits: list[int | OSError] = []
        self.writes: list[bytes] = []

    def write(self, descriptor: int, data: bytes) -> int:
        self.writes.append(data)
        limit = self.limits.pop(0) if self.limits else len(data)
        if isinstance(limit, OSError):
            raise limit
        return os.write(descriptor, data[:limit])


class AuditFileTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp())
        self.clock = Clock()
        self.disk = Disk()
        self.patch(audit_file, "os", _Os(self.disk))
        self.file = AuditFile(str(self.path), self.clock, lambda lost: b"lost %d" % lost)
        self.file.open()
        self.addCleanup(self.file.close)

    def turn(self) -> None:
        self.clock.advance(0)

    def fail_with(self, *errors: int) -> None:
        self.disk.limits += [OSError(number, os.strerror(number)) for number in errors]


class _Os:
    """The module ``os`` with the writes of a disk."""

    def __init__(self, disk: Disk) -> None:
        self.write = disk.write

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)


class WriteTests(AuditFileTestCase):
    def test_the_lines_of_a_turn_are_one_write_at_its_end(self) -> None:
        for line in (b"one", b"two", b"three"):
            self.file.write(line)
        self.assertEqual([], self.disk.writes)
        self.turn()
        self.assertEqual([b"one\ntwo\nthree\n"], self.disk.writes)
        self.assertEqual(b"one\ntwo\nthree\n", self.path.read_bytes())
        self.assertEqual((3, 0), (self.file.lines, self.file.lost))
        self.turn()
        self.assertEqual(1, len(self.disk.writes))

    def test_a_turn_with_many_lines_writes_them_in_batches(self) -> None:
        line = b"x" * 1023
        for _ in range(3 * BATCH // 1024 + 1):
            self.file.write(line)
        self.assertEqual(3, len(self.disk.writes))
        self.turn()
        self.assertTrue(all(len(written) <= BATCH for written in self.disk.writes))
        self.assertEqual((line + b"\n") * (3 * BATCH // 1024 + 1), self.path.read_bytes())

    def test_a_new_file_is_for_its_owner_and_group(self) -> None:
        self.assertEqual(0o640, stat.S_IMODE(self.path.stat().st_mode) | 0o640)
        self.assertFalse(self.path.stat().st_mode & 0o007)

    def test_two_writers_of_one_file_do_not_break_the_lines_of_each_other(self) -> None:
        other = AuditFile(str(self.path), self.clock, lambda lost: b"lost")
        other.open()
        self.addCleanup(other.close)
        for number in range(50):
            self.file.write(b"one %d" % number)
            other.write(b"two %d" % number)
            if number % 7 == 0:
                self.turn()
        self.turn()
        expected = [b"%b %d" % (name, number) for number in range(50) for name in (b"one", b"two")]
        self.assertEqual(sorted(expected), sorted(self.path.read_bytes().splitlines()))

    def test_closing_writes_what_waits(self) -> None:
        self.file.write(b"one")
        self.file.close()
        self.assertEqual(b"one\n", self.path.read_bytes())
        self.assertEqual([], self.clock.getDelayedCalls())


class FailureTests(AuditFileTestCase):
    def test_lines_wait_for_a_full_disk_and_are_written_in_order(self) -> None:
        self.fail_with(errno.ENOSPC, errno.ENOSPC)
        self.file.write(b"one")
        self.turn()
        self.assertEqual("No space left on device", self.file.obstacle)
        self.file.write(b"two")
        self.clock.advance(RETRY)
        self.assertEqual(b"", self.path.read_bytes())
        self.clock.advance(RETRY)
        self.assertEqual(b"one\ntwo\n", self.path.read_bytes())
        self.assertIsNone(self.file.obstacle)

    def test_a_failure_and_the_recovery_are_logged_once(self) -> None:
        self.fail_with(*[errno.EIO] * 5)
        with patch.object(audit_file._log, "error") as error, patch.object(audit_file._log, "warn") as warn:
            self.file.write(b"one")
            for _ in range(10):
                self.clock.advance(RETRY)
        self.assertEqual((1, 1), (error.call_count, warn.call_count))

    def test_lines_over_the_bound_are_lost_counted_and_reported_by_a_line(self) -> None:
        self.fail_with(errno.ENOSPC)
        self.file.write(b"first")
        self.turn()
        line = b"x" * 65_535
        for _ in range(MAX_WAITING // 65_536 + 9):
            self.file.write(line)
        self.assertEqual(9, self.file.lost)
        self.clock.advance(RETRY)
        self.turn()
        lines = self.path.read_bytes().splitlines()
        self.assertEqual((b"first", b"lost 9"), (lines[0], lines[-1]))
        self.assertEqual(MAX_WAITING // 65_536 + 2, len(lines))

    def test_a_line_that_was_written_in_part_is_written_again_whole(self) -> None:
        self.disk.limits += [6, OSError(errno.ENOSPC, "full")]
        for line in (b"one", b"two", b"three"):
            self.file.write(line)
        self.turn()
        self.clock.advance(RETRY)
        self.clock.advance(RETRY)
        self.assertEqual(b"one\ntw\ntwo\nthree\n", self.path.read_bytes())
        self.assertEqual(3, self.file.lines)

    @given(st.lists(st.binary(max_size=6).map(lambda text: text.replace(b"\n", b"")), max_size=8), st.data())
    def test_each_line_is_in_the_file_whole_however_many_bytes_a_write_takes(
        self, lines: list[bytes], data: st.DataObject
    ) -> None:
        self.path.write_bytes(b"")
        lines = [b"%d:%b;" % (number, line) for number, line in enumerate(lines)]
        self.disk.limits = data.draw(st.lists(st.integers(0, 12), max_size=20))
        for line in lines:
            self.file.write(line)
        for _ in range(25):
            self.clock.advance(RETRY)
        self.disk.limits = []
        found = [line for line in self.path.read_bytes().split(b"\n") if line in lines]
        self.assertEqual(lines, found)


class RotationTests(AuditFileTestCase):
    def test_lines_go_on_in_the_new_file_after_a_rotation(self) -> None:
        self.file.write(b"one")
        rotated = self.path.rename(self.path.with_suffix(".1"))
        self.file.reopen()
        self.file.write(b"two")
        self.turn()
        self.assertEqual((b"one\n", b"two\n"), (rotated.read_bytes(), self.path.read_bytes()))

    def test_a_file_that_cannot_be_opened_again_is_kept(self) -> None:
        rotated = self.path.rename(self.path.with_suffix(".1"))
        self.path.mkdir()
        with patch.object(audit_file._log, "error") as error:
            self.file.reopen()
        self.assertEqual(1, error.call_count)
        self.file.write(b"one")
        self.turn()
        self.assertEqual(b"one\n", rotated.read_bytes())

    def test_lines_that_wait_for_a_full_disk_are_written_to_the_new_file(self) -> None:
        self.fail_with(errno.ENOSPC, errno.ENOSPC)
        self.file.write(b"one")
        self.turn()
        self.path.rename(self.path.with_suffix(".1"))
        self.file.reopen()
        self.assertEqual(b"one\n", self.path.read_bytes())
