"""The service by which Python code uses streams."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.interfaces import IReactorFromThreads, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..clocks import IClock, clock_of
from ..config.settings import Settings
from ..config.validation import ConfigError
from ..daemon.assembly import name_limits_from
from ..daemon.subscribing import subscriptions_from
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
from .access import ServiceAccess
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

if TYPE_CHECKING:
    from ..subscriptions import SubscriptionService
    from .receivers import Receivers
    from .subscriptions import Subscriptions

T = TypeVar("T")

#: The time that a start waits for the storage, in seconds; then loading continues in a thread.
PATIENCE = 1.0

_log = Logger()

#: The default limit of one step of a tail, in bytes; a larger append is read completely.
TAIL_PIECE = 65_536

#: The number of streams that :meth:`.StreamService.list` reads in one turn of the reactor.
_LIST_PAGE = 500

_Statuses: TypeAlias = list[StreamStatus]


class StreamService(Service):
    """
    Create, append to, read and follow streams from Python.

    Methods return Deferreds, and fail with the errors of :mod:`durable_streams.server.errors` under the same conditions
    as HTTP requests. Each may fail with :exc:`.InvalidName`; with :exc:`.StreamNotFound`, or :exc:`.StreamGone` if the
    stream was deleted and still has forks; and with :exc:`.Unavailable` if the service has stopped or its storage is
    overloaded. There is no limit of the body; the limits of names and storages apply.

    Start it, or add it to an application: otherwise streams do not expire. A service can be started once.

    :param storage: the storage, which must have no other owner.
    :param reactor: None for the installed reactor.
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
        self._receivers: Receivers | None = None
        self.subscription_service: SubscriptionService | None = None
        if settings.subscriptions.enabled:
            from .receivers import Receivers, ReceiverSender  # noqa: PLC0415 (only if it is used)

            self._receivers = receivers = Receivers(self.clock)
            self.subscription_service = subscriptions_from(
                self.streams, settings, reactor, lambda network: ReceiverSender(network, receivers)
            )
        self._names = name_limits_from(settings)
        self._opening: Deferred[Any] | None = None
        self._waiting: list[Deferred[Any]] = []
        self._stopped: Deferred[None] | None = None
        self._unusable: str | None = None
        self.access = ServiceAccess(settings, reactor)

    # The service

    def reopen_audit_log(self) -> None:
        """Go on in a new audit log of the same path, after the old one was renamed."""
        self.access.reopen_audit_log()

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
            raise RuntimeError("The service was stopped. Create another one.")
        failures: list[Failure] = []
        if not IReactorFromThreads.providedBy(self.reactor):
            self.streams.startService()
            opening: Deferred[Any] = succeed(None)
        else:
            opening = self.streams.load(PATIENCE, self.reactor)
        if self.subscription_service is not None:
            opening.addCallback(lambda _: Deferred.fromCoroutine(self._start_subscriptions()))
        self._opening = opening
        opening.addErrback(failures.append)
        if failures:
            self._opening = None
            failures[0].raiseException()
        super().startService()
        self.access.start()
        opening.addCallback(lambda _: self._opened(failures))

    async def _start_subscriptions(self) -> None:
        """Load the subscriptions. If they cannot be loaded, no streams are served without them."""
        assert self.subscription_service is not None
        try:
            await self.subscription_service.start()
        except BaseException:
            self._unusable = "The subscriptions of the storage could not be loaded; the log has the reason."
            await self.streams.stopService()
            raise

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
        """Wait for :meth:`when_open`, and ignore its failure: the operation that follows raises :exc:`.Unavailable`."""
        try:
            await self.when_open()
        except CancelledError:
            raise
        except Exception:
            return

    async def _when_running(self) -> None:
        """
        Wait until the storage is open.

        :raises Unavailable: the service is not started, or has stopped.
        """
        await self.when_open()
        if not self.running:
            raise Unavailable("The service is not started, or has stopped.")

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
            if self.subscription_service is not None:
                await self.subscription_service.stopService()
            await self.streams.stopService()
            await self.streams.abandoned()
        finally:
            self.access.stop()
            release(self._storage, self)

    @property
    def subscriptions(self) -> Subscriptions:
        """
        The subscriptions of these streams.

        :raises ConfigError: ``subscriptions.enabled`` of the settings is false.
        """
        from .subscriptions import Subscriptions  # noqa: PLC0415 (only if it is used)

        if self.subscription_service is None or self._receivers is None:
            raise ConfigError(
                "subscriptions.enabled is false. Give the service settings where it is true.",
                rule="SubscriptionsDisabled",
                phase="validate_config",
            )
        return Subscriptions(self.subscription_service, self._receivers, self._when_running)

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
        Create a stream, or return the existing one if its configuration is the same (PROTOCOL section 5.1).

        :param data: the initial content, like the body of a PUT; ignored if the stream exists.
        :param ttl: seconds without use after which the stream expires.
        :param expires_at: the time at which the stream expires, in seconds since 1970.
        :param closed: whether the stream is closed after ``data``.
        :raises StreamExists: a stream of this name exists with another configuration.
        :raises PathBlocked: a deleted stream that still has forks has the name.
        :raises InvalidRequest: the content type or the lifetime is invalid.
        :raises InvalidJson: the content type is JSON, and the data is not JSON.
        :raises StreamFull: the data exceeds the limit of one stream.
        :raises StorageFull: the data exceeds the limit of all streams together.
        :raises InsufficientStorage: the limit of streams is reached, or the disk is full.
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
        Create a stream that begins with the content of another one, with its content type (PROTOCOL section 4.2).

        It fails as :meth:`create` does, and with these errors:

        :param offset: where the fork diverges: a ``next_offset`` of the source; None for its tail.
        :param sub_offset: the number of JSON messages, or bytes, past ``offset``.
        :param data: the content after that of the source.
        :raises StreamNotFound: the source does not exist.
        :raises ForkFromDeleted: the source was deleted.
        :raises ContentTypeMismatch: the source has another content type.
        :raises InvalidRequest: the source does not have the offset.
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

        The Deferred fires when the append is as durable as the storage makes it. Appends are stored in the order of the
        calls, so do not wait for each one. If too many are in progress, they fail with :exc:`.Unavailable`.

        :param close: whether to close the stream in the same step; then ``data`` may be empty.
        :param sequence: Stream-Seq: must be greater, byte by byte, than that of the stream's last append.
        :param writer: makes repeated appends idempotent; see also :meth:`writer`.
        :param content_type: the content type of the data; None for that of the stream.
        :param expected: Stream-Expected-Offset: append only if this ``next_offset``, or ``-1``, is the stream's tail.
        :raises EmptyBody: there is no data, and ``close`` is false.
        :raises StreamClosed: the stream is closed.
        :raises InvalidJson: the stream is in JSON mode, and the data is not JSON.
        :raises EmptyArray: the data is an empty array.
        :raises ContentTypeMismatch: the stream has another content type.
        :raises OffsetConflict: ``expected`` is not the tail.
        :raises SequenceConflict: ``sequence`` is not greater than the last one.
        :raises WriterFenced: the stream has recorded a higher epoch of the writer.
        :raises WriterGap: the writer's sequence number is not the next one.
        :raises InvalidRequest: ``sequence``, ``writer``, ``content_type`` or ``expected`` is invalid.
        :raises StreamFull: the stream would exceed its limit.
        :raises StorageFull: all streams together would exceed their limit.
        :raises InsufficientStorage: the disk is full, or the limit of metadata is reached.
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

        It fails as :meth:`append` does, and with this error:

        :param payloads: for a JSON stream, each is one message, also an array; for others, they are joined.
        :raises EmptyArray: there are no payloads.
        """
        batch = tuple(as_bytes(each) for each in payloads)
        return self._run(name, self._append, batch, close, sequence, writer, content_type, expected)

    def writer(self, name: str, writer_id: str, epoch: int = 0, *, first_seq: int = 0) -> StreamWriter:
        """
        Create a writer that numbers its appends, so that they can be repeated (PROTOCOL section 5.2.1).

        :param epoch: must be higher than that of every earlier writer of this id, which it fences off.
        :param first_seq: the first sequence number, for a program that has stored it; a new epoch begins at 0.
        :raises InvalidRequest: the id or a number is invalid.
        """

        def send(sent: tuple[Data, bool], numbered: Writer) -> Deferred[Appended]:
            return self._run(name, self._append, *sent, None, numbered, None, None)

        return StreamWriter(send, Writer(writer_id, epoch, first_seq))

    def close(self, name: str) -> Deferred[Appended]:
        """Close a stream; if it is closed already, do nothing (PROTOCOL section 5.3)."""
        return self.append(name, b"", close=True)

    def delete(self, name: str) -> Deferred[None]:
        """Delete a stream (PROTOCOL section 5.4)."""
        return self._run(name, self.streams.delete)

    # Reading

    def read(self, name: str, offset: str | Offset = START, limit: int = 2**62) -> Deferred[Reading]:
        """
        Read whole appends (PROTOCOL section 5.6).

        :param offset: ``-1``, ``now``, or a ``next_offset``.
        :param limit: the maximum number of bytes; the first append is read whole, also if it is larger.
        :raises InvalidOffset: the offset is malformed, or no stream of this name ever had it.
        :raises OffsetGone: the offset belongs to an earlier stream of this name.
        :raises DataDamaged: the data is damaged on the disk.
        """
        return self._run(name, self._read, offset, limit)

    def tail(self, name: str, offset: str | Offset = START, limit: int = TAIL_PIECE) -> Tail:
        """
        Read stored data, then new data: ``async for reading in service.tail(name, offset)``.

        The loop ends when the stream is closed. It can be left or cancelled at any time. Each step fails as
        :meth:`read` does; with :exc:`.StreamNotFound` if the stream is deleted or expires, and with
        :exc:`.Unavailable` when the service stops. Another tail can continue from the last ``next_offset``.

        A waiting tail renews the stream's TTL.

        :param offset: where to begin; ``now`` is the time of the first step.
        :param limit: the maximum number of bytes of a reading, as for :meth:`read`.
        :raises InvalidName: the name is invalid.
        :raises InvalidOffset: the offset is malformed.
        """
        check_name(name, self._names)
        return Tail(self.streams, name, _place(offset), limit, self._wait_until_open)

    def head(self, name: str) -> Deferred[StreamStatus]:
        """Return a stream's metadata without renewing its TTL (PROTOCOL section 5.5)."""
        return self._run(name, self.streams.status)

    def list(self) -> Deferred[_Statuses]:
        """Return the metadata of all streams, ordered by name, read in pages between other work."""
        return self._run(None, lambda _: self._list())

    # Implementation

    def _run(self, name: str | None, operation: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        return Deferred.fromCoroutine(self._perform(name, operation, *arguments))

    async def _perform(self, name: str | None, operation: Callable[..., T | Awaitable[T]], *arguments: Any) -> T:
        if self._opening is not None:
            await self._wait_until_open()
        if self._stopped is not None or self._unusable is not None:
            raise Unavailable(self._unusable or "The service has stopped.")
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
        # Every append asks for the status first, so that none overtakes another. A stream's type never changes; if its
        # name is used again meanwhile, the append is refused.
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
