"""Kills a server at the points of a delivery and of an ack, and checks that no wake is lost and that no cursor falls.

``python -m tests.process.subscription_kills --kills 50 --mode acid`` goes on for longer than the tests do.
"""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
from collections import Counter
from typing import Any

from tests.support.daemon import PATIENCE
from tests.support.exchanges import Exchanges, Gone, Reply
from tests.support.kill_campaign import MODES, TRAP_PATIENCE, KillCampaign
from tests.support.killed_daemon import KILLED, KilledDaemon
from tests.support.webhook_receiver import WebhookReceiver

#: A wake is saved and not sent; a webhook is sent, or an event is appended, and that is not recorded; an ack is saved
#: and not answered.
POINTS = (
    "before webhook/send",
    "before event/append",
    "before webhook/record",
    "before event/record",
    "before ack/answer",
)

#: The point where a webhook was delivered, and its outcome is not recorded: it must be delivered again.
_UNRECORDED = "before webhook/record"

#: How long, in seconds, nobody claims after a kill at this point: until the delivery is repeated.
_REPEATED_AFTER = {"before event/record": 2.5}

_BASE = "/v1/stream"
_SUBSCRIPTIONS = f"{_BASE}/__ds/subscriptions"
STREAMS = [f"{kind}/{number}" for kind in ("w", "p") for number in range(3)]
_LEASE_MS = 1_000


def _position(offset: str) -> int:
    return 0 if offset == "-1" else int(offset.partition("_")[2])


