"""Installations of staged streams in a file storage: the directory's format, and what is on the disk."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import msgspec
from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import TestCase

from durable_streams.server.errors import InsufficientStorage, StorageError, StreamNotFound, Unavailable
from durable_streams.server.model import (
    FOREVER,
    MAX_INCARNATION,
    Fork,
    Lifetime,
    Offset,
    StreamConfig,
    StreamRestoration,
    WriterState,
)
from durable_streams.server.storage import ownership
from durable_streams.server.storage.changes import MAX_CONTENT_TYPE, StreamInstalled
from durable_streams.server.storage.disk import RealDisk
from durable_streams.server.storage.file import FileStorage, journal_reader
from durable_streams.server.storage.file import storage as storage_module
from durable_streams.server.storage.file.checking import check_files
from durable_streams.server.storage.file.journal import encode
from durable_streams.server.storage.file.stream import FileStream
from durable_streams.server.storage.findings import Finding
from durable_streams.server.storage.logged.storage import _room_of_installation
from durable_streams.server.storage.ownership import FORMAT_FILE, NEW_FORMAT_FILE, take
from durable_streams.server.storage.readonly import ReadOnlyDisk
from durable_streams.server.testing import settled
from tests.storage.file.directories import append, checkpointed, contents, create, fill, install, opened


class FormatTests(TestCase):
    """The version of the format rises with the first installation."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())

    @property
    def version(self) -> int:
        found: int = msgspec.json.decode((self.directory / FORMAT_FILE).read_bytes())["version"]
        return found

    async def installed(self) -> FileStorage:
        storage = opened(self.directory)
        await create(storage, "__ds/1", b"new")
        await install(storage, "__ds/1", "a")
        return storage

    async def test_a_directory_without_an_installation_has_format_1(self) -> None:
        await fill(self.directory)
        self.assertEqual(self.version, 1)
        self.assertEqual(take(RealDisk(self.directory), "file", 1, "here", ()), 1)

    async def test_the_first_installation_raises_the_format_to_2(self) -> None:
        await fill(self.directory)
        storage = await self.installed()
        self.assertEqual(self.version, 2)
        await checkpointed(storage)
        await storage.close()
        before = await contents(self.directory)
        self.assertEqual(before["a"], b"new")
        self.assertEqual(self.version, 2)
        await (await self.installed()).close()
        self.assertEqual(sorted(path.name for path in self.directory.glob("FORMAT*")), [FORMAT_FILE])

    async def test_an_earlier_version_refuses_a_directory_with_an_installation(self) -> None:
        await (await self.installed()).close()
        self.patch(storage_module, "VERSION", 1)
        error = self.assertRaises(StorageError, opened, self.directory)
        self.assertIn("is in format 2 of the file storage; this server knows formats up to 1.", str(error))

    async def test_an_interrupted_change_of_the_format_is_completed_by_the_next_installation(self) -> None:
        await fill(self.directory)
        (self.directory / NEW_FORMAT_FILE).write_text('{"stor')
        findings: list[Finding] = []
        check_files(ReadOnlyDisk(self.directory), findings.append)
        self.assertEqual(findings, [])
        storage = await self.installed()
        self.assertEqual((self.version, (self.directory / NEW_FORMAT_FILE).exists()), (2, False))
        await storage.close()

    async def fails(self, code: int, expected: type[Exception]) -> FileStorage:
        """Let the change of the format fail once; return the storage with the staged stream."""
        storage = opened(self.directory)
        await create(storage, "__ds/1", b"new")
        await create(storage, "a", b"old")
        replace = ownership.raise_version

        def fail(*_: Any) -> None:
            raise OSError(code, "cannot write")

        self.patch(ownership, "raise_version", fail)
        storage._log.raise_version = lambda version: ownership.raise_version(storage._disk, "file", version)
        restoration = StreamRestoration(StreamConfig("text/plain"), FOREVER)
        await self.assertFailure(maybeDeferred(storage.install, "__ds/1", "a", restoration, True, 0.0), expected)
        self.patch(ownership, "raise_version", replace)
        self.assertEqual((await settled(storage.status("a", 0.0))).tail, 3)
        self.assertEqual(self.version, 1)
        return storage

    async def test_an_installation_on_a_full_disk_is_refused_and_can_be_repeated(self) -> None:
        for code, error in ((errno.ENOSPC, InsufficientStorage), (errno.EMFILE, Unavailable)):
            self.directory = Path(self.mktemp())
            storage = await self.fails(code, error)
            self.assertIsNone(storage.obstacle())
            await install(storage, "__ds/1", "a")
            self.assertEqual(self.version, 2)
            await storage.close()
            self.assertEqual(await contents(self.directory), {"a": b"new"})

    async def test_a_disk_that_fails_at_the_format_stops_the_storage(self) -> None:
        storage = await self.fails(errno.EIO, Unavailable)
        self.assertIn("has failed to write", storage.obstacle() or "")
        self.flushLoggedErrors()
        await storage.close()
        self.assertEqual(await contents(self.directory), {"a": b"old"})


