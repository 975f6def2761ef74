"""The bytes of streams: recent appends from memory, everything else from the provider's storage.

If bytes must be read from disk, the operation raises :exc:`.NotYet` and is retried when the read completes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, NoReturn, Protocol, TypeVar

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...errors import DataDamaged, StreamsError
from ...protocol.reading import end_of_read, ends_between, start_of_append
from ..repeated_logs import RepeatedLogs
from ..shortages import shortage_of
from ..workers import Worker
from .commit_queue import K, NotYet
from .stream import LoggedStream, RecentAppends

S_contra = TypeVar("S_contra", bound=LoggedStream, contravariant=True)

_log = Logger()


class Content(Protocol[S_contra]):
    """The provider's part: the streams' own bytes that are not in memory."""

    def place(self, stream: S_contra, position: int) -> tuple[int, int]:
        """
        Return the start and end of the append that contains one of the stream's own bytes.

        :raises NotYet: the disk must be read.
        :raises DataDamaged: the append is not as it was written.
        """

    def read(self, stream: S_contra, start: int, end: int) -> bytes:
        """
        Return some of a stream's own bytes.

        :raises NotYet: the disk must be read.
        :raises DataDamaged: an append that has one of the bytes is not as it was written.
        """

    def ends(self, stream: S_contra, position: int, max_count: int) -> Sequence[int]:
        """
        Return where some appends end, ascending, beginning with the one that contains one of the stream's own bytes.

        :param max_count: how many are wanted; there may be more or fewer, but at least one.
        :raises NotYet: the disk must be read.
        :raises DataDamaged: what is stored of them is not as it was written.
        """

    def track(self, stream: S_contra) -> None:
        """Register a stream whose next bytes are in memory."""

    def discard(self, streams: Sequence[S_contra], lsn: int) -> None:
        """
        Discard the data of streams whose removal is committed.

        :param lsn: the LSN of the last committed change.
        """


class DiskReads:
    """
    Reads in threads for operations that are retried with the results, and the log of damage.

    :param readers: the threads that read.
    :param refusal: maps an error of a read to the answer for the reader, if the error is temporary.
    :ivar hand: what was read for the operation that is being retried, by key.
    """

    __slots__ = ("_logs", "_readers", "_refusal", "hand")

    def __init__(
        self,
        clock: IReactorTime,
        readers: Worker,
        refusal: Callable[[BaseException | None], StreamsError | None] = shortage_of,
    ) -> None:
        self._readers = readers
        self._refusal = refusal
        self.hand: Mapping[Any, Any] = {}
        self._logs = RepeatedLogs(clock)

    def fetch(self, key: Any, work: Callable[[], Any]) -> NoReturn:
        """
        Read in a thread, and retry the operation with the result in :attr:`hand` under ``key``.

        The results of earlier reads stay there, so that an operation that needs several reads comes to an end.

        :raises NotYet: always.
        """
        hand = self.hand
        raise NotYet(self._readers.do(work).addCallbacks(lambda found: {**hand, key: found}, self._not_fetched))

    def _not_fetched(self, failure: Failure) -> Failure:
        reason = self._refusal(failure.value)
        return failure if reason is None else Failure(reason)

    def refuse_damaged(self, stream: LoggedStream, where: str, what: str) -> NoReturn:
        """
        Log the place of damaged bytes, and raise :exc:`.DataDamaged` so that they are not served.

        :raises DataDamaged: always.
        """
        self.log_damage(stream, where, what)
        raise DataDamaged(stream.facts.name)

    def log_damage(self, stream: LoggedStream, where: str, what: str) -> None:
        """Log where bytes are damaged. The same place is logged once a minute."""
        if self._logs.is_due(where):
            _log.error(
                "Damaged data: {where}: stream {name}, {what}. Reads of them fail with 500. Check the disk, "
                "stop the server, run durable-streams-server check, and restore the data directory from a backup.",
                where=where,
                name=stream.facts.name,
                what=what,
            )


class RecentContent(Generic[K]):
    """
    The bytes of streams: recent appends from memory, everything else from the provider.

    :param stored: the provider's content.
    """

    __slots__ = ("_stored",)

    def __init__(self, stored: Content[K]) -> None:
        self._stored = stored

    def begin_recent(self, stream: K, start: int) -> RecentAppends:
        """Keep the bytes of a stream in memory from a position on."""
        self._stored.track(stream)
        recent = stream.recent = RecentAppends(start)
        return recent

    def start_of_append(self, stream: K, position: int) -> int:
        """Return the start of the append that contains a byte, limited to the stream that owns the byte."""
        owner, _ = stream.owner(position)
        if position == owner.base:
            return position
        recent = owner.recent
        if recent is not None and position >= recent.start:
            return max(start_of_append(recent.ends, position), recent.start)
        return max(self._stored.place(owner, position)[0], owner.base)

    def end_of_append(self, stream: K, position: int) -> int:
        """Return the end of the append that starts at ``position``, limited to the part that belongs to the stream."""
        owner, end = stream.owner(position)
        recent = owner.recent
        if recent is not None and position >= recent.start:
            return min(end_of_read(recent.ends, position, 0), end)
        return min(self._stored.place(owner, position)[1], end)

    def end_of_whole(self, stream: K, start: int, limit: int) -> int:
        """Return the end of a read of whole appends: the last end within the limit, or else the first one."""
        for owner, first, stop in stream.parts(start, stream.shown):
            if stop - start > limit:
                end = self._last_own_end(owner, first, start + limit)
                return end if end > start else self.end_of_append(stream, start)
        return stream.shown

    def _last_own_end(self, stream: K, start: int, max_end: int) -> int:
        recent = stream.recent
        if recent is not None and max_end >= recent.start:
            end = end_of_read(recent.ends, recent.start, max_end - recent.start)
            if end <= max_end:
                return max(end, start)
            max_end = recent.start
            if start >= max_end:
                return start
            # What is not in memory ends with an append where memory begins.
            return max_end
        # The last append that ends at `max_end` or before ends where the one begins that has the byte there.
        return max(self._stored.place(stream, max_end)[0], start)

    def bytes_between(self, stream: K, start: int, end: int) -> bytes:
        """Return the bytes of a stream between two positions."""
        recent = stream.recent
        if recent is not None and start >= recent.start:
            return recent.slice(start, end)
        pieces = []
        for owner, first, stop in stream.parts(start, end):
            edge = min(stop, stop if owner.recent is None else max(owner.recent.start, first))
            if first < edge:
                pieces.append(self._stored.read(owner, first, edge))
            if edge < stop:
                assert owner.recent is not None
                pieces.append(owner.recent.slice(edge, stop))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def append_ends(self, stream: K, start: int, max_count: int) -> list[int]:
        """Return where committed appends end after a position, at most ``max_count`` of them."""
        found: list[int] = []
        for owner, first, stop in stream.parts(start, stream.shown):
            recent = owner.recent
            edge = stop if recent is None else min(max(recent.start, first), stop)
            position = first
            while position < edge and len(found) < max_count:
                # An append that continues past `edge` belongs to a fork's source: memory begins with an append.
                ends = self._stored.ends(owner, position, max_count - len(found))
                found += ends_between(ends, position, min(edge, ends[-1]), max_count - len(found))
                position = found[-1]
            if recent is not None and edge < stop and len(found) < max_count:
                found += ends_between(recent.ends, edge, stop, max_count - len(found))
        return found

    def append_at(self, stream: K, position: int) -> tuple[int, bytes]:
        """Return the start and the bytes of the append that contains a byte, limited to the stream."""
        start = self.start_of_append(stream, position)
        return start, self.bytes_between(stream, start, self.end_of_append(stream, start))
