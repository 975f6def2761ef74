"""A storage in memory that several nodes share, on a Clock: leases of partitions, and messages that may be lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import ceil
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from zope.interface import implementer

from durable_streams.server.errors import StreamGone, StreamNotFound
from durable_streams.server.interfaces import ICommitListener, ISharedStorage, IStorage
from durable_streams.server.model import KnownTail
from durable_streams.server.storage.listeners import NullListener
from durable_streams.server.storage.memory import MemoryStorage

#: How long a lease lasts without renewal, and how often it is renewed, in seconds.
LEASE: Final = 10.0
RENEWAL: Final = 2.5

#: How long a message is under way, in seconds.
DELAY: Final = 0.005


@implementer(ICommitListener)
class SharedMemory:
    """
    What the nodes share.

    :ivar loses: returns whether a message between nodes is lost.
    :ivar before_write: is called before each write of values.
    :ivar after_write: is called after it; an error of it is the writer's.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.storage = MemoryStorage()
        self.storage.listen(self)
        self.storage.open()
        self.nodes: list[Node] = []
        self.writing: Node | None = None
        self.loses: Callable[[], bool] = lambda: False
        self.before_write: Callable[[Any], None] = lambda puts: None
        self.after_write: Callable[[Any], None] = lambda puts: None
        # Partition -> its holder, and until when it has the lease.
        self.leases: dict[int, tuple[Node, float]] = {}

    def node(self) -> Node:
        """Return a node that has just started."""
        node = Node(self)
        self.nodes.append(node)
        return node

    def committed(self, name: str) -> None:
        """Announce a change: to the node that has made it at once, to the others by a message."""
        for node in self.nodes:
            if node is self.writing:
                node.listener.committed(name)
            else:
                self.send(node, partial(node.hear, name))

    def send(self, node: Node, message: Callable[[], None]) -> None:
        if not self.loses():
            self.clock.callLater(DELAY, lambda: None if node.is_dead or node.is_cut_off else message())


