"""``signing-key``: the keys that sign URLs."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from pathlib import Path

import click

from ..identity.signed_urls import KEY_ID, SigningKey
from ..identity.signing_keys import new_signing_key, with_key, without_key
from .errors import CommandError
from .key_files import change_keys, key_file_option, load_keys
from .options import SettingsFiles, json_option
from .output import note, print_json, print_line


@click.group("signing-key")
def command() -> None:
    """
    Add, list and remove the keys that sign URLs.

    A running server reads the file again within a second.
    """


def _checked_id(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and KEY_ID.fullmatch(value) is None:
        raise click.BadParameter("An id is 1 to 64 letters, digits, - and _.")
    return value


@command.command("add")
@key_file_option
@click.option("--id", "key_id", callback=_checked_id, help="The id of the key. Default: the date and a random number.")
@json_option
def add(key_file: Path, files: SettingsFiles, key_id: str | None, as_json: bool) -> None:
    """
    Add a key, which signs from now on. URLs of the other keys stay valid.

    The file is created if it is missing, with the mode 0600. The key is not printed.
    """
    key = new_signing_key(key_id or f"{datetime.now(UTC):%Y%m%d}-{secrets.token_hex(3)}")

    def change(content: bytes, keys: tuple[SigningKey, ...]) -> bytes:
        if key.id in (other.id for other in keys):
            raise CommandError(f"{key_file} has a key with the id {key.id}. Choose another id.")
        return with_key(content, key)

    change_keys(key_file, change, create=True)
    if as_json:
        print_json({"id": key.id})
    else:
        print_line(key.id)
    note("It signs new URLs. Copy the file to all servers that use it before you sign URLs for them.")


@command.command("list")
@key_file_option
@json_option
def list_keys(key_file: Path, files: SettingsFiles, as_json: bool) -> None:
    """Print the ids of the keys. The first one signs."""
    keys = load_keys(key_file)
    if as_json:
        print_json([{"id": key.id, "signs": key is keys[0]} for key in keys])
        return
    for key in keys:
        print_line(f"{key.id}  {'signs and verifies' if key is keys[0] else 'verifies'}")
    if not keys:
        note(f"{key_file} has no key: no signed URL is accepted.")


@command.command("remove")
@key_file_option
@click.argument("key_id", metavar="ID")
def remove(key_file: Path, files: SettingsFiles, key_id: str) -> None:
    """Remove a key. Servers refuse the URLs that it has signed, and end the reads that began with them."""

    def change(content: bytes, keys: tuple[SigningKey, ...]) -> bytes:
        if key_id not in (key.id for key in keys):
            raise CommandError(f"{key_file} has no key with the id {key_id}.")
        return without_key(content, key_id)

    change_keys(key_file, change)
    note("Servers that use this file refuse its URLs within a second.")
