"""One subscription in memory."""

from __future__ import annotations

from twisted.internet.defer import DeferredLock

from .decisions import Current


class Entry:
    """
    A subscription in memory, with what is to be done for it.

    :ivar current: as committed; None while it is created or after it was deleted.
    :ivar lock: held for each decision, from its input to its commit.
    :ivar dirty: names of streams that were created, deleted or replaced since the last decision.
    :ivar at_tail: those of them that are older than the subscription, so that they are linked at their tails.
    :ivar blocked: names of streams that match the pattern, and are not linked since there are too many links.
    :ivar stale: whether a write failed, so that ``current`` must be read again before the next decision.
    :ivar queued: whether an update is queued.
    :ivar due: the wake of which a delivery is due; None if none is.
    :ivar delivering: whether a delivery is queued or runs.
    :ivar trouble: the last error of an update; empty after a success.
    """

    __slots__ = (
        "at_tail",
        "birth",
        "blocked",
        "current",
        "delivering",
        "dirty",
        "due",
        "id",
        "lock",
        "queued",
        "stale",
        "trouble",
    )

    def __init__(self, subscription_id: str, birth: int) -> None:
        self.id = subscription_id
        self.birth = birth
        self.current: Current | None = None
        self.lock = DeferredLock()
        self.dirty: set[str] = set()
        self.at_tail: set[str] = set()
        self.blocked: set[str] = set()
        self.stale = False
        self.queued = False
        self.due: str | None = None
        self.delivering = False
        self.trouble = ""
