"""Where bytes are found: in memory as far as they are recent, else wherever the provider has put them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final, NoReturn

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...clocks import clock_of
from ...errors import DataDamaged, StreamsError
from ...model import StorageLimits
from ...protocol.reading import end_of_read, start_of_append
from ..catalogue import Catalogue
from ..shortages import shortage_of
from ..workers import Worker
from .commit_queue import K, NotYet
from .stream import Recent

#: How often one damaged place is logged, in seconds, and how many places are remembered for that.
_LOG_INTERVAL: Final = 60.0
_MAX_LOGGED: Final = 1000

_log = Logger()


class Ranges(Catalogue[K]):
    """
    Streams' bytes.

    A step that needs some which are not at hand is broken off by :exc:`.NotYet`, and taken again when they are.

    :param readers: whoever waits for the disk.
    """

    def __init__(
        self,
        limits: StorageLimits,
        clock: IReactorTime,
        entry_type: Callable[..., K],
        readers: Worker,
    ) -> None:
        super().__init__(limits, entry_type)
        self._clock = clock_of(clock)
        self._readers = readers
        self._hand: Mapping[Any, Any] = {}
        # When damage was logged, by place.
        self._logged_at: dict[str, float] = {}

    # What a provider says

    @abstractmethod
    def _append_bounds(self, stream: K, position: int) -> tuple[int, int]:
        """
        Return where the append begins and ends that has one of a stream's own bytes, which is not in memory.

        :raises NotYet: it takes a look at the disk.
        :raises DataDamaged: the append is not as it was written.
        """

    @abstractmethod
    def _own_bytes(self, stream: K, start: int, end: int) -> bytes:
        """
        Read some of a stream's own bytes that are not in memory.

        :raises NotYet: it takes a look at the disk.
        :raises DataDamaged: an append that one of them belongs to is not as it was written.
        """

    # Bytes, wherever they are

    def _start_of_append(self, stream: K, position: int) -> int:
        owner, _ = stream.owner(position)
        if position == owner.base:
            return position
        recent = owner.recent
        if recent is not None and position >= recent.start:
            return max(start_of_append(recent.ends, position), recent.start)
        return max(self._append_bounds(owner, position)[0], owner.base)

    def _end_of_append(self, stream: K, position: int) -> int:
        """Say where the append ends that begins at ``position``, as far as it is this stream's."""
        owner, end = stream.owner(position)
        recent = owner.recent
        if recent is not None and position >= recent.start:
            return min(end_of_read(recent.ends, position, 0), end)
        return min(self._append_bounds(owner, position)[1], end)

    def _end_of_whole(self, stream: K, start: int, limit: int) -> int:
        """Choose the end of a read of whole appends: the last one within the limit, or else the first one."""
        for owner, first, stop in stream.parts(start, stream.shown):
            if stop - start > limit:
                end = self._last_own_end(owner, first, start + limit)
                return end if end > start else self._end_of_append(stream, start)
        return stream.shown

    def _last_own_end(self, stream: K, start: int, most: int) -> int:
        recent = stream.recent
        if recent is not None and most >= recent.start:
            end = end_of_read(recent.ends, recent.start, most - recent.start)
            if end <= most:
                return max(end, start)
            most = recent.start
            if start >= most:
                return start
            # What is not in memory ends with an append where memory begins.
            return most
        # The last append that ends at `most` or before ends where the one begins that has the byte there.
        return max(self._append_bounds(stream, most)[0], start)

    def _bytes_between(self, stream: K, start: int, end: int) -> bytes:
        recent = stream.recent
        if recent is not None and start >= recent.start:
            return recent.slice(start, end)
        pieces = []
        for owner, first, stop in stream.parts(start, end):
            edge = min(stop, stop if owner.recent is None else max(owner.recent.start, first))
            if first < edge:
                pieces.append(self._own_bytes(owner, first, edge))
            if edge < stop:
                assert owner.recent is not None
                pieces.append(owner.recent.slice(edge, stop))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _append_at(self, stream: K, position: int) -> tuple[int, bytes]:
        start = self._start_of_append(stream, position)
        return start, self._bytes_between(stream, start, self._end_of_append(stream, start))

    def _refuse_damaged(self, stream: K, where: str, what: str) -> NoReturn:
        """
        Refuse to serve bytes that are not as they were written, and log where they are.

        :raises DataDamaged: always.
        """
        self.log_damage(stream, where, what)
        raise DataDamaged(stream.facts.name)

    def log_damage(self, stream: K, where: str, what: str) -> None:
        """Log where bytes are damaged; a place that is found again, once a minute."""
        now = self._clock.seconds()
        if not self._logged_at.get(where, -inf) <= now < self._logged_at.get(where, -inf) + _LOG_INTERVAL:
            if len(self._logged_at) >= _MAX_LOGGED:
                self._logged_at.clear()
            self._logged_at[where] = now
            _log.error(
                "Damaged data: {where}: of the stream {name}, {what}. Reads of them fail with 500. Look to the disk, "
                "stop the server, run durable-streams-server check, and restore the data directory from a backup.",
                where=where,
                name=stream.facts.name,
                what=what,
            )

    def _fetch(self, key: Any, work: Callable[[], Any]) -> NoReturn:
        """
        Have something read that a step needs: it finds it in ``_hand`` under ``key`` when it is taken again.

        What it had in hand stays there, so that a step which needs more than stays open, or cached, comes to an end.

        :raises NotYet: always.
        """
        hand = self._hand
        raise NotYet(self._readers.do(work).addCallbacks(lambda found: {**hand, key: found}, self._not_fetched))

    def _not_fetched(self, failure: Failure) -> Failure:
        reason = self._read_refusal(failure.value)
        return failure if reason is None else Failure(reason)

    def _read_refusal(self, error: BaseException | None) -> StreamsError | None:
        """Return the answer for a reader if its read failed for a reason that passes, else None."""
        return shortage_of(error)

    def _begin_recent(self, stream: K, start: int) -> Recent:
        """Keep a stream's bytes in memory from a position on."""
        recent = stream.recent = Recent(start)
        return recent
