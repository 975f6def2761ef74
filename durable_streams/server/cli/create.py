"""``create``: create a stream."""

from __future__ import annotations

import click

from .options import Connection, json_option
from .output import print_json, print_line
from .stream_requests import lifetime_options, perform, stream_argument, stream_options, stream_url


@click.command("create")
@stream_argument
@click.argument("data", required=False)
@click.option(
    "--content-type",
    metavar="TYPE",
    help="The content type, such as application/json or text/plain. Default: application/octet-stream.",
)
@lifetime_options
@click.option("--closed", is_flag=True, help="Close it at once: DATA is all of it.")
@json_option
@stream_options
def command(
    connection: Connection,
    stream: str,
    data: str | None,
    content_type: str | None,
    ttl: int | None,
    expires_at: str | None,
    closed: bool,
    as_json: bool,
) -> None:
    """
    Create a stream, with DATA as its first data.

    If a stream of this name exists with the same configuration, it stays as it is, DATA is not appended, and the exit
    status is 0.
    """
    url = stream_url(connection, stream)
    content = None if data is None else data.encode("utf-8", "surrogateescape")
    created = perform(
        connection,
        lambda client: client.create(url, content_type, content, ttl=ttl, expires_at=expires_at, closed=closed),
    )
    print_created(url, created.new, created.content_type, created.next_offset, created.closed, as_json)


def print_created(url: str, new: bool, content_type: str, next_offset: str, closed: bool, as_json: bool) -> None:
    """Print the outcome of a create or a fork."""
    if as_json:
        print_json({"url": url, "new": new, "content_type": content_type, "next_offset": next_offset, "closed": closed})
    elif new:
        print_line(f"Created {url} ({content_type}) with its tail at {next_offset}.")
    else:
        print_line(f"{url} exists already ({content_type}), with its tail at {next_offset}.")
