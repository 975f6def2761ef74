"""The interfaces between the storage, the service and the commit listener.

A storage method that returns :data:`NowOrLater` returns its result, or a Deferred of it if it has to wait for a disk or
a network. Errors are raised, or are the Deferred's failure. Results that are at hand are not wrapped, because a fired
Deferred with one callback costs about 10 % of an append.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeAlias, TypeVar

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from .model import (
    Append,
    Appended,
    Chunk,
    Created,
    FileRange,
    ForkPoint,
    KnownTail,
    Offset,
    StorageFigures,
    StreamConfig,
    StreamFacts,
    StreamRecord,
    StreamRestoration,
    StreamStatus,
)

T = TypeVar("T")

#: A result, or a Deferred of it.
NowOrLater: TypeAlias = "T | Deferred[T]"


#: How long a stream may be created after one with a larger id, in seconds; see :meth:`ISharedStorage.created_after`.
LATE_CREATION: Final = 15.0


async def settle(outcome: NowOrLater[T]) -> T:
    """Return a result; await it first if it is a Deferred."""
    return await outcome if isinstance(outcome, Deferred) else outcome


class ICommitListener(Interface):
    """A listener that is notified of each committed change of a stream."""

    def committed(name: str) -> None:
        """
        Note that a stream's bytes, closure or existence changed, and that the change is committed.

        The call carries no data: readers read again from their own offset. One change may be announced more than once,
        several changes once, and changes made by another node are announced too. This must return at once and must not
        raise.
        """


class IFileRanges(Interface):
    """An optional interface of storages: ranges of streams are sent from files to sockets without a copy."""

    def file_range(facts: StreamFacts, start: int, end: int) -> NowOrLater[FileRange | None]:
        """
        Return the file that has the beginning of a range, or else the bytes as :meth:`IStorage.read_range` does.

        :returns: at most ``end - start`` bytes; None if these bytes are not in a file: then they are to be read.
        """


class IPacedWrites(Interface):
    """An optional interface of storages: writers of much data, such as imports, wait while the storage is behind."""

    def congested() -> bool:
        """
        Return whether so much data waits in memory for a checkpoint that the writer should wait, too.

        The storage may make checkpoints earlier for a writer that asks. It ends by itself, within seconds, if nothing
        more is written. Must not block.
        """


class ISharedStorage(Interface):
    """
    An optional interface of storages that several nodes use at the same time, each by a storage object of its own.

    Nodes divide work that only one of them may do at a time into numbered partitions, which they hold by leases.
    """

    partitions = Attribute("The number of partitions.")
    nodes = Attribute("The number of nodes that share the partitions, as far as this one knows.")

    def join(shares_changed: Callable[[], None], received: Callable[[str], None], missed: Callable[[], None]) -> None:
        """
        Take part in sharing the partitions. The functions are called in the reactor's thread and must not raise.

        :param shares_changed: called after partitions were taken or lost, and after :attr:`nodes` has changed.
        :param received: called with each subject that another node has published.
        :param missed: called when subjects and changes of streams by other nodes may have been missed.
        """

    def leave() -> Deferred[None]:
        """Hold no partition any more, so that others can take them at once; fires when they can."""

    def holds(partition: int) -> bool:
        """Return whether this node holds a partition now. No other node does as long as this is true."""

    def ahead() -> float:
        """Return by how many seconds the storage's clock, which all nodes share, is ahead of this node's steady one."""

    def publish(subject: str) -> None:
        """Tell the other nodes, as soon as possible, that something has changed. A message may be lost."""

    def observe(wanted: bool) -> None:
        """
        Announce the changes of all streams by other nodes to the commit listener, not only of those that are waited on.
        """

    def read_values(keys: Sequence[str]) -> NowOrLater[dict[str, bytes]]:
        """Return those of some values that exist, by key, from one snapshot that is taken after this call."""

    def count_values(prefix: str) -> NowOrLater[int]:
        """Return the number of values whose keys begin with a prefix."""

    def changed_tails(known: Sequence[KnownTail]) -> NowOrLater[list[KnownTail]]:
        """
        Compare streams with what a node knows of them, in a snapshot that is taken after this call.

        :param known: at most some 1,000 streams, each name once.
        :returns: those that are different now, in any order, as they are. A stream that has expired and was not removed
            yet may be among them.
        """

    def last_id() -> NowOrLater[int]:
        """Return the largest id that a stream has, or a larger one."""

    def created_after(stream_id: int) -> NowOrLater[list[tuple[int, str]]]:
        """
        Return the ids and names of streams with larger ids, by id: those that were created since the id was the last.

        A stream may appear later than those with larger ids, but not more than :data:`LATE_CREATION` seconds after.
        """


class IStorage(Interface):
    """
    A store of streams.

    Each method is one atomic step for its stream, and for the sources and forks that it changes with it: what it checks
    still holds when it writes. A result is given when the state that it reports is committed, as durably as the storage
    can. That includes rejections: a crash does not take back the state on which a duplicate or a closed stream was
    reported. Cancelling a returned Deferred discards the result, not the write.

    ``now`` is the time of the request, in seconds since 1970, by a steady clock: it advances with the monotonic clock
    and is never set back. The wall clock's time is ``now`` plus the offset of :meth:`set_wall_offset`. Stream-TTL and
    other intervals use ``now``; Stream-Expires-At, ids and stored times use the wall clock. A storage that several
    servers share uses one clock of its own instead, for all of these. A stream that has expired at that time does not
    exist. Re-creating an existing stream, forking it, or a rejected append does not renew its
    TTL (PROTOCOL section 5.1).

    All methods raise :exc:`.errors.Unavailable` if the storage cannot work at the moment, and
    :exc:`.errors.InsufficientStorage` if the disk is full or a limit of numbers is reached.
    """

    def load() -> None:
        """
        Load the data directory. May block for a long time.

        It may be called in any thread, as long as no other method runs. If the data is loaded already, it does nothing.

        :raises StorageError: the data cannot be loaded; the message says why and what to do.
        """

    def open() -> None:
        """
        Start the storage: load it if :meth:`load` was not called, then start background work such as checkpoints.

        If the storage is open already, it does nothing.

        :raises StorageError: the data cannot be loaded; the message says why and what to do.
        """

    def obstacle() -> str | None:
        """
        Return why the storage refuses writes until it is opened again, as a sentence for operators, or None.
        """

    def figures() -> StorageFigures:
        """
        Return the numbers of streams, bytes and commits. It is called every few seconds and must not block.

        Those of streams, bytes and metadata are for all servers that share the storage; what others have changed is
        counted within seconds.
        """

    def listen(listener: ICommitListener) -> None:
        """
        Notify ``listener`` of every commit from now on, in the thread that called this. It replaces the one before.
        """

    def set_wall_offset(offset: float) -> None:
        """
        Set by how many seconds the wall clock is ahead of ``now``; 0 until this is called.

        It is called in the thread that calls the other methods: before :meth:`open` if the offset is not 0 then, and
        each time the wall clock is set. A storage with a clock of its own ignores it.
        """

    def create(
        name: str, config: StreamConfig, body: bytes, now: float, point: ForkPoint | None = None
    ) -> NowOrLater[Created]:
        """
        Create a stream, or return the existing one if its configuration is the same (PROTOCOL sections 4.2 and 5.1).

        :param body: the initial content as received. The storage converts it to the wire form of the stream's content
            type (:func:`.protocol.messages.first_data`), which a fork may have from its source. It is ignored if the
            stream exists.
        :param point: the result of the search of the previous :exc:`.LongSearch`; ignored if the fork or its source
            stream has changed.
        :raises LongSearch: finding the fork's position takes more than some milliseconds. Nothing was changed: finish
            the search, and call this again with its result. A storage need not raise it.
        :raises StreamExists: a stream of this name exists with another configuration.
        :raises PathBlocked: a deleted stream that still has forks has the name.
        :raises StreamNotFound: the fork's source does not exist.
        :raises ForkFromDeleted: the fork's source was deleted.
        :raises ContentTypeMismatch: the fork's content type is not its source's.
        :raises InvalidRequest: the fork's offset or sub-offset is not in the source, or the content type is malformed.
        :raises InvalidJson: the stream is in JSON mode, and the body is not JSON.
        :raises StreamFull: the body is larger than a stream may be.
        :raises StorageFull: the limit of all streams together is reached.
        """

    def append(name: str, append: Append, now: float) -> NowOrLater[Appended]:
        """
        Append data, close the stream, or both; update the writer's state and Stream-Seq in the same atomic step.

        PROTOCOL sections 5.2 and 5.3.

        :raises StreamNotFound: the stream does not exist.
        :raises StreamGone: the stream was deleted and still has forks.
        :raises StreamClosed: the stream is closed.
        :raises ContentTypeMismatch: the data's content type is not the stream's.
        :raises SequenceConflict: Stream-Seq is not greater than that of the last append.
        :raises WriterFenced: the writer's epoch is older than the one that the stream has recorded.
        :raises WriterGap: the writer's sequence number is not the next one.
        :raises InvalidRequest: a writer's new epoch does not begin at sequence number 0.
        :raises StreamFull: the stream would exceed its limit.
        :raises StorageFull: all streams together would exceed their limit.
        """

    def read(
        name: str, offset: Offset, limit: int, now: float, whole: bool = False, renew: bool = True
    ) -> NowOrLater[Chunk]:
        """
        Read at most ``limit`` bytes from an offset (PROTOCOL sections 5.6 and 8).

        An offset inside an append reads from that append's start, one past the tail from the tail.

        :param limit: the maximum number of bytes.
        :param whole: if true, end at the end of an append. If the first append alone is longer than ``limit``, return
            its first ``limit`` bytes, and in :attr:`.Chunk.more` the number of its remaining bytes, to be read with
            :meth:`read_range`.
        :param renew: whether this read renews the stream's TTL.
        :raises StreamNotFound: the stream does not exist.
        :raises StreamGone: the stream was deleted and still has forks.
        :raises OffsetGone: the offset belongs to an earlier stream of this name.
        :raises InvalidOffset: no stream of this name ever had the offset.
        :raises DataDamaged: the checksum of an append in the range does not match.
        """

    def read_range(facts: StreamFacts, start: int, end: int, hidden: bool = False) -> NowOrLater[bytes]:
        """
        Read the bytes from position ``start`` to ``end``, both known to exist from an earlier read of this stream.

        :param hidden: whether to read a stream, too, that was deleted and is kept for its forks.
        :raises StreamNotFound: the stream was deleted meanwhile.
        :raises DataDamaged: the checksum of an append in the range does not match.
        """

    def status(name: str, now: float) -> NowOrLater[StreamStatus]:
        """
        Return a stream's metadata without renewing its TTL (PROTOCOL section 5.5).

        :raises StreamNotFound: the stream does not exist.
        :raises StreamGone: the stream was deleted and still has forks.
        """

    def record(name: str, now: float, hidden: bool = False) -> NowOrLater[StreamRecord]:
        """
        Return all that the storage has of a stream besides its bytes, without renewing its TTL.

        :param hidden: whether to find a deleted stream, too, that is kept for its forks.
        :raises StreamNotFound: the stream does not exist.
        :raises StreamGone: the stream was deleted and still has forks, and ``hidden`` is false.
        """

    def append_ends(facts: StreamFacts, start: int, max_count: int, hidden: bool = False) -> NowOrLater[Sequence[int]]:
        """
        Return the positions at which committed appends end, ascending, for those that end after ``start``.

        A fork has the appends of its source up to the fork point; there may be the end of the first part of one.

        :param start: a position of an earlier read of this stream, or 0.
        :param max_count: the maximum number of ends. If fewer are returned, the last of them is the stream's tail.
        :param hidden: whether to find a deleted stream, too, that is kept for its forks.
        :raises StreamNotFound: the stream was deleted meanwhile.
        :raises DataDamaged: the index of the appends, or one of them, is not as it was written.
        """

    def install(
        staged: str, name: str, restoration: StreamRestoration, replace: bool, now: float
    ) -> NowOrLater[StreamStatus]:
        """
        Turn a staged stream into the stream ``name`` in one atomic step: an import or restore is whole or not at all.

        A staged stream is made by :meth:`create` and :meth:`append` under a reserved name, which no client can reach,
        with a lifetime, so that an abandoned one expires. It keeps its id, content type, data, source and forks. Its
        name, and all that ``restoration`` has, become those of the new stream. To stage a fork, create it with the fork
        configuration of its source, which may be staged or installed.

        If ``restoration.deleted`` is true, the outcome is that of the installation and of :meth:`delete` after it, and
        no reader and no crash comes between the two. A deleted source cannot be forked, so install it after its forks
        are created, under their own names or staged.

        The limits must allow for the staged stream besides the one that it replaces. Readers of ``name`` are notified:
        an offset of the replaced stream is gone, unless the new one has the same incarnation.

        :param staged: a name of the reserved segment (:data:`.protocol.names.RESERVED_PREFIX`).
        :param name: a name outside of it.
        :param replace: whether to remove an existing stream of this name in the same step.
        :returns: the metadata of the new stream; if it is deleted, those that it had last.
        :raises StreamNotFound: there is no staged stream; it may have expired.
        :raises StreamExists: a stream of this name exists, and ``replace`` is false.
        :raises ReplacementHasForks: the stream that is to be replaced has forks.
        :raises PathBlocked: a deleted stream that still has forks has the name.
        :raises ContentTypeMismatch: the restored configuration has another content type than the staged stream.
        :raises InvalidRequest: a name or the incarnation cannot be used.
        """

    def delete(name: str, now: float) -> NowOrLater[None]:
        """
        Delete a stream (PROTOCOL section 5.4). If it has forks, its data and name are kept until the last fork is gone.

        :raises StreamNotFound: the stream does not exist.
        :raises StreamGone: the stream was deleted before and still has forks.
        """

    def renew(name: str, now: float) -> NowOrLater[None]:
        """
        Renew a stream's TTL, for a reader that waits and makes no other call. If there is no such stream, do nothing.

        It does not fail: if the storage cannot work at the moment, it does nothing.

        A storage may record this renewal, and that of a read, late or not at all if it renews the TTL of every stream
        when it is opened. So a restart never expires a stream early.
        """

    def sweep(now: float, max_count: int) -> NowOrLater[int]:
        """
        Remove at most ``max_count`` expired streams, and return how many were removed.
        """

    def statuses(
        now: float, after: str = "", max_count: int = 1000, prefix: str = ""
    ) -> NowOrLater[list[StreamStatus]]:
        """
        Return the metadata of at most ``max_count`` streams, in the order of their names.

        The call's duration grows with ``max_count``, not with the number of streams. Each page is its own snapshot: a
        stream that is created or deleted between two pages may be listed or not. Names whose first segment is reserved
        (:data:`.protocol.names.RESERVED_SEGMENT`) are not listed.

        :param after: the last name of the previous page; empty for the first page.
        :param max_count: the page's size. A shorter page is the last one.
        :param prefix: list only streams whose name begins with it.
        """

    def values(prefix: str = "", after: str = "", max_count: int = 1000) -> NowOrLater[list[tuple[str, bytes]]]:
        """
        Return at most ``max_count`` values with their keys, in the order of the keys (that of their characters' codes).

        Values are small records beside the streams, such as those of subscriptions. All of them are in memory. Each
        page is its own snapshot, and none of it is taken back by a crash.

        :param prefix: return only values whose key begins with it.
        :param after: the last key of the previous page; empty for the first page.
        :param max_count: the page's size. A shorter page is the last one.
        """

    def write_values(puts: Mapping[str, bytes | None], expected: Mapping[str, bytes | None]) -> NowOrLater[None]:
        """
        Compare values, and write others, in one atomic step: all of ``puts`` are written, or nothing.

        A result is given when they are as durable as an append is. The commit listener is not notified. Keys and values
        count as metadata. One call has at most 10,000 keys and 16 MiB.

        :param puts: the new values by key; None removes a value. A key is any text of 1 to 8,192 bytes of UTF-8, a
            value has at most 4 MiB.
        :param expected: the values by key that must be there; None for a key that must not. They are compared with the
            state that all calls before this one leave, whether it is committed yet or not.
        :raises ValuesChanged: a value is not the expected one.
        :raises InvalidRequest: a key is malformed, or something is too long.
        """

    def close() -> NowOrLater[None]:
        """
        Complete all accepted writes and release every resource. No method is called after it.
        """
