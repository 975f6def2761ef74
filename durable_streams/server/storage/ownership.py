"""Ownership of a data directory: the kind of storage, its format, and the lock of the process that has it open."""

from __future__ import annotations

import os
from collections.abc import Collection
from typing import Final

import msgspec
from msgspec import Struct
from twisted.logger import Logger

from ..errors import StorageDamaged, StorageError, StorageInUse
from .disk import Disk

__all__ = [
    "FORMAT_FILE",
    "LOCK_FILE",
    "NEW_FORMAT_FILE",
    "Format",
    "StorageDamaged",
    "StorageError",
    "complete",
    "exposure",
    "is_complete",
    "raise_version",
    "read_format",
    "take",
]

FORMAT_FILE: Final = "FORMAT"
LOCK_FILE: Final = "LOCK"

#: What the format file is called as long as the directory is not complete.
NEW_FORMAT_FILE: Final = "FORMAT.new"

_log = Logger()


class Format(Struct, frozen=True):
    """The content of the file ``FORMAT``: a JSON object on one line."""

    storage: str
    version: int


def take(
    disk: Disk, kind: str, version: int, where: str, parts: Collection[str], new_version: int | None = None
) -> int:
    """
    Lock a data directory, and check that it belongs to this kind of storage or is empty.

    A new one is complete when :func:`complete` was called. Until then nothing is stored in it, and what it should have
    may be missing.

    :param where: what it is called in messages.
    :param version: the latest format that the storage knows.
    :param parts: the names of what the storage makes in it.
    :param new_version: the format of a new directory, if it is not the latest.
    :returns: the format of the directory.
    :raises StorageInUse: another process has it locked.
    :raises StorageError: it is of another kind, of a later version, or no data directory at all.
    """
    disk.make_folder("")
    warning = exposure(disk, where)
    if warning is not None:
        _log.warn("{what} {advice}", what=warning[0], advice=warning[1])
    holder = disk.lock(LOCK_FILE, b"%d\n" % os.getpid())
    if holder is not None:
        process = holder.decode("ascii", "replace").strip() or "unknown"
        raise StorageInUse(where, process)
    try:
        return _check_format(disk, kind, version, where, parts, version if new_version is None else new_version)
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


def read_format(disk: Disk, name: str = FORMAT_FILE) -> Format | None:
    """
    Return the format of a data directory, or None if it has no format file.

    :raises StorageError: what it says can't be understood.
    """
    if name not in disk.names(""):
        return None
    file = disk.open(name)
    try:
        return msgspec.json.decode(file.read(0, 4096), type=Format)
    except msgspec.DecodeError as error:
        raise StorageError(f"The file {name} cannot be decoded: {error}. Restore it from a backup.") from None
    finally:
        file.close()


def is_complete(disk: Disk) -> bool:
    """Return whether the creation of a data directory was completed; from then on a missing file is damage."""
    return FORMAT_FILE in disk.names("")


def complete(disk: Disk) -> None:
    """Mark a data directory as complete: the storage has created all its files."""
    if not is_complete(disk):
        disk.rename(NEW_FORMAT_FILE, FORMAT_FILE)
        disk.sync_folder("")


def raise_version(disk: Disk, kind: str, version: int) -> None:
    """
    Record that a complete data directory is of a later format from now on. Returns when that is on the disk.

    :raises OSError: it is not, or may not be.
    """
    # One that an interrupted attempt has left.
    disk.remove(NEW_FORMAT_FILE)
    _write_format(disk, Format(kind, version))
    disk.rename(NEW_FORMAT_FILE, FORMAT_FILE)
    disk.sync_folder("")


def _write_format(disk: Disk, form: Format) -> None:
    file = disk.open(NEW_FORMAT_FILE, new=True)
    try:
        file.write([msgspec.json.encode(form) + b"\n"], 0)
        file.sync()
    finally:
        file.close()


def _check_format(disk: Disk, kind: str, version: int, where: str, parts: Collection[str], new_version: int) -> int:
    found = read_format(disk)
    if found is None:
        _begin(disk, Format(kind, new_version), where, parts)
        return new_version
    if found.storage != kind:
        raise StorageError(
            f"{where} has the streams of a storage of the kind {found.storage}, not {kind}. Set storage.mode to that "
            "kind, or storage.data_dir to another directory."
        )
    if found.version < 1:
        raise StorageError(
            f"{where} is in format {found.version} of the {kind} storage, which does not exist: the file {FORMAT_FILE} "
            "is damaged. Restore it from a backup."
        )
    if found.version > version:
        raise StorageError(
            f"{where} is in format {found.version} of the {kind} storage; this server knows formats up to {version}. "
            "Use the server that wrote it, or a later one."
        )
    return found.version


def _begin(disk: Disk, form: Format, where: str, parts: Collection[str]) -> None:
    """Start to create a data directory, or continue an interrupted creation."""
    others = [name for name in disk.names("") if name not in (LOCK_FILE, NEW_FORMAT_FILE, "lost+found")]
    left = NEW_FORMAT_FILE in disk.names("")
    if left:
        # A killed process may have left it with the operating system only.
        file = disk.open(NEW_FORMAT_FILE)
        try:
            file.sync()
            file.forget()
        finally:
            file.close()
        disk.sync_folder("")
    try:
        begun = read_format(disk, NEW_FORMAT_FILE)
    except StorageError:
        # It was not written to the end, and nothing is made before that.
        begun = None
    if begun == form and set(others) <= set(parts):
        return
    if others:
        lost = set(others) & set(parts)
        advice = " If the file was lost, durable-streams-server check says what to write into it." if lost else ""
        raise StorageError(
            f"{where} has no {FORMAT_FILE} file and is not empty ({others[0]}), so it is no data directory of this "
            f"server. Set storage.data_dir to one that is, or to an empty one.{advice}"
        )
    if left:
        disk.remove(NEW_FORMAT_FILE)
    _write_format(disk, form)
    disk.sync_folder("")
