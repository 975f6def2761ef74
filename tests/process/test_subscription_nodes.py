"""Tests of subscriptions on two nodes over one database: one service to clients, and a takeover when a node dies."""

from __future__ import annotations

import time

from twisted.trial.unittest import SynchronousTestCase

from tests.support.postgres_server import started_server

from .subscription_nodes import PATIENCE, SUBSCRIPTIONS, Pair, run

#: How often the responsible node is killed. ``python -m tests.process.subscription_nodes`` goes on for longer.
KILLS = 2


class SubscriptionNodesTests(SynchronousTestCase):
    def test_requests_to_either_node_are_answered_as_by_one_server(self) -> None:
        with Pair() as pair:
            first, second = pair.nodes
            first.create("wakes", "application/json")
            config = {"type": "pull-wake", "pattern": "p/*", "wake_stream": "wakes"}
            self.assertEqual(201, pair.ask("PUT", f"{SUBSCRIPTIONS}/s", config, first)[0])
            self.assertEqual(200, pair.ask("PUT", f"{SUBSCRIPTIONS}/s", config, second)[0])
            self.assertEqual(409, pair.ask("PUT", f"{SUBSCRIPTIONS}/s", config | {"pattern": "q/*"}, second)[0])
            for number in range(20):
                one, other = (first, second) if number % 2 else (second, first)
                one.create(f"p/{number}", "application/json", b'{"n":1}')
                status, wake = pair.ask("POST", f"{SUBSCRIPTIONS}/s/claim", {"worker": "w"}, other)
                self.assertEqual((200, number + 1), (status, wake["generation"]), wake)
                pending = [stream for stream in wake["streams"] if stream["has_pending"]]
                self.assertEqual([f"p/{number}"], [stream["path"] for stream in pending])
                status, refusal = pair.ask("POST", f"{SUBSCRIPTIONS}/s/claim", {"worker": "v"}, one)
                self.assertEqual((409, "ALREADY_CLAIMED"), (status, refusal["error"]["code"]))
                acks = [{"stream": stream["path"], "offset": stream["tail_offset"]} for stream in pending]
                ack = {"wake_id": wake["wake_id"], "generation": wake["generation"], "acks": acks, "done": True}
                token = f"Bearer {wake['token']}"
                answers = [
                    pair.ask("POST", f"{SUBSCRIPTIONS}/s/ack", ack, node, authorization=token) for node in (one, other)
                ]
                self.assertEqual((200, {"ok": True, "next_wake": False}), answers[0])
                self.assertEqual((409, "FENCED"), (answers[1][0], answers[1][1]["error"]["code"]))
                status, refusal = pair.ask("POST", f"{SUBSCRIPTIONS}/s/claim", {"worker": "w"}, other)
                self.assertEqual((409, "NO_PENDING_WORK"), (status, refusal["error"]["code"]))
            self.assertEqual(204, pair.ask("DELETE", f"{SUBSCRIPTIONS}/s", None, first)[0])
            self.assertEqual(404, pair.ask("GET", f"{SUBSCRIPTIONS}/s", None, second)[0])
            self.assertEqual(404, pair.ask("POST", f"{SUBSCRIPTIONS}/s/claim", {}, second)[0])

    def test_one_node_delivers_each_append_of_either_once(self) -> None:
        with Pair() as pair:
            pair.create()
            pair.receiver.calls_back = False
            pair.settle()
            for _ in range(30):
                pair.append()
            pair.settle()
            self.assertGreater(pair.ledger.done["webhooks acknowledged by their answer"], 0)
            self.assertEqual(0, pair.ledger.done["repeated webhooks"] - pair.ledger.done["refused webhooks"])

    def test_a_node_that_stops_gives_its_partitions_to_the_other_at_once(self) -> None:
        with Pair() as pair:
            pair.create()
            number = pair.wait_for_holder()
            leaving, staying = pair.nodes[number], pair.nodes[1 - number]
            self.assertEqual(0, leaving.stop())
            stopped_at = time.monotonic()
            # Subscriptions are delivered as soon as they were read; the partitions count when all of them were.
            held = "\ndurable_streams_subscription_partitions 64.0\n"
            while held not in staying.request("GET", "/metrics")[2].decode():
                self.assertLess(time.monotonic(), stopped_at + PATIENCE, staying.log())
                time.sleep(0.02)
            self.assertTrue(pair.holder_is(staying, "webhook"))
            self.assertIn("Took over", staying.log())

    def test_a_crash_of_the_database_strands_nothing(self) -> None:
        server = started_server(self)
        with Pair(server=server) as pair:
            pair.create()
            for _ in range(10):
                pair.append()
            server.kill()
            server.start()
            deadline = time.monotonic() + PATIENCE
            for node in pair.nodes:
                while node.request("GET", "/readyz")[0] != 200:
                    self.assertLess(time.monotonic(), deadline, node.log())
                    time.sleep(0.05)
                pair.append(node)
            pair.settle()

    def test_a_killed_nodes_wakes_are_delivered_by_the_other(self) -> None:
        pair = run(KILLS, "tests")
        self.assertEqual(KILLS, len(pair.takeovers))
        done = pair.ledger.done
        self.assertGreater(done["webhooks acknowledged by their answer"] + done["callbacks"], 0, done)
        self.assertGreater(done["answered ack"], 0, done)
