"""Output: JSON, tables and text on stdout, notes on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click
import msgspec

from .errors import CommandError
from .terminal import is_terminal, printable, silence


def print_line(text: str = "") -> None:
    """Print text on stdout, with control characters escaped."""
    write_text(printable(text) + "\n")


def note(text: str) -> None:
    """Print a line for people on stderr, with control characters escaped."""
    try:
        click.echo(printable(text), err=True)
    except OSError:
        # A command does not fail because nobody reads its notes.
        silence(sys.stderr)


def print_json(value: Any) -> None:
    """Print a JSON document: on one line, but indented on a terminal."""
    encoded = msgspec.json.encode(value)
    if is_terminal(sys.stdout):
        encoded = msgspec.json.format(encoded, indent=2)
    write_text(encoded.decode() + "\n")


def print_table(columns: Sequence[tuple[str, bool]], rows: Iterable[Sequence[str]]) -> None:
    """
    Print a table. No cell is cut: a line that is too long for the terminal is wrapped by it.

    :param columns: the title of each column, and whether it is right-aligned. On a terminal, each word of a title is on
        a line of its own.
    :param rows: the cells, as plain text.
    """
    from rich.box import SIMPLE_HEAD  # noqa: PLC0415 (most commands print no table)
    from rich.console import Console  # noqa: PLC0415 (as above)
    from rich.table import Table  # noqa: PLC0415 (as above)
    from rich.text import Text  # noqa: PLC0415 (as above)

    terminal = is_terminal(sys.stdout)
    table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True)
    for title, right in columns:
        shown = title.replace(" ", "\n") if terminal else title
        table.add_column(shown, justify="right" if right else "left", no_wrap=True, vertical="bottom")
    for row in rows:
        table.add_row(*(Text(printable(cell, lines=False)) for cell in row))
    console = Console(force_terminal=terminal, width=100_000, highlight=False)
    with console.capture() as captured:
        console.print(table)
    text = captured.get()
    write_text(text if terminal else "".join(f"{line.rstrip()}\n" for line in text.splitlines()))


def write_text(text: str) -> None:
    """
    Write text to stdout as it is.

    :raises BrokenPipeError: nobody reads it any more: the command ends without a message.
    :raises CommandError: it cannot be written.
    """
    if sys.stdout is None:
        raise CommandError("Cannot write the output: the standard output is closed.")
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        silence(sys.stdout)
        raise
    except OSError as error:
        silence(sys.stdout)
        raise CommandError(f"Cannot write the output: {error.strerror or error}.") from None
