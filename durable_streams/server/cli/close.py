"""``close``: close streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .options import Connection, json_option
from .output import print_json, print_line
from .stream_requests import perform, stream_options, stream_url

if TYPE_CHECKING:
    from ..client import StreamClient


@click.command("close")
@click.argument("streams", metavar="STREAM...", nargs=-1, required=True)
@json_option
@stream_options
def command(connection: Connection, streams: tuple[str, ...], as_json: bool) -> None:
    """Close streams: nothing can be appended any more, and tails end. Closing a closed stream is no error."""
    urls = [stream_url(connection, stream) for stream in streams]

    async def close(client: StreamClient) -> None:
        for url in urls:
            result = await client.close(url)
            if as_json:
                print_json({"url": url, "next_offset": result.next_offset, "closed": True})
            else:
                print_line(f"Closed {url} at {result.next_offset}.")

    perform(connection, close)
