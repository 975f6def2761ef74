"""``tail``: print the data of a stream, and what is appended, until it is closed."""

from __future__ import annotations

from pathlib import Path

import click

from .data_output import json_option, output_option
from .options import Connection
from .stream_requests import begin_option, perform, retry_option, stream_argument, stream_options, stream_url


@click.command("tail")
@stream_argument
@begin_option
@output_option
@json_option
@click.option(
    "--save-offset",
    "save",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Save the offset after what was printed in this file, and begin there if it exists, whatever --from says.",
)
@click.option("--sse", "live", flag_value="sse", help="Wait for data by Server-Sent Events.")
@click.option("--long-poll", "live", flag_value="long-poll", help="Wait for data by long-polls.")
@retry_option
@stream_options
def command(
    connection: Connection,
    stream: str,
    begin: str,
    output: str | None,
    as_json: bool,
    save: Path | None,
    live: str | None,
    retry_for: float | None,
) -> None:
    """
    Print the data of a stream, and what is appended, until it is closed.

    If the connection breaks or the server restarts, the tail goes on where it was, without a gap or a repeat; it tries
    again without end, unless --retry-for limits that. The default is --sse for JSON streams and --long-poll for others,
    since events carry no carriage returns of a text.
    """
    from .following import Following, follow  # noqa: PLC0415 (imports Twisted, which --help does not need)

    url = stream_url(connection, stream)
    wanted = Following(url, begin, live or "auto", output, as_json, save, retry_for, retry_for or 0.0)
    perform(connection, lambda client: follow(client, wanted))
