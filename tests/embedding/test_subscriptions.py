"""Subscriptions of a program's own streams."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor as running
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.server import Site

from durable_streams.server import (
    AcidStorage,
    ConfigError,
    MemoryStorage,
    Settings,
    StreamService,
    build_resource,
    build_service,
)
from durable_streams.server.embedding.receivers import Work
from durable_streams.server.errors import Unavailable
from durable_streams.server.interfaces import IStorage
from durable_streams.server.subscriptions import (
    AlreadyClaimed,
    Fenced,
    InvalidAckOffset,
    InvalidConfig,
    InvalidSubscriptionRequest,
    NoPendingWork,
    SubscriptionExists,
    SubscriptionNotFound,
    TokenInvalid,
)

reactor: Any = running

ENABLED = Settings.from_mapping({"subscriptions.enabled": True})

JSON = "application/json"


class ClockCase(SynchronousTestCase):
    """A service in memory, on a Clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_000_000)
        self.storage: IStorage = MemoryStorage()
        self.streams = self.start()
        self.calls: list[Work] = []

    def start(self) -> StreamService:
        streams = StreamService(self.storage, self.clock, ENABLED)
        streams.startService()
        self.addCleanup(self.stop, streams)
        return streams

    def stop(self, streams: StreamService) -> None:
        stopped = streams.stopService()
        self.work()
        self.successResultOf(stopped)

    def work(self) -> None:
        for _ in range(50):
            self.clock.advance(0)

    def advance(self, seconds: float) -> None:
        self.work()
        self.clock.advance(seconds)
        self.work()

    def get(self, deferred: Deferred[Any]) -> Any:
        self.work()
        return self.successResultOf(deferred)

    def fails(self, deferred: Deferred[Any], error: type[Exception]) -> Any:
        self.work()
        return self.failureResultOf(deferred, error).value

    def append(self, name: str, *messages: object) -> str:
        data = [json.dumps(message).encode() for message in messages]
        offset = str(self.get(self.streams.append_batch(name, data)).next_offset)
        self.work()
        return offset

    def cursor(self, subscription_id: str = "s") -> str:
        (stream,) = self.get(self.streams.subscriptions.describe(subscription_id))["streams"]
        offset: str = stream["acked_offset"]
        return offset


