"""``list``: all streams with their metadata."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from .admin import URL_HELP, connected
from .listing import ListedStream, rfc3339, table_head, table_row
from .local import LocalData, local_data, opened
from .options import Connection, SettingsFiles, connection_options, json_option, settings_options
from .output import write_text
from .remote_list import ACCEPT, pages_of
from .running import run

if TYPE_CHECKING:
    from ..model import StreamStatus
    from ..streams import Streams

#: How many streams are read and printed at a time.
_PAGE: Final = 1000


@click.command("list")
@settings_options
@connection_options(URL_HELP, None)
@click.option("--prefix", metavar="PREFIX", default="", help="List only streams whose name begins with PREFIX.")
@json_option
def command(files: SettingsFiles, connection: Connection, prefix: str, as_json: bool) -> None:
    """
    List all streams with their metadata.

    Without --url, the data directory or the database of the settings is read; no server may be running on a directory.
    Times are in UTC. With --json, the output is an array of objects.
    """
    if connection.url is not None:
        run(lambda reactor: _list_remote(connection, reactor, prefix, as_json))
    else:
        data = local_data(files)
        run(lambda reactor: _list_local(data, reactor, prefix, as_json))


async def _list_local(data: LocalData, reactor: Any, prefix: str, as_json: bool) -> None:
    async with opened(data, reactor) as streams:
        await print_pages(_pages(streams, prefix), as_json)


async def _list_remote(connection: Connection, reactor: Any, prefix: str, as_json: bool) -> None:
    async with connected(reactor, connection) as pages:
        answer = await pages.list({"prefix": prefix} if prefix else {}, {"Accept": ACCEPT})
        await print_pages(pages_of(answer), as_json)


async def _pages(streams: Streams, prefix: str) -> AsyncIterator[list[ListedStream]]:
    """Read the streams a page at a time."""
    from ..interfaces import settle  # noqa: PLC0415 (imports Twisted, which --help does not need)

    page = await settle(streams.statuses("", _PAGE, prefix))
    while page:
        yield [_listed(status) for status in page]
        page = await settle(streams.statuses(page[-1].facts.name, _PAGE, prefix)) if len(page) == _PAGE else []


async def print_pages(pages: AsyncIterator[Sequence[ListedStream]], as_json: bool) -> None:
    """Print each page when it arrives: a table with its total, or a JSON array with one stream a line."""
    total = 0
    async for page in pages:
        if not page:
            continue
        if as_json:
            begin = ",\n  " if total else "[\n  "
            write_text(begin + ",\n  ".join(msgspec.json.encode(stream).decode() for stream in page))
        else:
            head = "" if total else table_head()
            write_text(head + "".join(f"{table_row(stream)}\n" for stream in page))
        total += len(page)
    if as_json:
        write_text("\n]\n" if total else "[]\n")
    else:
        write_text(f"\n{total} stream(s) total\n" if total else "No streams found.\n")


def _listed(status: StreamStatus) -> ListedStream:
    lifetime = status.lifetime
    return ListedStream(
        status.facts.name,
        "closed" if status.closed else "open",
        None,
        status.tail,
        status.facts.content_type,
        rfc3339(status.created_at),
        rfc3339(status.updated_at),
        lifetime.ttl,
        None if lifetime.expires_at is None else rfc3339(lifetime.expires_at),
    )
