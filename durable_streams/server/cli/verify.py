"""``verify``: check an archive from its first byte to its last."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, BinaryIO, Final

import click
from msgspec import Struct

from .errors import FAILURE, CommandError
from .files import input_file, size_of
from .listing import amount
from .options import archive_argument, json_option
from .output import print_json, print_line
from .progress import ProgressBar, progress_bar

if TYPE_CHECKING:
    from ..transfer import ArchiveHeader, ArchiveTotals

_LABEL: Final = "verify failed"


class Verified(Struct, frozen=True):
    """
    The JSON object that ``verify --json`` prints.

    :ivar whole: whether everything in the archive is there and undamaged.
    :ivar error: what is wrong with it; None if nothing is.
    """

    archive: str
    whole: bool
    error: str | None
    header: ArchiveHeader | None
    totals: ArchiveTotals | None


@click.command("verify")
@archive_argument
@json_option
def command(archive: str | None, as_json: bool) -> None:
    """
    Check an archive of backup from its first byte to its last.

    ARCHIVE is a file; without it, the standard input is read. Every part is compared with its checksum, and the streams
    are checked as before a restore, for which no server is needed. The exit status is 0 if the archive is whole, and 1
    if it is damaged, incomplete or cannot be read.
    """
    from ..transfer import TransferError, verify_archive  # noqa: PLC0415 (imports Twisted, which --help does not need)

    name = "the standard input" if archive is None else archive
    with input_file(archive, _LABEL) as file, progress_bar("Verifying", size_of(file)) as bar:
        try:
            header, totals = verify_archive(_CountedFile(file, bar))
        except TransferError as error:
            verified = Verified(name, False, str(error), None, None)
        except OSError as error:
            raise CommandError(f"cannot read {name}: {error.strerror or error}.", _LABEL) from None
        else:
            verified = Verified(name, True, None, header, totals)
    if as_json:
        print_json(verified)
        if not verified.whole:
            sys.exit(FAILURE)
    elif verified.error is not None:
        raise CommandError(f"{name}: {verified.error}", _LABEL)
    else:
        print_line(f"{name}: {_described(header, totals)}: whole.")


def verified_file(file: BinaryIO, name: str, label: str) -> ArchiveTotals:
    """
    Read an archive that was just written, from its beginning.

    :param file: open for reading.
    :param label: the label of errors.
    :raises CommandError: it is not whole.
    """
    from ..transfer import TransferError, verify_archive  # noqa: PLC0415 (imports Twisted, which --help does not need)

    try:
        file.seek(0)
        with progress_bar("Verifying", size_of(file)) as bar:
            return verify_archive(_CountedFile(file, bar))[1]
    except TransferError as error:
        raise CommandError(f"{name}: {error}", label) from None
    except OSError as error:
        raise CommandError(f"cannot read {name}: {error.strerror or error}.", label) from None


class _CountedFile:
    """A file that moves a bar while it is read."""

    def __init__(self, file: BinaryIO, bar: ProgressBar) -> None:
        self._file = file
        self._bar = bar
        self._total = size_of(file)
        self._read = 0

    def read(self, size: int, /) -> bytes:
        """Read at most ``size`` bytes."""
        data = self._file.read(size)
        self._read += len(data)
        self._bar.update(self._read, self._total)
        return data


def _described(header: ArchiveHeader, totals: ArchiveTotals) -> str:
    streams = f"{totals.streams} streams"
    forks = "fork" if totals.forks == 1 else "forks"
    kinds = [f"{number} {kind}" for number, kind in ((totals.forks, forks), (totals.deleted, "deleted")) if number]
    if kinds:
        streams += f" ({', '.join(kinds)})"
    return (
        f"made at {header.created_at} by version {header.server_version}, with {streams}, {totals.appends} appends, "
        f"{amount(totals.bytes)} and {totals.writers} producers"
    )
