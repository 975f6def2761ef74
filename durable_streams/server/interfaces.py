"""The contracts between the parts.

A storage answers *now or later*: a method returns its outcome, or a Deferred of it when a disk or a network is in the
way. Errors come the same two ways, raised or as the Deferred's failure. (An outcome that is at hand costs nothing that
way, and a fired Deferred with one callback a tenth of all that an append costs.)
"""

from __future__ import annotations

from typing import TypeAlias, TypeVar

from twisted.internet.defer import Deferred
from zope.interface import Interface

from .model import (
    Append,
    Appended,
    Chunk,
    Created,
    ForkPoint,
    Offset,
    StorageFigures,
    StreamConfig,
    StreamFacts,
    StreamStatus,
)

T = TypeVar("T")

#: An outcome, or a Deferred of it.
NowOrLater: TypeAlias = "T | Deferred[T]"


async def settle(outcome: NowOrLater[T]) -> T:
    """Wait for an outcome, if there is anything to wait for."""
    return await outcome if isinstance(outcome, Deferred) else outcome


class ICommitListener(Interface):
    """Whoever wants to hear that a stream has changed."""

    def committed(name: str) -> None:
        """
        A stream's bytes, closure or existence changed, and the change is as durable as the storage makes it.

        It carries no data: who cares reads again from where they were. It may come more than once for one change,
        once for many, and for a change that another node made. It must return at once and not raise.
        """


