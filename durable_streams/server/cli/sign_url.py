"""``sign-url``: give access to one stream until a time, by a URL."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit, urlunsplit

import click
from msgspec import Struct

from ..identity.signed_urls import MAX_VALIDITY, OPERATIONS, InvalidSignedUrl, is_signed, sign
from .durations import duration_to
from .errors import CommandError
from .key_files import key_file_option, load_keys
from .options import SettingsFiles, json_option
from .output import print_json, print_line
from .settings import settings_in

_SCHEMES: Final = ("http", "https")


class PrintedUrl(Struct):
    """What ``--json`` prints; the time is in UNIX seconds."""

    url: str
    key: str
    operations: list[str]
    expires_at: int


class _Operation(click.Choice[str]):
    """One operation."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if "," in value:
            self.fail(f"{value} is more than one: repeat the option for each.", param, ctx)
        return super().convert(value, param, ctx)


@click.command("sign-url")
@key_file_option
@click.option(
    "--operation",
    "operations",
    multiple=True,
    type=_Operation(sorted(OPERATIONS)),
    default=("read",),
    show_default=True,
    help="What the URL allows. May be repeated.",
)
@click.option(
    "--expires-in",
    callback=duration_to(MAX_VALIDITY),
    default="1h",
    show_default=True,
    metavar="DURATION",
    help="How long it is valid, such as 30s, 15m, 1h or 7d, which is the longest.",
)
@click.option("--subject", default="", metavar="NAME", help="For whom it is, for rules and the audit log.")
@click.option(
    "--base-path",
    metavar="PATH",
    help="The path of all streams. Default: http.stream_base_path of the settings.",
)
@json_option
@click.argument("url", metavar="URL")
def command(
    key_file: Path,
    files: SettingsFiles,
    operations: tuple[str, ...],
    expires_in: int,
    subject: str,
    base_path: str | None,
    as_json: bool,
    url: str,
) -> None:
    """
    Print the URL of a stream as a signed URL, with which anybody may read it, or do what --operation says.

    It is for clients that cannot send a token, such as EventSource in a browser. Who has the URL has the access: treat
    it like a password.
    """
    keys = load_keys(key_file)
    if not keys:
        raise CommandError(f"{key_file} has no key. Make one: durable-streams-server signing-key add --key-file FILE")
    expires_at = int(time.time()) + expires_in
    names = sorted(set(operations))
    parts, path = _split(url, settings_in(files).http.stream_base_path if base_path is None else base_path)
    try:
        signed = sign(keys[0], ",".join(names), path, expires_at, subject)
    except InvalidSignedUrl as error:
        raise CommandError(str(error)) from None
    found = urlunsplit(parts._replace(query=f"{parts.query}&{signed}" if parts.query else signed))
    if as_json:
        print_json(PrintedUrl(found, keys[0].id, names, expires_at))
    else:
        print_line(found)


def _split(url: str, base_path: str) -> tuple[SplitResult, bytes]:
    """
    Split a URL, and return the part of its path after the base path, too.

    :raises click.UsageError: it is not the URL of a stream that can be signed.
    """
    try:
        parts = urlsplit(url)
        invalid = parts.scheme not in _SCHEMES or not parts.hostname or parts.port == 0
    except ValueError:
        invalid = True
    if invalid or not url.isascii():
        raise click.UsageError(f"{url!r} is not a URL in ASCII such as https://streams.example.com/v1/stream/NAME.")
    base = base_path.rstrip("/") + "/"
    if not parts.path.startswith(base):
        raise click.UsageError(f"The path of the URL does not begin with {base}. Set --base-path if yours is another.")
    if parts.username is not None or parts.password is not None or "#" in url:
        raise click.UsageError("The URL must not have a user name, a password or a fragment.")
    if is_signed(parts.query.encode()):
        raise click.UsageError("The URL is signed already. Give the one without the parameters that begin with ds_.")
    return parts, parts.path[len(base) :].encode()
