"""The last step of a restore: staged streams are installed under their names, and hidden sources are removed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from msgspec import Struct
from twisted.internet.defer import DeferredLock

from ...errors import PathBlocked, StreamExists, StreamGone, StreamNotFound, StreamsError
from ...interfaces import settle
from ...model import StreamRecord, StreamRestoration
from ...streams import Streams
from ..policies import ConflictPolicy
from .plan import Plan, find
from .staging import StagedStream


class CompleteStream(Struct, frozen=True):
    """
    A staged stream that has all of its bytes.

    :ivar name: its name in the archive.
    :ivar restoration: its state besides its bytes; None if it does not get its name.
    """

    name: str
    staged: StagedStream
    restoration: StreamRestoration | None


class Installer:
    """
    Installs the staged streams of one restore in an order that forks allow.

    A source that is not visible afterwards is kept under its reserved name until its last fork is made, then deleted.
    A stream that replaces a source is installed after that source's forks are replaced.

    :param plan: counts the forks that are still to be made.
    :param count: adds to the numbers of :class:`.RestoreStats`, which are its keywords.
    """

    def __init__(self, streams: Streams, policy: ConflictPolicy, plan: Plan, count: Callable[..., None]) -> None:
        self._streams = streams
        self._policy: ConflictPolicy = policy
        self._plan = plan
        self._count = count
        # Held while a stream that is a fork, or has forks, is replaced.
        self._families = DeferredLock()
        # Sources that are not installed before their forks are made, by number.
        self._private: dict[int, CompleteStream] = {}
        # Streams that replace another one after the forks of that are replaced, by number.
        self._blocked: dict[int, CompleteStream] = {}

    def keep(self, number: int, stream: CompleteStream) -> None:
        """Keep a source that is not visible, until its forks are made."""
        stream.staged.hold()
        self._private[number] = stream

    def staged_name(self, number: int) -> str | None:
        """Return the reserved name of a stream that is kept; None if it is installed or not staged."""
        stream = self._private.get(number) or self._blocked.get(number)
        return None if stream is None else stream.staged.name

    def blocked(self) -> list[tuple[int, str]]:
        """Return the numbers and names of the streams that wait for forks to be replaced."""
        return [(number, stream.name) for number, stream in self._blocked.items()]

    async def install_blocked(self, number: int) -> None:
        """
        Try again to install a stream that waits, if it still does.

        :raises StreamsError: it cannot be installed.
        """
        stream = self._blocked.get(number)
        if stream is not None:
            made = await self.install(number, stream)
            if number not in self._blocked:
                await self.note_made(made)

    async def discard(self) -> None:
        """Delete all streams that are kept, forks before their sources."""
        for stream in reversed([*self._private.values(), *self._blocked.values()]):
            await stream.staged.discard()

    async def install(self, number: int, stream: CompleteStream) -> int:
        """
        Install a stream, or keep it until the forks of the one that it replaces are replaced.

        :returns: the number of the stream of which one fork less is to be made, or 0.
        """
        existing = await find(self._streams, stream.name) if self._policy == "replace" else None
        if existing is None or not (existing.forks or existing.deleted or existing.source is not None):
            return await self._put(number, stream, existing)
        await self._families.acquire()
        try:
            return await self._install_relative(number, stream)
        finally:
            self._families.release()

    async def _install_relative(self, number: int, stream: CompleteStream) -> int:
        """Install a stream that replaces a fork or a source, and those that waited for the removal of that."""
        made = 0
        first = number
        while True:
            existing = await find(self._streams, stream.name)
            if existing is not None and (existing.forks or existing.deleted):
                if number not in self._blocked:
                    stream.staged.hold()
                    self._blocked[number] = stream
                return made
            try:
                parent = await self._put(number, stream, existing)
            except StreamsError:
                if number == first:
                    raise
                # It is tried again at the end.
                return made
            if number == first:
                made = parent
            else:
                await self.note_made(parent)
            # The replaced stream may have been the last fork of one that is to be replaced as well.
            number = 0 if existing is None or existing.source is None else self._plan.number(existing.source)
            blocked = self._blocked.get(number)
            if blocked is None:
                return made
            stream = blocked

    async def _put(self, number: int, stream: CompleteStream, existing: StreamRecord | None) -> int:
        assert stream.restoration is not None
        staged, is_replaced = stream.staged, existing is not None
        try:
            await settle(self._streams.install(staged.name, stream.name, stream.restoration, replace=is_replaced))
        except StreamExists:
            if self._policy != "skip":
                raise
            return await self._skip(number, stream)
        staged.release()
        self._blocked.pop(number, None)
        self._count(streams_restored=1, streams_replaced=is_replaced)
        return self._plan.parents[number]

    async def _skip(self, number: int, stream: CompleteStream) -> int:
        """Leave a stream as it is that was created during the restore."""
        self._count(streams_skipped=1)
        if self._plan.needed[number]:
            self.keep(number, CompleteStream(stream.name, stream.staged, None))
            return 0
        await stream.staged.discard()
        return self._plan.parents[number]

    async def note_made(self, number: int) -> None:
        """Note that a fork of a stream was made. After the last one, a source that is not visible is removed."""
        while number:
            self._plan.needed[number] -= 1
            if self._plan.needed[number] or number not in self._private:
                return
            await self._remove(self._private.pop(number))
            number = self._plan.parents[number]

    async def _remove(self, stream: CompleteStream) -> None:
        """
        Delete a source, which its forks keep: under its name if it was deleted and no other stream has the name.

        It gets its name and is deleted in one step, so that it is never found under its name.
        """
        staged, restoration = stream.staged, stream.restoration
        staged.release()
        if restoration is not None:
            assert restoration.deleted
            with suppress(StreamExists, PathBlocked):
                await settle(self._streams.install(staged.name, stream.name, restoration, replace=False))
                self._count(streams_deleted=1)
                return
        with suppress(StreamNotFound, StreamGone):
            await settle(self._streams.delete(staged.name))
