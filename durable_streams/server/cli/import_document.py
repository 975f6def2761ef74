"""``import``: streams of a JSON document."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click
from msgspec import Struct

from .admin import URL_HELP, connected
from .files import input_file, size_of
from .local import LocalData, local_data, opened, warn_about_memory
from .options import Connection, SettingsFiles, connection_options, json_option, on_conflict_option, settings_options
from .output import note, print_json
from .progress import ProgressBar, progress_bar
from .running import run
from .transfers import errors_as, send, shown_on

if TYPE_CHECKING:
    from ..transfer import ConflictPolicy

_LABEL: Final = "import failed"


class Imported(Struct, frozen=True):
    """
    The JSON object that ``import --json`` prints.

    :ivar skipped: the names of skipped streams; of a running server at most 1,000.
    """

    streams_imported: int
    streams_skipped: int
    messages_imported: int
    bytes_imported: int
    skipped: list[str] = []


@click.command("import")
@settings_options
@connection_options(URL_HELP, None)
@click.option("-i", "--input", "source", metavar="FILE", help="The document; default: the standard input.")
@on_conflict_option("import")
@json_option
def command(
    files: SettingsFiles, connection: Connection, source: str | None, on_conflict: ConflictPolicy, as_json: bool
) -> None:
    """
    Import the streams of a JSON document.

    Without --url, the data directory or the database of the settings is written; no server may be running on a
    directory. The document is one of export, or of the Rust server.

    All of it is validated before anything is written, and each stream appears whole. If the import is interrupted, the
    streams so far are imported: import the document again to complete it. Streams get new offsets, and a sliding TTL
    begins again.
    """
    task = Import(on_conflict, source if source not in (None, "-") else "the standard input")
    work: Callable[[Any, BinaryIO], Coroutine[Any, Any, Imported]]
    if connection.url is not None:
        work = partial(task.to_server, connection)
    else:
        data = local_data(files, create=True, memory=True)
        warn_about_memory(data)
        work = partial(task.to_directory, data)
    with input_file(source) as file:
        done = run(lambda reactor: work(reactor, file))
    note(
        f"Imported {done.streams_imported} stream(s), skipped {done.streams_skipped}, "
        f"{done.messages_imported} message(s) total"
    )
    if as_json:
        print_json(done)


class Import(Struct, frozen=True):
    """
    An import.

    :ivar source: what is read, for errors.
    """

    on_conflict: ConflictPolicy
    source: str

    async def to_directory(self, data: LocalData, reactor: Any, file: BinaryIO) -> Imported:
        """Import into a data directory."""
        from ..protocol.names import NameLimits  # noqa: PLC0415 (--help does not need it)
        from ..transfer import ImportLimits, import_streams  # noqa: PLC0415 (imports Twisted)

        limits = data.settings.limits
        names = NameLimits(limits.max_stream_name_bytes, limits.max_stream_name_segments)
        skipped: list[str] = []
        async with opened(data, reactor) as streams:
            with progress_bar("Checking", size_of(file)) as bar, errors_as(_LABEL, f"read {self.source}"):

                def note_skipped(name: str) -> None:
                    skipped.append(name)
                    _note_skipped(bar, name)

                stats = await import_streams(
                    streams,
                    file,
                    self.on_conflict,
                    limits=ImportLimits(names, max(limits.max_request_body_bytes, ImportLimits().message_bytes)),
                    skipped=note_skipped,
                    progress=shown_on(bar),
                    reactor=reactor,
                )
        return Imported(
            stats.streams_imported, stats.streams_skipped, stats.messages_imported, stats.bytes_imported, skipped
        )

    async def to_server(self, connection: Connection, reactor: Any, file: BinaryIO) -> Imported:
        """Import into a running server."""
        async with connected(reactor, connection, _LABEL) as pages:
            with progress_bar("Sending", size_of(file)) as bar, errors_as(_LABEL, f"read {self.source}"):
                async with aclosing(send(reactor, file, bar)) as pieces:
                    done = await pages.post(
                        "import", {"on_conflict": self.on_conflict}, "application/json", pieces, Imported
                    )
                for name in done.skipped:
                    _note_skipped(bar, name)
                if done.streams_skipped > len(done.skipped):
                    bar.clear()
                    note(f"... and {done.streams_skipped - len(done.skipped)} more")
        return done


def _note_skipped(bar: ProgressBar, name: str) -> None:
    bar.clear()
    note(f"Skipping existing stream: {name}")