class ReceiverTests(ClockCase):
    def receive(self, work: Work) -> None:
        self.calls.append(work)

    def test_a_receiver_is_called_with_pending_streams_and_acknowledges_them_by_returning(self) -> None:
        self.assertTrue(self.get(self.streams.subscriptions.subscribe("s", self.receive, pattern="chat/*")))
        self.get(self.streams.create("chat/1", JSON))
        tail = self.append("chat/1", {"n": 1})
        (work,) = self.calls
        self.assertEqual((work.subscription_id, work.generation), ("s", 1))
        self.assertEqual([(stream.path, stream.tail_offset) for stream in work.pending], [("chat/1", tail)])
        reading = self.get(self.streams.read("chat/1", work.pending[0].acked_offset))
        self.assertEqual(json.loads(reading.data), [{"n": 1}])
        self.assertEqual(self.cursor(), tail)

    def test_the_result_of_a_receiver_is_awaited_and_appends_meanwhile_are_the_next_wake(self) -> None:
        done: Deferred[None] = Deferred()

        def receive(work: Work) -> Deferred[None] | None:
            self.calls.append(work)
            return done if len(self.calls) == 1 else None

        self.get(self.streams.subscriptions.subscribe("s", receive, pattern="chat/*"))
        self.get(self.streams.create("chat/1", JSON))
        first = self.append("chat/1", 1)
        second = self.append("chat/1", 2)
        self.advance(100)
        self.assertEqual(len(self.calls), 1)
        self.assertNotEqual(self.cursor(), first)
        done.callback(None)
        self.work()
        self.assertEqual(len(self.calls), 2)
        self.assertEqual(self.calls[1].pending[0].acked_offset, first)
        self.assertEqual(self.cursor(), second)

    def test_a_receiver_that_fails_is_logged_and_called_again_with_the_same_wake(self) -> None:
        def receive(work: Work) -> None:
            self.calls.append(work)
            if len(self.calls) < 3:
                raise ValueError("not now")

        self.get(self.streams.subscriptions.subscribe("s", receive, pattern="chat/*"))
        self.get(self.streams.create("chat/1", JSON))
        tail = self.append("chat/1", 1)
        self.assertEqual(self.get(self.streams.subscriptions.describe("s"))["status"], "failed")
        self.advance(0.7)
        self.assertEqual(len(self.calls), 1)
        self.advance(0.6)
        self.assertEqual(len(self.calls), 2)
        self.advance(2.5)
        self.assertEqual(self.calls[1:], self.calls[:1] * 2)
        self.assertEqual(self.cursor(), tail)
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 2)

    def test_after_a_restart_a_wake_waits_until_the_program_has_subscribed_again(self) -> None:
        self.get(self.streams.subscriptions.subscribe("s", lambda _: Deferred(), pattern="chat/*"))
        self.get(self.streams.create("chat/1", JSON))
        tail = self.append("chat/1", 1)
        stopped = self.streams.stopService()
        self.advance(60)
        self.successResultOf(stopped)
        self.streams = self.start()
        self.advance(7)
        self.assertEqual(self.calls, [])
        self.assertFalse(self.get(self.streams.subscriptions.subscribe("s", self.receive, pattern="chat/*")))
        self.advance(2)
        self.assertEqual([work.generation for work in self.calls], [1])
        self.assertEqual(self.cursor(), tail)

    def test_another_configuration_is_refused_and_the_receiver_stays(self) -> None:
        self.get(self.streams.subscriptions.subscribe("s", self.receive, pattern="chat/*"))
        other = self.streams.subscriptions.subscribe("s", lambda _: self.fail(), pattern="other/*")
        self.fails(other, SubscriptionExists)
        self.get(self.streams.create("chat/1", JSON))
        self.append("chat/1", 1)
        self.assertEqual(len(self.calls), 1)

    def test_an_unsubscribed_receiver_is_not_called_any_more(self) -> None:
        self.get(self.streams.subscriptions.subscribe("s", self.receive, pattern="chat/*"))
        self.get(self.streams.subscriptions.unsubscribe("s"))
        self.get(self.streams.create("chat/1", JSON))
        self.append("chat/1", 1)
        self.advance(60)
        self.assertEqual(self.calls, [])
        self.fails(self.streams.subscriptions.unsubscribe("s"), SubscriptionNotFound)

    def test_stopping_cancels_a_receiver_that_does_not_end_in_the_drain_time(self) -> None:
        cancelled: list[Deferred[None]] = []
        self.get(self.streams.subscriptions.subscribe("s", lambda _: Deferred(cancelled.append), pattern="chat/*"))
        self.get(self.streams.create("chat/1", JSON))
        self.append("chat/1", 1)
        stopped = self.streams.stopService()
        self.advance(1)
        self.assertNoResult(stopped)
        self.advance(60)
        self.successResultOf(stopped)
        self.assertEqual(len(cancelled), 1)


