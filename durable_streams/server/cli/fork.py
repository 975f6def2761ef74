"""``fork``: create a stream that begins with the data of another one."""

from __future__ import annotations

import click

from .create import print_created
from .options import Connection, json_option
from .stream_requests import lifetime_options, perform, stream_options, stream_url


@click.command("fork")
@click.argument("source", metavar="SOURCE")
@click.argument("stream", metavar="STREAM")
@click.option("--offset", metavar="OFFSET", help="Fork after this offset of SOURCE. Default: its tail; start: nothing.")
@click.option(
    "--sub-offset",
    type=click.IntRange(min=0),
    default=0,
    metavar="COUNT",
    help="With so many messages, or bytes, of the append after --offset.",
)
@lifetime_options
@json_option
@stream_options
def command(
    connection: Connection,
    source: str,
    stream: str,
    offset: str | None,
    sub_offset: int,
    ttl: int | None,
    expires_at: str | None,
    as_json: bool,
) -> None:
    """Create STREAM with the data of SOURCE, without copying it. Later appends to one are not in the other."""
    if sub_offset and offset is None:
        raise click.UsageError("--sub-offset needs --offset.")
    source_url, url = stream_url(connection, source), stream_url(connection, stream)
    place = "-1" if offset == "start" else offset
    created = perform(
        connection,
        lambda client: client.fork(
            source_url, url, offset=place, sub_offset=sub_offset, ttl=ttl, expires_at=expires_at
        ),
    )
    print_created(url, created.new, created.content_type, created.next_offset, created.closed, as_json)