@implementer(IStorage, ISharedStorage)
class Node:
    """
    The storage object of one node.

    :ivar is_dead: whether it was killed: it does nothing any more, and its leases run out.
    :ivar is_cut_off: whether it gets no message and cannot renew its leases.
    """

    partitions = 8

    def __init__(self, shared: SharedMemory) -> None:
        self.shared = shared
        self.listener: ICommitListener = NullListener()
        self.is_dead = False
        self.is_cut_off = False
        self.nodes = 1
        self._observed = False
        self._joined = False
        self._alive_until = 0.0
        self._held: dict[int, float] = {}
        self._ignore = lambda *_: None
        self._changed: Callable[[], None] = self._ignore
        self._received: Callable[[str], None] = self._ignore
        self._missed: Callable[[], None] = self._ignore

    def __getattr__(self, name: str) -> Any:
        """Return an operation of the shared storage, whose commits are this node's."""
        operation = getattr(self.shared.storage, name)

        def perform(*arguments: Any, **named: Any) -> Any:
            if self.is_dead:
                return Deferred()
            before, self.shared.writing = self.shared.writing, self
            try:
                return operation(*arguments, **named)
            finally:
                self.shared.writing = before

        return perform

    def write_values(self, puts: Any, expected: Any) -> Any:
        if self.is_dead:
            return Deferred()
        self.shared.before_write(puts)
        self.shared.storage.write_values(puts, expected)
        self.shared.after_write(puts)
        return None

    def open(self) -> None:
        """Do nothing: the storage is open."""

    def close(self) -> None:
        """Do nothing: others use the storage."""

    def listen(self, listener: ICommitListener) -> None:
        self.listener = listener

    def set_wall_offset(self, offset: float) -> None:
        """Do nothing."""

    def kill(self) -> None:
        """End the node as a crash does."""
        self.is_dead = True
        self.listener = NullListener()
        self._changed = self._received = self._missed = self._ignore

    # Leases

    def join(
        self, shares_changed: Callable[[], None], received: Callable[[str], None], missed: Callable[[], None]
    ) -> None:
        self._changed, self._received, self._missed = shares_changed, received, missed
        self._joined = True
        self._renew()

    def _renew(self) -> None:
        if self.is_dead or not self._joined:
            return
        if self.is_cut_off:
            self.shared.clock.callLater(RENEWAL, self._renew)
            return
        now, leases = self.shared.clock.seconds(), self.shared.leases
        before = set(self._held), self.nodes
        self._alive_until = now + LEASE
        self.nodes = sum(node._joined and node._alive_until > now for node in self.shared.nodes)
        share = ceil(self.partitions / self.nodes)
        mine = [number for number, (node, until) in leases.items() if node is self and until > now]
        for number in range(self.partitions):
            holder = leases.get(number)
            is_free = holder is None or holder[1] <= now
            if number in mine[:share] or (is_free and len(mine) < share):
                if number not in mine:
                    mine.append(number)
                leases[number] = self, now + LEASE
        for number in mine[share:]:
            del leases[number]
        self._held = dict.fromkeys(mine[:share], now + LEASE)
        if (set(self._held), self.nodes) != before:
            self._changed()
        self.shared.clock.callLater(RENEWAL, self._renew)

    def leave(self) -> Deferred[None]:
        self._joined = False
        self._held.clear()
        if not self.is_dead:
            for number, (node, _) in list(self.shared.leases.items()):
                if node is self:
                    del self.shared.leases[number]
        return succeed(None)

    def holds(self, partition: int) -> bool:
        return not self.is_dead and self._held.get(partition, 0.0) > self.shared.clock.seconds()

    def ahead(self) -> float:
        return 0.0

    # Messages

    def publish(self, subject: str) -> None:
        for node in self.shared.nodes:
            if node is not self:
                self.shared.send(node, partial(node.receive, subject))

    def receive(self, subject: str) -> None:
        self._received(subject)

    def reconnect(self) -> None:
        """Listen again after messages were lost."""
        self._missed()

    def observe(self, wanted: bool) -> None:
        self._observed = wanted

    def hear(self, name: str) -> None:
        """Announce a change of another node."""
        if self._observed:
            self.listener.committed(name)

    # Reads

    def read_values(self, keys: Sequence[str]) -> Deferred[dict[str, bytes]]:
        found = {}
        for key in keys:
            page = self.shared.storage.values(key, "", 1)
            if page and page[0][0] == key:
                found[key] = page[0][1]
        return self._later(found)

    def count_values(self, prefix: str) -> Deferred[int]:
        return self._later(len(self.shared.storage.values(prefix, "", 1_000_000)))

    def changed_tails(self, known: Sequence[KnownTail]) -> Deferred[list[KnownTail]]:
        found = []
        for each in known:
            try:
                status = self.shared.storage.status(each.name, self.shared.clock.seconds())
                now = KnownTail(each.name, status.facts.id, status.facts.incarnation, status.tail)
            except (StreamNotFound, StreamGone):
                now = KnownTail(each.name)
            if now != each:
                found.append(now)
        return self._later(found)

    def last_id(self) -> Deferred[int]:
        return self._later(max((stream_id for stream_id, _ in self._ids()), default=0))

    def created_after(self, stream_id: int) -> Deferred[list[tuple[int, str]]]:
        return self._later([each for each in self._ids() if each[0] > stream_id])

    def _ids(self) -> list[tuple[int, str]]:
        statuses = self.shared.storage.statuses(self.shared.clock.seconds(), max_count=1_000_000)
        return sorted((status.facts.id, status.facts.name) for status in statuses)

    def _later(self, result: Any) -> Deferred[Any]:
        """Return a result that comes in a later turn of the reactor, as from a network."""
        answer: Deferred[Any] = Deferred()
        if not self.is_dead:
            self.shared.clock.callLater(0, answer.callback, result)
        return answer
