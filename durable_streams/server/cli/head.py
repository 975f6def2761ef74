"""``head``: print the metadata of a stream."""

from __future__ import annotations

import click

from .options import Connection, json_option
from .output import print_json, print_line
from .stream_requests import perform, stream_argument, stream_options, stream_url


@click.command("head")
@stream_argument
@json_option
@stream_options
def command(connection: Connection, stream: str, as_json: bool) -> None:
    """Print the metadata of a stream: its type, its tail, whether it is closed, and when it expires."""
    url = stream_url(connection, stream)
    info = perform(connection, lambda client: client.head(url))
    if as_json:
        print_json(
            {
                "url": url,
                "content_type": info.content_type,
                "next_offset": info.next_offset,
                "closed": info.closed,
                "ttl_seconds": info.ttl,
                "expires_at": info.expires_at,
            }
        )
        return
    print_line(f"URL           {url}")
    print_line(f"Content type  {info.content_type}")
    print_line(f"Next offset   {info.next_offset}")
    print_line(f"Status        {'closed' if info.closed else 'open'}")
    if info.ttl is not None:
        print_line(f"TTL           {info.ttl} seconds")
    if info.expires_at is not None:
        print_line(f"Expires at    {info.expires_at}")
