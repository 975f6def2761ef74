"""What exports, imports, backups and restores have in common: their progress, and their errors."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Protocol

from .errors import CommandError
from .progress import ProgressBar

#: Phase of a transfer -> what the bar says.
_LABELS: Final = {"exporting": "Exporting", "validating": "Checking", "importing": "Importing"}


class Progress(Protocol):
    """How far a transfer is."""

    @property
    def phase(self) -> str:
        """What it does."""

    @property
    def bytes(self) -> int:
        """The bytes that are done in this phase."""

    @property
    def bytes_total(self) -> int | None:
        """The bytes of this phase; None if the number is not known."""


def shown_on(bar: ProgressBar) -> Callable[[Progress], None] | None:
    """Return a function that shows the progress of a transfer; None if there is no bar, so that nothing is counted."""
    if not bar.visible:
        return None
    phases: list[str] = []

    def show(progress: Progress) -> None:
        if phases[-1:] != [progress.phase]:
            phases.append(progress.phase)
            bar.restart(_LABELS.get(progress.phase, progress.phase.capitalize()), progress.bytes_total)
        bar.update(progress.bytes, progress.bytes_total)

    return show


@contextmanager
def errors_as(label: str, output: str = "the output") -> Iterator[None]:
    """
    Report the errors of a transfer as the command's own.

    :param label: what failed: ``export failed``.
    :param output: what is written, for errors of the system.
    :raises CommandError: for an error of the transfer, the storage or the system.
    :raises BrokenPipeError: nobody reads the output any more.
    """
    from ..errors import StreamsError  # noqa: PLC0415 (imports msgspec.json, which --help does not need)
    from ..transfer import TransferError  # noqa: PLC0415 (imports Twisted)

    try:
        yield
    except (TransferError, StreamsError) as error:
        raise CommandError(str(error), label) from None
    except BrokenPipeError:
        raise
    except OSError as error:
        advice = " Free space there, or choose another disk." if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise CommandError(f"cannot write {output}: {error.strerror or error}.{advice}", label) from None