class WorkerTests(ClockCase):
    def setUp(self) -> None:
        super().setUp()
        for name in ("wakes", "jobs"):
            self.get(self.streams.create(name, JSON))
        subscribed = self.streams.subscriptions.subscribe("s", names=["jobs"], wake_stream="wakes", lease=10)
        self.assertTrue(self.get(subscribed))

    def claim(self, worker: str = "worker") -> Work:
        work: Work = self.get(self.streams.subscriptions.claim("s", worker))
        return work

    def test_a_worker_claims_acknowledges_and_finds_no_more_work(self) -> None:
        self.fails(self.streams.subscriptions.claim("s", "worker"), NoPendingWork)
        tail = self.append("jobs", {"id": 1})
        event = json.loads(self.get(self.streams.read("wakes")).data)[0]
        self.assertEqual((event["subscription_id"], event["stream"]), ("s", "jobs"))
        work = self.claim()
        error = self.fails(self.streams.subscriptions.claim("s", "other"), AlreadyClaimed)
        self.assertEqual(error.current_holder, "worker")
        self.assertFalse(self.get(self.streams.subscriptions.ack(work, {"jobs": tail}, done=True)))
        self.assertEqual(self.cursor(), tail)
        self.fails(self.streams.subscriptions.claim("s", "worker"), NoPendingWork)

    def test_an_ack_without_offsets_extends_the_lease(self) -> None:
        self.append("jobs", 1)
        work = self.claim()
        for _ in range(3):
            self.advance(8)
            self.assertFalse(self.get(self.streams.subscriptions.ack(work)))
        self.advance(11)
        self.fails(self.streams.subscriptions.ack(work), Fenced)

    def test_offsets_are_those_of_readings(self) -> None:
        first = self.append("jobs", 1)
        self.append("jobs", 2)
        work = self.claim()
        reading = self.get(self.streams.read("jobs", work.pending[0].acked_offset, limit=1))
        self.assertTrue(self.get(self.streams.subscriptions.ack(work, {"jobs": reading.next_offset}, done=True)))
        self.assertEqual(self.cursor(), first)

    def test_an_ack_past_the_tail_is_refused_and_the_cursor_stays(self) -> None:
        self.append("jobs", 1)
        before = self.cursor()
        work = self.claim()
        self.fails(self.streams.subscriptions.ack(work, {"jobs": "9" * 16 + "_" + "9" * 16}), InvalidAckOffset)
        self.fails(self.streams.subscriptions.ack(work, {"other": before}), InvalidAckOffset)
        self.assertEqual(self.cursor(), before)

    def test_released_work_is_claimed_again_and_the_old_claim_is_fenced(self) -> None:
        self.append("jobs", 1)
        first = self.claim()
        self.get(self.streams.subscriptions.release(first))
        second = self.claim("other")
        self.assertEqual(second.streams, first.streams)
        self.assertGreater(second.generation, first.generation)
        self.fails(self.streams.subscriptions.ack(first, done=True), Fenced)

    def test_a_forged_token_is_refused(self) -> None:
        self.append("jobs", 1)
        work = self.claim()
        forged = Work(work.subscription_id, work.wake_id, work.generation, work.streams, "x" * 50)
        self.fails(self.streams.subscriptions.ack(forged), TokenInvalid)
        self.fails(self.streams.subscriptions.release(forged), TokenInvalid)


class ConfigurationTests(ClockCase):
    def test_a_subscription_has_one_of_receiver_url_and_wake_stream(self) -> None:
        subscribe = self.streams.subscriptions.subscribe
        self.fails(subscribe("s", pattern="chat/*"), InvalidSubscriptionRequest)
        both = subscribe("s", self.calls.append, pattern="chat/*", wake_stream="wakes")
        self.fails(both, InvalidSubscriptionRequest)

    def test_a_webhook_needs_the_public_url(self) -> None:
        error = self.fails(
            self.streams.subscriptions.subscribe("s", pattern="chat/*", url="https://worker.example/"), InvalidConfig
        )
        self.assertIn("http.public_url", str(error))

    def test_a_lease_out_of_range_is_refused(self) -> None:
        for lease in (0.5, 601):
            self.fails(
                self.streams.subscriptions.subscribe("s", self.calls.append, pattern="chat/*", lease=lease),
                InvalidConfig,
            )

    def test_disabled_subscriptions_are_a_configuration_error_that_names_the_setting(self) -> None:
        disabled = Settings.from_mapping({"subscriptions.enabled": False})
        streams = StreamService(MemoryStorage(), self.clock, disabled)
        with self.assertRaisesRegex(ConfigError, "subscriptions.enabled"):
            streams.subscriptions  # noqa: B018

    def test_a_service_that_is_not_started_or_has_stopped_is_unavailable(self) -> None:
        streams = StreamService(MemoryStorage(), self.clock, ENABLED)
        self.fails(streams.subscriptions.claim("s", "worker"), Unavailable)
        streams.startService()
        self.stop(streams)
        self.fails(streams.subscriptions.claim("s", "worker"), Unavailable)


