"""Creations, forks, deletions and installations of streams: read, decided, written, and decided again if missed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from math import inf
from typing import Protocol

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from ...errors import (
    ForkFromDeleted,
    InvalidRequest,
    PathBlocked,
    StreamGone,
    StreamNotFound,
    StreamsError,
    Unavailable,
)
from ...interfaces import ICommitListener
from ...model import Created, Fork, ForkPoint, StorageLimits, StreamConfig, StreamRestoration, StreamStatus
from ...protocol.forks import LongSearch
from .. import installing
from ..limits import check_metadata_room
from ..listeners import NullListener
from .append_queue import Uses
from .change_queue import ChangeQueue
from .changesets import ChangeSet, Installation, NewStream
from .changing import ChangeBuilder, HeadOutdated
from .creating import (
    AppendAt,
    check_existing,
    check_limits,
    check_name_size,
    check_source,
    fork_point,
    forked_stream,
    plain_stream,
)
from .fork_changes import PlainFork
from .heads import Head
from .identifiers import IdSequence
from .known import check_present
from .performing import Decision, Finder, HeadCache, Performer, Settled, T
from .plain_changes import PlainRemoval, is_plain
from .queued_changes import Written
from .totals import Totals
from .turns import Operations


class StreamUses(Uses, Protocol):
    """Uses of streams, which end with the streams."""

    def forget(self, stream_id: int) -> None:
        """Forget the uses of a stream that was removed or installed."""


class StreamChanges:
    """
    The operations that create, remove and install streams.

    :param queue: writes the changes.
    :param append_at: returns the append of a stream at a position.
    :ivar listener: is notified of each commit.
    :ivar changed: is called with a stream's id and its new version after each commit; 0 if it was removed.
    """

    def __init__(
        self,
        queue: ChangeQueue,
        lookups: HeadCache,
        append_at: AppendAt,
        limits: StorageLimits,
        totals: Totals,
        uses: StreamUses,
        ids: IdSequence,
        clock: IReactorTime,
    ) -> None:
        self._perform = Performer(queue, lookups, clock).perform
        self._ids = ids
        self._queue = queue
        self._lookups = lookups
        self._append_at = append_at
        self._limits = limits
        self._totals = totals
        self._uses = uses
        self._operations = Operations()
        self.listener: ICommitListener = NullListener()
        self.changed: Callable[[int, int], None] = lambda _id, _version: None

    # Operations

    def create(self, name: str, config: StreamConfig, body: bytes, point: ForkPoint | None) -> Deferred[Created]:
        """Create a stream, or return the existing one; see :meth:`.IStorage.create`."""
        if config.fork is None:
            return self._operations.begin(self._create_plain, name, config, body)
        return self._operations.begin(self._create_fork, name, config, config.fork, body, point)

    def delete(self, name: str) -> Deferred[None]:
        """Delete a stream, or hide it while it has forks; see :meth:`.IStorage.delete`."""
        return self._operations.begin(self._delete, name)

    def install(self, staged: str, name: str, wanted: StreamRestoration, replace: bool) -> Deferred[StreamStatus]:
        """Turn a staged stream into the stream ``name``; see :meth:`.IStorage.install`."""

        async def decide(find: Finder) -> Decision[StreamStatus]:
            return await self._install(staged, name, wanted, replace, find)

        return self._operations.begin(self._perform, decide)

    def close(self) -> Deferred[None]:
        """Accept no further operations, and return when all are answered."""
        return self._operations.close()

    async def remove_expired(self, expired: list[Head]) -> int:
        """
        Remove streams that have expired, in groups if they are plain, or hide them while they have forks.

        :returns: how many were removed or hidden. Streams that were used or removed meanwhile are left out.
        """
        plain = [head for head in expired if is_plain(head)]
        outcomes = await DeferredList(
            [maybeDeferred(self._queue.remove, PlainRemoval(head, exact=True)) for head in plain], consumeErrors=True
        )
        left = [head for head in expired if not is_plain(head)]
        count = 0
        for head, (_, written) in zip(plain, outcomes, strict=True):
            if isinstance(written, Failure):
                written.raiseException()
            if written is not None:
                self._removed(head)
                count += 1
            elif head.source_id is not None:
                # It may be the last fork of a hidden source.
                left.append(head)
        for head in left:
            count += await self._perform(lambda find, head=head: self._expire(head, find))  # type: ignore[misc]
        return count

    # Creating

    async def _create_plain(self, name: str, config: StreamConfig, body: bytes) -> Created:
        """Create a stream that is no fork: at first as if its name was free."""
        if self._lookups.cached(name) is None:
            candidate: NewStream | None = None
            # A refusal does not matter if the stream exists.
            with suppress(StreamsError):
                new = plain_stream(name, config, body)
                check_limits(new, self._totals, self._limits)
                candidate = new if len(new.chunks) <= 1 else None
            if candidate is not None:
                written = await self._queue.create(candidate)
                if written is not None:
                    return await self._created(candidate, written)

        async def decide(find: Finder) -> Decision[Created] | Settled[Created]:
            existing = await find.fresh(name)
            if existing is not None and not self._is_over(existing):
                return Settled(await self._existing(name, config, existing, None, find))
            new = plain_stream(name, config, body)
            builder = ChangeBuilder(find.fresh_id)
            await self._clear(name, existing, builder)
            return self._insertion(new, builder)

        return await self._perform(decide)

    async def _create_fork(
        self, name: str, config: StreamConfig, fork: Fork, body: bytes, point: ForkPoint | None
    ) -> Created:
        """Create a fork: at first as if its name was free."""
        if self._lookups.cached(name) is None:
            candidate: PlainFork | None = None
            # A refusal does not matter if the fork exists.
            with suppress(StreamsError, LongSearch):
                source = self._present(fork.source, await self._lookups.fresh(fork.source))
                new = await self._planned_fork(name, config, fork, body, point, source)
                check_limits(new, self._totals, self._limits)
                candidate = PlainFork(new, source, self._expiry(source)) if len(new.chunks) <= 1 else None
            if candidate is not None:
                written = await self._queue.fork(candidate)
                if written is not None:
                    # Its version has changed.
                    self._lookups.forget(fork.source)
                    return await self._created(candidate.new, written)

        async def decide(find: Finder) -> Decision[Created] | Settled[Created]:
            existing = await find.fresh(name)
            if existing is not None and not self._is_over(existing):
                return Settled(await self._existing(name, config, existing, point, find))
            return await self._fork(name, config, fork, body, point, existing, find)

        return await self._perform(decide)

    async def _planned_fork(
        self, name: str, config: StreamConfig, fork: Fork, body: bytes, point: ForkPoint | None, source: Head
    ) -> NewStream:
        check_source(name, config, source, self._limits)
        base = await fork_point(fork, source, self._append_at, point)
        return forked_stream(name, config, body, source, base)

    async def _fork(
        self,
        name: str,
        config: StreamConfig,
        fork: Fork,
        body: bytes,
        point: ForkPoint | None,
        existing: Head | None,
        find: Finder,
    ) -> Decision[Created]:
        """Decide the creation of a fork under a name that is free, or whose stream has expired."""
        builder = ChangeBuilder(find.fresh_id)
        await self._clear(name, existing, builder)
        found = await find.fresh(fork.source)
        try:
            source = self._present(fork.source, found)
        except StreamGone:
            if found is not None and found.facts.id in builder.removed:
                raise StreamNotFound(fork.source) from None
            raise ForkFromDeleted(fork.source) from None
        new = await self._planned_fork(name, config, fork, body, point, source)
        builder.add_fork(source)
        builder.until = self._expiry(source)
        return self._insertion(new, builder)

    async def _clear(self, name: str, expired: Head | None, builder: ChangeBuilder) -> None:
        """
        Remove an expired stream, whose name is to be used again.

        :raises PathBlocked: it has forks.
        """
        if expired is not None:
            if expired.forks:
                raise PathBlocked(name)
            await builder.remove(expired, exact=True)

    def _insertion(self, new: NewStream, builder: ChangeBuilder) -> Decision[Created]:
        changes = builder.build(new)
        check_limits(new, self._totals, self._limits, changes)

        async def finish(written: Written) -> Created:
            self._committed(changes)
            return await self._created(new, written)

        return Decision(changes, finish)

    async def _created(self, new: NewStream, written: Written) -> Created:
        """Return the result of a creation that was written."""
        if written.id is None:
            # The database's answer was lost.
            head = await self._lookups.fresh(new.name)
            if head is None:
                raise Unavailable("The stream was created, and removed again. Retry later.")
        else:
            head = new.head(written.id, written.at)
            self._lookups.store(head)
        self.changed(head.facts.id, head.version)
        self.listener.committed(new.name)
        return Created(head.facts, head.tail, head.closed, new=True)

    async def _existing(
        self, name: str, config: StreamConfig, existing: Head, point: ForkPoint | None, find: Finder
    ) -> Created:
        """Decide the creation of a stream that exists."""
        if existing.deleted:
            raise PathBlocked(name)
        check_existing(config, existing, await self._is_same_point(config, existing, point, find))
        return Created(existing.facts, existing.tail, existing.closed, new=False)

    async def _is_same_point(self, config: StreamConfig, existing: Head, point: ForkPoint | None, find: Finder) -> bool:
        asked, made_with = config.fork, existing.config.fork
        if asked == made_with:
            return True
        if asked is None or made_with is None or asked.source != made_with.source or existing.source_id is None:
            return False
        source = await find.fresh_id(existing.source_id)
        if source is None:
            raise HeadOutdated
        try:
            return await fork_point(asked, source, self._append_at, point) == existing.base
        except InvalidRequest:
            return False

    # Removing

    async def _delete(self, name: str) -> None:
        head = self._present(name, await self._lookups.fresh(name))
        if is_plain(head) and await self._queue.remove(PlainRemoval(head, until=self._expiry(head))) is not None:
            self._removed(head)
            return

        async def decide(find: Finder) -> Decision[None]:
            head = self._present(name, await find.fresh(name))
            builder = ChangeBuilder(find.fresh_id, self._expiry(head))
            return await self._removal(head, builder, None)

        await self._perform(decide)

    async def _expire(self, expired: Head, find: Finder) -> Decision[bool] | Settled[bool]:
        """Decide the removal of a stream that had expired when it was read."""
        head = await find.fresh_id(expired.facts.id)
        if head is None or head.deleted or not self._is_over(head):
            return Settled(False)
        return await self._removal(head, ChangeBuilder(find.fresh_id), True, exact=True)

    async def _removal(self, head: Head, builder: ChangeBuilder, result: T, exact: bool = False) -> Decision[T]:
        await builder.remove(head, exact)
        changes = builder.build()

        async def finish(_: Written) -> T:
            self._committed(changes)
            self._removed(head)
            return result

        return Decision(changes, finish)

    # Installing

    async def _install(
        self, staged: str, name: str, wanted: StreamRestoration, replace: bool, find: Finder
    ) -> Decision[StreamStatus]:
        head = self._present(staged, await find.fresh(staged))
        installing.check_names(staged, name)
        check_name_size(name)
        # The time of the installation is the maximum of used_at, and only known when it is written.
        state = installing.complete(head, wanted, self._limits.writers, inf)
        existing = await find.fresh(name)
        builder = ChangeBuilder(find.fresh_id, self._expiry(head))
        if existing is not None and self._is_over(existing):
            await self._clear(name, existing, builder)
        elif existing is not None:
            installing.check_replacement(name, existing, replace)
            await builder.remove(existing)
        installation = Installation(head, name, state, builder.forks(head))
        check_metadata_room(self._totals.metadata, installation.metadata, self._limits)
        if state.deleted and not installation.forks:
            await builder.remove(head, exact=True)
            changes = builder.build()
        else:
            changes = builder.build(installed=installation)
        assert state.incarnation is not None
        if state.incarnation > head.facts.incarnation:
            await self._ids.advance(state.incarnation)

        async def finish(_: Written) -> StreamStatus:
            self._committed(changes)
            return await self._installed(installation)

        return Decision(changes, finish)

    async def _installed(self, installation: Installation) -> StreamStatus:
        """Return the result of an installation that was written."""
        stream_id, name = installation.head.facts.id, installation.name
        self._uses.forget(stream_id)
        if installation.state.deleted:
            # Its name may belong to another stream by now.
            self._lookups.forget(name)
            self.changed(stream_id, 0)
            self.listener.committed(name)
            return installation.status
        installed = await self._lookups.fresh(name)
        if installed is None:
            raise Unavailable("The stream was installed, and removed again.")
        self.changed(installed.facts.id, installed.version)
        self.listener.committed(name)
        return installed.status()

    # What follows from a write

    def _committed(self, changes: ChangeSet) -> None:
        """Update the cache."""
        # The version of a stream that has another fork is not known, since appends may have come first.
        for head, _ in changes.compared:
            self._lookups.forget(head.facts.name)
        for removal in changes.removals:
            self._uses.forget(removal.head.facts.id)
            self.changed(removal.head.facts.id, 0)

    def _removed(self, head: Head) -> None:
        """Note that a stream was removed or hidden."""
        self._uses.forget(head.facts.id)
        self._lookups.forget(head.facts.name)
        self.changed(head.facts.id, 0)
        self.listener.committed(head.facts.name)

    def _present(self, name: str, found: Head | None) -> Head:
        """Return the head of a stream that clients can find; see :func:`.known.check_present`."""
        return check_present(found, name, 0.0 if found is None else self._uses.last_use(found.facts.id))

    def _expiry(self, head: Head) -> float:
        return head.expires(self._uses.last_use(head.facts.id))

    def _is_over(self, head: Head) -> bool:
        """Return whether a stream had expired when it was read; hidden ones do not expire."""
        return not head.deleted and self._expiry(head) <= head.read_at
