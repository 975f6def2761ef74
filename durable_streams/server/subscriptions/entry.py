"""One subscription in memory."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.defer import DeferredLock

from .decisions import Current


class Entry:
    """
    A subscription in memory, with what is to be done for it.

    :ivar current: as committed; None while it is created or after it was deleted.
    :ivar lock: held for each decision, from its input to its commit.
    :ivar dirty: names of streams that were created, deleted or replaced since the last decision, and whether they are
        older than the subscription, so that they are linked at their tails.
    :ivar blocked: names of streams that match the pattern, and are not linked since there are too many links.
    :ivar stale: whether a write failed or another node has changed the subscription, so that ``current`` must be read
        again before the next decision.
    :ivar noticed: how often another node has announced a change.
    :ivar users: the number of requests that are being performed.
    :ivar idle: whether no request came since the last sweep.
    :ivar queued: whether an update is queued.
    :ivar due: the wake of which a delivery is due; None if none is.
    :ivar delivering: whether a delivery is queued or runs.
    :ivar trouble: the last error of an update; empty after a success.
    """

    __slots__ = (
        "birth",
        "blocked",
        "current",
        "delivering",
        "dirty",
        "due",
        "id",
        "idle",
        "lock",
        "noticed",
        "queued",
        "stale",
        "trouble",
        "users",
    )

    def __init__(self, subscription_id: str, birth: int) -> None:
        self.id = subscription_id
        self.birth = birth
        self.current: Current | None = None
        self.lock = DeferredLock()
        # An empty dict takes 64 bytes, an empty set 216.
        self.dirty: dict[str, bool] = {}
        self.blocked: dict[str, bool] = {}
        self.stale = False
        self.noticed = 0
        self.users = 0
        self.idle = False
        self.queued = False
        self.due: str | None = None
        self.delivering = False
        self.trouble = ""

    def note(self, name: str) -> None:
        """Note that a stream was created, deleted or replaced."""
        self.dirty.setdefault(name, False)

    def notice(self) -> None:
        """Note that another node has changed the subscription."""
        self.noticed += 1
        self.stale = True

    def take_noted(self, max_count: int) -> dict[str, bool]:
        """Remove some names from ``dirty``, and return them as they are there."""
        taken = dict(self.dirty.popitem() for _ in range(min(len(self.dirty), max_count)))
        if not self.dirty:
            # A dict that was large keeps its memory.
            self.dirty = {}
        return taken

    def note_again(self, names: Mapping[str, bool]) -> None:
        """Put back what :meth:`take_noted` returned."""
        for name, at_tail in names.items():
            self.dirty[name] = at_tail or self.dirty.get(name, False)

    def unblock(self) -> None:
        """Try again to link the streams for which there was no room."""
        self.note_again(self.blocked)
        self.blocked = {}
