"""``restore``: the streams of an archive."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import aclosing
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Final

import click
from msgspec import Struct

from .admin import URL_HELP, connected
from .files import input_file, size_of
from .local import LocalData, local_data, opened
from .options import (
    Connection,
    SettingsFiles,
    archive_argument,
    connection_options,
    json_option,
    on_conflict_option,
    settings_options,
)
from .output import note, print_json
from .progress import progress_bar
from .running import run
from .transfers import errors_as, send, shown_on

if TYPE_CHECKING:
    from ..transfer import ConflictPolicy, RestoreStats

_LABEL: Final = "restore failed"


@click.command("restore")
@settings_options
@connection_options(URL_HELP, None)
@archive_argument
@on_conflict_option("restore")
@click.option("--new-incarnation", is_flag=True, help="Give the streams new offsets; old ones are answered with 410.")
@json_option
def command(
    files: SettingsFiles,
    connection: Connection,
    archive: str | None,
    on_conflict: ConflictPolicy,
    new_incarnation: bool,
    as_json: bool,
) -> None:
    """
    Restore the streams of an archive.

    ARCHIVE is a file; without it, the standard input is read. Without --url, the data directory or the database of the
    settings is written; no server may be running on a directory.

    The whole archive is verified before anything is written, and each stream is restored in one step. If the restore is
    interrupted, restore the archive again to complete it. Clients go on at their old offsets, and idempotent producers
    at their sequence numbers; with --new-incarnation, clients have to read again from the start.
    """
    task = Restore(on_conflict, new_incarnation, "the standard input" if archive is None else archive)
    work: Callable[[Any, BinaryIO], Coroutine[Any, Any, RestoreStats]]
    if connection.url is not None:
        work = partial(task.to_server, connection)
    else:
        work = partial(task.to_directory, local_data(files, create=True))
    with input_file(archive) as file:
        done = run(lambda reactor: work(reactor, file))
    note(
        f"Restored {done.streams_restored} stream(s), {done.streams_replaced} of them replaced, skipped "
        f"{done.streams_skipped}, {done.appends_restored} append(s) total"
    )
    if as_json:
        print_json(done)


class Restore(Struct, frozen=True):
    """
    A restore.

    :ivar source: what is read, for errors.
    """

    on_conflict: ConflictPolicy
    new_incarnation: bool
    source: str

    async def to_directory(self, data: LocalData, reactor: Any, file: BinaryIO) -> RestoreStats:
        """Restore into a data directory."""
        from ..transfer import restore_streams  # noqa: PLC0415 (imports Twisted, which --help does not need)

        async with opened(data, reactor) as streams:
            with progress_bar("Verifying", size_of(file)) as bar, errors_as(_LABEL, f"read {self.source}"):
                return await restore_streams(
                    streams,
                    file,
                    on_conflict=self.on_conflict,
                    new_incarnation=self.new_incarnation,
                    progress=shown_on(bar),
                    reactor=reactor,
                )

    async def to_server(self, connection: Connection, reactor: Any, file: BinaryIO) -> RestoreStats:
        """Restore into a running server."""
        from ..transfer import RestoreStats  # noqa: PLC0415 (imports Twisted, which --help does not need)

        query: dict[str, str] = {"on_conflict": self.on_conflict}
        if self.new_incarnation:
            query["new_incarnation"] = "true"
        async with connected(reactor, connection, _LABEL) as pages:
            with progress_bar("Sending", size_of(file)) as bar, errors_as(_LABEL, f"read {self.source}"):
                async with aclosing(send(reactor, file, bar)) as pieces:
                    return await pages.post("restore", query, "application/zstd", pieces, RestoreStats)
