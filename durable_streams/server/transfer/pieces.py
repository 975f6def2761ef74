"""The pieces of documents and archives, which are read from a source or written to a destination."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from inspect import isawaitable
from typing import Any, BinaryIO, Final, TypeAlias

from twisted.internet.defer import Deferred

from ..blocking_calls import BlockingCalls

#: How much is read from a file at once, in bytes.
PIECE: Final = 262_144

#: Where pieces come from: a binary file, which is read in a thread, or an asynchronous iterable.
Source: TypeAlias = "BinaryIO | AsyncIterable[bytes]"

#: Where pieces go: a binary file, or a function that takes a piece and may return an awaitable to wait for.
Destination: TypeAlias = "BinaryIO | Callable[[bytes], Awaitable[Any] | Any]"


async def read_pieces(source: Source, reactor: Any) -> AsyncGenerator[bytes, None]:
    """
    Read a source to its end.

    A file has a thread of its own: a read from a pipe that never returns does not keep temporary files from being
    removed.

    :raises OSError: the file cannot be read.
    """
    if isinstance(source, AsyncIterable):
        async for piece in source:
            yield piece
        return
    # Of a pipe, take what there is, instead of waiting for a whole piece.
    read: Callable[[int], bytes] = getattr(source, "read1", source.read)
    reading = BlockingCalls(reactor)
    try:
        while piece := await reading.do(partial(read, PIECE)):
            yield piece
    finally:
        reading.close()


async def write_pieces(pieces: AsyncGenerator[bytes, None], destination: Destination, reactor: Any) -> None:
    """
    Write all pieces, one after the other; close their generator at the end.

    A file has a thread of its own, for the same reason as that of :func:`read_pieces`.

    :raises OSError: the file cannot be written.
    """
    writing = BlockingCalls(reactor)
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                if callable(destination):
                    waiting = destination(piece)
                    if isawaitable(waiting) or isinstance(waiting, Deferred):
                        await waiting
                else:
                    await writing.do(partial(write_all, destination, piece))
    finally:
        writing.close()


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write all data, which an unbuffered file may take in parts."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) or 0 :]
