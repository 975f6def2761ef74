"""The errors that end a command: a line on stderr, and an exit status."""

from __future__ import annotations

import sys
from typing import IO, Any

import click

from .terminal import printable, silence

#: The exit status of a failure; click uses 2 for a wrong command line.
FAILURE = 1


class CommandError(click.ClickException):
    """
    A command failed. It is shown as ``label: message``.

    :param message: a sentence or two: what happened, and what to change.
    :param label: what failed; empty for the message alone.
    """

    exit_code = FAILURE

    def __init__(self, message: str, label: str = "Error") -> None:
        super().__init__(message)
        self.label = label

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the line; texts from servers and files are printed without control characters."""
        try:
            click.echo(printable(f"{self.label}: {self.message}" if self.label else self.message), file, err=True)
        except OSError:
            # Nobody reads the error, but the exit status stays that of the failure.
            silence(sys.stderr)
