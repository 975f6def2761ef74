"""Printing what a reader finds: the common part of ``read`` and ``tail``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import LoopingCall

from ..blocking_calls import BlockingCalls
from ..client import ClientError, StreamClient, StreamReader
from ..client.reading import check_offset
from .data_output import Renderer, has_reader, output_descriptor, write_all
from .output import note
from .saved_offset import SavedOffset, load_offset, save_offset
from .stream_requests import first_head

if TYPE_CHECKING:
    from ..client import Live

#: How often a tail looks whether its output still has a reader, in seconds.
_LOOK: Final = 0.5

#: How long an interrupted tail waits for the write in progress, in seconds.
_LAST_WRITE: Final = 2.0

#: The interval between two files of an offset that are synced to disk, in seconds.
_SYNC: Final = 1.0


class Following(Struct, frozen=True):
    """
    What to print, and how.

    :ivar url: the stream.
    :ivar begin: an offset, ``start`` or ``now``.
    :ivar live: how to wait for new data: ``sse``, ``long-poll`` or ``auto``; None for not at all.
    :ivar output: the value of ``--output``.
    :ivar as_json: whether to print JSON objects.
    :ivar save: the file of ``--save-offset``.
    :ivar retry_for: how long to try again without success, in seconds; None for no end.
    :ivar retry_first_for: the same for the first request.
    """

    url: str
    begin: str
    live: str | None
    output: str | None
    as_json: bool
    save: Path | None
    retry_for: float | None
    retry_first_for: float = 0.0


async def follow(client: StreamClient, wanted: Following) -> None:
    """
    Print the data of a stream until the tail, or until it is closed.

    :raises BrokenPipeError: the output has no reader any more.
    """
    saved = None if wanted.save is None else load_offset(wanted.save, wanted.url)
    check_offset(wanted.begin)
    info = await first_head(client, wanted.url, wanted.retry_first_for)
    renderer = Renderer(wanted.output, info.is_json, wanted.as_json, one_array=wanted.live is None)
    outages = _Outages()
    options: dict[str, Any] = {"info": info, "give_up_after": wanted.retry_for, "notice": outages.note}
    begin = {"start": "-1", "now": info.next_offset}.get(wanted.begin, wanted.begin)
    if saved is not None:
        begin = saved.offset
        options["skip"] = saved.skip
    if wanted.live is None:
        reader = await client.read(wanted.url, begin, **options)
    else:
        live: Live | None = "sse" if wanted.live == "sse" else "long-poll" if wanted.live == "long-poll" else None
        reader = await client.tail(wanted.url, begin, live, **options)
    printer = _Printer(client.http.reactor, reader, renderer, wanted, outages)
    await printer.print_all()


class _Outages:
    """Notes on stderr, one for each time that the server cannot be reached."""

    def __init__(self) -> None:
        self._count = 0

    def over(self) -> None:
        """Note that the server was reached."""
        self._count = 0

    def note(self, error: ClientError) -> None:
        """Print the second error in a row: a single one is what every restarted proxy causes."""
        self._count += 1
        if self._count == 2 and error.temporary:
            note(f"{error} Trying again.")


class _Printer:
    """Writes batches, and saves the offset after each."""

    def __init__(
        self, reactor: Any, reader: StreamReader, renderer: Renderer, wanted: Following, outages: _Outages
    ) -> None:
        self._reactor = reactor
        self._reader = reader
        self._renderer = renderer
        self._wanted = wanted
        self._outages = outages
        self._descriptor = output_descriptor()
        #: Where the writes wait for the reader of the output.
        self._calls = BlockingCalls(reactor)
        self._synced_at = 0.0

    async def print_all(self) -> None:
        """Print everything; when cancelled, end after the write in progress."""
        printing: Deferred[None] = Deferred.fromCoroutine(self._print())
        looking = LoopingCall(self._look, printing)
        looking.clock = self._reactor
        ended: Deferred[Any] = looking.start(_LOOK, now=False)
        has_reader_still = True
        try:
            await printing
        except CancelledError:
            if has_reader(self._descriptor):
                raise
            has_reader_still = False
        finally:
            looking.stop()
            await ended
            await self._reader.aclose()
            await self._last_write()
            self._calls.close()
        if not has_reader_still:
            raise BrokenPipeError

    def _look(self, printing: Deferred[None]) -> None:
        if not has_reader(self._descriptor):
            printing.cancel()

    async def _print(self) -> None:
        async for batch in self._reader:
            self._outages.over()
            await self._calls.do(partial(self._write, self._renderer.render(batch), self._place()))
        await self._calls.do(partial(write_all, self._descriptor, self._renderer.end()))

    def _place(self) -> SavedOffset:
        return SavedOffset(self._wanted.url, self._reader.offset, self._reader.skip)

    def _write(self, data: bytes, place: SavedOffset) -> None:
        """Write data and then the offset after it; called in the thread."""
        write_all(self._descriptor, data)
        if self._wanted.save is not None:
            now = self._reactor.seconds()
            sync = now - self._synced_at >= _SYNC
            save_offset(self._wanted.save, place, sync)
            if sync:
                self._synced_at = now

    async def _last_write(self) -> None:
        """Wait for the write in progress, so that the saved offset is exact, but not for ever."""
        last = self._calls.do(lambda: None)
        limit = self._reactor.callLater(_LAST_WRITE, last.cancel)
        try:
            await last
        except CancelledError:
            return
        if limit.active():
            limit.cancel()
