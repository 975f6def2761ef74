"""Clients that run all operations on streams until the server is killed, and keep ledgers."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Sequence

from .exchanges import Exchanges, Gone, Reply
from .ledgers import Known, Ledger, Sent

TEXT = "text/plain"
JSON = "application/json"

#: How many streams a client has of its own, and how many requests it sends at the most before it reads an answer.
_SLOTS = 6
_BURST = 8

_Operation = Callable[[], None]


class Numbers:
    """A generator of unique appends."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._numbers = itertools.count(1)

    def _size(self) -> int:
        chance = self._rng.random()
        if chance < 0.03:
            return self._rng.randrange(20_000, 80_000)
        return self._rng.randrange(2_000, 9_000) if chance < 0.1 else self._rng.randrange(1, 300)

    def make(self, ledger: Ledger, client: int) -> Sent:
        """Create an append for a stream and record it in the ledger."""
        number = next(self._numbers)
        if ledger.json:
            count = self._rng.randrange(1, 6)
            fill = b"j" * (self._size() // count)
            messages = b",".join(b'{"n":"%08d","i":%d,"f":"%b"}' % (number, index, fill) for index in range(count))
            sent = Sent(number, client, messages + b",", b"[" + messages + b"]")
        else:
            data = b"<%08d:%b>" % (number, b"t" * self._size())
            sent = Sent(number, client, data, data)
        ledger.sent[number] = sent
        return sent


class Stopped(Exception):
    """The load was stopped."""


class Client:
    """
    One client, on one connection at a time.

    :ivar slots: the streams that it alone has to do with.
    :ivar sequences: the epoch and the next sequence number of its producer, by stream.
    :ivar done: how often it did what, as far as it was answered.
    :ivar failure: what was not as it must be.
    """

    def __init__(self, number: int, rng: random.Random, numbers: Numbers, shared: Sequence[Ledger]) -> None:
        self.number = number
        self.slots: dict[int, Ledger] = {}
        self.sequences: dict[Ledger, tuple[int, int]] = {}
        self.done: dict[str, int] = {}
        self.failure: BaseException | None = None
        self._shared = shared
        self._rng = rng
        self._numbers = numbers
        self._stopping = False
        self._thread: threading.Thread | None = None
        self._exchanges: Exchanges
        self._operations: list[_Operation] = [
            *[self._append_shared] * 5,
            *[self._append_own] * 3,
            *[self._produce] * 5,
            *[self._create] * 2,
            self._close,
            self._delete,
            *[self._fork] * 2,
            self._read_own,
        ]

    def begin(self, port: int) -> None:
        """Start to send requests."""
        self._stopping = False
        self._thread = threading.Thread(target=self._run, args=(port,), name=f"client-{self.number}", daemon=True)
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """
        Wait until the client has ended, because the server is gone or refuses writes.

        :raises AssertionError: it goes on and on.
        """
        if self._thread is not None:
            self._thread.join(seconds)
            assert not self._thread.is_alive(), f"client {self.number} goes on"

    def end(self) -> None:
        """
        Stop after the present operation.

        :raises BaseException: what was not as it must be.
        """
        self._stopping = True
        if self._thread is not None:
            self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self, port: int) -> None:
        try:
            with Exchanges(port) as self._exchanges:
                while not self._stopping:
                    self._rng.choice(self._operations)()
        except (Gone, Stopped):
            pass
        except BaseException as error:
            self.failure = error

    def _ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        reply = self._exchanges.ask(method, path, body, _named(headers))
        return self._judge(reply)

    def _judge(self, reply: Reply) -> Reply:
        """Return a reply; raise :exc:`Stopped` if the storage cannot write: then the request's effect is unknown."""
        if reply.status in (503, 507):
            raise Stopped
        return reply

    def _count(self, what: str, count: int = 1) -> None:
        self.done[what] = self.done.get(what, 0) + count

    def _choose(self, fits: Callable[[Ledger], bool]) -> Ledger | None:
        fitting = [ledger for ledger in self.slots.values() if fits(ledger)]
        return self._rng.choice(fitting) if fitting else None

    # Appends

    def _append(self, ledger: Ledger, sents: Sequence[Sent]) -> None:
        for sent in sents:
            self._exchanges.send("POST", ledger.path, sent.body, append_headers(ledger, sent))
        for sent in sents:
            reply = self._judge(self._exchanges.receive("POST"))
            assert reply.status == (200 if sent.producer else 204), reply
            sent.end = reply.position
            self._count("appends")

    def _append_shared(self) -> None:
        ledger = self._rng.choice(self._shared)
        self._append(ledger, [self._numbers.make(ledger, self.number) for _ in range(self._rng.randrange(1, _BURST))])

    def _append_own(self) -> None:
        ledger = self._choose(_writable)
        if ledger is not None:
            count = self._rng.randrange(1, 4)
            self._append(ledger, [self._numbers.make(ledger, self.number) for _ in range(count)])

    def _produce(self) -> None:
        ledger = self._rng.choice(self._shared)
        epoch, sequence = self.sequences.get(ledger, (0, 0))
        if sequence and self._rng.random() < 0.1:
            epoch, sequence = epoch + 1, 0
        sents = [self._numbers.make(ledger, self.number) for _ in range(self._rng.randrange(1, 5))]
        for sent in sents:
            sent.producer = (f"client-{self.number}", epoch, sequence)
            sequence += 1
            self.sequences[ledger] = (epoch, sequence)
        self._append(ledger, sents)
        if self._rng.random() < 0.3:
            reply = self._exchanges.ask("POST", ledger.path, sents[-1].body, append_headers(ledger, sents[-1]))
            assert self._judge(reply).status == 204, reply
            self._count("duplicates")

    # Streams

    def _create(self) -> None:
        free = [slot for slot in range(_SLOTS) if slot not in self.slots or not self.slots[slot].alive]
        if not free:
            return
        slot = self._rng.choice(free)
        ledger = Ledger(f"own-{self.number}-{slot}", self._rng.choice((TEXT, JSON)))
        headers = {"content_type": ledger.content_type}
        first = self._numbers.make(ledger, self.number) if self._rng.random() < 0.6 else None
        if self._rng.random() < 0.1:
            headers["stream_closed"] = "true"
        if first is not None:
            first.first = True
        self.slots[slot] = ledger
        reply = self._make(ledger, b"" if first is None else first.body, headers)
        if first is not None:
            assert reply.position == len(first.data), reply
            first.end = reply.position

    def _make(self, ledger: Ledger, body: bytes, headers: dict[str, str]) -> Reply:
        ledger.created = Known.MAYBE
        if "stream_closed" in headers:
            ledger.closed = Known.MAYBE
        reply = self._ask("PUT", ledger.path, body, **headers)
        assert reply.status == 201, reply
        ledger.created = Known.YES
        if ledger.closed is Known.MAYBE:
            ledger.closed = Known.YES
        self._count("creations")
        return reply

    def _close(self) -> None:
        ledger = self._choose(_writable)
        if ledger is None:
            return
        ledger.closed = Known.MAYBE
        if self._rng.random() < 0.5:
            sent = self._numbers.make(ledger, self.number)
            sent.closes = True
            self._append(ledger, [sent])
        else:
            reply = self._ask("POST", ledger.path, stream_closed="true")
            assert reply.status == 204, reply
        ledger.closed = Known.YES
        self._count("closures")

    def _delete(self) -> None:
        ledger = self._choose(_readable)
        if ledger is None:
            return
        ledger.deleted = Known.MAYBE
        reply = self._ask("DELETE", ledger.path)
        assert reply.status == 204, reply
        ledger.deleted = Known.YES
        self._count("deletions")

    def _fork(self) -> None:
        source = self._choose(_readable)
        free = [slot for slot in range(_SLOTS) if slot not in self.slots or not self.slots[slot].alive]
        if source is None or not free:
            return
        content = source.content()
        slot = self._rng.choice(free)
        headers = {"stream_forked_from": source.path}
        position = len(content)
        if source.sent and self._rng.random() < 0.5:
            position = self._rng.choice(list(source.sent.values())).end or 0
            incarnation = self._ask("HEAD", source.path).headers["stream-next-offset"].partition("_")[0]
            headers["stream_fork_offset"] = f"{incarnation}_{position:016d}"
        fork = Ledger(f"own-{self.number}-{slot}", source.content_type, content[:position], source)
        source.forks.append(fork)
        self.slots[slot] = fork
        reply = self._make(fork, b"", headers)
        assert reply.position == position, reply
        self._count("forks")

    def _read_own(self) -> None:
        ledger = self._choose(_readable)
        if ledger is not None:
            reply = self._ask("GET", ledger.path + "?offset=-1")
            assert reply.status == 200, reply
            assert ledger.wire(reply.body) == ledger.content(), ledger
            assert reply.closed == (ledger.closed is Known.YES), ledger
            self._count("reads")


