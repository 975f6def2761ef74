"""Kills the node that delivers, of two on one database, and checks that no wake is lost and that no cursor falls.

``python -m tests.process.subscription_nodes --kills 20`` goes on for longer than the tests do.
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import time
from collections import Counter
from typing import Any, Final

from tests.process.subscription_kills import STREAMS, Ledger, PullWorker, Receiver
from tests.support.daemon import Daemon
from tests.support.postgres_server import PostgresServer, shared_server

SUBSCRIPTIONS: Final = "/v1/stream/__ds/subscriptions"

#: How long a takeover and the retries after it may take, in seconds, on a machine that is busy.
PATIENCE: Final = 40.0

_LEASE_MS: Final = 1_000


class BothNodes(Receiver):
    """A receiver that calls back to either node."""

    def __init__(self, ledger: Ledger, rng: random.Random, ports: dict[int, int]) -> None:
        self._ports = ports
        super().__init__(ledger, rng)

    @property
    def server_port(self) -> int:
        """The port of a node, which may be dead."""
        return random.choice(list(self._ports.values()))

    @server_port.setter
    def server_port(self, port: int) -> None:
        """Do nothing."""


class Pair:
    """
    Two nodes on one database, with a webhook subscription and a pull-wake subscription.

    :param server: of the database; None for the one that tests share.
    :ivar nodes: the daemons.
    :ivar takeovers: how long each takeover of the webhook subscription took, in seconds.
    """

    def __init__(self, seed: int | str = 0, server: PostgresServer | None = None) -> None:
        self.rng = random.Random(seed)
        self.ledger = Ledger()
        self.ledger.refusals = {409, 503}
        self._server = server or shared_server()
        self._database = self._server.create_database(durable=True)
        self._ports: dict[int, int] = {}
        self.receiver = BothNodes(self.ledger, random.Random(self.rng.random()), self._ports)
        self.nodes = [self._start(number) for number in range(2)]
        self.takeovers: list[float] = []
        self.written = 0
        try:
            for node in self.nodes:
                node.__enter__()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Pair:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the nodes, and remove the database."""
        for node in self.nodes:
            node.close()
        self.receiver.close()
        self._server.drop_database(self._database)

    def _start(self, number: int) -> Daemon:
        node = Daemon(
            storage__mode="postgres",
            storage__postgres__dsn=self._server.dsn(self._database),
            subscriptions__enabled="true",
            subscriptions__request_timeout_ms="1000",
            http__allow_insecure_webhooks="true",
            http__public_url="http://127.0.0.1:4437",
        )
        self._ports[number] = node.port
        return node

    def ask(
        self, method: str, path: str, body: object = None, node: Daemon | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Send a request to a node, or to one at random."""
        data = None if body is None else json.dumps(body).encode()
        node = node or self.rng.choice(self.nodes)
        status, _, answer = node.request(method, path, data, content_type="application/json", **headers)
        return status, json.loads(answer) if answer else None

    def create(self) -> None:
        """Create the streams and the subscriptions, on either node."""
        for name in (*STREAMS, "wakes"):
            self.rng.choice(self.nodes).create(name, "application/json")
        hook = {"type": "webhook", "pattern": "w/*", "webhook": {"url": self.receiver.url}}
        pull = {"type": "pull-wake", "pattern": "p/*", "wake_stream": "wakes"}
        for subscription_id, config in (("hook", hook), ("pull", pull)):
            body = config | {"lease_ttl_ms": _LEASE_MS}
            status, answer = self.ask("PUT", f"{SUBSCRIPTIONS}/{subscription_id}", body)
            assert status == 201, answer

    def append(self, node: Daemon | None = None) -> None:
        """Append to a stream."""
        self.written += 1
        node = node or self.rng.choice(self.nodes)
        node.append(self.rng.choice(STREAMS), b'{"n":%d}' % self.written, "application/json")

    def holder(self, kind: str = "webhook") -> int | None:
        """Return the number of the node that is responsible for the subscription of a type; None if none is now."""
        return next((number for number, node in enumerate(self.nodes) if self.holder_is(node, kind)), None)

    def wait_for_holder(self, kind: str = "webhook") -> int:
        """Return the number of the node that is responsible, when there is one."""
        deadline = time.monotonic() + PATIENCE
        while (number := self.holder(kind)) is None:
            assert time.monotonic() < deadline, [node.log() for node in self.nodes]
            time.sleep(0.05)
        return number

    def kill_holder(self, kind: str = "webhook") -> None:
        """Kill a responsible node while both are used, measure the takeover, start another node, and settle."""
        number = self.wait_for_holder(kind)
        victim, survivor = self.nodes[number], self.nodes[1 - number]
        workers = [PullWorker(node.port, self.ledger, random.Random(self.rng.random())) for node in self.nodes]
        try:
            for _ in range(self.rng.randint(5, 40)):
                self.append()
            # The last appends are acknowledged by the node that dies: their messages may not be sent.
            self.append(victim)
            victim.process.send_signal(signal.SIGKILL)
            killed_at = time.monotonic()
            victim.process.wait()
            for _ in range(3):
                self.append(survivor)
            while not self.holder_is(survivor, kind):
                assert time.monotonic() < killed_at + PATIENCE, survivor.log()
                time.sleep(0.05)
            self.takeovers.append(time.monotonic() - killed_at)
        finally:
            for worker in workers:
                worker.stop()
        self.nodes[number] = self._start(number)
        self.nodes[number].__enter__()
        self.settle()

    def holder_is(self, node: Daemon, kind: str) -> bool:
        """Return whether a node is responsible for the subscription of a type."""
        metrics = node.request("GET", "/metrics")[2].decode().splitlines()
        gauges = (
            f'durable_streams_subscriptions{{status="{each}",type="{kind}"}} 1.0' for each in ("active", "failed")
        )
        return any(gauge in metrics for gauge in gauges)

    def behind(self) -> list[str]:
        """Return the streams whose cursor is not at the tail, as both nodes say."""
        found = []
        for node in self.nodes:
            for subscription_id in ("hook", "pull"):
                with self.ledger.lock:
                    acknowledged = dict(self.ledger.acknowledged)
                status, described = self.ask("GET", f"{SUBSCRIPTIONS}/{subscription_id}", node=node)
                assert status == 200, described
                for stream in described["streams"]:
                    position = int(stream["acked_offset"].partition("_")[2])
                    assert position >= acknowledged.get(stream["path"], 0), (stream, acknowledged)
                    tail = node.request("HEAD", f"/v1/stream/{stream['path']}")[1]["stream-next-offset"]
                    if stream["acked_offset"] != tail:
                        found.append(stream["path"])
        return found

    def settle(self) -> None:
        """Wait until the cursors of all streams are at their tails."""
        worker = PullWorker(self.rng.choice(self.nodes).port, self.ledger, random.Random(self.rng.random()))
        try:
            deadline = time.monotonic() + PATIENCE
            while behind := self.behind():
                logs = "\n".join(node.log() for node in self.nodes)
                assert time.monotonic() < deadline, f"not acknowledged: {behind}\n{logs}"
                time.sleep(0.05)
        finally:
            worker.stop()
        assert not self.ledger.faults, self.ledger.faults
        generations = Counter(event["generation"] for event in self.ask("GET", "/v1/stream/wakes")[1])
        assert set(generations.values()) <= {1}, generations


def run(kills: int, seed: int | str) -> Pair:
    """
    Kill the responsible node so often.

    :raises AssertionError: something was lost.
    """
    with Pair(seed) as pair:
        pair.create()
        pair.settle()
        for number in range(kills):
            pair.kill_holder("webhook" if number % 2 == 0 else "pull-wake")
    return pair


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    options = parser.parse_args()
    pair = run(options.kills, options.seed)
    takeovers = ", ".join(f"{each:.1f}" for each in pair.takeovers)
    print(
        f"seed {options.seed}: {options.kills} kills, nothing lost; takeovers in {takeovers} s; "
        f"{dict(pair.ledger.done)}"
    )


if __name__ == "__main__":
    main()
