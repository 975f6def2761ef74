"""What a node knows of a stream: its head at one version, and some of its writers at that version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ...errors import StreamGone, StreamNotFound
from ...model import WriterState
from .heads import Head

#: The memory of a known stream besides its name and the ids of its writers, in bytes, and that of a writer.
_STREAM_BYTES: Final = 1200
_WRITER_BYTES: Final = 300


class KnownStream:
    """
    A head, and the writers that were read with it.

    :ivar head: the committed state.
    :ivar writers: the writers that are known by id; None for one that the stream has not recorded.
    :ivar oldest: the ids of the writers that were seen least recently, in this order; None if they were not read.
    :ivar complete: whether ``oldest`` has all writers of the stream.
    :ivar confirmed: the moment (:meth:`.LookUps.tick`) after which the database had this state.
    :ivar size: about how many bytes of memory this takes.
    """

    __slots__ = ("complete", "confirmed", "head", "oldest", "size", "writers")

    def __init__(
        self,
        head: Head,
        writers: Mapping[str, WriterState | None] | None = None,
        oldest: list[str] | None = None,
        complete: bool = False,
        confirmed: int = 0,
    ) -> None:
        self.head = head
        self.writers: dict[str, WriterState | None] = {}
        self.oldest = oldest
        self.complete = complete
        self.confirmed = confirmed
        self.size = _STREAM_BYTES + 2 * len(head.facts.name) + len(head.facts.content_type) + len(head.sequence or b"")
        if writers:
            self.remember(writers)

    def knows(self, writer_id: str) -> bool:
        """Return whether a writer's state is known, or that it has none."""
        return writer_id in self.writers or not self.head.writers

    def remember(self, writers: Mapping[str, WriterState | None]) -> None:
        """Add or replace states of writers."""
        known = self.writers
        for writer_id, state in writers.items():
            if writer_id not in known:
                self.size += _WRITER_BYTES + len(writer_id)
            known[writer_id] = state

    def forget_writers(self) -> None:
        """Forget all states of writers."""
        self.size = KnownStream(self.head).size
        self.writers = {}
        self.oldest = None
        self.complete = False

    def add(self, other: KnownStream) -> None:
        """Add the writers that another look-up has read at the same version."""
        self.remember(other.writers)
        self.confirmed = max(self.confirmed, other.confirmed)
        if other.oldest is not None:
            self.oldest, self.complete = other.oldest, other.complete


def check_present(head: Head | None, name: str, used_at: float = 0.0) -> Head:
    """
    Return the head of a stream that clients can find, as it was when the head was read.

    :param used_at: the last use that this node knows of, which may not be written yet.
    :raises StreamNotFound: there is none, or it has expired.
    :raises StreamGone: it was deleted or has expired, and still has forks.
    """
    if head is None:
        raise StreamNotFound(name)
    if head.deleted:
        raise StreamGone(name)
    if head.expires(used_at) <= head.read_at:
        raise StreamGone(name) if head.forks else StreamNotFound(name)
    return head
