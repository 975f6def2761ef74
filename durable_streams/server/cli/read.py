"""``read``: print the data of a stream up to its tail."""

from __future__ import annotations

import click

from .data_output import json_option, output_option
from .options import Connection
from .stream_requests import begin_option, perform, retry_option, stream_argument, stream_options, stream_url


@click.command("read")
@stream_argument
@begin_option
@output_option
@json_option
@retry_option
@stream_options
def command(
    connection: Connection, stream: str, begin: str, output: str | None, as_json: bool, retry_for: float | None
) -> None:
    """
    Print the data of a stream up to its tail.

    If the connection breaks, reading goes on where it broke, for 60 seconds without success by default.
    """
    from .following import Following, follow  # noqa: PLC0415 (imports Twisted, which --help does not need)

    url = stream_url(connection, stream)
    wanted = Following(
        url, begin, None, output, as_json, None, 60.0 if retry_for is None else retry_for, retry_for or 0.0
    )
    perform(connection, lambda client: follow(client, wanted))
