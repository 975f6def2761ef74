"""Subscriptions that wake each other by their wake streams, in a real daemon: the work stays bounded."""

from __future__ import annotations

import json
import re
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import PATIENCE, Daemon

_SUBSCRIPTIONS = "/v1/stream/__ds/subscriptions"

#: How long, in seconds, nothing may happen for the ring to be at rest.
_REST = 1.0


class RingCase(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.data = str(Path(folder.name, "data"))
        self.daemon = self.start()

    def start(self) -> Daemon:
        daemon = Daemon(None, storage__mode="file-durable", storage__data_dir=self.data, observability__metrics="true")
        self.addCleanup(daemon.close)
        return daemon.__enter__()

    def ask(self, method: str, target: str, value: Any = None, **headers: str) -> tuple[int, Any]:
        body = None if value is None else json.dumps(value).encode()
        status, _, answer = self.daemon.request(method, f"{_SUBSCRIPTIONS}/{target}", body, **headers)
        return status, json.loads(answer) if answer else None

    def subscribe(self, subscription_id: str, **config: Any) -> None:
        """Create a pull-wake subscription whose wake stream is below ``wakes-of``."""
        wake_stream = f"wakes-of/{subscription_id}/events"
        self.daemon.create(wake_stream, "application/json")
        made = {"type": "pull-wake", "wake_stream": wake_stream, **config}
        status, answer = self.ask("PUT", subscription_id, made)
        self.assertEqual(201, status, answer)

    def events(self, subscription_id: str) -> list[dict[str, Any]]:
        answer = self.daemon.request("GET", f"/v1/stream/wakes-of/{subscription_id}/events?offset=-1")[2]
        found: list[dict[str, Any]] = json.loads(answer)
        return found

    def counted(self) -> float:
        """Return how many wake events were appended since the start of the daemon, by its metrics."""
        text = self.daemon.request("GET", "/metrics")[2].decode()
        pattern = r'(?m)^durable_streams_subscription_deliveries_total\{outcome="accepted",type="pull-wake"\} (\S+)'
        found = re.search(pattern, text)
        return 0.0 if found is None else float(found[1])

    def rest(self, at_least: int = 1) -> float:
        """Wait for so many events, then until no event is appended any more; return how many there were."""
        deadline = time.monotonic() + PATIENCE
        while True:
            before = self.counted()
            time.sleep(_REST)
            if self.counted() == before >= at_least:
                return before
            self.assertLess(time.monotonic(), deadline, "The ring does not come to rest.")

    def work(self, subscription_id: str) -> bool:
        """Claim and acknowledge everything once. Return whether there was work."""
        status, claim = self.ask("POST", f"{subscription_id}/claim", {"worker": "w"})
        if status != 200:
            self.assertEqual((409, "NO_PENDING_WORK"), (status, claim["error"]["code"]))
            return False
        acks = [{"stream": each["path"], "offset": each["tail_offset"]} for each in claim["streams"]]
        done = {"wake_id": claim["wake_id"], "generation": claim["generation"], "acks": acks, "done": True}
        authorization = f"Bearer {claim['token']}"
        self.assertEqual(200, self.ask("POST", f"{subscription_id}/ack", done, authorization=authorization)[0])
        return True


class RingTests(RingCase):
    """a wakes b, and b wakes a: the pattern of each matches the wake stream of the other."""

    def setUp(self) -> None:
        super().setUp()
        self.subscribe("a", pattern="wakes-of/b/**", streams=["jobs"])
        self.subscribe("b", pattern="wakes-of/a/**")
        self.daemon.create("jobs", "application/json")

    def test_without_workers_an_append_causes_one_event_in_each_wake_stream(self) -> None:
        self.daemon.append("jobs", b"[1]", "application/json")
        self.assertEqual(2, self.rest(2))
        for _ in range(20):
            self.daemon.append("jobs", b"[2]", "application/json")
        self.assertEqual(2, self.rest(2))
        self.assertEqual([1, 1], [len(self.events(name)) for name in "ab"])

    def test_a_kill_adds_no_event(self) -> None:
        self.daemon.append("jobs", b"[1]", "application/json")
        self.rest(2)
        self.daemon.process.kill()
        self.daemon.process.wait()
        self.daemon = self.start()
        time.sleep(_REST)
        self.assertEqual([1, 1], [len(self.events(name)) for name in "ab"])

    def test_workers_keep_it_going_by_an_event_for_each_claim_at_most_and_it_rests_when_they_stop(self) -> None:
        claims = {"a": 0, "b": 0}
        stopped = threading.Event()

        def run(name: str) -> None:
            while not stopped.is_set():
                claims[name] += self.work(name)

        threads = [threading.Thread(target=run, args=(name,), daemon=True) for name in claims]
        self.daemon.append("jobs", b"[1]", "application/json")
        for thread in threads:
            thread.start()
        time.sleep(2)
        stopped.set()
        for thread in threads:
            thread.join()
        # A claim that is faster than the event of its wake needs none.
        self.rest(0)
        self.assertGreaterEqual(claims["a"], 1)
        for name, count in claims.items():
            # Each wake ends by a claim and an ack; the last one may wait for them.
            events = self.events(name)
            self.assertLessEqual(len(events), count + 1)
            generations = [event["generation"] for event in events]
            self.assertEqual(sorted(set(generations)), generations)
        self.assertNotIn("Traceback", self.daemon.log())

    def test_workers_that_take_turns_come_to_an_end(self) -> None:
        self.daemon.append("jobs", b"[1]", "application/json")
        self.rest(2)
        # The claim of each has the event of the other, and no event follows after both acks.
        self.assertEqual([True, True, False, False], [self.work(name) for name in "abab"])
        self.assertEqual([1, 1], [len(self.events(name)) for name in "ab"])


class LargeRingTests(RingCase):
    def test_an_append_causes_one_event_for_each_of_many_that_link_all_others(self) -> None:
        names = [f"s{number}" for number in range(12)]
        for name in names:
            others = [f"wakes-of/{other}/events" for other in names if other != name]
            self.subscribe(name, streams=[*others, "jobs"] if name == "s0" else others)
        self.daemon.create("jobs", "application/json")
        self.daemon.append("jobs", b"[1]", "application/json")
        self.assertEqual(len(names), self.rest(len(names)))
        self.assertEqual([1] * len(names), [len(self.events(name)) for name in names])

    def test_a_subscription_cannot_wake_itself(self) -> None:
        self.daemon.create("own/wakes", "application/json")
        for config in ({"pattern": "own/*"}, {"streams": ["own/wakes"]}):
            status, answer = self.ask("PUT", "s", {"type": "pull-wake", "wake_stream": "own/wakes", **config})
            self.assertEqual((400, "INVALID_CONFIG"), (status, answer["error"]["code"]))
