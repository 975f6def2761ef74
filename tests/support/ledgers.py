"""Records of what clients of a killed server know: acknowledged and unanswered appends, and reads.

After a restart a ledger is compared with what the server has then. What was acknowledged must be there, whole, once and
where it was said to be; what was not answered, whole or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from .exchanges import Reply

_MARK = re.compile(rb'(?:<|\{"n":")(\d{8})')


class Known(Enum):
    """Whether a fact is known from an answer: yes, no or unknown."""

    NO = 0
    MAYBE = 1
    YES = 2


@dataclass(eq=False)
class Sent:
    """
    An append.

    :ivar number: unlike that of any other; it is in ``data``, and grows with every append that a client sends.
    :ivar data: its bytes in the stream's wire form.
    :ivar body: its bytes as they were sent.
    :ivar first: whether it comes with the creation of the stream.
    :ivar closes: whether it closes the stream too.
    :ivar producer: Producer-Id, Producer-Epoch and Producer-Seq.
    :ivar end: the tail after it; None, if it was not answered.
    """

    number: int
    client: int
    data: bytes
    body: bytes
    first: bool = False
    closes: bool = False
    producer: tuple[str, int, int] | None = None
    end: int | None = None


class Lost(AssertionError):
    """Acknowledged data is missing or different."""


@dataclass(eq=False)
class Ledger:
    """
    The record of one stream.

    :ivar base: the bytes that it has from its source.
    :ivar seen: the longest content, in wire form, that a reader was given.
    :ivar seen_closed: whether a reader was told that it is closed.
    """

    name: str
    content_type: str
    base: bytes = b""
    source: Ledger | None = None
    created: Known = Known.NO
    closed: Known = Known.NO
    deleted: Known = Known.NO
    sent: dict[int, Sent] = field(default_factory=dict)
    forks: list[Ledger] = field(default_factory=list)
    seen: bytes = b""
    seen_closed: bool = False

    @property
    def path(self) -> str:
        return f"/v1/stream/{self.name}"

    @property
    def json(self) -> bool:
        return self.content_type == "application/json"

    def content(self) -> bytes:
        """The whole content, if nothing is unknown."""
        written = sorted(self.sent.values(), key=lambda each: each.end or 0)
        return self.base + b"".join(each.data for each in written if each.end is not None)

    @property
    def alive(self) -> bool:
        """Whether the stream exists, as far as known."""
        if self.created is Known.NO:
            return False
        return self.deleted is not Known.YES or any(fork.alive for fork in self.forks)

    def wire(self, body: bytes) -> bytes:
        """Return the wire form of a read's body."""
        if not self.json:
            return body
        if body[:1] != b"[" or body[-1:] != b"]":
            raise Lost(f"{self.name}: {body[:80]!r} is no JSON array")
        return body[1:-1] + b"," if len(body) > 2 else b""

    def see(self, wire: bytes, closed: bool) -> None:
        """Record what a reader was sent."""
        if len(wire) > len(self.seen):
            self.seen = wire
        self.seen_closed = self.seen_closed or closed

    # After a restart

    def compare(self, reply: Reply) -> set[int]:
        """
        Compare it with a whole read, and return the numbers of the appends that exist.

        :raises Lost: it is not as it must be.
        """
        if reply.status in (404, 410):
            return self._compare_absent(reply.status)
        if reply.status != 200:
            raise Lost(f"{self.name}: a read is answered {reply.status} {reply.body!r}")
        if self.deleted is Known.YES:
            raise Lost(f"{self.name} was deleted, and is back")
        wire = self.wire(reply.body)
        if len(wire) != reply.position:
            raise Lost(f"{self.name}: {len(wire)} bytes, and the tail is said to be {reply.position}")
        if not wire.startswith(self.base):
            raise Lost(f"{self.name} does not begin with what its source had")
        if not wire.startswith(self.seen):
            raise Lost(f"{self.name}: a reader has seen {len(self.seen)} bytes that are not there as they were")
        found = self._walk(wire)
        for sent in self.sent.values():
            if sent.end is not None and found.get(sent.number) != sent.end:
                raise Lost(
                    f"{self.name}: append {sent.number} was acknowledged at {sent.end}, and is at "
                    f"{found.get(sent.number)}"
                )
            if sent.first and sent.number not in found:
                raise Lost(f"{self.name} was created without its first append")
        self._compare_closed(reply.closed, found)
        self._compare_order(found)
        return set(found)

    def _compare_absent(self, status: int) -> set[int]:
        if self.created is Known.YES and self.deleted is Known.NO:
            raise Lost(f"{self.name} was created, and is answered {status}")
        if status == 410 and self.deleted is Known.NO:
            raise Lost(f"{self.name} is gone, and nobody has deleted it")
        return set()

    def _walk(self, wire: bytes) -> dict[int, int]:
        """Return the appends in a content and where they end."""
        found: dict[int, int] = {}
        position = len(self.base)
        while position < len(wire):
            mark = _MARK.match(wire, position)
            sent = None if mark is None else self.sent.get(int(mark[1]))
            if sent is None:
                raise Lost(f"{self.name}: nobody has sent what is at {position}: {wire[position : position + 60]!r}")
            if sent.number in found:
                raise Lost(f"{self.name}: append {sent.number} is there twice")
            if not wire.startswith(sent.data, position):
                raise Lost(f"{self.name}: append {sent.number} at {position} is not whole")
            position += len(sent.data)
            found[sent.number] = position
        return found

    def _compare_closed(self, closed: bool, found: dict[int, int]) -> None:
        if (self.closed is Known.YES or self.seen_closed) and not closed:
            raise Lost(f"{self.name} was closed, and is open")
        if self.closed is Known.NO and closed:
            raise Lost(f"{self.name} is closed, and nobody has closed it")
        for sent in self.sent.values():
            if sent.closes and (sent.number in found) != closed:
                raise Lost(f"{self.name}: of append {sent.number} and the closure that it brings, only one is there")

    def _compare_order(self, found: dict[int, int]) -> None:
        """Check that each client's appends are in order and without gaps."""
        clients: dict[int, list[Sent]] = {}
        for sent in self.sent.values():
            clients.setdefault(sent.client, []).append(sent)
        for sents in clients.values():
            there = [found.get(sent.number) for sent in sents]
            ends = [end for end in there if end is not None]
            if there[: len(ends)] != ends or ends != sorted(ends):
                raise Lost(f"{self.name}: the appends {[sent.number for sent in sents][-20:]} are at {there[-20:]}")

    def settle(self, reply: Reply) -> tuple[int, int]:
        """
        Record the server's present state as known.

        :returns: how many appends of unknown fate are there, and how many are not.
        """
        found = self.compare(reply)
        if reply.status == 404 and self.created is not Known.YES:
            self.created = Known.NO
            return 0, len(self.sent)
        self.created = Known.YES
        if reply.status != 200:
            self.deleted = Known.YES
            return 0, 0
        self.deleted = Known.NO
        self.closed = Known.YES if reply.closed else Known.NO
        unknown = [sent for sent in self.sent.values() if sent.end is None]
        there = 0
        ends = self._walk(self.wire(reply.body)) if unknown else {}
        for sent in unknown:
            if sent.number in found:
                sent.end = ends[sent.number]
                there += 1
            else:
                del self.sent[sent.number]
        return there, len(unknown) - there


def acknowledged(ledgers: Iterable[Ledger]) -> int:
    """Return the number of acknowledged appends."""
    return sum(sum(sent.end is not None for sent in ledger.sent.values()) for ledger in ledgers)
