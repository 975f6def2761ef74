"""Exports and backups: documents and archives of any size, which are made while they are sent."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any, Final, Protocol

from ....interfaces import settle
from ....streams import Streams
from ...answers import Answer
from ...bodies import GeneratedBody
from ...pages import PageRequest
from ..app import Routes
from .heads import JSON_HEAD, NO_STORE
from .query import Query

_DOCUMENT: Final = JSON_HEAD + b'Content-Disposition: attachment; filename="streams.json"\r\n'

_ARCHIVE: Final = (
    b"Content-Type: application/zstd\r\n"
    + NO_STORE
    + b'Content-Disposition: attachment; filename="streams.tar.zst"\r\n'
)

#: The highest level of compression.
_MAX_LEVEL: Final = 19


class Pieces(Protocol):
    """A document or an archive, which is made while its pieces are asked for."""

    def __aiter__(self) -> AsyncGenerator[bytes, None]:
        """Return the pieces."""


class Exports:
    """
    The pages that carry streams out of the server.

    :param reactor: runs the threads that compress, and use temporary files.
    """

    def __init__(self, streams: Streams, reactor: Any) -> None:
        self._streams = streams
        self._reactor = reactor

    def add(self, app: Routes, base_path: str) -> None:
        """Add the pages below the base path."""
        # They need libraries that nothing else needs.
        from ....transfer import ArchiveBackup, DocumentExport  # noqa: PLC0415

        @app.route(f"{base_path}/export", methods=["GET", "HEAD"])
        async def export_document(request: PageRequest) -> Answer:
            """Answer with a document of all streams, or of those that are named."""
            names = Query(request, (), ("stream",)).texts("stream") or None
            return await self._send(
                request, _DOCUMENT, lambda: DocumentExport(self._streams, names, reactor=self._reactor)
            )

        @app.route(f"{base_path}/backup", methods=["GET", "HEAD"])
        async def backup_archive(request: PageRequest) -> Answer:
            """Answer with an archive of all streams, or of those that are chosen."""
            query = Query(request, ("prefix", "level"), ("stream",))
            names, prefix = query.texts("stream") or None, query.text("prefix")
            level = query.number("level", _MAX_LEVEL)
            options: dict[str, Any] = {} if level is None else {"level": level}
            return await self._send(
                request,
                _ARCHIVE,
                lambda: ArchiveBackup(self._streams, names, prefix=prefix, reactor=self._reactor, **options),
            )

    async def _send(self, request: PageRequest, head: bytes, pieces: Callable[[], Pieces]) -> Answer:
        """
        Answer with a body that is made while it is sent.

        :raises Unavailable: the storage is not open: after the beginning of the answer, an error has no status.
        """
        await settle(self._streams.statuses("", 1))
        if request.method == b"HEAD":
            return Answer(200, head)
        return Answer(200, head, GeneratedBody(_generated(pieces), self._streams.turns))


async def _generated(pieces: Callable[[], Pieces]) -> AsyncGenerator[bytes, None]:
    """Make the pieces only when the first one is asked for: nothing is left behind by an answer that is not sent."""
    async with aclosing(pieces().__aiter__()) as made:
        async for piece in made:
            if piece:
                yield piece