class IStorage(Interface):
    """
    Streams, kept.

    Each method is one atomic step for its stream, and for the sources and forks that it changes with it: what it checks
    still holds when it writes. An answer comes when what it says is as durable as the storage makes it, and that goes
    for refusals too: who is told of a duplicate or of a closed stream was told of something that a crash does not take
    back. To cancel a Deferred gives up the answer, never the write.

    ``now`` is the time of the request in seconds since 1970, by a steady clock: it never goes back, and passes as the
    monotonic clock does. The wall clock's time is ``now`` plus the offset of :meth:`set_wall_offset`. Stream-TTL and
    other intervals go by ``now``; Stream-Expires-At, ids and stored times go by the wall clock. A stream whose lifetime
    is over by then is not there any more. Re-creating an existing stream, forking it, or a rejected append does not
    renew its TTL.

    All methods raise :exc:`.errors.Unavailable` and :exc:`.errors.InsufficientStorage` when the storage can't do its
    work.
    """

    def take_up() -> None:
        """
        Take up what is kept, which may block for long.

        It may be called in any thread, while nothing else is asked for. Again, it does nothing.

        :raises StorageError: it can't be taken up; the message says why, and what to do.
        """

    def open() -> None:
        """
        Be ready for everything else.

        Take up what is kept, unless that was done, and begin with what goes on by itself, such as checkpoints. Again,
        it does nothing.

        :raises StorageError: it can't be taken up; the message says why, and what to do.
        """

    def obstacle() -> str | None:
        """
        Say in a sentence what keeps it from taking writes until it is opened again; None, when nothing does.
        """

    def figures() -> StorageFigures:
        """
        Say how much there is, as far as is known at once; it is asked for every few seconds.
        """

    def listen(listener: ICommitListener) -> None:
        """
        Announce every commit from now on to ``listener``, and to no other, in the thread that called this.
        """

    def set_wall_offset(offset: float) -> None:
        """
        Set how many seconds the wall clock is ahead of ``now`` from now on; 0 until this is called.

        It is called in the thread that calls everything else, before the storage is opened if it is not 0 then, and
        each time the wall clock is set.
        """

    def create(
        name: str, config: StreamConfig, body: bytes, now: float, point: ForkPoint | None = None
    ) -> NowOrLater[Created]:
        """
        Make a stream, or find the one that is there with the same configuration (PROTOCOL sections 4.2 and 5.1).

        :param body: the first content as it came, to be brought into the wire form of the stream's type
            (:func:`.protocol.messages.first_data`), which a fork may have from its source; not looked at when the
            stream exists.
        :param point: the result of the search that the last attempt raised; ignored for another fork or source stream.
        :raises LongSearch: the fork's position takes a search of more than some milliseconds. Nothing was changed.
            Finish the search, and call this again with its result. A storage need not raise it.
        :raises StreamExists: it is there, with another configuration.
        :raises PathBlocked: a deleted stream with forks has the name.
        :raises StreamNotFound: the source of the fork is not there.
        :raises ForkFromDeleted: the source of the fork was deleted.
        :raises ContentTypeMismatch: the fork has another type than its source.
        :raises InvalidRequest: the fork's offset or sub-offset is not in the source, or the content type is none.
        :raises InvalidJson: the stream is in JSON mode, and the body is not JSON.
        :raises StreamFull: the stream's limit is reached.
        :raises StorageFull: the limit of all streams is reached.
        """

    def append(name: str, append: Append, now: float) -> NowOrLater[Appended]:
        """
        Append, close, or both, in one step with the writer's state and Stream-Seq (PROTOCOL sections 5.2 and 5.3).

        :raises StreamNotFound: there is no such stream.
        :raises StreamGone: it was deleted and has forks.
        :raises StreamClosed: it is closed.
        :raises ContentTypeMismatch: the data has another type than the stream.
        :raises SequenceConflict: Stream-Seq is not greater than the last.
        :raises WriterFenced: the writer's epoch is stale.
        :raises WriterGap: the writer's sequence number leaves some out.
        :raises InvalidRequest: a writer's new epoch does not begin at 0.
        :raises StreamFull: the stream's limit is reached.
        :raises StorageFull: the limit of all streams is reached.
        """

    def read(
        name: str, offset: Offset, limit: int, now: float, whole: bool = False, renew: bool = True
    ) -> NowOrLater[Chunk]:
        """
        Read from an offset; one inside an append is read from that append's start, one past the tail from the tail.

        :param limit: how many bytes at the most.
        :param whole: end at the end of an append. If already the first append is longer than ``limit``, return its
            first ``limit`` bytes, and in :attr:`.Chunk.more` the number of those that are left for :meth:`read_range`.
        :param renew: whether this counts as use for a sliding lifetime.
        :raises StreamNotFound: there is no such stream.
        :raises StreamGone: it was deleted and has forks.
        :raises OffsetGone: the offset is of an earlier stream of the name.
        :raises InvalidOffset: the offset is of no stream of the name.
        :raises DataDamaged: an append that would be read is not as it was written.
        """

    def read_range(facts: StreamFacts, start: int, end: int) -> NowOrLater[bytes]:
        """
        Read the bytes from ``start`` to ``end``, both of them positions that a read of this stream has shown to exist.

        :raises StreamNotFound: the stream was deleted meanwhile.
        :raises DataDamaged: an append that these bytes belong to is not as it was written.
        """

    def status(name: str, now: float) -> NowOrLater[StreamStatus]:
        """
        Describe a stream; no use of it as lifetimes count.

        :raises StreamNotFound: there is no such stream.
        :raises StreamGone: it was deleted and has forks.
        """

    def delete(name: str, now: float) -> NowOrLater[None]:
        """
        Delete a stream; one that has forks keeps its data for them, and its name, until the last of them is gone.

        :raises StreamNotFound: there is no such stream.
        :raises StreamGone: it was deleted before and has forks.
        """

    def renew(name: str, now: float) -> None:
        """
        Count as use for a sliding lifetime what shows in no other call: a reader that waits.

        Nothing, if the stream is not there. A storage may record this, and what a read renews, late, if it counts every
        stream as used when it is opened again: no stream is over because a renewal was forgotten.
        """

    def sweep(now: float, most: int) -> NowOrLater[int]:
        """
        Remove expired streams, ``most`` of them at the most, and say how many.
        """

    def statuses(now: float, after: str = "", max_count: int = 1000) -> NowOrLater[list[StreamStatus]]:
        """
        Describe a page of all streams, in the order of their names.

        The time that it takes grows with ``max_count``, not with the number of streams. Each page is a state of its
        own: a stream that is created or deleted between two of them is listed or not.

        :param after: the last name of the page before; the first page has the first names.
        :param max_count: how many streams at the most. If there are fewer, there are no more after them.
        """

    def close() -> NowOrLater[None]:
        """
        Finish what was accepted and let go of every resource. Nothing is called after it.
        """
