"""What exports, imports, backups and restores have in common: their progress, and their errors."""

from __future__ import annotations

import errno
import re
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Collection, Iterator
from contextlib import aclosing, contextmanager
from typing import Any, BinaryIO, Final, Protocol

import click

from .errors import FAILURE, CommandError
from .files import size_of
from .output import note
from .progress import ProgressBar

#: Phase of a transfer -> what the bar says.
_LABELS: Final = {
    "exporting": "Exporting",
    "validating": "Checking",
    "importing": "Importing",
    "backing up": "Backing up",
    "verifying": "Verifying",
    "restoring": "Restoring",
}

#: What counts the streams, their bytes and their messages in the text of a document. A string in JSON has no line ends.
_COUNTED: Final = re.compile(rb'\n      (?:"total_bytes": ([0-9]{1,20}),|("next_offset": )|    ("data_base64": ))')

#: More than the longest text that :data:`_COUNTED` finds.
_OVERLAP: Final = 64


class DocumentCounter:
    """
    Counts what is in a document that arrives in pieces.

    :ivar streams: the number of streams.
    :ivar messages: the number of messages.
    :ivar bytes: the bytes of all messages, as the document says.
    """

    def __init__(self) -> None:
        self.streams = 0
        self.messages = 0
        self.bytes = 0
        self._end = b""

    def feed(self, piece: bytes) -> None:
        """Count the next piece."""
        text = self._end + piece
        for found in _COUNTED.finditer(text):
            if found.end() <= len(self._end):
                # It was counted with the piece before.
                continue
            if found[1]:
                self.bytes += int(found[1])
            elif found[2]:
                self.streams += 1
            else:
                self.messages += 1
        self._end = text[-_OVERLAP:]


def warn_about_missing(names: Collection[str], found: int) -> None:
    """
    Print a warning if fewer streams were written than were named.

    :param names: the streams that were named; empty for all streams.
    :param found: how many streams were written.
    """
    named = len(set(names))
    if found < named:
        note(f"Warning: of the streams named by --stream, {found} of {named} exist. The others are left out.")


async def receive(
    reactor: Any,
    pieces: AsyncIterable[bytes],
    file: BinaryIO,
    bar: ProgressBar,
    written: Callable[[bytes], object] = lambda piece: None,
) -> int:
    """
    Write the pieces of an answer to a file, and return their size in bytes.

    The file is written in a thread: a pipe that nobody reads does not keep Ctrl-C from ending the command.

    :param written: called with each piece after it was written.
    """
    from ..transfer.pieces import write_pieces  # noqa: PLC0415 (imports Twisted, which --help does not need)

    size = 0

    async def counted() -> AsyncGenerator[bytes, None]:
        nonlocal size
        async for piece in pieces:
            yield piece
            # It was written when the next one is asked for.
            size += len(piece)
            written(piece)
            bar.update(size)

    await write_pieces(counted(), file, reactor)
    return size


class Progress(Protocol):
    """How far a transfer is."""

    @property
    def phase(self) -> str:
        """What it does."""

    @property
    def bytes(self) -> int:
        """The bytes that are done in this phase."""

    @property
    def bytes_total(self) -> int | None:
        """The bytes of this phase; None if the number is not known."""


def shown_on(bar: ProgressBar) -> Callable[[Progress], None] | None:
    """Return a function that shows the progress of a transfer; None if there is no bar, so that nothing is counted."""
    if not bar.visible:
        return None
    phases: list[str] = []

    def show(progress: Progress) -> None:
        if phases[-1:] != [progress.phase]:
            phases.append(progress.phase)
            bar.restart(_LABELS.get(progress.phase, progress.phase.capitalize()), progress.bytes_total)
        bar.update(progress.bytes, progress.bytes_total)

    return show


async def send(reactor: Any, file: BinaryIO, bar: ProgressBar) -> AsyncGenerator[bytes, None]:
    """Read a file in a thread, and yield its pieces for the body of a request."""
    from ..transfer.pieces import read_pieces  # noqa: PLC0415 (imports Twisted, which --help does not need)

    size, sent = size_of(file), 0
    async with aclosing(read_pieces(file, reactor)) as pieces:
        async for piece in pieces:
            sent += len(piece)
            bar.update(sent, size, "Waiting for the server" if sent == size else None)
            yield piece


@contextmanager
def errors_as(label: str, cannot: str) -> Iterator[None]:
    """
    Report the errors of a transfer as the command's own.

    :param label: what failed: ``export failed``.
    :param cannot: what an error of the system prevents: ``write FILE``.
    :raises CommandError: for an error of the transfer, the storage or the system.
    :raises click.exceptions.Exit: nobody reads the output any more, so that it is not whole: the status is 1.
    """
    from ..errors import StreamsError  # noqa: PLC0415 (imports msgspec.json, which --help does not need)
    from ..transfer import TransferError  # noqa: PLC0415 (imports Twisted)

    try:
        yield
    except (TransferError, StreamsError) as error:
        raise CommandError(str(error), label) from None
    except BrokenPipeError:
        raise click.exceptions.Exit(FAILURE) from None
    except OSError as error:
        advice = " Free space there, or choose another disk." if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise CommandError(f"cannot {cannot}: {error.strerror or error}.{advice}", label) from None
