"""Documents between this server and the program of the Rust server, in both directions."""

from __future__ import annotations

import io
import json
import random
import re
import urllib.request
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase

from durable_streams.server import AcidStorage, FileStorage, IStorage, MemoryStorage, StreamService
from durable_streams.server.model import StorageLimits
from durable_streams.server.transfer import export_streams, import_streams
from tests.support.rust_server import RustServer

_LIMITS = StorageLimits(total_bytes=1 << 28, stream_bytes=1 << 28)

#: Each line of a document that tells when or by which server it was made.
_TIMES = re.compile(rb'^ *"(?:exported_at|server_version|created_at|updated_at)": .*\n', re.MULTILINE)


def without_times(document: bytes) -> bytes:
    """Return a document without the lines in which two servers differ."""
    return _TIMES.sub(b"", document)


def put(url: str, data: bytes, method: str = "PUT", **headers: str) -> int:
    """Send a request, and return the status of the answer."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(url, data, named, method=method)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return int(answer.status)


class RustTransferTests(TestCase):
    def setUp(self) -> None:
        self.rust = RustServer(self.mktemp())

    def storages(self) -> list[IStorage]:
        return [
            MemoryStorage(_LIMITS),
            FileStorage(self.mktemp(), reactor, _LIMITS),
            AcidStorage(self.mktemp(), reactor, _LIMITS),
        ]

    def service(self, storage: IStorage) -> StreamService:
        service = StreamService(storage)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    async def exported(self, service: StreamService) -> bytes:
        out = io.BytesIO()
        await export_streams(service, out)
        return out.getvalue()

    def fill_rust(self) -> None:
        """Make streams over HTTP."""
        with self.rust.serving() as base:
            put(f"{base}a/json", b'[{"b": 1.50, "a": [1, 2]}, "x y", null]', Content_Type="application/json")
            put(f"{base}a/json", '{"t":"\u00e9\U0001f600"}'.encode(), "POST", Content_Type="application/json")
            put(f"{base}a/text", b"hello", Content_Type="Text/Plain; charset=utf-8")
            put(f"{base}a/text", b" world", "POST", Content_Type="text/plain")
            put(f"{base}bytes", bytes(range(256)) * 200, Content_Type="application/octet-stream")
            put(f"{base}closed", b"final", Content_Type="text/plain", Stream_Closed="true")
            put(f"{base}later", b"a", Content_Type="text/plain")
            put(f"{base}later", b"", "POST", Stream_Closed="true")
            put(f"{base}empty", b"", Content_Type="application/json")
            put(f"{base}expires", b"", Content_Type="text/plain", Stream_Expires_At="2126-01-02T03:04:05.25Z")
            put(f"{base}ttl", b"x", Content_Type="text/plain", Stream_TTL="86400")

    async def test_what_the_rust_server_exports_is_imported_and_exported_the_same(self) -> None:
        self.fill_rust()
        document = self.rust.exported()
        expected = json.loads(document)["streams"]
        self.assertEqual(8, len(expected))
        for storage in self.storages():
            service = self.service(storage)
            stats = await import_streams(service, io.BytesIO(document))
            self.assertEqual(8, stats.streams_imported)
            ours = await self.exported(service)
            # A TTL begins again, so its end differs.
            theirs_at, ours_at = (
                next(s["config"]["expires_at"] for s in json.loads(text)["streams"] if s["name"] == "ttl").encode()
                for text in (document, ours)
            )
            self.assertEqual(
                without_times(document).replace(theirs_at, b"").decode(),
                without_times(ours).replace(ours_at, b"").decode(),
            )

    async def test_what_this_server_exports_is_imported_by_the_rust_server_and_exported_the_same(self) -> None:
        for storage in self.storages():
            service = self.service(storage)
            rng = random.Random(3)
            for number in range(20):
                name, ttl = f's/{number}\u00e9"\\ x', 86_400 if number % 3 else None
                await service.create(name, "text/plain", closed=number == 7, ttl=ttl)
                for _ in range(0 if number == 7 else rng.randrange(20)):
                    await service.append(name, rng.randbytes(rng.randrange(1, 3000)))
            values: list[Any] = [{"a": 1, "b": [None, "x y"]}, 1.5, "text", [], [[1]]]
            await service.create("json", "application/json; charset=utf-8", json.dumps(values).encode())
            await service.append("json", b' {"a" : 10000000000000000000000000, "\\ud83d" : "\\ud83d"} ', close=True)
            await service.create("expires", "text/plain", expires_at=4_000_000_000.5)
            document = await self.exported(service)
            self.rust = RustServer(self.mktemp())
            done = self.rust.run("import", data=document)
            self.assertEqual(0, done.returncode, done.stderr)
            self.assertIn(b"Imported 22 stream(s), skipped 0, ", done.stderr)
            self.assertEqual(without_times(document).decode(), without_times(self.rust.exported()).decode())

    async def test_a_stream_that_came_from_this_server_can_be_read_and_appended_to_there(self) -> None:
        service = self.service(MemoryStorage(_LIMITS))
        await service.create("json", "application/json", b'[{"a": 1}, "b"]')
        done = self.rust.run("import", data=await self.exported(service))
        self.assertEqual(0, done.returncode, done.stderr)
        with self.rust.serving() as base:
            put(f"{base}json", b"[3]", "POST", Content_Type="application/json")
            with urllib.request.urlopen(f"{base}json", timeout=10) as answer:
                self.assertEqual([{"a": 1}, "b", 3], json.load(answer))
