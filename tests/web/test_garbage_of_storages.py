"""Tests that refused requests leave no garbage with any storage, on a real disk."""

from __future__ import annotations

from types import FrameType

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults, succeed
from twisted.trial.unittest import TestCase

from durable_streams.server.config.sections import StorageSettings
from durable_streams.server.config.settings import Settings
from durable_streams.server.daemon.assembly import operations_from
from durable_streams.server.daemon.storages import storage_from
from durable_streams.server.errors import StreamNotFound, StreamsError
from durable_streams.server.model import Append
from durable_streams.server.streams import Streams
from durable_streams.server.web.answers import Answer
from durable_streams.server.web.requests import stream_request
from tests.support.garbage import garbage, large_values

BODY = b"x" * 100_000


class DurableTests(TestCase):
    mode = "file-durable"

    def setUp(self) -> None:
        settings = Settings(storage=StorageSettings(mode=self.mode, data_dir=self.mktemp()))
        self.streams = Streams(storage_from(settings, reactor), reactor)
        self.streams.startService()
        self.addCleanup(self.streams.stopService)
        self.operations = operations_from(self.streams, settings, reactor)

    def ask(self, method: bytes, name: bytes, media_type: bytes = b"text/plain", body: bytes = b"") -> Deferred[Answer]:
        request = stream_request(method, b"/s/", name, b"", {b"content-type": media_type}, body)
        answer = self.operations.perform(request)
        return answer if isinstance(answer, Deferred) else succeed(answer)

    async def refuse(self) -> list[int]:
        """Send requests that are refused because of committed and of uncommitted changes."""
        later = [
            self.ask(b"PUT", b"a"),
            self.ask(b"PUT", b"a", b"text/html", BODY),
            self.ask(b"POST", b"a", b"text/html", BODY),
            self.ask(b"DELETE", b"a"),
            self.ask(b"POST", b"a", b"text/plain", BODY),
        ]
        answers = await gatherResults(later)
        for method in (b"POST", b"PUT"):
            answers.append(await self.ask(method, b"b", b"text/html", BODY))
        return [answer.status for answer in answers]

    async def test_refused_requests_leave_nothing_to_the_collector(self) -> None:
        await self.ask(b"PUT", b"b")
        with garbage() as found:
            self.assertEqual(await self.refuse(), [201, 409, 409, 204, 404, 409, 409])
        self.assertEqual([each for each in found if isinstance(each, (StreamsError, FrameType))], [])
        self.assertEqual(large_values(found), [])

    async def live(self, name: bytes) -> None:
        """Create, append to, fork, read and delete a stream."""
        fork = {b"content-type": b"text/plain", b"stream-forked-from": name}
        writer = {b"producer-id": b"p", b"producer-epoch": b"0", b"producer-seq": b"0"}
        for method, each, query, more, body in (
            (b"PUT", name, b"", {}, BODY),
            (b"PUT", name, b"", {}, b""),
            (b"POST", name, b"", writer, BODY),
            (b"POST", name, b"", writer, BODY),
            (b"PUT", name + b"fork", b"", fork, b""),
            (b"POST", name + b"fork", b"", {}, BODY),
            (b"GET", name + b"fork", b"", {}, b""),
            (b"HEAD", name, b"", {}, b""),
            (b"POST", name, b"", {b"stream-closed": b"true"}, b""),
            (b"GET", name, b"offset=now&live=long-poll", {}, b""),
            (b"DELETE", name, b"", {}, b""),
            (b"DELETE", name + b"fork", b"", {}, b""),
        ):
            headers = {b"content-type": b"text/plain", **more}
            answer = self.operations.perform(stream_request(method, b"/s/", each, query, headers, body))
            answer = await answer if isinstance(answer, Deferred) else answer
            self.assertLess(answer.status, 300, (method, each, answer.body))

    async def test_streams_leave_nothing_to_the_collector(self) -> None:
        await self.live(b"b")
        with garbage() as found:
            for number in range(10):
                await self.live(b"%d" % number)
        self.assertEqual(found, [])

    async def test_errors_of_the_service_leave_nothing_to_the_collector(self) -> None:
        def attempt() -> None:
            with self.assertRaises(StreamNotFound):
                self.streams.append("none", Append("text/plain", BODY))

        with garbage() as found:
            attempt()
        self.assertEqual([each for each in found if isinstance(each, StreamsError)], [])
        self.assertEqual(large_values(found), [])


class AcidTests(DurableTests):
    mode = "acid"


class FastTests(DurableTests):
    mode = "file-fast"


class MemoryTests(DurableTests):
    mode = "memory"
