"""``backup``: an archive of streams with everything that belongs to them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click
from msgspec import Struct

from .admin import URL_HELP, connected
from .errors import CommandError
from .files import output_file
from .listing import amount
from .local import LocalData, local_data, opened
from .options import Connection, SettingsFiles, connection_options, json_option, settings_options
from .output import note, print_json
from .progress import progress_bar
from .running import run
from .terminal import is_terminal
from .transfers import errors_as, receive, shown_on, warn_about_missing
from .verify import verified_file

if TYPE_CHECKING:
    from ..transfer import ArchiveTotals

_LABEL: Final = "backup failed"


class BackedUp(Struct, frozen=True):
    """
    The JSON object that ``backup --json`` prints.

    :ivar archive_bytes: the size of the archive.
    :ivar verified: whether the archive was read again and found whole.
    """

    archive: str
    archive_bytes: int
    verified: bool
    totals: ArchiveTotals | None


@click.command("backup")
@settings_options
@connection_options(URL_HELP, None)
@click.option("-o", "--output", metavar="FILE", help="The archive to write; default: the standard output.")
@click.option("--stream", "names", metavar="NAME", multiple=True, help="Back up this stream only. May be repeated.")
@click.option("--prefix", metavar="PREFIX", default="", help="Back up only streams whose name begins with PREFIX.")
@click.option("--level", type=click.IntRange(1, 19), default=3, show_default=True, help="The level of compression.")
@click.option("--verify/--no-verify", "verify", default=True, help="Read FILE again and check it; the default.")
@json_option
def command(
    files: SettingsFiles,
    connection: Connection,
    output: str | None,
    names: tuple[str, ...],
    prefix: str,
    level: int,
    verify: bool,
    as_json: bool,
) -> None:
    """
    Back up streams into an archive.

    Without --url, the data directory or the database of the settings is read; no server may be running on a directory.
    A running server is backed up by --url, without a pause of its appends.

    An archive has everything of the streams: data, offsets, writers, Stream-Seq, forks, lifetimes and times. FILE
    appears when it is complete and, unless --no-verify is given, was read again and found whole. Streams that do not
    exist are left out, with a warning. The name of an archive ends in .tar.zst.
    """
    if output == "-":
        output = None
    if output is None and as_json:
        raise click.UsageError("--json needs --output: the standard output has the archive.")
    if output is None and is_terminal(sys.stdout):
        raise click.UsageError("An archive is not for a terminal. Name a file by --output, or use a pipe.")
    task = Backup(names, prefix, level, output or "the standard output")
    work: Callable[[Any, BinaryIO], Coroutine[Any, Any, ArchiveTotals | None]]
    if connection.url is not None:
        work = partial(task.of_server, connection)
    else:
        work = partial(task.of_directory, local_data(files))
    with output_file(output) as file:
        totals = run(lambda reactor: work(reactor, file))
        size = file.tell() if file.seekable() else 0
        verify = verify and output is not None and size > 0
        if verify:
            totals = verified_file(file, output or "", _LABEL)
    if totals is not None and not prefix:
        warn_about_missing(names, totals.streams)
    if as_json:
        print_json(BackedUp(output or "", size, verify, totals))
    elif output is not None:
        streams = "" if totals is None else f"{totals.streams} stream(s) with {totals.appends} append(s), "
        note(f"Backed up {streams}{amount(size)}{', verified' if verify else ''}")


class Backup(Struct, frozen=True):
    """
    A backup.

    :ivar names: the streams to back up; empty for all.
    :ivar output: what is written, for errors.
    """

    names: tuple[str, ...]
    prefix: str
    level: int
    output: str

    async def of_directory(self, data: LocalData, reactor: Any, file: BinaryIO) -> ArchiveTotals:
        """Back up the streams of a data directory."""
        from ..transfer import backup_streams  # noqa: PLC0415 (imports Twisted, which --help does not need)

        async with opened(data, reactor) as streams:
            with progress_bar("Backing up") as bar, errors_as(_LABEL, f"write {self.output}"):
                return await backup_streams(
                    streams,
                    file,
                    self.names or None,
                    prefix=self.prefix,
                    level=self.level,
                    progress=shown_on(bar),
                    reactor=reactor,
                )

    async def of_server(self, connection: Connection, reactor: Any, file: BinaryIO) -> None:
        """Back up the streams of a running server."""
        query = [("stream", name) for name in self.names] + [("level", str(self.level))]
        if self.prefix:
            query.append(("prefix", self.prefix))
        async with connected(reactor, connection, _LABEL) as pages:
            answer = await pages.get("backup", query)
            with progress_bar("Receiving") as bar, errors_as(_LABEL, f"write {self.output}"):
                size = await receive(reactor, answer.body, file, bar)
        if not size:
            raise CommandError(f"{connection.url}: the server sent an empty archive.", _LABEL)
