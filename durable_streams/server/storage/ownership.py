"""Whose a data directory is: one kind of storage's, in a format that it knows, and one process's at a time."""

from __future__ import annotations

import os
from typing import Final

import msgspec
from msgspec import Struct
from twisted.logger import Logger

from ..errors import StorageDamaged, StorageError
from .disk import Disk

__all__ = ["FORMAT_FILE", "LOCK_FILE", "Format", "StorageDamaged", "StorageError", "exposure", "read_format", "take"]

FORMAT_FILE: Final = "FORMAT"
LOCK_FILE: Final = "LOCK"

_log = Logger()


class Format(Struct, frozen=True):
    """What the file ``FORMAT`` says: a JSON object on one line."""

    storage: str
    version: int


def take(disk: Disk, kind: str, version: int, where: str) -> None:
    """
    Lock a data directory, and see that it is one of this kind; a new one becomes one.

    :param where: what it is called in messages.
    :raises StorageError: it is another's, of another kind, of a later version, or no data directory at all.
    """
    disk.make_folder("")
    warning = exposure(disk, where)
    if warning is not None:
        _log.warn("{what} {advice}", what=warning[0], advice=warning[1])
    holder = disk.lock(LOCK_FILE, b"%d\n" % os.getpid())
    if holder is not None:
        process = holder.decode("ascii", "replace").strip() or "unknown"
        raise StorageError(
            f"The data directory {where} is in use by process {process}. Stop that one first, or set storage.data_dir "
            "to another directory."
        )
    try:
        _check_format(disk, kind, version, where)
    except BaseException:
        disk.unlock()
        raise


def exposure(disk: Disk, where: str) -> tuple[str, str] | None:
    """Return a warning and an advice if every user of the machine can write to a data directory; None if not."""
    mode = disk.mode()
    if not mode & 0o002:
        return None
    what = (
        f"The data directory {where} has mode {mode:04o}: every user of this machine can remove or replace its files."
    )
    return what, f"Run chmod o-w {where}."


def read_format(disk: Disk) -> Format | None:
    """
    Say what a data directory is; None, if it does not say.

    :raises StorageError: what it says can't be understood.
    """
    if FORMAT_FILE not in disk.names(""):
        return None
    file = disk.open(FORMAT_FILE)
    try:
        return msgspec.json.decode(file.read(0, 4096), type=Format)
    except msgspec.DecodeError as error:
        raise StorageError(f"The file {FORMAT_FILE} can't be understood: {error}. Restore it from a backup.") from None
    finally:
        file.close()


def _check_format(disk: Disk, kind: str, version: int, where: str) -> None:
    found = read_format(disk)
    if found is None:
        others = [name for name in disk.names("") if name not in (LOCK_FILE, FORMAT_FILE + ".new", "lost+found")]
        if others:
            raise StorageError(
                f"{where} has no {FORMAT_FILE} file and is not empty ({others[0]}), so it is no data directory of this "
                "server. Set storage.data_dir to one that is, or to an empty one."
            )
        # It may be left of a start that was interrupted.
        disk.remove(FORMAT_FILE + ".new")
        file = disk.open(FORMAT_FILE + ".new", new=True)
        file.write([msgspec.json.encode(Format(kind, version)) + b"\n"], 0)
        file.sync()
        file.close()
        disk.rename(FORMAT_FILE + ".new", FORMAT_FILE)
        disk.sync_folder("")
    elif found.storage != kind:
        raise StorageError(
            f"{where} has the streams of a storage of the kind {found.storage}, not {kind}. Set storage.mode to that "
            "kind, or storage.data_dir to another directory."
        )
    elif found.version < 1:
        raise StorageError(
            f"{where} is in format {found.version} of the {kind} storage, which does not exist: the file {FORMAT_FILE} "
            "is damaged. Restore it from a backup."
        )
    elif found.version > version:
        raise StorageError(
            f"{where} is in format {found.version} of the {kind} storage; this server knows formats up to {version}. "
            "Use the server that wrote it, or a later one."
        )
