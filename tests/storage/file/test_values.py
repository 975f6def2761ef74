"""Values in a file storage: the directory's format, slices of a checkpoint, damage, and what a crash leaves."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.trial.unittest import TestCase

from durable_streams.server.errors import InsufficientStorage, StorageError, Unavailable, ValuesChanged
from durable_streams.server.storage import ownership
from durable_streams.server.storage.changes import OVERHEAD, VALUE, ValuesWritten
from durable_streams.server.storage.disk import RealDisk
from durable_streams.server.storage.file import FileSettings, FileStorage
from durable_streams.server.storage.file import storage as storage_module
from durable_streams.server.storage.file.checking import check_files
from durable_streams.server.storage.file.checkpoint import FOLDER
from durable_streams.server.storage.file.frames import VALUES
from durable_streams.server.storage.file.journal import encode
from durable_streams.server.storage.file.recovery import whole_frames
from durable_streams.server.storage.findings import Finding
from durable_streams.server.storage.ownership import FORMAT_FILE
from durable_streams.server.storage.readonly import ReadOnlyDisk
from durable_streams.server.storage.values import MAX_KEY, check_puts
from durable_streams.server.testing import settled
from tests.storage.file.directories import checkpointed, create, fill, install, only, opened

NOTHING: Mapping[str, bytes | None] = {}
MANY = {f"links/{number:03d}": b"%d" % number * 20 for number in range(300)}


async def write(
    storage: FileStorage, puts: dict[str, bytes | None], expected: Mapping[str, bytes | None] = NOTHING
) -> None:
    await settled(storage.write_values(puts, expected))


async def values(storage: FileStorage) -> dict[str, bytes]:
    return dict(await settled(storage.values("", "", 100_000)))


def findings(directory: Path) -> list[Finding]:
    found: list[Finding] = []
    check_files(ReadOnlyDisk(directory), found.append)
    return found


class ValuesTestCase(TestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())

    @property
    def version(self) -> int:
        found: int = msgspec.json.decode((self.directory / FORMAT_FILE).read_bytes())["version"]
        return found


class FormatTests(ValuesTestCase):
    """The version of the format rises with the first value."""

    async def test_a_directory_without_values_stays_in_format_1(self) -> None:
        storage = opened(self.directory)
        await create(storage, "a", b"x")
        self.assertEqual(await values(storage), {})
        await write(storage, {}, {"a": None})
        await checkpointed(storage)
        await storage.close()
        self.assertEqual(self.version, 1)

    async def test_the_first_value_raises_the_format_to_3(self) -> None:
        await fill(self.directory)
        storage = opened(self.directory)
        await write(storage, {"a": b"1"}, {"a": None})
        self.assertEqual(self.version, 3)
        await create(storage, "__ds/1", b"new")
        await install(storage, "__ds/1", "a")
        self.assertEqual(self.version, 3)
        await write(storage, {"a": None})
        await checkpointed(storage)
        await storage.close()
        self.assertEqual(self.version, 3)

    async def test_an_installation_raises_it_to_2_and_a_value_to_3(self) -> None:
        storage = opened(self.directory)
        await create(storage, "__ds/1", b"new")
        await install(storage, "__ds/1", "a")
        self.assertEqual(self.version, 2)
        await write(storage, {"a": b"1"})
        self.assertEqual(self.version, 3)
        await storage.close()

    async def test_an_earlier_version_refuses_a_directory_with_values(self) -> None:
        storage = opened(self.directory)
        await write(storage, {"a": b"1"})
        await storage.close()
        self.patch(storage_module, "VERSION", 2)
        error = self.assertRaises(StorageError, opened, self.directory)
        self.assertIn("is in format 3 of the file storage; this server knows formats up to 2.", str(error))

    async def test_an_earlier_version_takes_a_directory_whose_checkpoint_has_no_values(self) -> None:
        await fill(self.directory)
        self.assertEqual(ownership.take(RealDisk(self.directory), "file", 1, "here", ()), 1)
        data = only(self.directory, f"{FOLDER}/*").read_bytes()
        self.assertNotIn(VALUES, [header.magic for _, header, _ in whole_frames(data, None)])

    async def test_a_write_at_a_disk_that_cannot_change_the_format_is_refused(self) -> None:
        for code, expected in ((errno.ENOSPC, InsufficientStorage), (errno.EMFILE, Unavailable)):
            self.directory = Path(self.mktemp())
            storage = opened(self.directory)
            replace = storage._log.raise_version

            def fail(_: int, code: int = code) -> None:
                raise OSError(code, "cannot write")

            storage._log.raise_version = fail
            await self.assertFailure(maybeDeferred(storage.write_values, {"a": b"1"}, {}), expected)
            self.assertEqual((await values(storage), self.version), ({}, 1))
            self.assertIsNone(storage.obstacle())
            storage._log.raise_version = replace
            await write(storage, {"a": b"1"})
            self.assertEqual((await values(storage), self.version), ({"a": b"1"}, 3))
            await storage.close()


class CheckpointTests(ValuesTestCase):
    """Values are written in slices, and the journal is replayed on top of them."""

    settings = FileSettings(segment_sizes=(1 << 20,), slice_streams=2, slice_bytes=300)

    async def test_a_checkpoint_writes_many_values_in_slices(self) -> None:
        storage = opened(self.directory, self.settings)
        await write(storage, dict(MANY))
        await checkpointed(storage)
        await storage.close()
        data = only(self.directory, f"{FOLDER}/*").read_bytes()
        slices = [payload for _, header, payload in whole_frames(data, None) if header.magic == VALUES]
        self.assertEqual(len(slices), 150)
        self.assertLess(max(map(len, slices)), 600)
        storage = opened(self.directory)
        self.assertEqual(await values(storage), MANY)
        await storage.close()
        self.assertEqual(findings(self.directory), [])

    async def test_changes_during_a_checkpoint_are_kept(self) -> None:
        storage = opened(self.directory, self.settings)
        await write(storage, dict(MANY))
        expected = dict(MANY)
        making: Deferred[None] = Deferred.fromCoroutine(checkpointed(storage))
        round_ = 0
        while not making.called:
            # Each key is written, removed and made again at some time, before and behind the slice that is written.
            puts: dict[str, bytes | None] = {
                key: None if (number + round_) % 3 == 0 else b"%d" % round_
                for number, key in enumerate(MANY)
                if (number + round_) % 5 == 0
            }
            await write(storage, puts)
            for key, value in puts.items():
                expected.pop(key, None)
                if value is not None:
                    expected[key] = value
            round_ += 1
        await making
        self.assertGreater(round_, 2)
        self.assertEqual(await values(storage), expected)
        await storage.close()
        storage = opened(self.directory)
        self.assertEqual(await values(storage), expected)
        await storage.close()
        self.assertEqual(findings(self.directory), [])

    async def test_removed_values_are_in_no_later_checkpoint(self) -> None:
        storage = opened(self.directory, self.settings)
        await write(storage, dict(MANY))
        await checkpointed(storage)
        await write(storage, dict.fromkeys(MANY))
        await checkpointed(storage)
        await storage.close()
        data = only(self.directory, f"{FOLDER}/*").read_bytes()
        self.assertNotIn(VALUES, [header.magic for _, header, _ in whole_frames(data, None)])
        storage = opened(self.directory)
        self.assertEqual((await values(storage), storage.figures().metadata_bytes), ({}, 0))
        await storage.close()

    async def test_compare_and_set_goes_on_after_a_restart(self) -> None:
        storage = opened(self.directory)
        await write(storage, {"a": b"1"})
        await storage.close()
        storage = opened(self.directory)
        self.assertRaises(ValuesChanged, storage.write_values, {"a": b"3"}, {"a": b"2"})
        await write(storage, {"a": b"2"}, {"a": b"1"})
        await storage.close()


class VisibilityTests(ValuesTestCase):
    """What is not committed is not returned, and nothing is decided on it alone."""

    async def test_a_refusal_and_a_page_wait_for_the_write_that_they_rest_on(self) -> None:
        storage = opened(self.directory)
        await write(storage, {"a": b"1"})
        order: list[str] = []
        calls: list[tuple[str, Any]] = [
            ("write", lambda: storage.write_values({"a": b"2"}, {"a": b"1"})),
            ("refusal", lambda: storage.write_values({"a": b"3"}, {"a": b"1"})),
            ("repeated", lambda: storage.write_values({"a": b"2"}, {})),
            ("compared", lambda: storage.write_values({}, {"a": b"2"})),
            ("page", storage.values),
        ]
        outcomes: list[Any] = []
        started = [maybeDeferred(call) for _, call in calls]
        for (name, _), outcome in zip(calls, started, strict=True):
            self.assertNoResult(outcome)
            outcome.addBoth(outcomes.append)
            outcome.addBoth(partial(lambda name, _: order.append(name), name))
        await settled(storage.write_values({"z": b""}, {}))
        self.assertEqual(order, [name for name, _ in calls])
        outcomes[1].trap(ValuesChanged)
        self.assertEqual((outcomes[0], outcomes[2], outcomes[3], outcomes[4]), (None, None, None, [("a", b"2")]))
        await storage.close()

    async def test_after_a_failed_write_values_that_may_be_lost_are_not_returned(self) -> None:
        storage = opened(self.directory)
        await write(storage, {"a": b"1"})
        segment = storage._log.journal._segment
        assert segment is not None

        def fail(*_: object) -> None:
            raise OSError(errno.EIO, "broken")

        self.patch(segment, "file", type("Broken", (), {"write": fail, "close": segment.file.close})())
        await self.assertFailure(maybeDeferred(storage.write_values, {"a": b"2"}, {}), Unavailable)
        await self.assertFailure(maybeDeferred(storage.values), Unavailable)
        self.assertRaises(Unavailable, storage.write_values, {"b": b"2"}, {})
        self.flushLoggedErrors()
        await storage.close()


class DamageTests(ValuesTestCase):
    async def damaged(self, magic: bytes) -> list[Finding]:
        """Write values into a checkpoint, change a byte of the second frame of them, and check the directory."""
        storage = opened(self.directory, FileSettings(segment_sizes=(1 << 20,), slice_streams=100))
        await create(storage, "a", b"x")
        await write(storage, dict(MANY))
        await checkpointed(storage)
        await storage.close()
        path = only(self.directory, f"{FOLDER}/*")
        data = bytearray(path.read_bytes())
        at = [position for position, header, _ in whole_frames(bytes(data), None) if header.magic == magic][1]
        data[at + 100] ^= 1
        path.write_bytes(data)
        return [finding for finding in findings(self.directory) if finding.serious]

    async def test_damaged_values_in_a_checkpoint_are_found_and_refused(self) -> None:
        found = await self.damaged(VALUES)
        self.assertEqual(len(found), 1)
        self.assertIn("It probably concerns the values links/100, links/101,", found[0].what)
        error = self.assertRaises(StorageError, opened, self.directory)
        self.assertIn("The checkpoint is damaged there.", str(error))

    async def test_values_that_are_missing_from_a_checkpoint_are_found(self) -> None:
        storage = opened(self.directory, FileSettings(segment_sizes=(1 << 20,), slice_streams=100))
        await write(storage, dict(MANY))
        await checkpointed(storage)
        await storage.close()
        path = only(self.directory, f"{FOLDER}/*")
        data = path.read_bytes()
        first, second = [position for position, header, _ in whole_frames(data, None) if header.magic == VALUES][:2]
        path.write_bytes(data[:first] + data[second:])
        [finding] = [finding for finding in findings(self.directory) if finding.serious]
        self.assertIn("200 of the checkpoint's 300 values can be read.", finding.what)

    async def test_a_damaged_write_of_values_in_the_journal_is_found(self) -> None:
        storage = opened(self.directory)
        await write(storage, {"links/1": b"x" * 100})
        await write(storage, {"links/2": b"x"})
        await storage.close()
        path = only(self.directory, "journal/*")
        data = path.read_bytes()
        path.write_bytes(data.replace(b"x" * 100, b"x" * 50 + b"y" + b"x" * 49))
        [finding] = [finding for finding in findings(self.directory) if finding.serious]
        self.assertIn("They probably concern the values links/1.", finding.what)


class RoomTests(TestCase):
    def test_the_room_for_a_write_of_values_is_not_exceeded(self) -> None:
        calls: list[dict[str, bytes | None]] = [
            {"a": None},
            {"\u2603" * (MAX_KEY // 3): b"x" * 100_000},
            {f"{number}": b"" for number in range(10_000)},
            {"x" * 300 + f"{number}": b"x" * 300 for number in range(300)},
        ]
        for puts in calls:
            room = check_puts(puts, ()) + OVERHEAD + VALUE * len(puts)
            self.assertLessEqual(len(encode([ValuesWritten(puts)])), room)
