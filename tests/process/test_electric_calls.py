"""The requests that the agents server of Electric makes, and what it reads of the answers.

They are written by hand, by what its class ``StreamClient`` sends with a base URL that ends in the id of a service: the
control paths are below ``/v1/stream/__ds``, and the id is the first segment of all names. Nothing was recorded, and
Electric itself does not run here.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import PATIENCE, Daemon

BASE = "/v1/stream"

#: ``runner:r-1:`` and the beginning of a digest, by encodeURIComponent.
RUNNER = f"{BASE}/__ds/subscriptions/runner%3Ar-1%3A0123456789abcdef"
RUNNER_ID = "runner:r-1:0123456789abcdef"

WEBHOOK = f"{BASE}/__ds/subscriptions/webhook%3A9f86d081884c7d65"

ENTITY = "svc/horton/e1/main"
OTHER_ENTITY = "svc/horton/e2/main"
WAKES = "svc/runners/r-1/wake"

#: JSON.stringify leaves out members that are undefined: there is no pattern.
PULL_WAKE = {
    "type": "pull-wake",
    "streams": [ENTITY],
    "wake_stream": WAKES,
    "description": "Electric Agents runner r-1",
}


class ElectricTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.daemon = Daemon(subscriptions__enabled="true", http__allow_insecure_webhooks="true")
        self.addCleanup(self.daemon.close)
        self.daemon.__enter__()

    def call(self, method: str, target: str, body: Any = None, token: str | None = None) -> tuple[int, Any]:
        headers = {} if body is None else {"content_type": "application/json"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        encoded = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        status, _, answer = self.daemon.request(method, target, encoded, **headers)
        return status, json.loads(answer) if answer.strip() and target.startswith(f"{BASE}/__ds") else answer

    def ensure(self, name: str) -> None:
        """Create a stream as ``StreamClient.ensure`` does."""
        if self.call("HEAD", f"{BASE}/{name}")[0] == 404:
            status, _, answer = self.daemon.request("PUT", f"{BASE}/{name}", content_type="application/json")
            self.assertEqual(status, 201, answer)

    def append(self, name: str, message: Any) -> None:
        status, _, answer = self.daemon.request(
            "POST", f"{BASE}/{name}", json.dumps(message).encode(), content_type="application/json"
        )
        self.assertEqual(status, 204, answer)

    def read(self, name: str) -> list[Any]:
        status, _, answer = self.daemon.request("GET", f"{BASE}/{name}?offset=-1")
        self.assertEqual(status, 200, answer)
        messages: list[Any] = json.loads(answer)
        return messages

    def until(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + PATIENCE
        while not (found := condition()):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.02)
        return found

    def subscribe(self) -> None:
        self.ensure(ENTITY)
        self.ensure(WAKES)
        status, answer = self.call("PUT", RUNNER, PULL_WAKE)
        self.assertEqual((status, answer["subscription_id"]), (201, RUNNER_ID))

    def claim(self) -> dict[str, Any]:
        status, answer = self.call("POST", f"{RUNNER}/claim", {"worker": "r-1"})
        self.assertEqual(status, 200, answer)
        claim: dict[str, Any] = answer
        return claim

    def test_an_entity_is_linked_to_its_runner_and_linked_again_after_a_restart_of_electric(self) -> None:
        self.assertEqual(self.call("GET", RUNNER)[0], 404)
        self.subscribe()
        status, found = self.call("GET", RUNNER)
        self.assertEqual((status, found["type"], found["wake_stream"]), (200, "pull-wake", WAKES))
        self.assertEqual([stream["path"] for stream in found["streams"]], [ENTITY])
        self.assertEqual(self.call("PUT", RUNNER, PULL_WAKE)[0], 200)
        status, answer = self.call("PUT", RUNNER, PULL_WAKE | {"description": "another"})
        self.assertEqual((status, answer["error"]["code"]), (409, "SUBSCRIPTION_ALREADY_EXISTS"))

    def test_a_runner_claims_acknowledges_by_path_and_finds_no_more_work(self) -> None:
        self.subscribe()
        self.append(ENTITY, {"say": "hello"})
        event = self.until(lambda: self.read(WAKES))[0]
        self.assertEqual((event["type"], event["subscription_id"], event["stream"]), ("wake", RUNNER_ID, ENTITY))
        claim = self.claim()
        (stream,) = claim["streams"]
        self.assertEqual((stream["path"], stream["has_pending"]), (ENTITY, True))
        status, answer = self.call("POST", f"{RUNNER}/claim", {"worker": "r-1"})
        self.assertEqual((status, answer["error"]["code"]), (409, "ALREADY_CLAIMED"))
        fence = {"wake_id": claim["wake_id"], "generation": claim["generation"]}
        self.assertEqual(self.call("POST", f"{RUNNER}/ack", fence, claim["token"])[0], 200)
        done = fence | {"acks": [{"path": ENTITY, "offset": stream["tail_offset"]}], "done": True}
        self.assertEqual(
            self.call("POST", f"{RUNNER}/ack", done, claim["token"]), (200, {"ok": True, "next_wake": False})
        )
        status, answer = self.call("POST", f"{RUNNER}/claim", {"worker": "r-1"})
        self.assertEqual((status, answer["error"]["code"]), (409, "NO_PENDING_WORK"))

    def test_a_runner_releases_and_claims_the_same_work_again(self) -> None:
        self.subscribe()
        self.append(ENTITY, {"say": "hello"})
        first = self.claim()
        fence = {"wake_id": first["wake_id"], "generation": first["generation"]}
        self.assertEqual(self.call("POST", f"{RUNNER}/release", fence, first["token"])[0], 204)
        again = self.claim()
        self.assertEqual(again["streams"], first["streams"])
        self.assertGreater(again["generation"], first["generation"])

    def test_entities_are_added_and_removed_with_an_encoded_path(self) -> None:
        self.subscribe()
        self.ensure(OTHER_ENTITY)
        self.assertEqual(self.call("POST", f"{RUNNER}/streams", {"streams": [OTHER_ENTITY]})[0], 204)
        paths = [stream["path"] for stream in self.call("GET", RUNNER)[1]["streams"]]
        self.assertEqual(paths, [ENTITY, OTHER_ENTITY])
        encoded = OTHER_ENTITY.replace("/", "%2F")
        self.assertEqual(self.call("DELETE", f"{RUNNER}/streams/{encoded}")[0], 204)
        self.assertIn(self.call("DELETE", f"{RUNNER}/streams/{encoded}")[0], (204, 404))
        self.assertEqual([stream["path"] for stream in self.call("GET", RUNNER)[1]["streams"]], [ENTITY])

    def test_a_subscription_is_deleted_twice_and_made_again(self) -> None:
        self.subscribe()
        self.assertEqual(self.call("DELETE", RUNNER)[0], 204)
        self.assertEqual(self.call("DELETE", RUNNER)[0], 404)
        self.assertEqual(self.call("POST", f"{RUNNER}/claim", {"worker": "r-1"})[0], 404)
        self.assertEqual(self.call("PUT", RUNNER, PULL_WAKE)[0], 201)

    def test_an_entity_is_linked_to_a_webhook_of_electric_with_an_encoded_id_in_its_url(self) -> None:
        self.ensure(ENTITY)
        url = "http://127.0.0.1:9/_electric/webhook-forward/webhook%3A9f86d081884c7d65"
        description = "Electric Agents webhook webhook:9f86d081884c7d65"
        body = {"type": "webhook", "streams": [ENTITY], "webhook": {"url": url}, "description": description}
        self.assertEqual(self.call("PUT", WEBHOOK, body)[0], 201)
        found = self.call("GET", WEBHOOK)[1]
        self.assertEqual((found["id"], found["webhook"]["url"]), ("webhook:9f86d081884c7d65", url))
        self.assertNotIn("webhook_secret", found)

    def test_leading_slashes_of_names_and_patterns_are_ignored(self) -> None:
        self.ensure(ENTITY)
        self.ensure(WAKES)
        body = {"type": "pull-wake", "pattern": "/svc/horton/*/main", "streams": [f"/{ENTITY}/"]}
        status, made = self.call("PUT", RUNNER, body | {"wake_stream": f"/{WAKES}"})
        self.assertEqual((status, made["pattern"], made["wake_stream"]), (201, "svc/horton/*/main", WAKES))
        self.assertEqual([stream["path"] for stream in made["streams"]], [ENTITY])
        self.append(ENTITY, {"say": "hello"})
        claim = self.claim()
        tail = claim["streams"][0]["tail_offset"]
        acks = [{"path": f"/{ENTITY}", "offset": tail}]
        ack = {"wake_id": claim["wake_id"], "generation": claim["generation"], "acks": acks, "done": True}
        self.assertEqual(self.call("POST", f"{RUNNER}/ack", ack, claim["token"])[0], 200)
