"""``append``: append arguments, files or the standard input to a stream."""

from __future__ import annotations

from pathlib import Path

import click

from .options import Connection, json_option
from .output import print_json, print_line
from .stream_requests import perform, retry_option, stream_argument, stream_options, stream_url


@click.command("append")
@stream_argument
@click.argument("data", nargs=-1)
@click.option("--file", "-f", "files", metavar="FILE", multiple=True, help="Append a file; - is the standard input.")
@click.option("--lines", is_flag=True, help="Append each line of the input by itself, as soon as it was read.")
@click.option("--json-lines", is_flag=True, help="The same, where each line is one JSON message.")
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=1,
    metavar="COUNT",
    help="Append so many messages of --json-lines at once.",
)
@click.option("--content-type", metavar="TYPE", help="The stream's content type. By default the server is asked.")
@click.option("--close", is_flag=True, help="Close the stream after the last append.")
@click.option("--producer-id", metavar="ID", help="Append as an idempotent producer: a retry is never stored twice.")
@click.option(
    "--epoch",
    type=click.IntRange(min=0),
    metavar="NUMBER",
    help="The producer's epoch. The same command with the same epoch stores its input once, however often it is run.",
)
@click.option(
    "--state",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Remember the run in this file: a run that failed is continued, one that ended is followed by a new one.",
)
@retry_option
@json_option
@stream_options
def command(  # noqa: PLR0913, PLR0917 (the options of the command line)
    connection: Connection,
    stream: str,
    data: tuple[str, ...],
    files: tuple[str, ...],
    lines: bool,
    json_lines: bool,
    batch: int,
    content_type: str | None,
    close: bool,
    producer_id: str | None,
    epoch: int | None,
    state: Path | None,
    retry_for: float | None,
    as_json: bool,
) -> None:
    """
    Append data to a stream: each argument by itself, then files, or the standard input if there are neither.

    Without --lines or --json-lines, a file is appended in pieces of 1 MiB, to a JSON stream as one document. Without
    --producer-id, an append that has no answer is not repeated, and it is unknown whether it was stored.
    """
    _check(lines, json_lines, batch, producer_id, epoch, state, retry_for)
    from .append_input import Cut, default_files  # noqa: PLC0415 (--help does not need it)
    from .appending import Appending, append_all  # noqa: PLC0415 (imports Twisted, which --help does not need)

    wanted = Appending(
        url=stream_url(connection, stream),
        arguments=data,
        files=default_files(data, files),
        cut=Cut(lines, json_lines, batch),
        content_type=content_type,
        close=close,
        producer_id=producer_id,
        epoch=epoch,
        state=state,
        retry_for=60.0 if retry_for is None else retry_for,
        retry_first_for=retry_for or 0.0,
    )
    done = perform(connection, lambda client: append_all(client, wanted))
    if as_json:
        print_json(done)
        return
    known = f", {done.duplicates} of them stored by an earlier run," if done.duplicates else ""
    place = f" The tail is {done.next_offset}." if done.next_offset else ""
    print_line(f"{_times(done.appends)}{known} to {done.url}.{place}{' Closed.' if done.closed else ''}")


def _times(count: int) -> str:
    return "1 append" if count == 1 else f"{count} appends"


def _check(
    lines: bool,
    json_lines: bool,
    batch: int,
    producer_id: str | None,
    epoch: int | None,
    state: Path | None,
    retry_for: float | None,
) -> None:
    """
    Check which options were given together.

    :raises click.UsageError: two exclude each other, or one needs another.
    """
    if lines and json_lines:
        raise click.UsageError("--lines and --json-lines were both given. Give one.")
    if batch != 1 and not json_lines:
        raise click.UsageError("--batch needs --json-lines.")
    if epoch is not None and state is not None:
        raise click.UsageError("--epoch and --state were both given. Give one: --state has the epoch of its run.")
    if producer_id is None:
        for name, value in (("--epoch", epoch), ("--state", state), ("--retry-for", retry_for)):
            if value is not None:
                raise click.UsageError(f"{name} needs --producer-id.")
    elif not producer_id:
        raise click.UsageError("--producer-id must not be empty.")
