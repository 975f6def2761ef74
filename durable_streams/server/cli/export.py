"""``export``: streams as a JSON document."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, BinaryIO, Final

import click
from msgspec import Struct

from .admin import URL_HELP, connected
from .files import output_file
from .local import LocalData, local_data, opened, warn_about_memory
from .options import Connection, SettingsFiles, connection_options, json_option, settings_options
from .output import note, print_json
from .progress import progress_bar
from .running import run
from .transfers import DocumentCounter, errors_as, receive, shown_on, warn_about_missing

_LABEL: Final = "export failed"


@click.command("export")
@settings_options
@connection_options(URL_HELP, None)
@click.option("-o", "--output", metavar="FILE", help="The file to write; default: the standard output.")
@click.option("--stream", "names", metavar="NAME", multiple=True, help="Export this stream only. May be repeated.")
@json_option
def command(
    files: SettingsFiles, connection: Connection, output: str | None, names: tuple[str, ...], as_json: bool
) -> None:
    """
    Export streams as a JSON document.

    Without --url, the data directory or the database of the settings is read; no server may be running on a directory.

    The document has the data, content types, lifetimes and closure of the streams, and is the one that the Rust server
    imports and exports. It does not have writers, forks and offsets: use backup to keep those. FILE appears when it is
    complete; a file of that name is replaced then. Streams that do not exist are left out, with a warning. With --json,
    the numbers of streams, messages and bytes are printed; that needs --output.
    """
    if output == "-":
        output = None
    if as_json and output is None:
        raise click.UsageError("--json needs --output: the standard output has the document.")
    task = Export(names, output or "the standard output")
    work: Callable[[Any, BinaryIO], Coroutine[Any, Any, Exported]]
    if connection.url is not None:
        work = partial(task.of_server, connection)
    else:
        data = local_data(files, memory=True)
        warn_about_memory(data)
        work = partial(task.of_directory, data)
    with output_file(output) as file:
        done = run(lambda reactor: work(reactor, file))
    warn_about_missing(names, done.streams_exported)
    if as_json:
        print_json(done)
    elif output is not None:
        note(f"Exported {done.streams_exported} stream(s) with {done.messages_exported} message(s)")


class Exported(Struct, frozen=True):
    """The JSON object that ``export --json`` prints; the bytes are those of all messages."""

    streams_exported: int
    messages_exported: int
    bytes_exported: int


class Export(Struct, frozen=True):
    """
    An export.

    :ivar names: the streams to export; empty for all.
    :ivar output: what is written, for errors.
    """

    names: tuple[str, ...]
    output: str

    async def of_directory(self, data: LocalData, reactor: Any, file: BinaryIO) -> Exported:
        """Export the streams of a data directory."""
        from ..transfer import export_streams  # noqa: PLC0415 (imports Twisted, which --help does not need)

        async with opened(data, reactor) as streams:
            with progress_bar("Exporting") as bar, errors_as(_LABEL, f"write {self.output}"):
                stats = await export_streams(streams, file, self.names or None, progress=shown_on(bar), reactor=reactor)
        return Exported(stats.streams_exported, stats.messages_exported, stats.bytes_exported)

    async def of_server(self, connection: Connection, reactor: Any, file: BinaryIO) -> Exported:
        """Export the streams of a running server."""
        counter = DocumentCounter()
        async with connected(reactor, connection, _LABEL) as pages:
            answer = await pages.get("export", [("stream", name) for name in self.names])
            with progress_bar("Receiving") as bar, errors_as(_LABEL, f"write {self.output}"):
                await receive(reactor, answer.body, file, bar, counter.feed)
        return Exported(counter.streams, counter.messages, counter.bytes)
