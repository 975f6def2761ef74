"""Exports and imports on each storage, on the reactor and with threads."""

from __future__ import annotations

import io
import json
import random
from typing import Any

from msgspec.structs import replace
from twisted.internet import reactor
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import TestCase

from durable_streams.server import AcidStorage, FileSettings, FileStorage, IStorage, MemoryStorage, StreamService
from durable_streams.server.errors import StreamNotFound
from durable_streams.server.interfaces import settle
from durable_streams.server.model import Fork, StorageLimits
from durable_streams.server.transfer import (
    ConflictPolicy,
    ImportStats,
    InvalidBase64,
    PartialImport,
    Progress,
    export_streams,
    import_streams,
)
from durable_streams.server.transfer.progress import Reporter
from tests.support.transfers import RECORDED, document_object, pretty, stream_object

LIMITS = StorageLimits(total_bytes=1 << 28, stream_bytes=1 << 28)


def without_times(document: bytes) -> list[dict[str, Any]]:
    """Return the streams of a document without the times of a server."""
    streams: list[dict[str, Any]] = json.loads(document)["streams"]
    for stream in streams:
        del stream["created_at"], stream["updated_at"]
        if stream["config"]["ttl_seconds"] is not None:
            del stream["config"]["expires_at"]
    return streams


class MemoryTests(TestCase):
    """Transfers to and from a storage in memory; subclasses have the others."""

    limits = LIMITS

    def make_storage(self, name: str) -> IStorage:
        return MemoryStorage(self.limits)

    def service(self, name: str) -> StreamService:
        """Start a service with a storage of this name, or the one that has the files of that name."""
        service = StreamService(self.make_storage(name))
        service.startService()
        self.addCleanup(service.stopService)
        return service

    async def exported(self, service: StreamService, names: list[str] | None = None) -> bytes:
        """Export streams."""
        out = io.BytesIO()
        await export_streams(service, out, names)
        return out.getvalue()

    async def imported(self, service: StreamService, document: bytes, policy: ConflictPolicy = "skip") -> ImportStats:
        """Import a document."""
        return await import_streams(service, io.BytesIO(document), policy)

    async def fill(self, service: StreamService) -> None:
        """Make streams of every kind, with appends of many sizes."""
        rng = random.Random(1)
        for number in range(20):
            await service.create(f"bytes/{number}", "text/plain", closed=False, ttl=3600 if number % 3 else None)
            sizes = [rng.choice((1, 10, 300, 5_000)) for _ in range(rng.randrange(30))]
            appends = [service.append(f"bytes/{number}", rng.randbytes(size)) for size in sizes]
            for append in appends:
                await append
        await service.create("large", "application/octet-stream", rng.randbytes(1_500_000))
        await service.append("large", rng.randbytes(700_001), close=True)
        values = [{"number": number, "text": "x" * rng.randrange(100)} for number in range(5_000)]
        await service.create("json", "application/json", json.dumps(values).encode())
        for value in values[:200]:
            await service.append("json", json.dumps(value, indent=1).encode())
        await service.create("fork", fork=Fork("bytes/1"), data=b"!")
        await service.create("closed", "text/plain", b"final", closed=True)
        await service.create("expires", "text/plain", expires_at=4_000_000_000.5)
        await service.create("empty", "application/json")

    async def test_what_was_exported_is_imported_by_the_same_storage(self) -> None:
        source, target = self.service("source"), self.service("target")
        await self.fill(source)
        document = await self.exported(source)
        stats = await self.imported(target, document)
        self.assertEqual((26, 0), (stats.streams_imported, stats.streams_skipped))
        self.assertEqual(without_times(document), without_times(await self.exported(target)))

    async def test_the_document_of_the_rust_server_is_imported_and_exported(self) -> None:
        service = self.service("target")
        await self.imported(service, RECORDED.read_bytes())
        names = ["a/json", "a/text", "bytes", "created-closed", "closed-later", "empty", 'n\xe9"\\\U0001f600', "ttl"]
        exported = without_times(await self.exported(service, names))
        expected = [stream for stream in without_times(RECORDED.read_bytes()) if stream["name"] in names]
        self.assertEqual(expected, exported)

    async def test_a_stream_is_replaced_whole_and_an_expired_one_is_gone(self) -> None:
        service = self.service("target")
        await self.fill(service)
        values = [b"%d" % number for number in range(3000)]
        past = {"expires_at": "2020-01-01T00:00:00Z"}
        document = document_object(
            stream_object("json", "application/json", *values, config={"created_closed": True}, closed=True),
            stream_object("large", "text/plain", *values[:300]),
            stream_object("new", "text/plain", b"x", config=past),
        )
        stats = await self.imported(service, pretty(document), "replace")
        self.assertEqual((3, 3301), (stats.streams_imported, stats.messages_imported))
        replaced = without_times(await self.exported(service, ["json", "large", "new"]))
        self.assertEqual(without_times(pretty(document))[:2], replaced)
        with self.assertRaises(StreamNotFound):
            await service.head("new")
        await service.append("large", b"more")

    async def test_a_bad_document_changes_nothing(self) -> None:
        service = self.service("target")
        await self.fill(service)
        before = without_times(await self.exported(service))
        figures = service.streams.figures()
        bad = stream_object("z", "text/plain", b"x")
        bad["messages"][0]["data_base64"] = "x"
        document = pretty(document_object(stream_object("json", "text/plain", b"new"), stream_object("new"), bad))
        for policy in ("skip", "fail", "replace"):
            with self.assertRaises(InvalidBase64):
                await self.imported(service, document, policy)
        self.assertEqual(before, without_times(await self.exported(service)))
        after = service.streams.figures()
        self.assertEqual((figures.streams, figures.written_bytes), (after.streams, after.written_bytes))

    def many(self, count: int, text: bytes) -> list[dict[str, Any]]:
        """Return small streams: most of one append, some of many or of none."""
        rng = random.Random(count)
        streams = []
        for number in range(count):
            values = [b'"%b %d"' % (text, each) for each in range(rng.choice((0, 1, 1, 1, 5)))]
            if number % 50 == 0:
                values = [b'"%b"' % (text * rng.randrange(10_000)) for _ in range(60)]
            streams.append(
                stream_object(f"s/{number:04}", rng.choice(("text/plain", "application/json")), *values, closed=True)
            )
        return streams

    async def nothing_staged_is_left(self, service: StreamService) -> None:
        """Assert that all streams are those that clients find."""
        statuses = await settle(service.streams.statuses("", 10_000))
        self.assertEqual(len(statuses), service.streams.figures().streams)

    async def test_many_small_streams_are_imported_at_the_same_time_and_replaced(self) -> None:
        service = self.service("target")
        policies: list[tuple[bytes, ConflictPolicy]] = [(b"old", "fail"), (b"new", "replace")]
        for text, policy in policies:
            streams = self.many(500, text)
            stats = await self.imported(service, pretty(document_object(*streams)), policy)
            self.assertEqual(500, stats.streams_imported)
            self.assertEqual(
                without_times(pretty(document_object(*streams))), without_times(await self.exported(service))
            )
        await self.nothing_staged_is_left(service)

    async def test_streams_are_replaced_if_there_is_room_for_one_more_only(self) -> None:
        self.limits = replace(LIMITS, streams=301)
        service = self.service("target")
        await self.imported(service, pretty(document_object(*self.many(300, b"old"))))
        streams = self.many(300, b"new")
        stats = await self.imported(service, pretty(document_object(*streams)), "replace")
        self.assertEqual(300, stats.streams_imported)
        self.assertEqual(without_times(pretty(document_object(*streams))), without_times(await self.exported(service)))

    async def test_an_import_that_stops_names_all_that_is_done(self) -> None:
        self.limits = replace(LIMITS, streams=200)
        service = self.service("target")
        document = pretty(document_object(*self.many(300, b"new")))
        with self.assertRaises(PartialImport) as caught:
            await self.imported(service, document)
        stopped = caught.exception
        done = [stream["name"] for stream in without_times(await self.exported(service))]
        names = [f"s/{number:04}" for number in range(300)]
        self.assertEqual([*names[: names.index(stopped.stream)], *stopped.later], done)
        self.assertEqual(stopped.completed, len(done))
        await self.nothing_staged_is_left(service)
        self.assertLess(len(stopped.later), 256)
        await service.delete(done[0])
        with self.assertRaises(PartialImport):
            await self.imported(service, document)

    async def test_an_import_that_is_cancelled_leaves_whole_streams_only(self) -> None:
        service = self.service("target")
        streams = self.many(400, b"new")

        cancellations: list[Any] = []

        def cancel(progress: Progress) -> None:
            # A second cancellation would not wait for the deletion of what is staged.
            if progress.phase == "importing" and progress.streams > 50 and not cancellations:
                cancellations.append(reactor.callLater(0, run.cancel))

        self.patch(Reporter, "report", lambda self, make, end=False: cancel(make()))
        run = import_streams(service, io.BytesIO(pretty(document_object(*streams))), "skip", progress=cancel)
        with self.assertRaises(CancelledError):
            await run
        done = without_times(await self.exported(service))
        self.assertGreater(len(done), 50)
        expected = {stream["name"]: stream for stream in without_times(pretty(document_object(*streams)))}
        self.assertEqual([expected[stream["name"]] for stream in done], done)
        await self.nothing_staged_is_left(service)


class FileTests(MemoryTests):
    """The same in files."""

    def make_storage(self, name: str) -> IStorage:
        self.directory = getattr(self, "directory", None) or self.mktemp()
        settings = FileSettings(segment_sizes=(1 << 20,), checkpoint_bytes=1 << 20)
        return FileStorage(f"{self.directory}-{name}", reactor, self.limits, settings)

    async def test_what_was_imported_is_there_after_a_restart(self) -> None:
        service = self.service("target")
        await self.fill(service)
        document = pretty(document_object(stream_object("json", "text/plain", b"new"), stream_object("a")))
        await self.imported(service, document, "replace")
        before = await self.exported(service)
        await service.stopService()
        again = self.service("target")
        await again.when_open()
        self.assertEqual(without_times(before), without_times(await self.exported(again)))


class AcidTests(FileTests):
    """The same in a database."""

    def make_storage(self, name: str) -> IStorage:
        self.directory = getattr(self, "directory", None) or self.mktemp()
        return AcidStorage(f"{self.directory}-{name}", reactor, self.limits)