class Ledger:
    """
    What the receiver and the worker know of wakes and cursors.

    :ivar processed: by path, the position up to which data was handed out and processed.
    :ivar acknowledged: by path, the position of the last ack that was answered with 200.
    :ivar bodies: by wake_id, the body of a webhook.
    :ivar deliveries: by wake_id, how often a webhook has arrived.
    :ivar last_webhook: the wake_id of the webhook that has arrived last.
    :ivar done: counts of what happened.
    :ivar faults: what is wrong, in words.
    :ivar refusals: the statuses by which an ack or a release may be refused.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.processed: dict[str, int] = {}
        self.acknowledged: dict[str, int] = {}
        self.bodies: dict[str, bytes] = {}
        self.deliveries: Counter[str] = Counter()
        self.last_webhook = ""
        self.claims: set[str] = set()
        self.generations: dict[str, int] = {}
        self.done: Counter[str] = Counter()
        self.faults: list[str] = []
        self.refusals = {409, 503}

    def check(self, subscription_id: str, wake: dict[str, Any]) -> None:
        """Check a wake that was handed out: it has all that was not processed, and no cursor has fallen."""
        last = self.generations.get(subscription_id, 0)
        if wake["generation"] < last:
            self.faults.append(f"{subscription_id}: generation {wake['generation']} after {last}")
        self.generations[subscription_id] = max(last, wake["generation"])
        for stream in wake["streams"]:
            path, cursor = stream["path"], _position(stream["acked_offset"])
            if cursor > self.processed.get(path, 0):
                self.faults.append(
                    f"{path}: the cursor {cursor} is past what was processed: {self.processed.get(path)}"
                )
            if cursor < self.acknowledged.get(path, 0):
                self.faults.append(f"{path}: the cursor {cursor} is before the ack {self.acknowledged[path]}")

    def process(self, wake: dict[str, Any]) -> None:
        """Note that all data of a wake is processed."""
        for stream in wake["streams"]:
            tail = _position(stream["tail_offset"])
            self.processed[stream["path"]] = max(self.processed.get(stream["path"], 0), tail)

    def acked(self, wake: dict[str, Any]) -> None:
        """Note an ack that was answered."""
        for stream in wake["streams"]:
            tail = _position(stream["tail_offset"])
            self.acknowledged[stream["path"]] = max(self.acknowledged.get(stream["path"], 0), tail)


def _done(wake: dict[str, Any]) -> dict[str, Any]:
    acks = [{"stream": stream["path"], "offset": stream["tail_offset"]} for stream in wake["streams"]]
    return {"wake_id": wake["wake_id"], "generation": wake["generation"], "acks": acks, "done": True}


class Receiver:
    """
    A receiver of webhooks that acknowledges by its answer, acknowledges by a callback, or fails.

    :ivar calls_back: whether it may call back; else it acknowledges by its answer.
    """

    def __init__(self, ledger: Ledger, rng: random.Random) -> None:
        self._ledger = ledger
        self._rng = rng
        self.server_port = 0
        self.calls_back = True
        self._server = WebhookReceiver(self.receive)
        self.url = self._server.url
        self.close = self._server.close

    def receive(self, body: bytes) -> tuple[int, bytes]:
        """Return the answer to a webhook."""
        wake = json.loads(body)
        ledger = self._ledger
        with ledger.lock:
            ledger.deliveries[wake["wake_id"]] += 1
            ledger.last_webhook = wake["wake_id"]
            before = ledger.bodies.setdefault(wake["wake_id"], body)
            if before != body:
                ledger.faults.append(f"{wake['wake_id']} was repeated with another body")
            elif wake["wake_id"] in ledger.claims:
                ledger.done["repeated webhooks"] += 1
            ledger.claims.add(wake["wake_id"])
            ledger.check("hook", wake)
            choice = self._rng.random()
            if choice < 0.15:
                ledger.done["refused webhooks"] += 1
                return 503, b""
            ledger.process(wake)
        if choice < 0.6 or not self.calls_back:
            ledger.done["webhooks acknowledged by their answer"] += 1
            return 200, b'{"done": true}'
        self._call_back(wake)
        return 200, b"{}"

    def _call_back(self, wake: dict[str, Any]) -> None:
        try:
            reply = _post(self.server_port, f"{_SUBSCRIPTIONS}/hook/callback", _done(wake), wake["callback_token"])
        except Gone:
            return
        with self._ledger.lock:
            if reply.status == 200:
                self._ledger.acked(wake)
                self._ledger.done["callbacks"] += 1
            elif reply.status not in self._ledger.refusals:
                self._ledger.faults.append(f"a callback was answered with {reply}")
            else:
                self._ledger.done[f"callbacks refused with {reply.status}"] += 1


def _post(port: int, path: str, body: Any, token: str | None = None) -> Reply:
    headers = {"Content-Type": "application/json"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
    with Exchanges(port) as exchanges:
        return exchanges.ask("POST", path, json.dumps(body).encode(), headers)


class PullWorker:
    """A worker that claims, acknowledges or releases until the server is gone."""

    def __init__(self, port: int, ledger: Ledger, rng: random.Random) -> None:
        self._port = port
        self._ledger = ledger
        self._rng = rng
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop it after what it does."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.is_set():
            try:
                reply = _post(self._port, f"{_SUBSCRIPTIONS}/pull/claim", {"worker": "worker"})
                if reply.status == 200:
                    self._work(json.loads(reply.body))
                else:
                    time.sleep(0.02)
            except Gone:
                time.sleep(0.02)
            except Exception as error:
                self._ledger.faults.append(repr(error))
                return

    def _work(self, claim: dict[str, Any]) -> None:
        ledger = self._ledger
        with ledger.lock:
            if claim["wake_id"] in ledger.claims:
                ledger.faults.append(f"{claim['wake_id']} was claimed twice")
            ledger.claims.add(claim["wake_id"])
            ledger.check("pull", claim)
            choice = self._rng.random()
            if choice >= 0.15:
                ledger.process(claim)
        action = "release" if choice < 0.15 else "ack"
        if choice > 0.8:
            heartbeat = {"wake_id": claim["wake_id"], "generation": claim["generation"]}
            _post(self._port, f"{_SUBSCRIPTIONS}/pull/ack", heartbeat, claim["token"])
        reply = _post(self._port, f"{_SUBSCRIPTIONS}/pull/{action}", _done(claim), claim["token"])
        with ledger.lock:
            if reply.status == 200:
                ledger.acked(claim)
            if reply.status in (200, 204):
                ledger.done[f"answered {action}"] += 1
            elif reply.status not in ledger.refusals:
                ledger.faults.append(f"{action} was answered with {reply}")
            else:
                ledger.done[f"{action} refused with {reply.status}"] += 1


def create_subscriptions(daemon: KilledDaemon, receiver: Receiver) -> None:
    """Create the streams, a webhook subscription of half of them, and a pull-wake subscription of the others."""
    for name in (*STREAMS, "wakes"):
        daemon.create(name, content_type="application/json")
    hook = {"type": "webhook", "pattern": "w/*", "webhook": {"url": receiver.url}}
    pull = {"type": "pull-wake", "pattern": "p/*", "wake_stream": "wakes"}
    for subscription_id, config in (("hook", hook), ("pull", pull)):
        body = json.dumps(config | {"lease_ttl_ms": _LEASE_MS}).encode()
        reply = daemon.ask("PUT", f"{_SUBSCRIPTIONS}/{subscription_id}", body)
        assert reply.status == 201, reply


def streams_behind(daemon: KilledDaemon, ledger: Ledger) -> list[str]:
    """Return the streams whose cursor is not at the tail."""
    behind = []
    for subscription_id in ("hook", "pull"):
        with ledger.lock:
            acknowledged = dict(ledger.acknowledged)
        found = json.loads(daemon.ask("GET", f"{_SUBSCRIPTIONS}/{subscription_id}").body)
        assert len(found["streams"]) == len(STREAMS) // 2, found
        for stream in found["streams"]:
            cursor = _position(stream["acked_offset"])
            assert cursor >= acknowledged.get(stream["path"], 0), (stream, acknowledged)
            tail = daemon.ask("HEAD", f"{_BASE}/{stream['path']}").headers["stream-next-offset"]
            if stream["acked_offset"] != tail:
                behind.append(stream["path"])
    return behind


def check_events(daemon: KilledDaemon) -> None:
    """Check that the wake stream has each event once."""
    generations = [event["generation"] for event in json.loads(daemon.read("wakes"))]
    assert generations == sorted(set(generations)), generations


class Campaign(KillCampaign):
    """A data directory with two subscriptions, whose server is killed again and again."""

    def __init__(self, mode: str, seed: int | str) -> None:
        settings = {
            "subscriptions__enabled": "true",
            "subscriptions__request_timeout_ms": "1000",
            "http__allow_insecure_webhooks": "true",
        }
        super().__init__("subscription-kills-", mode, seed, settings)
        self.ledger = Ledger()
        self.receiver = Receiver(self.ledger, random.Random(self.rng.random()))
        self.kills: Counter[str] = Counter()
        self._number = 0

    def close(self) -> None:
        """Stop the receiver, and remove the directory."""
        self.receiver.close()
        super().close()

    def start(self, point: str | None = None, passage: int = 1, action: int = 0) -> KilledDaemon:
        """Start a server, which the receiver's callbacks go to."""
        daemon = super().start(point, passage, action)
        self.receiver.server_port = daemon.port
        return daemon

    def set_up(self) -> None:
        """Create the streams and the subscriptions."""
        with self.start() as daemon:
            create_subscriptions(daemon, self.receiver)

    def killed_at(self, point: str) -> None:
        """
        Use a server until it dies at a point, start another one, and wait until all data is acknowledged.

        :raises AssertionError: it does not come to the point, or something was lost.
        """
        # A callback ends a wake, whatever is recorded of its webhook: then there is nothing to deliver again.
        self.receiver.calls_back = point != _UNRECORDED
        daemon = self.start(point, self.rng.randint(1, 4))
        if daemon.is_ready():
            self._use(daemon)
        status = daemon.kill()
        assert status == KILLED, daemon.log()
        assert self.mark.exists(), f"{point} was not passed:\n{daemon.log()}"
        self.kills[point] += 1
        with self.ledger.lock:
            last = self.ledger.last_webhook
            delivered = self.ledger.deliveries[last]
        self.settle(_REPEATED_AFTER.get(point, 0))
        if point == _UNRECORDED:
            assert self.ledger.deliveries[last] > delivered, f"{last} was not delivered again"

    def _use(self, daemon: KilledDaemon) -> None:
        worker = PullWorker(daemon.port, self.ledger, random.Random(self.rng.random()))
        deadline = time.monotonic() + TRAP_PATIENCE
        try:
            while daemon.process.exitcode is None and time.monotonic() < deadline:
                self._number += 1
                try:
                    daemon.append(self.rng.choice(STREAMS), b'{"n":%d}' % self._number, "application/json")
                except Gone:
                    break
                daemon.process.join(0.01)
            daemon.process.join(max(0.0, deadline - time.monotonic()))
        finally:
            worker.stop()

    def settle(self, pause: float = 0) -> None:
        """
        Start a server, and wait until the cursors of all streams are at their tails.

        :param pause: how long, in seconds, nobody claims.
        :raises AssertionError: they do not get there, or something was wrong meanwhile.
        """
        with self.start() as daemon:
            time.sleep(pause)
            worker = PullWorker(daemon.port, self.ledger, random.Random(self.rng.random()))
            try:
                deadline = time.monotonic() + PATIENCE
                while behind := streams_behind(daemon, self.ledger):
                    assert time.monotonic() < deadline, f"not acknowledged: {behind}\n{daemon.log()}"
                    time.sleep(0.02)
            finally:
                worker.stop()
            assert not self.ledger.faults, self.ledger.faults
            check_events(daemon)
            assert daemon.terminate() == 0, daemon.log()


def run(mode: str, kills: int, seed: int | str) -> Campaign:
    """
    Kill a server so often, at each point in turn.

    :raises AssertionError: something was lost. The data directory is left as it is then.
    """
    with Campaign(mode, seed) as campaign:
        campaign.set_up()
        for number in range(kills):
            campaign.killed_at(POINTS[number % len(POINTS)])
    return campaign


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--mode", choices=MODES, action="append")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    for mode in options.mode or MODES:
        begun = time.monotonic()
        campaign = run(mode, options.kills, options.seed)
        print(
            f"{mode}, seed {options.seed}: {campaign.kills.total()} kills in {time.monotonic() - begun:.0f} s, "
            f"nothing lost; {dict(campaign.kills)}; {dict(campaign.ledger.done)}"
        )


if __name__ == "__main__":
    main()
