"""Streams that are written at the same time, limited in number and in bytes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeAlias

from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred, DeferredList

#: How many streams are written at the same time. Each of them waits for some group commits.
MAX_STREAMS: Final = 128

#: How many bytes these have together. A larger stream is written alone.
MAX_BYTES: Final = 8_388_608

#: A stream is not begun while one so many places before it is unfinished, so that what is done can be told by name.
_WINDOW: Final = 256

#: Write one stream.
Write: TypeAlias = "Callable[[], Coroutine[Any, Any, None]]"


class LaneFailed(Exception):
    """
    A stream could not be written. All streams before it are written.

    :ivar name: its name.
    :ivar later: the names of the streams after it that are written nevertheless.
    :ivar error: why.
    """

    def __init__(self, name: str, later: tuple[str, ...], error: BaseException) -> None:
        super().__init__(name)
        self.name = name
        self.later = later
        self.error = error


class _Lane(Struct):
    """A stream that is not written yet, or whose attempt beside others has failed."""

    name: str
    size: int
    write: Write
    running: Deferred[None] | None = None


class Lanes:
    """
    Write streams at the same time; their order is that in which they are started.

    A stream that cannot be written beside others, for example because there is no room for all of them, is tried again
    alone. Only if that fails as well, nothing more is started.
    """

    def __init__(self) -> None:
        self._last = 0
        self._lanes: dict[int, _Lane] = {}
        self._failed: list[int] = []
        self._running = 0
        self._size = 0
        # Streams that were written although an earlier one is not, by number.
        self._ahead: dict[int, str] = {}
        self._changed: Deferred[None] | None = None

    def is_open(self, number: int) -> bool:
        """Return whether a stream was started, and is not written."""
        return number in self._lanes

    def running(self, number: int) -> Deferred[None]:
        """Return a Deferred that fires when a stream has been tried; it may have to be tried again."""
        done: Deferred[None] = Deferred()
        lane = self._lanes.get(number)
        if lane is None or lane.running is None:
            done.callback(None)
        else:
            lane.running.addBoth(lambda _: done.callback(None))
        return done

    async def room(self, size: int) -> None:
        """
        Wait until a stream of so many bytes may be started.

        :raises LaneFailed: an earlier one cannot be written; all others have ended.
        """
        while self._lanes and (self._failed or not self._has_room(size)):
            if self._failed and not self._running:
                await self._try_again()
            else:
                await self._wait()

    def _has_room(self, size: int) -> bool:
        return (
            self._running < MAX_STREAMS
            and (self._size + size <= MAX_BYTES or not self._running)
            and self._last - next(iter(self._lanes)) < _WINDOW
        )

    def start(self, name: str, size: int, write: Write, number: int | None = None) -> int:
        """
        Start to write a stream, after :meth:`room`.

        :param number: greater than those before; None for the next.
        :returns: its number.
        """
        self._last = number = self._last + 1 if number is None else number
        lane = self._lanes[number] = _Lane(name, size, write)
        self._running += 1
        self._size += size
        running = Deferred.fromCoroutine(write())
        running.addCallbacks(self._written, self._not_written, (number,), {}, (number,))
        if not running.called:
            lane.running = running
        return number

    def _end(self, size: int) -> None:
        self._running -= 1
        self._size -= size
        changed, self._changed = self._changed, None
        if changed is not None and not changed.called:
            changed.callback(None)

    def _written(self, _: None, number: int) -> None:
        size = self._lanes[number].size
        self._note_written(number)
        self._end(size)

    def _note_written(self, number: int) -> None:
        lane = self._lanes.pop(number)
        self._ahead[number] = lane.name
        oldest = next(iter(self._lanes), self._last + 1)
        # The numbers are in their order but for few.
        for other in [other for other in self._ahead if other < oldest] if number < oldest else ():
            del self._ahead[other]

    def _not_written(self, _: object, number: int) -> None:
        lane = self._lanes[number]
        lane.running = None
        self._failed.append(number)
        self._end(lane.size)

    async def _wait(self) -> None:
        changed = self._changed = Deferred()
        await changed

    async def _try_again(self) -> None:
        for number in sorted(self._failed):
            lane = self._lanes[number]
            try:
                await lane.write()
            except CancelledError:
                raise
            except Exception as error:
                later = tuple(self._ahead[other] for other in sorted(self._ahead) if other > number)
                raise LaneFailed(lane.name, later, error) from error
            self._failed.remove(number)
            self._note_written(number)

    async def finish(self) -> None:
        """
        Wait for all streams.

        :raises LaneFailed: one cannot be written; all others have ended.
        """
        while self._lanes:
            if self._running:
                await self._wait()
            else:
                await self._try_again()

    async def stop(self) -> None:
        """Cancel what is under way, and wait for its end."""
        running = [lane.running for lane in self._lanes.values() if lane.running is not None]
        for each in running:
            each.cancel()
        await DeferredList(running)
