"""An idempotent writer in Python: it numbers its appends, so that a repeated one is stored once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from twisted.internet.defer import Deferred, DeferredLock

from ..errors import InsufficientStorage, StreamsError, Unavailable, WriterFenced
from ..model import Appended, Writer
from .checks import Data, as_bytes, check_writer

#: An append: one payload or several, and whether it closes the stream.
_Sent: TypeAlias = "tuple[Data, bool]"


class StreamWriter:
    """
    The writer that :meth:`.StreamService.writer` returns: one producer of one stream (PROTOCOL section 5.2.1).

    Its appends run one after the other, in the order of the calls. If one fails with :exc:`.Unavailable` or
    :exc:`.InsufficientStorage`, or is cancelled, it may be stored or not: repeat it with the same data until it
    succeeds, and it is stored once. Until then, appends of other data fail with :exc:`.Unavailable`. After any other
    error nothing was stored, and the writer can be used for the next append.

    :ivar seq: the sequence number of the next append.
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
        Append; see :meth:`.StreamService.append`.

        :raises WriterFenced: another writer has this id and this epoch, or a higher one; use a higher epoch.
        :raises Unavailable: the outcome of this append, or of an earlier one that must be repeated first, is unknown.
        """
        return Deferred.fromCoroutine(self._in_turn((as_bytes(data), close)))

    def append_batch(self, payloads: Iterable[bytes], *, close: bool = False) -> Deferred[Appended]:
        """Append several payloads in one step; see :meth:`.StreamService.append_batch` and :meth:`append`."""
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
            raise Unavailable("The outcome of the writer's last append is unknown. Append the same data again first.")
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
            # Another writer has used the number: this append was not stored.
            raise WriterFenced(appended.facts.name, self._epoch)
        self.seq += 1
        return appended
