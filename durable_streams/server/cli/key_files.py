"""The file of the keys that sign URLs, as commands read and change it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from ..identity.locked_file import FileNotChanged, locked_file
from ..identity.signed_urls import SigningKey
from ..identity.signing_keys import SigningKeysError, load_signing_keys, parse_signing_keys, read_signing_keys
from .errors import CommandError
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


def change_keys(path: Path, change: Callable[[bytes, tuple[SigningKey, ...]], bytes], create: bool = False) -> None:
    """
    Change a file of keys in one step, while no other command does.

    :param path: the file.
    :param change: returns the new content, from the old one and its keys.
    :param create: whether to create it, with the mode 0600, if it is missing.
    :raises CommandError: the file is missing, or cannot be read or written.
    """
    name = str(path)
    try:
        with locked_file(name, create) as file:
            content = read_signing_keys(name)
            file.replace(change(content, parse_signing_keys(content, name)))
    except FileNotFoundError as error:
        raise CommandError(f"{path}: {error.strerror}.") from None
    except (SigningKeysError, FileNotChanged) as error:
        raise CommandError(str(error)) from None
