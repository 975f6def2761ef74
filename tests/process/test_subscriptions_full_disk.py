"""Subscriptions on a full disk: wakes and acks are refused or repeated, and nothing is stranded when there is room."""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.process.subscription_kills import (
    STREAMS,
    Ledger,
    PullWorker,
    Receiver,
    check_events,
    create_subscriptions,
    streams_behind,
)
from tests.process.test_full_disk import FullDiskTestCase, path
from tests.support.daemon import PATIENCE
from tests.support.exchanges import Exchanges, Reply
from tests.support.killed_daemon import KILLED, KilledDaemon
from tests.support.webhook_receiver import WebhookReceiver

#: How long, in seconds, deliveries and acks go on while the disk is full.
_FULL = 3.0

_JSON = {"Content-Type": "application/json"}


class SubscriptionsTests(FullDiskTestCase):
    """In mode file-durable."""

    settings: dict[str, str] = {  # noqa: RUF012 (never changed in place)
        "subscriptions__request_timeout_ms": "1000",
        "http__allow_insecure_webhooks": "true",
        "observability__access_log": "none",
    }

    def setUp(self) -> None:
        rng = random.Random(1)
        self.ledger = Ledger()
        self.ledger.refusals.add(507)
        self.receiver = Receiver(self.ledger, rng)
        self.addCleanup(self.receiver.close)
        self.number = 0

    def serve(self, disk: Path) -> KilledDaemon:
        """Start a daemon, which the receiver's callbacks go to."""
        daemon = self.start_on(disk)
        self.receiver.server_port = daemon.port
        return daemon

    def work(self, daemon: KilledDaemon) -> PullWorker:
        """Start a worker."""
        worker = PullWorker(daemon.port, self.ledger, random.Random(2))
        self.addCleanup(worker.stop)
        return worker

    def append(self, exchanges: Exchanges) -> int:
        """Append to each stream with a subscription; return how many appends were refused."""
        refused = 0
        for name in STREAMS:
            self.number += 1
            reply = exchanges.ask("POST", path(name), b'{"n":%d}' % self.number, _JSON)
            if reply.status != 204:
                self.assertIsFull(reply)
                refused += 1
        return refused

    def fill_while_working(self, daemon: KilledDaemon) -> dict[str, bytearray]:
        """Fill the disk while there are deliveries and acks, then go on for a while. Return what takes the room."""
        with Exchanges(daemon.port) as exchanges:
            self.assertEqual(0, self.append(exchanges))
            taken = self.fill(exchanges)
            deadline = time.monotonic() + _FULL
            refused = 0
            while time.monotonic() < deadline:
                refused += self.append(exchanges)
                time.sleep(0.02)
        self.assertGreater(refused, 0)
        self.assertEqual([], self.ledger.faults)
        return taken

    def make_room(self, daemon: KilledDaemon, taken: dict[str, bytearray]) -> None:
        """Delete the streams that have filled the disk."""
        for name in taken:
            self.assertEqual(daemon.ask("DELETE", path(name)).status, 204)

    def assert_all_acknowledged(self, daemon: KilledDaemon) -> None:
        """Wait until all that was appended is acknowledged; a new append is, too."""
        deadline = time.monotonic() + 2 * PATIENCE
        for _ in range(2):
            while behind := streams_behind(daemon, self.ledger):
                self.assertLess(time.monotonic(), deadline, f"{behind}\n{self.ledger.done}\n{daemon.log()}")
                time.sleep(0.05)
            with Exchanges(daemon.port) as exchanges:
                while self.append(exchanges):
                    self.assertLess(time.monotonic(), deadline, f"There is no room yet:\n{daemon.log()}")
                    time.sleep(0.2)
        self.assertEqual([], self.ledger.faults)
        check_events(daemon)

    def test_all_is_acknowledged_when_there_is_room_again_where_mounting_is_allowed(self) -> None:
        daemon = self.serve(self.disk())
        create_subscriptions(daemon, self.receiver)
        worker = self.work(daemon)
        taken = self.fill_while_working(daemon)
        self.make_room(daemon, taken)
        self.assert_all_acknowledged(daemon)
        worker.stop()
        self.assertEqual(daemon.terminate(), 0)
        self.assertNotIn("Traceback", daemon.log())
        self.assertNotIn("#critical", daemon.log())

    def test_all_is_acknowledged_after_kills_on_the_full_disk_where_mounting_is_allowed(self) -> None:
        disk = self.disk()
        daemon = self.serve(disk)
        create_subscriptions(daemon, self.receiver)
        worker = self.work(daemon)
        taken = self.fill_while_working(daemon)
        for _ in range(3):
            self.assertEqual(daemon.kill(), KILLED)
            worker.stop()
            daemon = self.serve(disk)
            worker = self.work(daemon)
            with Exchanges(daemon.port) as exchanges:
                self.append(exchanges)
            time.sleep(0.5)
        self.make_room(daemon, taken)
        self.assert_all_acknowledged(daemon)
        worker.stop()
        self.assertEqual(daemon.terminate(), 0)
        self.assertNotIn("#critical", daemon.log())