class CorruptTests(ClockCase):
    def test_streams_are_not_served_without_subscriptions_that_cannot_be_read(self) -> None:
        written: Any = self.streams.streams.write_values({"subscriptions/s": b"garbage"}, {})
        self.assertIsNone(written)
        self.stop(self.streams)
        streams = StreamService(self.storage, self.clock, ENABLED)
        with self.assertRaisesRegex(Exception, "subscriptions/s can't be read"):
            streams.startService()
        self.fails(streams.create("s", JSON), Unavailable)
        self.stop(streams)


class StoredTests(TestCase):
    """On disk, in the running reactor."""

    async def test_a_subscription_and_its_cursor_survive_a_restart(self) -> None:
        directory = self.mktemp()
        calls: list[Work] = []
        for generation in (1, 2):
            streams = StreamService(AcidStorage(directory, reactor), settings=ENABLED)
            streams.startService()
            is_new = await streams.subscriptions.subscribe("s", calls.append, pattern="chat/*")
            self.assertEqual(is_new, generation == 1)
            await streams.create("chat/1", JSON)
            appended = await streams.append("chat/1", b"%d" % generation)
            for _ in range(500):
                (stream,) = (await streams.subscriptions.describe("s"))["streams"]
                if stream["acked_offset"] == str(appended.next_offset):
                    break
                await deferLater(reactor, 0.01)
            self.assertEqual(stream["acked_offset"], str(appended.next_offset))
            self.assertEqual(calls[-1].generation, generation)
            await streams.stopService()
        self.assertEqual(calls[1].pending[0].acked_offset, calls[0].pending[0].tail_offset)


class ServedTests(TestCase):
    """HTTP beside the program's own calls."""

    async def put(self, port: int, path: str, body: object) -> tuple[int, Any]:
        from treq import content, put  # noqa: PLC0415

        response = await put(f"http://127.0.0.1:{port}{path}", json.dumps(body).encode(), persistent=False)
        return response.code, json.loads(await content(response))

    async def check(self, port: int, base: str, streams: StreamService) -> None:
        calls: list[Work] = []
        self.assertTrue(await streams.subscriptions.subscribe("s", calls.append, pattern="chat/*"))
        hook = {"type": "webhook", "pattern": "chat/*", "webhook": {"url": "python:s"}}
        self.assertEqual((await self.put(port, f"{base}/__ds/subscriptions/s", hook))[0], 200)
        status, answer = await self.put(port, f"{base}/__ds/subscriptions/other", hook)
        self.assertEqual((status, answer["error"]["code"]), (400, "WEBHOOK_URL_REJECTED"))

    async def test_a_resource_serves_the_subscriptions_of_its_service(self) -> None:
        streams = StreamService(MemoryStorage(), settings=ENABLED)
        streams.startService()
        self.addCleanup(streams.stopService)
        port = reactor.listenTCP(0, Site(build_resource(streams)), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        await self.check(port.getHost().port, "", streams)

    async def test_a_server_serves_the_subscriptions_of_its_service(self) -> None:
        server = build_service(MemoryStorage(), ENABLED, ["http:0:interface=127.0.0.1"])
        server.startService()
        self.addCleanup(server.stopService)
        self.assertIs(server.subscriptions, server.streams.subscription_service)
        await server.streams.when_open()
        address: Any = server.addresses[0]
        await self.check(address.port, "/v1/stream", server.streams)
