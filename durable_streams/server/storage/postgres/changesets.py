"""Change sets: changes of several streams that are written together or not at all."""

from __future__ import annotations

from collections.abc import Collection
from math import inf

from msgspec import Struct

from ...model import Lifetime, StreamConfig, StreamRestoration, StreamStatus
from ..entry import facts_of
from ..metadata import stream_size
from .chunk_index import ChunkRow
from .heads import Head


class NewStream(Struct, frozen=True, gc=False):
    """
    A stream that is to be created. Its id comes from the database.

    :ivar incarnation: that of its source; None for one of its own.
    :ivar config: as requested.
    :ivar lifetime: the effective one.
    :ivar source_id: the id of the stream that it is forked from, or None.
    :ivar chunks: its first append.
    :ivar size: the number of bytes of its first append.
    """

    name: str
    content_type: str
    config: StreamConfig
    lifetime: Lifetime
    incarnation: int | None = None
    source_id: int | None = None
    depth: int = 0
    base: int = 0
    size: int = 0
    chunks: tuple[ChunkRow, ...] = ()

    @property
    def tail(self) -> int:
        """The position after the first append."""
        return self.base + self.size

    @property
    def metadata(self) -> int:
        """How many bytes the limit of metadata counts."""
        return stream_size(facts_of(self.name, 0, 0, self.content_type), self.config, None, None)

    def head(self, stream_id: int, at: float) -> Head:
        """Return the head that it has after it was created."""
        incarnation = stream_id if self.incarnation is None else self.incarnation
        return Head(
            facts_of(self.name, stream_id, incarnation, self.content_type),
            self.config,
            self.lifetime,
            at,
            at,
            at,
            self.config.closed,
            False,
            self.base,
            self.tail,
            None,
            0,
            self.source_id,
            self.depth,
            0,
            1,
            at,
        )


class Removal(Struct, frozen=True, gc=False):
    """
    The removal of a stream.

    :ivar head: the stream as it was read.
    :ivar exact: whether no other change may have been made since, such as an append.
    """

    head: Head
    exact: bool = False


class Reference(Struct, frozen=True, gc=False):
    """
    A change of the forks of a stream, or of its being hidden for them.

    :ivar head: the stream as it was read.
    :ivar forks: the number of its forks after the change.
    :ivar deleted: whether it is hidden after the change.
    :ivar exact: whether no other change may have been made since it was read, such as an append.
    """

    head: Head
    forks: int
    deleted: bool
    exact: bool = False


class Installation(Struct, frozen=True):
    """
    A staged stream that becomes another one.

    :ivar head: the staged stream as it was read.
    :ivar state: all of its new state: only ``used_at`` may be None, for the time of the write.
    :ivar forks: the number of its forks after the change. If it is 0, a deleted stream is removed instead.
    """

    head: Head
    name: str
    state: StreamRestoration
    forks: int

    @property
    def status(self) -> StreamStatus:
        """The metadata of the stream after the change."""
        facts, state = self.head.facts, self.state
        assert state.incarnation is not None
        assert state.created_at is not None
        assert state.updated_at is not None
        installed = facts_of(self.name, facts.id, state.incarnation, facts.content_type)
        return StreamStatus(installed, self.head.tail, state.closed, state.lifetime, state.created_at, state.updated_at)

    @property
    def metadata(self) -> int:
        """By how many bytes the metadata grows, except that the writers of the staged stream are still counted."""
        facts, state = self.head.facts, self.state
        renamed = facts_of(self.name, facts.id, facts.incarnation, facts.content_type)
        return stream_size(renamed, state.config, state.sequence, state.writers) - size_without_writers(self.head)


class ChangeSet(Struct, frozen=True):
    """
    Changes that are written together. A stream stands in one of them only.

    :ivar references: changes of forks.
    :ivar removals: the streams that are removed.
    :ivar installation: a staged stream that is installed, or None.
    :ivar insertion: the stream that is created, or None.
    :ivar until: the database's time from which on the changes must not be written: the earliest expiry of the streams
        that were found.
    """

    references: tuple[Reference, ...] = ()
    removals: tuple[Removal, ...] = ()
    installation: Installation | None = None
    insertion: NewStream | None = None
    until: float = inf

    @property
    def compared(self) -> list[tuple[Head, bool]]:
        """The streams that must not have changed, in the order of their ids, and whether not even by an append."""
        found = [(each.head, each.exact) for each in self.references]
        found += [(each.head, each.exact) for each in self.removals]
        if self.installation is not None:
            found.append((self.installation.head, True))
        found.sort(key=lambda each: each[0].facts.id)
        assert len({head.facts.id for head, _ in found}) == len(found), "a stream stands twice in a change set"
        return found

    @property
    def growth(self) -> tuple[int, int, int]:
        """The streams, bytes and bytes of metadata that are added, without those that are removed."""
        new, installation = self.insertion, self.installation
        if new is not None:
            return 1, new.size, new.metadata
        return 0, 0, 0 if installation is None else installation.metadata

    @property
    def freed(self) -> tuple[int, int, int]:
        """The streams, bytes and bytes of metadata that are removed, without their writers."""
        return counters_of([removal.head for removal in self.removals])


def counters_of(heads: Collection[Head]) -> tuple[int, int, int]:
    """Return how many streams these are, their bytes, and their bytes of metadata without their writers."""
    return len(heads), sum(head.tail - head.base for head in heads), sum(size_without_writers(head) for head in heads)


def size_without_writers(head: Head) -> int:
    """Return how many bytes the limit of metadata counts for a stream besides its writers."""
    return stream_size(head.facts, head.config, head.sequence, None)


def fixed_size(head: Head) -> int:
    """Return how many of these bytes appends do not change."""
    return stream_size(head.facts, head.config, None, None)
