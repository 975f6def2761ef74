"""What ``append`` appends: arguments, files and the standard input, cut into appends.

How the input is cut depends on the input alone, never on time. So a run that is repeated has the same appends with the
same sequence numbers.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncGenerator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Struct

from .errors import CommandError
from .output import note
from .terminal import is_terminal

if TYPE_CHECKING:
    from ..blocking_calls import BlockingCalls

#: Bytes of a stream without messages are cut into appends of this size.
PIECE: Final = 1 << 20

#: The largest JSON document, and the largest line.
_MAX_ITEM: Final = 64 << 20

_BLOCK: Final = 1 << 16

#: The name of the standard input among files.
STDIN: Final = "-"


class Cut(Struct, frozen=True):
    """
    How the input becomes appends.

    :ivar lines: each line is one append, with its line end.
    :ivar json_lines: each line that is not empty is one JSON message.
    :ivar batch: how many JSON messages of ``json_lines`` are one append.
    """

    lines: bool = False
    json_lines: bool = False
    batch: int = 1


async def appends_of(
    calls: BlockingCalls, arguments: Sequence[str], files: Sequence[str], cut: Cut, is_json: bool
) -> AsyncGenerator[bytes, None]:
    """
    Yield the body of each append.

    :param calls: where files are read.
    :param arguments: each is one append.
    :param files: paths; ``-`` is the standard input.
    :param is_json: whether the stream is in JSON mode: a file is one JSON document then.
    :raises CommandError: a file cannot be read, a line is not JSON, or something is too large.
    """
    for argument in arguments:
        yield os.fsencode(argument)
    for path in files:
        source = _Source(path, calls)
        try:
            if cut.json_lines:
                async for body in _json_lines(source, cut.batch):
                    yield body
            elif cut.lines:
                async for _, line in source.lines():
                    yield line
            elif is_json:
                document = await source.whole()
                if document.strip():
                    yield document
            else:
                async for piece in source.pieces():
                    yield piece
        finally:
            source.close()


class _Source:
    """A file, or the standard input, read in a thread."""

    def __init__(self, path: str, calls: BlockingCalls) -> None:
        self.label = "The standard input" if path == STDIN else path
        self._calls = calls
        self._is_own = path != STDIN
        if not self._is_own and is_terminal(sys.stdin):
            note("Reading from the terminal. End the input with Ctrl-D.")
        try:
            self._descriptor = os.open(path, os.O_RDONLY) if self._is_own else sys.stdin.fileno()
        except OSError as error:
            raise CommandError(f"Cannot read {path}: {error.strerror}.") from None
        except (AttributeError, ValueError):
            raise CommandError("The standard input is closed. Give the data as an argument or a file.") from None

    def close(self) -> None:
        if self._is_own:
            os.close(self._descriptor)

    async def _read(self, size: int) -> bytes:
        try:
            return await self._calls.do(partial(os.read, self._descriptor, size))
        except OSError as error:
            raise CommandError(f"Cannot read {self.label}: {error.strerror}.") from None

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """Yield all bytes, cut into pieces of :data:`PIECE`."""
        waiting = bytearray()
        while block := await self._read(PIECE - len(waiting)):
            waiting += block
            if len(waiting) == PIECE:
                yield bytes(waiting)
                waiting.clear()
        if waiting:
            yield bytes(waiting)

    async def whole(self) -> bytes:
        """Return all bytes."""
        found = bytearray()
        while block := await self._read(PIECE):
            found += block
            if len(found) > _MAX_ITEM:
                raise CommandError(
                    f"{self.label} is larger than {_MAX_ITEM} bytes, and would be one append. Use --json-lines."
                )
        return bytes(found)

    async def lines(self) -> AsyncGenerator[tuple[int, bytes], None]:
        """Yield each line as soon as it was read, with its number and its line end."""
        number = 0
        rest = bytearray()
        while block := await self._read(_BLOCK):
            searched = len(rest)
            rest += block
            start = 0
            while (end := rest.find(b"\n", max(start, searched))) >= 0:
                number += 1
                yield number, bytes(rest[start : end + 1])
                start = end + 1
            del rest[:start]
            if len(rest) > _MAX_ITEM:
                raise CommandError(f"Line {number + 1} of {self.label} is larger than {_MAX_ITEM} bytes.")
        if rest:
            yield number + 1, bytes(rest)


async def _json_lines(source: _Source, batch: int) -> AsyncGenerator[bytes, None]:
    """Yield arrays of at most ``batch`` messages."""
    waiting: list[bytes] = []
    async for number, line in source.lines():
        message = line.strip()
        if not message:
            continue
        _check_json(message, number, source.label)
        waiting.append(message)
        if len(waiting) == batch:
            yield _array(waiting)
            waiting = []
    if waiting:
        yield _array(waiting)


def _array(messages: list[bytes]) -> bytes:
    # In an array, a message that is an array itself stays one message.
    return b"[%b]" % b",".join(messages)


_decode: Any = msgspec.json.Decoder(msgspec.Raw).decode


def _check_json(message: bytes, number: int, label: str) -> None:
    """Check that a line is one JSON value: ``1,2`` in an array would be two messages."""
    try:
        _decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        # Lone surrogates in escapes are JSON, but not to msgspec.
        try:
            _decode(message.replace(rb"\ud", rb"\u0").replace(rb"\uD", rb"\u0"))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise CommandError(f"Line {number} of {label} is not JSON: {error}.") from None


def default_files(arguments: Sequence[str], files: Sequence[str]) -> Sequence[str]:
    """Return the files, or the standard input if there are neither arguments nor files."""
    return files if arguments or files else (STDIN,)
