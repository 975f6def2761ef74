"""An idempotent writer inside the program: it numbers what it appends, and nothing is written twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from twisted.internet.defer import Deferred, DeferredLock

from ..errors import InsufficientStorage, StreamsError, Unavailable, WriterFenced
from ..model import Appended, Writer
from .checks import Data, as_bytes, check_writer

#: What is sent: the payload or the payloads, and whether the stream is closed with it.
_Sent: TypeAlias = "tuple[Data, bool]"


class StreamWriter:
    """
    What :meth:`.StreamService.writer` gives: one producer of one stream (PROTOCOL section 5.2.1).

    Its appends are sent one after the other, in the order of the calls. One that fails with :exc:`.Unavailable` or
    :exc:`.InsufficientStorage`, or is cancelled, may have been written or not: append the same data again, as often as
    it takes, and it is there once. Until then everything else is refused with :exc:`.Unavailable`, so that nothing gets
    past it. Any other refusal has written nothing, and the writer goes on.

    :ivar seq: the number of the next append.
    """

    def __init__(self, send: Callable[[_Sent, Writer], Deferred[Appended]], writer: Writer) -> None:
        check_writer(writer)
        self._send = send
        self._id = writer.id
        self._epoch = writer.epoch
        self.seq = writer.seq
        self._turn = DeferredLock()
        self._unsettled: _Sent | None = None

    def append(self, data: bytes, *, close: bool = False) -> Deferred[Appended]:
        """
        Append, as :meth:`.StreamService.append` does.

        :raises WriterFenced: another writer has this id, with this epoch or a higher one; begin a higher one.
        :raises Unavailable: this append, or one before it that is to be tried again first, could not be finished.
        """
        return Deferred.fromCoroutine(self._in_turn((as_bytes(data), close)))

    def append_batch(self, payloads: Iterable[bytes], *, close: bool = False) -> Deferred[Appended]:
        """Append several payloads in one step, as :meth:`.StreamService.append_batch` does; fails as :meth:`append`."""
        return Deferred.fromCoroutine(self._in_turn((tuple(as_bytes(each) for each in payloads), close)))

    async def _in_turn(self, sent: _Sent) -> Appended:
        await self._turn.acquire()
        try:
            return await self._append(sent)
        finally:
            self._turn.release()

    async def _append(self, sent: _Sent) -> Appended:
        again = self._unsettled is not None
        if again and self._unsettled != sent:
            raise Unavailable("What became of the writer's last append is not known. Append the same data again first.")
        self._unsettled = sent
        try:
            appended = await self._send(sent, Writer(self._id, self._epoch, self.seq))
        except (Unavailable, InsufficientStorage):
            raise
        except StreamsError:
            self._unsettled = None
            raise
        self._unsettled = None
        if appended.duplicate and not again:
            # The number is taken, and not by us: what was to be written was not.
            raise WriterFenced(appended.facts.name, self._epoch)
        self.seq += 1
        return appended
