"""Kills a server repeatedly under load on one data directory, and checks each time that no acknowledged data is lost.

``python -m tests.process.kills --generations 200 --mode file-durable`` goes on for longer than the tests do.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from tests.support.exchanges import Exchanges, Gone, Reply
from tests.support.kill_campaign import MODES, TRAP_PATIENCE, KillCampaign
from tests.support.killed_daemon import KILLED, KilledDaemon
from tests.support.ledgers import Known, Ledger, Sent, acknowledged
from tests.support.load import JSON, TEXT, Client, Numbers, Reader, append_headers

#: Small, so that journals are cut and streams get files of their own all the time.
SMALL: dict[str, Any] = {"checkpoint_bytes": 512 << 10, "segment_sizes": (1 << 20, 512 << 10), "open_files": 8}

#: The same for what SQLite has.
_LOG_SIZE = 256 << 10

#: How many clients there are, and how many streams all of them use.
_CLIENTS = 4
_SHARED = 4

#: When a stream is this large, another takes its place.
_LARGE = 1 << 20


class Figures(Struct):
    """Counts of a run."""

    generations: int = 0
    kills: int = 0
    early_kills: int = 0
    checked: int = 0
    found: int = 0
    absent: int = 0
    retried_new: int = 0
    retried_known: int = 0


class Campaign(KillCampaign):
    """
    A data directory, its clients, and the ledgers of their acknowledged writes.

    :ivar done: how often clients did what, as far as it was answered.
    """

    def __init__(self, mode: str, seed: int | str, file: dict[str, Any] | None = None) -> None:
        settings = {"limits__max_total_bytes": str(1 << 30), "limits__max_stream_bytes": str(1 << 28)}
        super().__init__("kills-", mode, seed, settings, file=SMALL if file is None else file, log_size=_LOG_SIZE)
        self._order = replace(self._order, passages=str(self.folder / "passages"))
        self.figures = Figures()
        self._numbers = Numbers(random.Random(self.rng.random()))
        self.shared: list[Ledger] = []
        self._names = 0
        self.clients = [
            Client(number, random.Random(self.rng.random()), self._numbers, self.shared) for number in range(_CLIENTS)
        ]
        self._readers: list[Reader] = []

    @property
    def done(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for client in self.clients:
            for what, count in client.done.items():
                total[what] = total.get(what, 0) + count
        return total

    @property
    def ledgers(self) -> list[Ledger]:
        """All that there may be on the server."""
        return [*self.shared, *(ledger for client in self.clients for ledger in client.slots.values())]

    # The server

    @contextmanager
    def loaded(self, daemon: KilledDaemon) -> Iterator[None]:
        """Run all clients against a server that is killed meanwhile."""
        for client in self.clients:
            client.begin(daemon.port)
        self._readers = [Reader(daemon.port, ledger) for ledger in self.shared[:2]]
        try:
            yield
        finally:
            daemon.kill()
            for client in self.clients:
                client.end()
            for reader in self._readers:
                reader.end()

    # One generation after the other

    def generation(self) -> None:
        """Start a server, check its streams, use it, and kill it at a random moment."""
        self.figures.generations += 1
        if self.rng.random() < 0.2:
            # While it starts, too
            daemon = self.start()
            daemon.process.join(self.rng.uniform(0, 0.08))
            assert daemon.kill() == KILLED, daemon.log()
            self.figures.early_kills += 1
        with self.start() as daemon:
            self.check(daemon)
            self.renew(daemon)
            with self.loaded(daemon):
                daemon.process.join(self.rng.uniform(0.02, 0.5))
                assert daemon.kill() == KILLED, daemon.log()
        self.figures.kills += 1

    def trapped(self, point: str, passage: int) -> None:
        """
        Use a server until it dies at a point.

        :raises AssertionError: it does not come to that point.
        """
        daemon = self.start(point, passage)
        while not daemon.is_ready():
            # It has come to it while it tidied up, and the next one has as much to tidy.
            self.assert_struck(daemon, point, passage)
            passage += 1
            daemon = self.start(point, passage)
        try:
            try:
                self.check(daemon)
                self.renew(daemon, at_least=1)
            except Gone:
                # It has come to it early. As long as the system has not taken its port away, clients could still send
                # to it, while what became of their last appends is not settled: a retry would make a hole in these.
                daemon.process.join(TRAP_PATIENCE)
            else:
                with self.loaded(daemon):
                    daemon.process.join(TRAP_PATIENCE)
            alive = daemon.process.exitcode is None
        finally:
            daemon.kill()
        assert not alive, f"{point} was not passed {passage} times in {TRAP_PATIENCE} s"
        self.assert_struck(daemon, point, passage)
        self.figures.generations += 1

    def trapped_at_start(self, point: str, passage: int = 1) -> None:
        """
        Start a server, which dies at a point before it serves.

        :raises AssertionError: it does not come to that point.
        """
        daemon = self.start(point, passage)
        daemon.process.join(TRAP_PATIENCE)
        if daemon.process.exitcode is None:
            daemon.kill()
            raise AssertionError(f"{point} was not passed {passage} times by a server that started")
        self.assert_struck(daemon, point, passage)

    def assert_struck(self, daemon: KilledDaemon, point: str, passage: int) -> None:
        """A daemon has died, and it was there."""
        assert daemon.wait() == KILLED, daemon.log()
        assert self.mark.exists(), f"The daemon was killed before it came to {point}"
        assert self.mark.read_text() == f"{point} {passage}", self.mark.read_text()
        self.figures.kills += 1

    def look(self) -> None:
        """Check the streams of a new server, and stop it."""
        with self.start() as daemon:
            self.check(daemon)
            assert daemon.terminate() == 0, daemon.log()

    def renew(self, daemon: KilledDaemon, at_least: int = 0) -> None:
        """
        Ensure that every client has a stream, and replace streams that are too large.

        :param at_least: how many of them are to be new.
        """
        with Exchanges(daemon.port) as exchanges:
            while len(self.shared) < _SHARED:
                self._names += 1
                self.shared.append(Ledger(f"shared-{self._names}", (TEXT, JSON)[self._names % 2]))
            for place, old in enumerate(list(self.shared)):
                if old.created is Known.YES and old.deleted is Known.NO:
                    if sum(len(sent.data) for sent in old.sent.values()) < (_LARGE if place >= at_least else 1 << 16):
                        continue
                    old.deleted = Known.MAYBE
                    assert exchanges.ask("DELETE", old.path).status == 204
                    old.deleted = Known.YES
                    assert exchanges.ask("GET", old.path).status == 404
                for client in self.clients:
                    client.sequences.pop(old, None)
                self._names += 1
                new = self.shared[place] = Ledger(f"shared-{self._names}", old.content_type)
                new.created = Known.MAYBE
                reply = exchanges.ask("PUT", new.path, b"", {"Content-Type": new.content_type})
                assert reply.status == 201, reply
                new.created = Known.YES

    # The word that was given

    def check(self, daemon: KilledDaemon) -> None:
        """
        Compare the streams with the ledgers, and record the outcome of unanswered writes.

        :raises AssertionError: it is not the same.
        """
        with Exchanges(daemon.port) as exchanges:
            for ledger in self.ledgers:
                reply = self._read(exchanges, ledger)
                found = ledger.compare(reply)
                self.figures.checked += sum(sent.end is not None for sent in ledger.sent.values())
                if reply.status == 200 and self._retry(exchanges, ledger, found):
                    reply = self._read(exchanges, ledger)
                there, absent = ledger.settle(reply)
                self.figures.found += there
                self.figures.absent += absent
            for ledger in self.ledgers:
                self._check_refusals(exchanges, ledger)
            for client in self.clients:
                self._check_sequences(exchanges, client)

    @staticmethod
    def _read(exchanges: Exchanges, ledger: Ledger) -> Reply:
        return exchanges.ask("GET", f"{ledger.path}?offset=-1")

    def _retry(self, exchanges: Exchanges, ledger: Ledger, found: set[int]) -> bool:
        """Send the unanswered appends of producers again: those that are there are known, the others are new."""
        retried = False
        for sent in list(ledger.sent.values()):
            if sent.producer is not None and sent.end is None:
                reply = exchanges.ask("POST", ledger.path, sent.body, append_headers(ledger, sent))
                known = sent.number in found
                assert reply.status == (204 if known else 200), (ledger.name, sent.number, sent.producer, known, reply)
                if known:
                    self.figures.retried_known += 1
                else:
                    sent.end = reply.position
                    self.figures.retried_new += 1
                retried = True
        return retried

    @staticmethod
    def _check_refusals(exchanges: Exchanges, ledger: Ledger) -> None:
        """A closed stream takes nothing; a deleted one is gone, its name taken as long as it has forks."""
        reply = exchanges.ask("POST", ledger.path, b"x", {"Content-Type": "application/x-nobodys"})
        if not ledger.alive:
            assert reply.status == 404, (ledger.name, reply)
        elif ledger.deleted.value:
            assert reply.status == 410, (ledger.name, reply)
        else:
            assert reply.status == 409, (ledger.name, reply)
            assert reply.closed == bool(ledger.closed.value), (ledger.name, reply)

    @staticmethod
    def _check_sequences(exchanges: Exchanges, client: Client) -> None:
        """The last append of each producer is known as such."""
        for ledger, (epoch, sequence) in client.sequences.items():
            if ledger.deleted is Known.YES:
                continue
            producer = (f"client-{client.number}", epoch, sequence - 1)
            last: list[Sent] = [sent for sent in ledger.sent.values() if sent.producer == producer]
            assert len(last) == 1, (ledger.name, producer)
            reply = exchanges.ask("POST", ledger.path, last[0].body, append_headers(ledger, last[0]))
            assert reply.status == 204, (ledger.name, producer, reply)
            assert reply.headers["producer-seq"] == str(sequence - 1), reply

    @property
    def known(self) -> int:
        """The number of acknowledged appends."""
        return acknowledged(self.ledgers)


def run(mode: str, generations: int, seed: int | str) -> Campaign:
    """
    Kill a server so often.

    :raises AssertionError: it did not keep its word. The data directory is left as it is then.
    """
    with Campaign(mode, seed) as campaign:
        for _ in range(generations):
            campaign.generation()
        campaign.look()
        campaign.look()
    return campaign


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.process.kills", description=__doc__)
    parser.add_argument("--generations", type=int, default=100, help="how often the server is killed")
    parser.add_argument("--mode", choices=MODES, default=MODES[0])
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = random.randrange(1 << 32) if arguments.seed is None else arguments.seed
    began_at = time.monotonic()
    with suppress(KeyboardInterrupt):
        campaign = run(arguments.mode, arguments.generations, seed)
        print(f"{arguments.mode}, seed {seed}, {time.monotonic() - began_at:.1f} s")
        print(campaign.figures)
        print(campaign.done)


if __name__ == "__main__":
    main()
