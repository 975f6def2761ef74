"""The file of the keys that sign URLs, as commands read and change it."""

from __future__ import annotations

import fcntl
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from ..identity.signed_urls import SigningKey
from ..identity.signing_keys import SigningKeysError, load_signing_keys
from .errors import CommandError
from .files import replace_file
from .options import SettingsFiles, settings_options
from .settings import settings_in


def key_file_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """
    Add the option ``--key-file`` and those of the settings, which have its default.

    A command gets ``key_file``, a path, and ``files``.
    """

    @functools.wraps(command)
    def with_path(key_file: Path | None, files: SettingsFiles, **others: Any) -> Any:
        return command(key_file=_path(key_file, files), files=files, **others)

    option = click.option(
        "--key-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The file of keys. Default: auth.signing_keys_file of the settings.",
    )
    return option(settings_options(with_path))


def _path(key_file: Path | None, files: SettingsFiles) -> Path:
    """
    Return the path of the file of keys.

    :raises CommandError: the settings cannot be read.
    :raises click.UsageError: neither the option nor the settings name a file.
    """
    found = key_file or settings_in(files).auth.signing_keys_file
    if not found:
        raise click.UsageError(
            "No file of keys is given. Give --key-file FILE, or the settings of the server with "
            "auth.signing_keys_file: --config FILE or --config-dir DIR."
        )
    return Path(found)


def load_keys(path: Path) -> tuple[SigningKey, ...]:
    """
    Read a file of keys.

    :raises CommandError: it cannot be used.
    """
    try:
        return load_signing_keys(str(path))
    except SigningKeysError as error:
        raise CommandError(str(error)) from None


def change_keys(path: Path, change: Callable[[bytes, tuple[SigningKey, ...]], bytes]) -> None:
    """
    Change a file of keys in one step, while no other command does.

    :param path: the file; if it is missing, it is created with the mode 0600.
    :param change: returns the new content, from the old one and its keys.
    :raises CommandError: the file cannot be read or written.
    """
    with _locked(path):
        keys = load_keys(path)
        replace_file(path, change(path.read_bytes(), keys), sync=True)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Lock a file until the block ends; if it was created for that and is still empty then, remove it."""
    created = not path.exists()
    descriptor = _lock(path)
    try:
        yield
    finally:
        with suppress(OSError):
            if created and os.fstat(descriptor).st_nlink and not os.fstat(descriptor).st_size:
                path.unlink()
        os.close(descriptor)


def _lock(path: Path) -> int:
    """
    Open a file and lock it.

    :raises CommandError: it cannot be opened.
    """
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            raise CommandError(f"Cannot open {path}: {error.strerror}.") from None
        # Another command may have replaced it meanwhile.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.stat(path), os.fstat(descriptor)):
                return descriptor
        os.close(descriptor)
