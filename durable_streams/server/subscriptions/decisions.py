"""The input and the output of the state machine: the current state of a subscription, and a decision about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from .errors import SubscriptionError
from .links import LinkTable
from .model import Acked, Claimed, Effect, Link, Snapshot, SnapshotEntry, State, StreamTail, Subscription
from .records import encode, encode_link, link_key, snapshot_key, state_key


class Current(Struct, frozen=True):
    """
    A subscription as it is committed.

    :ivar snapshot: of ``state.wake``; None without a wake, or if the wake has none.
    :ivar links: the links, which :meth:`following` changes.
    :ivar stored: the value of the record ``wakes/ID`` as it is stored: each change compares it.
    """

    subscription: Subscription
    state: State
    snapshot: Snapshot | None
    links: LinkTable
    stored: bytes

    def following(self, decision: Decision) -> Current:
        """Apply a decision that was written. Set the tails of newly linked streams before."""
        self.links.apply(decision.links)
        stored = decision.puts.get(state_key(self.subscription.id)) or self.stored
        return replace(self, state=decision.state, snapshot=decision.snapshot, stored=stored)


class Decision(Struct, frozen=True):
    """
    What an event leads to.

    :ivar state: the state after it.
    :ivar snapshot: the snapshot after it.
    :ivar links: the links that change; None removes one.
    :ivar puts: the records to write in one atomic step, None to remove one. If empty, there is nothing to write.
    :ivar expected: the values that records must have for the write: the state, and with it the generation and wake_id.
    :ivar effects: what to do after the write.
    :ivar happened: for counters: ``wake_issued``, ``wake_cleared``, ``wake_done``, ``lease_expired``, ``released``,
        ``claimed``, ``acked``.
    :ivar answer: the answer to a claim or an ack.
    :ivar refusal: raise it after the write; a refusal that changes nothing is raised by the method itself.
    """

    state: State
    snapshot: Snapshot | None
    links: dict[str, Link | None]
    puts: dict[str, bytes | None]
    expected: dict[str, bytes | None]
    effects: tuple[Effect, ...] = ()
    happened: tuple[str, ...] = ()
    answer: Claimed | Acked | None = None
    refusal: SubscriptionError | None = None


_NO_TAILS: Final[Mapping[str, StreamTail | None]] = {}


class View:
    """
    The links of a subscription with the changes of one decision over them.

    :param tails: tails that ``current.links`` may not have yet.
    """

    __slots__ = ("_tails", "changes", "current")

    def __init__(self, current: Current, tails: Mapping[str, StreamTail | None] = _NO_TAILS) -> None:
        self.current = current
        self.changes: dict[str, Link | None] = {}
        self._tails = tails

    def link(self, path: str) -> Link | None:
        """Return the link of a path, or None."""
        return self.changes[path] if path in self.changes else self.current.links.get(path)

    def tail(self, path: str) -> StreamTail | None:
        """Return the tail of a stream; None if it does not exist."""
        return self._tails[path] if path in self._tails else self.current.links.tail(path)

    def put(self, path: str, link: Link | None) -> None:
        """Change a link; None removes it."""
        self.changes[path] = link

    def any_pending(self) -> bool:
        """Return whether a link has pending data."""
        overlay = self._overlay()
        if any(self._is_pending(path) for path in overlay):
            return True
        return any(path not in overlay for path in self.current.links.pending)

    def first_pending(self, max_count: int) -> list[str]:
        """Return the first paths with pending data, sorted."""
        overlay = self._overlay()
        changed = [path for path in overlay if self._is_pending(path)]
        return sorted([*changed, *self.current.links.first_pending(max_count, overlay)])[:max_count]

    def _overlay(self) -> set[str]:
        return {*self.changes, *self._tails}

    def _is_pending(self, path: str) -> bool:
        link = self.link(path)
        return link is not None and link.pending(self.tail(path))

    def snapshot(self, wake_id: str, max_count: int) -> Snapshot:
        """Return the links for a wake: all if there are few enough, else the first pending ones."""
        links = self.current.links
        added = [path for path, link in self.changes.items() if link is not None and path not in links]
        removed = [path for path, link in self.changes.items() if link is None and path in links]
        if len(links) + len(added) - len(removed) > max_count:
            paths = self.first_pending(max_count)
        else:
            paths = sorted({*links, *added}.difference(removed))
        return Snapshot(wake_id, tuple(self._entry(path) for path in paths))

    def _entry(self, path: str) -> SnapshotEntry:
        link, tail = self.link(path), self.tail(path)
        explicit = link is not None and link.explicit
        if link is None or tail is None:
            return SnapshotEntry(path, explicit, None, 0, 0, 0)
        return SnapshotEntry(path, explicit, tail.stream_id, tail.incarnation, link.cursor(tail), tail.position)


def decision(
    view: View,
    state: State,
    snapshot: Snapshot | None,
    effects: tuple[Effect, ...] = (),
    happened: tuple[str, ...] = (),
    answer: Claimed | Acked | None = None,
    refusal: SubscriptionError | None = None,
) -> Decision:
    """Return a decision with the records that differ from the current ones."""
    current = view.current
    subscription = current.subscription
    revision = current.state.revision + bool(view.changes)
    if state.revision != revision:
        state = replace(state, revision=revision)
    puts: dict[str, bytes | None] = {}
    if state != current.state:
        puts[state_key(subscription.id)] = encode(state)
    if snapshot is not current.snapshot:
        puts[snapshot_key(subscription.id)] = None if snapshot is None else encode(snapshot)
    for path, link in view.changes.items():
        puts[link_key(subscription.id, path)] = None if link is None else encode_link(link, subscription.birth)
    expected: dict[str, bytes | None] = {state_key(subscription.id): current.stored} if puts else {}
    return Decision(state, snapshot, view.changes, puts, expected, effects, happened, answer, refusal)
