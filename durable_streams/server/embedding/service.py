"""Streams as Python sees them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeAlias, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..clocks import IClock, clock_of
from ..config.settings import Settings
from ..daemon.assembly import name_limits_from
from ..errors import Unavailable
from ..interfaces import IStorage, settle
from ..model import (
    START,
    Append,
    Appended,
    Created,
    Fork,
    Offset,
    StreamConfig,
    StreamStatus,
    Writer,
)
from ..protocol.content import JSON_TYPE
from ..protocol.names import check_name
from ..protocol.offsets import parse_expected, parse_offset
from ..streams import Streams
from .checks import (
    Data,
    as_bytes,
    check_data,
    check_fork,
    check_guards,
    checked_type,
    fork_offset,
    lifetime_of,
    wire_data,
)
from .owning import claim, release
from .readings import Reading, read_appends, reading_of
from .tail import Tail
from .writing import StreamWriter

T = TypeVar("T")

#: For how many seconds a start waits for the storage before it goes on without.
PATIENCE = 1.0

_log = Logger()

#: How much of a stream a tail gives in one reading, in bytes; an append that is larger comes whole.
TAIL_PIECE = 65_536

#: How many streams are described in one turn of the reactor.
_LIST_PAGE = 500

_Statuses: TypeAlias = list[StreamStatus]


class StreamService(Service):
    """
    Streams as Python sees them.

    Its methods answer with Deferreds, and fail with the errors of :mod:`durable_streams.server.errors`, for the reasons
    for which a request does. Each fails with :exc:`.InvalidName` for what is no stream's name, with
    :exc:`.StreamNotFound` where there is no stream, with :exc:`.StreamGone` where one was deleted that has forks, and
    with :exc:`.Unavailable` when the service has stopped or its storage can't do its work. The limit of a request's
    body does not count here; those of names and storages do.

    Give it to an application, or start it, so that streams expire and tails end when the program does. It is started
    once.

    :param storage: where the streams are kept; it has no other owner.
    :param reactor: the time; the running reactor, unless given.
    :param settings: the limits of names and all that :func:`.build_resource` serves with; the defaults, unless given.
    :raises StorageOwned: the storage has a service that is not stopped yet.
    """

    name = "durable-streams"

    def __init__(
        self,
        storage: IStorage,
        reactor: IReactorTime | None = None,
        settings: Settings | None = None,
    ) -> None:
        if reactor is None:
            from twisted.internet import reactor as running  # noqa: PLC0415 (the program may choose one until now)

            reactor = running
        assert reactor is not None
        claim(storage, self)
        self.reactor: IReactorTime = reactor
        self.clock: IClock = clock_of(reactor)
        self.settings = settings = settings or Settings()
        self.streams = Streams(storage, self.clock)
        self._storage = storage
        self._names = name_limits_from(settings)
        self._opening: Deferred[Any] | None = None
        self._waiting: list[Deferred[Any]] = []
        self._stopped: Deferred[None] | None = None

    # The service

    def startService(self) -> None:
        """
        Open the storage.

        If that takes longer than :data:`PATIENCE`, it goes on in a thread, and calls of the service's methods wait for
        it (:meth:`when_open`). With a reactor that has no threads, such as a Clock, it is finished here.

        :raises StorageError: the storage cannot be opened; the service can be started again. If that is known later
            only, it is logged, and the service's methods fail with :exc:`.Unavailable`.
        :raises RuntimeError: the service was stopped.
        """
        if self._stopped is not None:
            raise RuntimeError("The service was stopped. Make another one, with a storage of its own.")
        if not IReactorFromThreads.providedBy(self.reactor):
            self.streams.startService()
            super().startService()
            return
        failures: list[Failure] = []
        self._opening = opening = self.streams.load(PATIENCE, self.reactor)
        opening.addErrback(failures.append)
        if failures:
            self._opening = None
            failures[0].raiseException()
        super().startService()
        opening.addCallback(lambda _: self._opened(failures))

    def _opened(self, failures: list[Failure]) -> None:
        self._opening = None
        if failures:
            super().stopService()
            _log.critical("Cannot open the storage: {reason}", reason=failures[0].getErrorMessage())
        self._end_waiting(failures[0] if failures else None)

    def _end_waiting(self, outcome: Failure | None) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if not each.called:
                each.callback(outcome)

    def when_open(self) -> Deferred[None]:
        """
        Wait until the storage is open.

        :returns: fires at once unless the storage is being opened; fails with what opening it raised, such as
            :exc:`.StorageError`, or with :exc:`.Unavailable` if the service is stopped before.
        """
        if self._opening is None:
            return succeed(None)
        opened: Deferred[None] = Deferred()
        self._waiting.append(opened)
        return opened

    async def _wait_until_open(self) -> None:
        """Wait for :meth:`when_open`, but for its failure: an operation fails with :exc:`.Unavailable` then."""
        try:
            await self.when_open()
        except CancelledError:
            raise
        except Exception:
            return

    def stopService(self) -> Deferred[None]:
        """
        End tails and waiting readers, finish accepted writes, and close the storage. Further calls wait for the first.
        """
        if self._stopped is None:
            super().stopService()
            self._stopped = Deferred()
            self._opening = None
            self._end_waiting(Failure(Unavailable("The service has stopped.")))
            Deferred.fromCoroutine(self._stop()).chainDeferred(self._stopped)
        stopped: Deferred[None] = Deferred()
        self._stopped.chainDeferred(stopped)
        return stopped

    async def _stop(self) -> None:
        try:
            await self.streams.stopService()
            await self.streams.abandoned()
        finally:
            release(self._storage, self)

    # Writing

    def create(
        self,
        name: str,
        content_type: str | None = None,
        data: bytes = b"",
        *,
        ttl: int | None = None,
        expires_at: float | None = None,
        closed: bool = False,
        fork: Fork | None = None,
    ) -> Deferred[Created]:
        """
        Make a stream, or find it made alike (PROTOCOL section 5.1).

        :param data: its first content, as a body of a PUT; not looked at when the stream exists.
        :param ttl: seconds without use after which it is gone.
        :param expires_at: seconds since 1970 at which it is gone.
        :param closed: it is complete with ``data``.
        :raises StreamExists: it is there, and differs.
        :raises PathBlocked: a deleted stream with forks has the name.
        :raises InvalidRequest: the content type or the lifetime is none.
        :raises InvalidJson: the stream is JSON, and the data is not.
        :raises StreamFull: the stream would be too large.
        :raises StorageFull: all streams together would be.
        :raises InsufficientStorage: there are too many streams, or the disk is full.
        """
        return self._run(name, self._create, content_type, as_bytes(data), ttl, expires_at, closed, fork)

    def fork(
        self,
        name: str,
        source: str,
        offset: str | Offset | None = None,
        sub_offset: int = 0,
        *,
        data: bytes = b"",
        ttl: int | None = None,
        expires_at: float | None = None,
        closed: bool = False,
    ) -> Deferred[Created]:
        """
        Make a stream that begins as another does, in its content type (PROTOCOL section 4.2).

        Fails as :meth:`create` does, and so:

        :param offset: up to where it does: a ``next_offset`` of the source; None is its tail.
        :param sub_offset: how many JSON messages, or bytes, past ``offset``.
        :param data: what follows what it has of the source.
        :raises StreamNotFound: there is no such source.
        :raises ForkFromDeleted: the source was deleted.
        :raises ContentTypeMismatch: the source is of another type.
        :raises InvalidRequest: the source has no such offset.
        """
        return self._run(name, self._fork, source, offset, sub_offset, as_bytes(data), ttl, expires_at, closed)

    def append(
        self,
        name: str,
        data: bytes,
        *,
        close: bool = False,
        sequence: bytes | None = None,
        writer: Writer | None = None,
        content_type: str | None = None,
        expected: str | Offset | None = None,
    ) -> Deferred[Appended]:
        """
        Append to a stream; to a JSON stream, a message or an array of messages.

        The Deferred fires when the append is as durable as the storage makes it. Appends are taken in the order of the
        calls, so there is no need to wait for one before the next; who never waits is stopped by ``Unavailable``.

        :param close: close it in the same step; then ``data`` may be empty.
        :param sequence: Stream-Seq: greater, compared byte by byte, than that of the stream's last append.
        :param writer: makes the append happen once, however often it is sent; see also :meth:`writer`.
        :param content_type: the type of the data; None for the stream's own.
        :param expected: Stream-Expected-Offset: append only if this ``next_offset``, or ``-1``, is the stream's tail.
        :raises EmptyBody: there is no data, and nothing to close.
        :raises StreamClosed: it takes no more.
        :raises InvalidJson: the stream is JSON, and the data is not.
        :raises EmptyArray: the data is an array of nothing.
        :raises ContentTypeMismatch: the stream is of another type.
        :raises OffsetConflict: ``expected`` is not the tail.
        :raises SequenceConflict: ``sequence`` is not greater.
        :raises WriterFenced: the writer's epoch is stale.
        :raises WriterGap: the writer's number leaves some out.
        :raises InvalidRequest: ``sequence``, ``writer``, ``content_type`` or ``expected`` can't be.
        :raises StreamFull: the stream would be too large.
        :raises StorageFull: all streams together would be.
        :raises InsufficientStorage: the disk is full, or the stream has too many writers.
        """
        return self._run(name, self._append, as_bytes(data), close, sequence, writer, content_type, expected)

    def append_batch(
        self,
        name: str,
        payloads: Iterable[bytes],
        *,
        close: bool = False,
        sequence: bytes | None = None,
        writer: Writer | None = None,
        content_type: str | None = None,
        expected: str | Offset | None = None,
    ) -> Deferred[Appended]:
        """
        Append several payloads in one step: all of them or none.

        Fails as :meth:`append` does, and so:

        :param payloads: for a JSON stream, one message each, arrays too; for others, they are joined.
        :raises EmptyArray: there are none.
        """
        batch = tuple(as_bytes(each) for each in payloads)
        return self._run(name, self._append, batch, close, sequence, writer, content_type, expected)

    def writer(self, name: str, writer_id: str, epoch: int = 0, *, first_seq: int = 0) -> StreamWriter:
        """
        Make a writer that numbers its appends, so that they can be tried again (PROTOCOL section 5.2.1).

        :param epoch: higher than that of any earlier writer of this id, which is fenced off by it.
        :param first_seq: where the numbers go on, for a program that has kept them; a new epoch begins at 0.
        :raises InvalidRequest: the id or a number can't be.
        """

        def send(sent: tuple[Data, bool], numbered: Writer) -> Deferred[Appended]:
            return self._run(name, self._append, *sent, None, numbered, None, None)

        return StreamWriter(send, Writer(writer_id, epoch, first_seq))

    def close(self, name: str) -> Deferred[Appended]:
        """Close a stream; again does no harm (PROTOCOL section 5.3)."""
        return self.append(name, b"", close=True)

    def delete(self, name: str) -> Deferred[None]:
        """Delete a stream (PROTOCOL section 5.4)."""
        return self._run(name, self.streams.delete)

    # Reading

    def read(self, name: str, offset: str | Offset = START, limit: int = 2**62) -> Deferred[Reading]:
        """
        Read whole appends (PROTOCOL section 5.6).

        :param offset: from where: ``-1``, ``now``, or a ``next_offset``.
        :param limit: about how many bytes at the most; the first append comes whole.
        :raises InvalidOffset: the offset is none, or none of this stream's.
        :raises OffsetGone: the offset is of an earlier stream of the name.
        :raises DataDamaged: what would be read is damaged on the disk.
        """
        return self._run(name, self._read, offset, limit)

    def tail(self, name: str, offset: str | Offset = START, limit: int = TAIL_PIECE) -> Tail:
        """
        Read what there is, and then what comes: ``async for reading in service.tail(name, offset)``.

        It ends when the stream is closed. To leave the loop, or to cancel what waits in it, leaves nothing behind. Each
        step fails as :meth:`read` does; with :exc:`.StreamNotFound` when the stream is deleted or expires, and with
        :exc:`.Unavailable` when the service stops, after which another tail goes on from the last ``next_offset``.

        A stream is in use while a tail waits for it, as lifetimes count.

        :param offset: from where; ``now`` is the moment of the first step.
        :param limit: about how many bytes a reading has at the most.
        :raises InvalidName: this is no stream's name.
        :raises InvalidOffset: the offset is none.
        """
        check_name(name, self._names)
        return Tail(self.streams, name, _place(offset), limit, self._wait_until_open)

    def head(self, name: str) -> Deferred[StreamStatus]:
        """Describe a stream, which is no use of it as lifetimes count (PROTOCOL section 5.5)."""
        return self._run(name, self.streams.status)

    def list(self) -> Deferred[_Statuses]:
        """Describe all streams, in the order of their names; a page at a time, between which others have their turn."""
        return self._run(None, lambda _: self._list())

    # How it is done

    def _run(self, name: str | None, operation: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._perform(name, operation, *arguments))

    async def _perform(self, name: str | None, operation: Callable[..., T | Awaitable[T]], *arguments: Any) -> T:
        if self._opening is not None:
            await self._wait_until_open()
        if self._stopped is not None:
            raise Unavailable("The service has stopped.")
        if name is not None:
            check_name(name, self._names)
        outcome = operation(name, *arguments)
        return await outcome if isinstance(outcome, Awaitable) else outcome

    async def _create(
        self,
        name: str,
        content_type: str | None,
        data: bytes,
        ttl: int | None,
        expires_at: float | None,
        closed: bool,
        fork: Fork | None,
    ) -> Created:
        if content_type is not None:
            checked_type(content_type)
        if fork is not None:
            check_fork(fork, self._names)
        config = StreamConfig(content_type, lifetime_of(ttl, expires_at), closed, fork)
        return await settle(self.streams.create(name, config, data))

    async def _fork(
        self,
        name: str,
        source: str,
        offset: str | Offset | None,
        sub_offset: int,
        data: bytes,
        ttl: int | None,
        expires_at: float | None,
        closed: bool,
    ) -> Created:
        fork = Fork(source, fork_offset(offset), sub_offset)
        return await self._create(name, None, data, ttl, expires_at, closed, fork)

    async def _append(
        self,
        name: str,
        data: Data,
        close: bool,
        sequence: bytes | None,
        writer: Writer | None,
        content_type: str | None,
        expected: str | Offset | None,
    ) -> Appended:
        check_data(data, close)
        check_guards(sequence, writer)
        place = parse_expected(expected) if isinstance(expected, str) else expected
        media = None if content_type is None else checked_type(content_type)
        # All look first, so that none overtakes another. A stream's type never changes; should another take its name
        # meanwhile, the append is refused.
        facts = (await settle(self.streams.status(name))).facts
        if media is None:
            media = facts.media_type
        wire = wire_data(data, media == JSON_TYPE)
        return await settle(self.streams.append(name, Append(media, wire, close, sequence, writer, place)))

    async def _list(self) -> _Statuses:
        found = page = await settle(self.streams.statuses("", _LIST_PAGE))
        while len(page) == _LIST_PAGE:
            await self.streams.turns.turn()
            page = await settle(self.streams.statuses(page[-1].facts.name, _LIST_PAGE))
            found += page
        return found

    async def _read(self, name: str, offset: str | Offset, limit: int) -> Reading:
        return reading_of(await read_appends(self.streams, name, _place(offset), limit))


def _place(offset: str | Offset) -> Offset:
    return parse_offset(offset) if isinstance(offset, str) else offset
