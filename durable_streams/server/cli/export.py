"""``export``: streams as a JSON document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import click

from .files import output_file
from .local import LocalData, local_data, opened, warn_about_memory
from .options import SettingsFiles, json_option, settings_options
from .output import note, print_json
from .progress import progress_bar
from .running import run
from .transfers import errors_as, shown_on

if TYPE_CHECKING:
    from ..transfer import ExportStats

_LABEL = "export failed"


@click.command("export")
@settings_options
@click.option("-o", "--output", metavar="FILE", help="The file to write; default: the standard output.")
@click.option("--stream", "names", metavar="NAME", multiple=True, help="Export this stream only. May be repeated.")
@json_option
def command(files: SettingsFiles, output: str | None, names: tuple[str, ...], as_json: bool) -> None:
    """
    Export streams as a JSON document.

    The document has the data, content types, lifetimes and closure of the streams, and is the one that the Rust server
    imports and exports. It does not have writers, forks and offsets: use backup to keep those. FILE appears when it is
    complete; a file of that name is replaced then. Names of streams that do not exist are ignored. With --json, the
    numbers of streams, messages and bytes are printed; that needs --output.
    """
    if output == "-":
        output = None
    if as_json and output is None:
        raise click.UsageError("--json needs --output: the standard output has the document.")
    data = local_data(files, memory=True)
    warn_about_memory(data)
    with output_file(output) as file:
        stats = run(lambda reactor: _export(data, reactor, file, names, output or "the standard output"))
    if as_json:
        print_json(stats)
    elif output is not None:
        note(f"Exported {stats.streams_exported} stream(s) with {stats.messages_exported} message(s)")


async def _export(data: LocalData, reactor: Any, file: BinaryIO, names: tuple[str, ...], output: str) -> ExportStats:
    from ..transfer import export_streams  # noqa: PLC0415 (imports Twisted)

    async with opened(data, reactor) as streams:
        with progress_bar("Exporting") as bar, errors_as(_LABEL, output):
            return await export_streams(streams, file, names or None, progress=shown_on(bar), reactor=reactor)