class HeldWorkTests(FullDiskTestCase):
    """In mode file-durable: a delivery and a claim that began before the disk was full."""

    settings: dict[str, str] = {  # noqa: RUF012 (never changed in place)
        "subscriptions__request_timeout_ms": "60000",
        "http__allow_insecure_webhooks": "true",
        "observability__access_log": "none",
    }

    def setUp(self) -> None:
        self.bodies: list[bytes] = []
        self.may_answer = threading.Event()
        receiver = WebhookReceiver(self.receive)
        self.addCleanup(receiver.close)
        self.addCleanup(self.may_answer.set)
        self.hook = {"type": "webhook", "pattern": "w/*", "webhook": {"url": receiver.url}}

    def receive(self, body: bytes) -> tuple[int, bytes]:
        self.bodies.append(body)
        self.may_answer.wait(3 * PATIENCE)
        return 200, b'{"done":true}'

    def ask(self, daemon: KilledDaemon, method: str, target: str, value: Any = None, token: str = "") -> Reply:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        body = b"" if value is None else json.dumps(value).encode()
        return daemon.ask(method, path(f"__ds/subscriptions/{target}"), body, **headers)

    def wait_for(self, daemon: KilledDaemon, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 2 * PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), deadline, daemon.log())
            time.sleep(0.05)

    def cursors(self, daemon: KilledDaemon) -> list[str]:
        """Return the offsets of the cursors of both subscriptions."""
        return [
            stream["acked_offset"]
            for name in ("hook", "pull")
            for stream in json.loads(self.ask(daemon, "GET", name).body)["streams"]
        ]

    def tails(self, daemon: KilledDaemon) -> list[str]:
        return [daemon.ask("HEAD", path(name)).headers["stream-next-offset"] for name in ("w/1", "p/1")]

    def begin(self, daemon: KilledDaemon) -> tuple[dict[str, Any], dict[str, Any], dict[str, bytearray]]:
        """
        Fill the disk while a webhook has no answer yet and a worker holds a claim.

        :returns: the claim, the ack that ends it, and what takes the room.
        """
        daemon.create("wakes", content_type="application/json")
        pull = {"type": "pull-wake", "pattern": "p/*", "wake_stream": "wakes", "lease_ttl_ms": 600_000}
        for name, config in (("hook", self.hook), ("pull", pull)):
            self.assertEqual(201, self.ask(daemon, "PUT", name, config).status)
        for name in ("w/1", "p/1"):
            daemon.create(name, b"[1]", "application/json")
        self.wait_for(daemon, lambda: self.bodies)
        claim = json.loads(self.ask(daemon, "POST", "pull/claim", {"worker": "w"}).body)
        with Exchanges(daemon.port) as exchanges:
            taken = self.fill(exchanges)
            while exchanges.ask("POST", path("full-0"), b".", {"Content-Type": "text/plain"}).status == 204:
                taken["full-0"] += b"."
        (stream,) = claim["streams"]
        done = {"wake_id": claim["wake_id"], "generation": claim["generation"], "done": True}
        return claim, done | {"acks": [{"stream": "p/1", "offset": stream["tail_offset"]}]}, taken

    def assert_refused(self, reply: Reply) -> None:
        self.assertEqual((507, "INSUFFICIENT_STORAGE"), (reply.status, json.loads(reply.body)["error"]["code"]))

    def make_room(self, daemon: KilledDaemon, taken: dict[str, bytearray]) -> None:
        for name in taken:
            self.assertEqual(daemon.ask("DELETE", path(name)).status, 204)

    def test_acks_are_refused_and_outcomes_kept_until_there_is_room_where_mounting_is_allowed(self) -> None:
        daemon = self.start_on(self.disk())
        claim, ack, taken = self.begin(daemon)
        before = self.cursors(daemon)
        self.may_answer.set()
        self.wait_for(daemon, lambda: "Subscription hook: the outcome of a delivery is not saved yet" in daemon.log())
        self.assert_refused(self.ask(daemon, "POST", "pull/ack", ack, claim["token"]))
        self.assert_refused(self.ask(daemon, "POST", "pull/release", ack, claim["token"]))
        self.assert_refused(self.ask(daemon, "PUT", "other", self.hook))
        self.assertEqual(before, self.cursors(daemon))
        self.make_room(daemon, taken)
        replies: list[Reply] = []

        def acked() -> bool:
            replies.append(self.ask(daemon, "POST", "pull/ack", ack, claim["token"]))
            return replies[-1].status != 507

        self.wait_for(daemon, acked)
        self.assertEqual((200, {"ok": True, "next_wake": False}), (replies[-1].status, json.loads(replies[-1].body)))
        self.wait_for(daemon, lambda: self.cursors(daemon) == self.tails(daemon))
        # The outcome was kept and saved: nothing was delivered twice.
        self.assertEqual(1, len(self.bodies))
        self.assertEqual(1, daemon.log().count("is not saved yet"))
        self.assertEqual(daemon.terminate(), 0)
        self.assertNotIn("Traceback", daemon.log())

    def test_a_kill_before_the_outcome_is_saved_repeats_the_delivery_where_mounting_is_allowed(self) -> None:
        # The attempt is repeated a second after its time limit.
        self.settings = self.settings | {"subscriptions__request_timeout_ms": "10000"}
        disk = self.disk()
        daemon = self.start_on(disk)
        claim, ack, taken = self.begin(daemon)
        self.may_answer.set()
        self.wait_for(daemon, lambda: "Subscription hook: the outcome of a delivery is not saved yet" in daemon.log())
        self.assertEqual(daemon.kill(), KILLED)
        daemon = self.start_on(disk)
        self.make_room(daemon, taken)
        self.wait_for(daemon, lambda: self.ask(daemon, "POST", "pull/ack", ack, claim["token"]).status == 200)
        self.wait_for(daemon, lambda: self.cursors(daemon) == self.tails(daemon))
        self.assertEqual(2, len(self.bodies))
        self.assertEqual(json.loads(self.bodies[0])["wake_id"], json.loads(self.bodies[1])["wake_id"])
        self.assertEqual(daemon.terminate(), 0)
        self.assertNotIn("Traceback", daemon.log())


class SubscriptionsAcidTests(SubscriptionsTests):
    """In mode acid."""

    mode = "acid"


class HeldWorkAcidTests(HeldWorkTests):
    """In mode acid."""

    mode = "acid"
