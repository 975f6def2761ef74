"""A progress bar on stderr with the rate and the time left, if stderr is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from .terminal import is_terminal, printable

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

#: The bar is drawn at most once in so many seconds.
_INTERVAL: Final = 0.1

#: Clears the line of the bar, which is drawn again below what is printed now.
_CLEAR_LINE: Final = "\r\x1b[2K"


class ProgressBar:
    """
    A progress bar; without a terminal its methods do nothing.

    :param bar: the bar of rich; None for none.
    :param label: what is being done.
    :param total: of how much; None if that is not known.
    """

    def __init__(self, bar: Progress | None = None, label: str = "", total: int | None = None) -> None:
        self._bar = bar
        self._task: Any = None if bar is None else bar.add_task(printable(label, lines=False), total=total)
        self._drawn_at = monotonic()

    @property
    def visible(self) -> bool:
        """Whether there is a bar."""
        return self._bar is not None

    def update(self, done: int, total: int | None = None, label: str | None = None) -> None:
        """
        Move the bar.

        :param done: so much is done, in the unit of the bar.
        :param total: of so much; None if that is not known.
        :param label: what is being done now; None for what it was.
        """
        if self._bar is None:
            return
        description = None if label is None else printable(label, lines=False)
        self._bar.update(self._task, completed=done, total=total, description=description)
        now = monotonic()
        if now - self._drawn_at >= _INTERVAL:
            self._drawn_at = now
            self._bar.refresh()

    def restart(self, label: str, total: int | None = None) -> None:
        """Begin a new phase: the rate and the time left are of it alone."""
        if self._bar is None:
            return
        self._bar.remove_task(self._task)
        self._task = self._bar.add_task(printable(label, lines=False), total=total)

    def clear(self) -> None:
        """Clear the bar, so that a line can be printed in its place."""
        if self._bar is not None:
            sys.stderr.write(_CLEAR_LINE)
            sys.stderr.flush()


@contextmanager
def progress_bar(label: str, total: int | None = None, counted: str = "") -> Iterator[ProgressBar]:
    """
    Show a bar on stderr until the block ends, if stderr is a terminal.

    :param label: what is being done.
    :param total: the unit is bytes; None if the number is not known.
    :param counted: the plural of another unit, such as ``streams``.
    """
    if not is_terminal(sys.stderr):
        yield ProgressBar()
        return
    from rich.console import Console  # noqa: PLC0415 (needed on terminals only)
    from rich.progress import Progress  # noqa: PLC0415 (as above)

    console = Console(stderr=True, force_terminal=True)
    bar = Progress(
        *_columns(counted),
        console=console,
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )
    shown = ProgressBar(bar, label, total)
    with bar:
        yield shown


def _columns(counted: str) -> Iterator[ProgressColumn]:
    """Return the columns: the label, the bar, how much, the rate, the time left."""
    from rich.progress import (  # noqa: PLC0415 (needed on terminals only)
        BarColumn,
        DownloadColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    yield TextColumn("{task.description}", markup=False)
    yield BarColumn(30)
    if counted:
        yield MofNCompleteColumn()
        yield TextColumn(counted)
    else:
        yield DownloadColumn()
        yield TransferSpeedColumn()
    yield TimeRemainingColumn()
