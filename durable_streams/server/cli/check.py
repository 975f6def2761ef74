"""``check``: verify the data directory of a stopped server, or a database."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Final

import click
import msgspec
from msgspec import Struct

from ..config.layers import load
from ..config.settings import Settings
from ..config.validation import STORAGE_MODES, ConfigError
from ..storage.acid.schema import DIRECTORY_VERSION as ACID_VERSION
from ..storage.file.checking import check_files
from ..storage.file.storage import KIND, VERSION
from ..storage.findings import Counts, Finding
from ..storage.ownership import (
    FORMAT_FILE,
    LOCK_FILE,
    NEW_FORMAT_FILE,
    Format,
    StorageError,
    exposure,
    read_format,
)
from ..storage.postgres.schema import SCHEMA_VERSION
from ..storage.readonly import ReadOnlyDisk
from .errors import CommandError
from .options import SettingsFiles, json_option, settings_options
from .output import print_json, print_line
from .progress import ProgressBar, progress_bar

#: File in a data directory -> the kind of storage that creates it, to identify one whose format file is damaged.
_SIGNS: Final = {"journal": KIND, "checkpoint": KIND, "acid.sqlite": "acid"}

#: The latest format of each kind of storage.
_VERSIONS: Final = {KIND: VERSION, "acid": ACID_VERSION}

_DAMAGED: Final = 1
_NOT_CHECKED: Final = 2


class CheckReport(Struct, frozen=True):
    """
    The JSON object that ``check --json`` prints.

    :ivar whole: true if no damage was found.
    """

    directory: str
    storage: str
    version: int
    whole: bool
    seconds: float
    counts: Counts
    findings: list[Finding]


class _CheckNotPossible(CommandError):
    """The data cannot be checked; the message says why and what to do."""

    exit_code = _NOT_CHECKED


@click.command("check")
@settings_options
@click.option("--data-dir", metavar="DIR", help="The data directory. Overrides storage.data_dir.")
@json_option
def command(files: SettingsFiles, data_dir: str | None, as_json: bool) -> None:
    """
    Verify all data in a data directory or database and report damage. Nothing is changed.

    No server may be running on a directory; servers may be running on a database. The exit status is 0 if nothing is
    damaged, 1 if something is, and 2 if the data cannot be checked.
    """
    settings = _settings(files) if data_dir is None or files.given else None
    findings = _Findings(as_json)
    if data_dir is None and settings is not None and STORAGE_MODES[settings.storage.mode] == "postgres":
        counts = _check_database(settings, findings)
        findings.report(f"schema {settings.storage.postgres.schema}", "postgres", SCHEMA_VERSION, counts)
        return
    where = _directory(settings, data_dir)
    with _held(where) as disk:
        warning = exposure(disk, str(where))
        if warning is not None:
            findings.add(Finding(False, "the directory", *warning))
        form = _format(disk, where, findings.add)
        try:
            counts = _check(disk, form, findings)
        except PermissionError as error:
            raise _CheckNotPossible(
                f"Cannot read {error.filename}: permission denied. Run the check as the server's user."
            ) from None
        except StorageError as error:
            raise _CheckNotPossible(str(error)) from None
    findings.report(str(where), form.storage, form.version, counts)


class _Findings:
    """
    The findings of a check, which are printed at once, or as JSON at the end.

    :ivar bar: the progress bar that is cleared before a line is printed, or None.
    """

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._began_at = monotonic()
        self._findings: list[Finding] = []
        self._serious = 0
        self.bar: ProgressBar | None = None

    def add(self, finding: Finding) -> None:
        self._serious += finding.serious
        if self._as_json:
            self._findings.append(finding)
            return
        if self.bar is not None:
            self.bar.clear()
        _tell(finding)

    def report(self, where: str, storage: str, version: int, counts: Counts) -> None:
        """Print the summary; exit if there is damage."""
        seconds = monotonic() - self._began_at
        serious = self._serious
        if self._as_json:
            print_json(CheckReport(where, storage, version, not serious, seconds, counts, self._findings))
        else:
            verdict = {0: "no damage", 1: "1 finding of damage"}.get(serious, f"{serious} findings of damage")
            print_line(
                f"{where}: checked {counts.streams} streams, {counts.appends} appends and {counts.bytes} bytes in "
                f"{seconds:.1f} s: {verdict}."
            )
        if serious:
            sys.exit(_DAMAGED)


def _settings(files: SettingsFiles) -> Settings:
    """Return the settings."""
    try:
        return Settings.of(load(files.profile, files.config, os.environ, files.config_dir).settings)
    except ConfigError as error:
        raise _CheckNotPossible(f"[{error.phase}] {error}") from None


def _check_database(settings: Settings, findings: _Findings) -> Counts:
    """Check the tables of a database."""
    from ..daemon.databases import postgres_settings_from  # noqa: PLC0415 (other storages do not need it)

    try:
        chosen = postgres_settings_from(settings)
        # Imported here since psycopg may be missing.
        from ..storage.postgres.checking import check_database  # noqa: PLC0415

        read = 0
        with progress_bar("Checking") as bar:
            findings.bar = bar

            def advance(size: int) -> None:
                nonlocal read
                read += size
                bar.update(read)

            return check_database(chosen, findings.add, advance)
    except ConfigError as error:
        raise _CheckNotPossible(f"[{error.phase}] {error}") from None
    except StorageError as error:
        raise _CheckNotPossible(str(error)) from None
    finally:
        findings.bar = None


def _directory(settings: Settings | None, data_dir: str | None) -> Path:
    """Return the directory to check, from ``--data-dir`` or the settings."""
    if data_dir is None:
        assert settings is not None
        data_dir = settings.storage.data_dir
        if STORAGE_MODES[settings.storage.mode] == "memory":
            raise _CheckNotPossible(
                f"storage.mode is {settings.storage.mode}, which has no data directory. Set storage.mode and "
                "storage.data_dir as for the server, or use --data-dir."
            )
    where = Path(data_dir)
    if not where.is_dir():
        why = "is not a directory" if where.exists() else "does not exist"
        raise _CheckNotPossible(f"The data directory {where} {why}. Correct storage.data_dir or --data-dir.")
    return where


@contextmanager
def _held(where: Path) -> Iterator[ReadOnlyDisk]:
    """Hold the lock of a data directory."""
    disk = ReadOnlyDisk(where)
    try:
        names = disk.names("")
        if FORMAT_FILE not in names and _SIGNS.keys().isdisjoint(names):
            raise _CheckNotPossible(
                f"{where} is not a data directory of this server: it has no file {FORMAT_FILE}. Correct "
                "storage.data_dir or --data-dir."
            )
        holder = disk.lock(LOCK_FILE, b"%d\n" % os.getpid())
    except OSError as error:
        raise _CheckNotPossible(f"Cannot lock the data directory {where}: {error.strerror}.") from None
    if holder is not None:
        process = holder.decode("ascii", "replace").strip() or "unknown"
        raise _CheckNotPossible(
            f"The data directory {where} is in use by process {process}. Stop that process, or check a copy."
        )
    try:
        yield disk
    finally:
        disk.unlock()


def _format(disk: ReadOnlyDisk, where: Path, found: Callable[[Finding], None]) -> Format:
    """Return the kind and version of a data directory; report a missing or damaged format file."""
    try:
        form = read_format(disk)
        what = "The file is missing."
    except StorageError as error:
        form = None
        what = str(error)
    except OSError as error:
        raise _CheckNotPossible(f"Cannot read {where / FORMAT_FILE}: {error.strerror}.") from None
    if form is None and FORMAT_FILE not in disk.names("") and NEW_FORMAT_FILE in disk.names(""):
        raise _CheckNotPossible(f"{where} is empty: the server's first start did not complete. Start the server again.")
    if form is None:
        signs = [kind for name, kind in _SIGNS.items() if name in disk.names("")]
        if not signs:
            raise _CheckNotPossible(f"{where}: {what}")
        form = Format(signs[0], _VERSIONS[signs[0]])
        line = msgspec.json.encode(form).decode()
        found(Finding(True, FORMAT_FILE, what, f"Write one line into it: {line}"))
    if form.storage not in _SIGNS.values():
        raise _CheckNotPossible(
            f"{where} belongs to the storage kind {form.storage}, which this version does not know."
        )
    if form.version < 1:
        raise _CheckNotPossible(
            f"{where} has format {form.version} of the {form.storage} storage, which does not exist: the file "
            f"{FORMAT_FILE} is damaged. Restore it from a backup."
        )
    version = _VERSIONS[form.storage]
    if form.version > version:
        raise _CheckNotPossible(
            f"{where} has format {form.version} of the {form.storage} storage; this version reads formats up to "
            f"{version}. Use the version of the server that wrote it."
        )
    return form


def _check(disk: ReadOnlyDisk, form: Format, findings: _Findings) -> Counts:
    if form.storage == "acid":
        from ..storage.acid.checking import check_acid  # noqa: PLC0415 (the file storage does not need it)

        return check_acid(disk.root, findings.add)
    total = sum(path.stat().st_size for path in disk.root.rglob("*") if path.is_file())
    read = 0
    with progress_bar("Checking", total) as bar:
        findings.bar = bar

        def advance(size: int) -> None:
            nonlocal read
            read += size
            bar.update(read, total)

        try:
            return check_files(disk, findings.add, advance)
        finally:
            findings.bar = None


def _tell(finding: Finding) -> None:
    kind = "DAMAGED" if finding.serious else "note"
    print_line(f"{kind}: {finding.where}: {finding.what} {finding.advice}")