class PlaceTests(TestCase):
    """The bytes of an installed stream stay where they were staged."""

    async def test_the_files_of_a_replaced_stream_are_removed_and_those_of_the_staged_one_are_kept(self) -> None:
        directory = Path(self.mktemp())
        storage = opened(directory)
        await create(storage, "a", b"o" * 100_000)
        await create(storage, "__ds/1", b"n" * 100_000)
        await checkpointed(storage)
        before = sorted(path.name for path in directory.glob("streams/*/*.data"))
        staged = (await settled(storage.status("__ds/1", 0.0))).facts.id
        await install(storage, "__ds/1", "a")
        await append(storage, "a", b"!")
        await storage.close()
        left = [path.name for path in directory.glob("streams/*/*.data")]
        self.assertEqual((len(before), left), (2, [f"{staged}.data"]))
        self.assertEqual(await contents(directory), {"a": b"n" * 100_000 + b"!"})

    async def test_a_checkpoint_at_any_moment_of_an_installation_is_complete(self) -> None:
        for moment in ("before", "during", "after"):
            directory = Path(self.mktemp())
            storage = opened(directory)
            await create(storage, "a", b"old")
            await create(storage, "__ds/1", b"new")
            await append(storage, "__ds/1", b" data")
            if moment == "before":
                await checkpointed(storage)
            restoration = StreamRestoration(StreamConfig("text/plain"), FOREVER)
            installed = maybeDeferred(storage.install, "__ds/1", "a", restoration, True, 0.0)
            if moment == "during":
                await checkpointed(storage)
            await installed
            if moment == "after":
                await checkpointed(storage)
            with self.assertRaises(StreamNotFound):
                storage.status("__ds/1", 0.0)
            await storage.close()
            findings: list[Finding] = []
            check_files(ReadOnlyDisk(directory), findings.append)
            self.assertEqual(([finding for finding in findings if finding.serious], moment), ([], moment))
            self.assertEqual(await contents(directory), {"a": b"new data"})


class RecordTests(TestCase):
    def test_an_installation_is_encoded_within_the_room_that_is_reserved_for_it(self) -> None:
        text = "\U0001f600" * 200
        config = StreamConfig(
            "\u00e9" * MAX_CONTENT_TYPE,
            Lifetime(2**53 - 1, 1e300),
            True,
            Fork(text, Offset(10**16 - 1, 10**16 - 1), 2**62),
        )
        writers = {f"{text}{number}": WriterState(2**62, 2**62, 1e300) for number in range(50)}
        state = StreamRestoration(
            config, Lifetime(2**53 - 1, 1e300), True, b"x" * 500, writers, 1e300, 1e300, 1e300, MAX_INCARNATION
        )
        change = StreamInstalled(2**62, text, state, 2**62)
        self.assertLessEqual(len(encode([change])), _room_of_installation(text, state))
        self.assertEqual(journal_reader._changes.decode(encode([change])), [change])

    def test_a_concealed_stream_keeps_its_committed_tail(self) -> None:
        stream = object.__new__(FileStream)
        for tail in (0, 1, 4711):
            stream.shown, stream.shown_closed = tail, True
            stream.conceal()
            self.assertEqual((stream.shown < 0, stream.shown_closed, stream.committed), (True, False, tail))
