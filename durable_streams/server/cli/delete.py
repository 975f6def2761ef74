"""``delete``: delete streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .errors import CommandError
from .options import Connection, json_option
from .output import print_json, print_line
from .stream_requests import perform, stream_options, stream_url

if TYPE_CHECKING:
    from ..client import StreamClient


@click.command("delete")
@click.argument("streams", metavar="STREAM...", nargs=-1, required=True)
@click.option("--missing-ok", is_flag=True, help="A stream that does not exist is no error.")
@json_option
@stream_options
def command(connection: Connection, streams: tuple[str, ...], missing_ok: bool, as_json: bool) -> None:
    """Delete streams and all of their data."""
    urls = [stream_url(connection, stream) for stream in streams]

    async def delete(client: StreamClient) -> None:
        from ..client import RefusedAsMissing  # noqa: PLC0415 (imports Twisted, which --help does not need)

        for url in urls:
            deleted = True
            try:
                await client.delete(url)
            except RefusedAsMissing:
                if not missing_ok:
                    raise CommandError(
                        f"There is no stream at {url}. Correct the name, or use --missing-ok if that is no error. (404)"
                    ) from None
                deleted = False
            if as_json:
                print_json({"url": url, "deleted": deleted})
            else:
                print_line(f"Deleted {url}." if deleted else f"{url} does not exist.")

    perform(connection, delete)
