"""Imports and restores: documents and archives of any size, which are kept in temporary files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import asdict
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionLost
from twisted.logger import Logger

from ....clocks import clock_of
from ....errors import InsufficientStorage, StreamsError, Unavailable
from ....streams import Streams
from ...answers import Answer
from ...callers import client_of
from ...operations import OperationSettings
from ...pages import PageRequest, streams_body
from ...problems import ImportConflict, ImportRunning, InvalidUpload, PartialImport
from ..app import Routes
from .heads import JSON_HEAD
from .query import Query
from .uploads import BodyPieces

#: How many names of skipped streams are in an answer.
MAX_NAMES: Final = 1000


_log = Logger()


class ImportResult(Struct):
    """
    What an import has done.

    :ivar skipped: the names of skipped streams, at most :data:`MAX_NAMES`.
    """

    streams_imported: int
    streams_skipped: int
    messages_imported: int
    bytes_imported: int
    skipped: list[str]


class Imports:
    """
    The pages that carry streams into the server, one at a time.

    :param settings: the limits of names and messages.
    :param reactor: runs the threads that use temporary files.
    """

    def __init__(self, streams: Streams, settings: OperationSettings, reactor: Any) -> None:
        self._streams = streams
        self._settings = settings
        self._reactor = reactor
        self._seconds = clock_of(reactor).seconds
        self._running = False

    def add(self, app: Routes, base_path: str) -> None:
        """Add the pages below the base path."""
        # They need libraries that nothing else needs.
        from ....transfer import (  # noqa: PLC0415
            POLICIES,
            ArchiveLimits,
            ImportLimits,
            import_streams,
            restore_streams,
        )

        archives = ArchiveLimits(names=self._settings.names)
        limits = ImportLimits(self._settings.names, max(self._settings.limits.body_bytes, ImportLimits().message_bytes))

        @app.route(f"{base_path}/import", methods=["POST"])
        @streams_body
        async def import_document(request: PageRequest) -> Answer:
            """Import the document in the body, and answer with what was done."""
            policy: Any = Query(request, ("on_conflict",)).word("on_conflict", POLICIES) or "skip"
            skipped: list[str] = []

            def note(name: str) -> None:
                if len(skipped) < MAX_NAMES:
                    skipped.append(name)

            stats = await self._receive(
                request,
                lambda pieces: import_streams(
                    self._streams, pieces, policy, limits=limits, skipped=note, reactor=self._reactor
                ),
            )
            _log.info(
                "Imported {streams} streams with {messages} messages for {client}; {skipped} streams were skipped.",
                streams=stats.streams_imported,
                messages=stats.messages_imported,
                skipped=stats.streams_skipped,
                client=client_of(request),
            )
            return Answer(200, JSON_HEAD, msgspec.json.encode(ImportResult(**asdict(stats), skipped=skipped)))

        @app.route(f"{base_path}/restore", methods=["POST"])
        @streams_body
        async def restore_archive(request: PageRequest) -> Answer:
            """Restore the streams of the archive in the body, and answer with what was done."""
            query = Query(request, ("on_conflict", "new_incarnation"))
            policy: Any = query.word("on_conflict", POLICIES) or "skip"
            new = query.word("new_incarnation", ("true", "false")) == "true"
            stats = await self._receive(
                request,
                lambda pieces: restore_streams(
                    self._streams,
                    pieces,
                    on_conflict=policy,
                    new_incarnation=new,
                    limits=archives,
                    reactor=self._reactor,
                ),
            )
            _log.info(
                "Restored {streams} streams for {client}; {skipped} streams were skipped.",
                streams=stats.streams_restored,
                skipped=stats.streams_skipped,
                client=client_of(request),
            )
            return Answer(200, JSON_HEAD, msgspec.json.encode(stats))

    async def _receive(self, request: PageRequest, run: Callable[[BodyPieces], Deferred[Any]]) -> Any:
        """
        Pass the body of a request to an import, unless another one runs.

        If the client disconnects while it sends the body, nothing is written. If the request is cancelled later, the
        import ends after the last whole stream.

        :raises StreamsError: the import was refused, or has stopped.
        """
        if self._running:
            raise ImportRunning("Another import or restore is in progress. Send this one again when it has ended.")
        assert request.incoming is not None
        self._running = True
        try:
            return await run(BodyPieces(request.incoming, self._settings.limits.body_rate, self._seconds))
        except ConnectionLost:
            raise Unavailable("The connection was lost before the end of the body. Nothing was written.") from None
        except StreamsError as error:
            _log.warn("An import for {client} failed: {reason}", client=client_of(request), reason=error)
            raise _problem_of(error) from None
        finally:
            self._running = False


def _problem_of(error: StreamsError) -> StreamsError:
    """Return the error of HTTP for an error of a transfer."""
    from .... import transfer  # noqa: PLC0415 (as above)

    text = str(error)
    text = text[:1].upper() + text[1:]
    match error:
        case transfer.PartialTransfer():
            return PartialImport(text, error.stream, error.completed, error.later)
        case transfer.Conflict() | transfer.RestoreConflict():
            return ImportConflict(text)
        case transfer.RestoreInProgress():
            return ImportRunning(text)
        case transfer.InvalidDocument() | transfer.UnsupportedVersion() | transfer.ArchiveInvalid():
            return InvalidUpload(text)
        case transfer.SpoolFailed():
            return InsufficientStorage(text)
        case _:
            return error
