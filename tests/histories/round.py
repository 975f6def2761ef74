"""One round of a history: clients work, a fault happens, all is healed, and the nodes are compared with the history."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from .clients import Client
from .cluster import Cluster
from .history import LATENESS, Appending, History, Outcome, Place, Served, late_arrivals, problems_of

#: How long the clients work before and after the fault, in seconds.
_WORK = 0.6

#: How many streams are appended to at the same time, so that commits have many streams, in both nodes the same.
_CROWD = 24


class Round:
    """
    The clients of one round, with streams of their own.

    :param seed: makes the same requests again, as far as their timing allows.
    """

    def __init__(self, cluster: Cluster, seed: int) -> None:
        self.history = History()
        self.random = Random(seed)
        self._cluster = cluster
        self._prefix = f"r{seed}-{self.random.randrange(10**9)}"
        self._names: list[str] = []
        self._clients: list[Client] = []
        self._tails: list[Client] = []
        self._forked = 0

    def run(self, fault: Callable[[Cluster, Random], None]) -> list[str]:
        """
        Work, with a fault in between.

        :returns: what is wrong.
        """
        self._begin()
        time.sleep(self.random.uniform(0.2, 1.0) * _WORK)
        fault(self._cluster, self.random)
        self._cluster.wait()
        healed_at = time.monotonic()
        time.sleep(_WORK)
        for client in self._clients:
            client.end()
        for client in self._clients:
            client.join(60)
        self._await_tails()
        problems = [
            f"a client failed: {client.failure!r}"
            for client in (*self._clients, *self._tails)
            if client.failure is not None
        ]
        problems += ["a client did not end" for client in self._clients if client.is_alive()]
        served = [self._served(port) for port in self._cluster.ports]
        problems += problems_of(self.history, served, healed_at)
        return problems + self._cluster.complaints()

    def _await_tails(self) -> None:
        """Wait until the tails have received all that was acknowledged, or are too late."""
        deadline = time.monotonic() + LATENESS
        while time.monotonic() < deadline and not all(seen for seen, _ in late_arrivals(self.history, 0.0)):
            time.sleep(0.05)
        for tail in self._tails:
            tail.end()

    @property
    def counts(self) -> tuple[int, int]:
        """The acknowledged appends, and those of which it is not known."""
        outcomes = [each.outcome for each in self.history.appends]
        return outcomes.count(Outcome.DONE), outcomes.count(Outcome.UNKNOWN)

    def _stream(self, role: str) -> str:
        name = f"{self._prefix}-{role}"
        self._names.append(name)
        return name

    def _begin(self) -> None:
        plain, shared, written, sequenced, closed, recycled = map(
            self._stream, ("plain", "shared", "written", "sequenced", "closed", "recycled")
        )
        crowd = [self._stream(f"crowd{number}") for number in range(_CROWD)]
        forks = [self._stream(f"fork{number}") for number in range(6)]
        setup = self._client(lambda _: None)
        for name in (plain, shared, written, sequenced, closed, recycled, *crowd):
            answer = setup.create(name)
            assert answer is not None, f"{name} was not created"
            assert answer[0] == 201, answer
        counter = iter(range(1, 10**9))
        # Two writers of one stream, each at both nodes, so that heads in both caches go stale all the time.
        works: list[Callable[[Client], object]] = [
            *[lambda client: self._append(client, plain)] * 2,
            *[lambda client: self._append(client, shared)] * 2,
            self._writer(written, "w1"),
            self._writer(written, "w2"),
            lambda client: self._append(client, sequenced, Stream_Seq=f"{next(counter):09d}"),
            *[lambda client: self._append_until_closed(client, closed)] * 2,
            lambda client: self._recycle(client, recycled),
            lambda client: self._append(client, recycled),
            lambda client: self._fork(client, plain, forks),
            *[lambda client: client.burst(crowd)] * 2,
            *[lambda client: client.read(client.random.choice([plain, shared, written, closed]))] * 2,
        ]
        for work in works:
            self._clients.append(self._client(work))
        for name in (plain, closed):
            self._tails.append(self._client(partial(Client.follow, name=name)))
        for client in (*self._clients, *self._tails):
            client.start()

    def _client(self, work: Callable[[Client], object]) -> Client:
        return Client(self._cluster.ports, self.history, self.random.randrange(2**32), work)

    def _append(self, client: Client, name: str, **headers: str) -> Appending:
        appended = client.append(name, **headers)
        time.sleep(client.random.expovariate(1 / 0.003))
        return appended

    def _writer(self, name: str, writer: str) -> Callable[[Client], object]:
        numbers = iter(range(10**9))
        return lambda client: client.append_as_writer(name, writer, next(numbers))

    def _append_until_closed(self, client: Client, name: str) -> None:
        if client.random.random() < 0.01:
            client.end_stream(name, "close")
        elif self._append(client, name).outcome is Outcome.REFUSED:
            time.sleep(0.05)

    def _recycle(self, client: Client, name: str) -> None:
        """Delete a stream and create it again."""
        client.end_stream(name, "delete")
        client.create(name)
        time.sleep(client.random.uniform(0, 0.05))

    def _fork(self, client: Client, source: str, names: Sequence[str]) -> None:
        """Fork a stream at an acknowledged place, and append to the forks."""
        places: list[Place] = [
            each.place for each in self.history.appends[-200:] if each.stream == source and each.place is not None
        ]
        if self._forked < len(names) and places and client.random.random() < 0.2:
            client.fork(names[self._forked], source, client.random.choice(places))
            self._forked += 1
        elif self._forked:
            self._append(client, client.random.choice(names[: self._forked]))
        else:
            time.sleep(0.02)

    def _served(self, port: int) -> dict[str, Served | None]:
        """Return what a node serves of all streams."""
        client = Client([port], self.history, 0, lambda _: None)
        served: dict[str, Served | None] = {}
        for name in self._names:
            answer = client.ask("GET", f"{name}?offset=-1")
            assert answer is not None, f"{name} was not answered"
            if answer[0] == 404:
                served[name] = None
                continue
            assert answer[0] == 200, answer
            place = Place.parse(answer[1]["stream-next-offset"])
            head = client.ask("HEAD", name)
            assert head is not None
            assert head[1]["stream-next-offset"] == answer[1]["stream-next-offset"], (head, answer[1])
            served[name] = Served(place.incarnation, answer[2], head[1].get("stream-closed") == "true")
        return served