class Reader:
    """A live reader that records what it is sent until the server is gone."""

    def __init__(self, port: int, ledger: Ledger) -> None:
        self._ledger = ledger
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(port,), name="reader", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """
        Wait until the server ends the connection.

        :raises BaseException: what was not as it must be.
        """
        self._thread.join()
        if self._failure is not None:
            raise self._failure

    def _run(self, port: int) -> None:
        ledger = self._ledger
        offset = "-1"
        wire = b""
        try:
            with Exchanges(port) as exchanges:
                while True:
                    live = "" if offset == "-1" else "&live=long-poll"
                    reply = exchanges.ask("GET", f"{ledger.path}?offset={offset}{live}")
                    if reply.status == 204:
                        continue
                    assert reply.status == 200, reply
                    wire += ledger.wire(reply.body)
                    assert len(wire) == reply.position, reply.headers
                    ledger.see(wire, reply.closed)
                    offset = reply.headers["stream-next-offset"]
        except Gone:
            pass
        except BaseException as error:
            self._failure = error


def append_headers(ledger: Ledger, sent: Sent) -> dict[str, str]:
    """Return the headers of an append."""
    headers = {"Content-Type": ledger.content_type}
    if sent.closes:
        headers["Stream-Closed"] = "true"
    if sent.producer is not None:
        producer, epoch, sequence = sent.producer
        headers |= {"Producer-Id": producer, "Producer-Epoch": str(epoch), "Producer-Seq": str(sequence)}
    return headers


def _named(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}


def _readable(ledger: Ledger) -> bool:
    return ledger.created is Known.YES and ledger.deleted is Known.NO


def _writable(ledger: Ledger) -> bool:
    return _readable(ledger) and ledger.closed is Known.NO
