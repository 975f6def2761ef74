"""``token``: static bearer tokens, in the file of ``auth.token_file``."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem
from msgspec import UNSET, Struct, UnsetType

from ..identity.tokens.file import TokenFileError, add_token, read_tokens, remove_tokens
from ..identity.tokens.records import STATIC_PREFIX, RecordError, TokenRecord, new_token
from .durations import duration_to
from .errors import CommandError
from .options import SettingsFiles, json_option, settings_files, settings_options
from .output import note, print_json, print_line, print_table
from .settings import settings_in

T = TypeVar("T")

_COLUMNS: Final = (
    ("ID", False),
    ("Subject", False),
    ("Groups", False),
    ("Claims", False),
    ("Created", False),
    ("Expires", False),
)


class ListedToken(Struct):
    """
    What ``--json`` prints of a token.

    :ivar token: the token itself, when it was just created.
    :ivar created_at: in RFC 3339, as ``expires_at`` is; None if it is not known.
    """

    id: str
    subject: str
    groups: tuple[str, ...]
    claims: dict[str, str]
    created_at: datetime | None
    expires_at: datetime | None
    expired: bool
    token: str | UnsetType = UNSET


def file_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the option ``--file`` and the options of the settings, which a command gets as ``path``: that of the file."""

    @functools.wraps(command)
    def with_path(file: str | None, files: SettingsFiles, **others: Any) -> Any:
        return command(path=_path(file, files), **others)

    option = click.option(
        "--file", metavar="FILE", help="The file of tokens. Default: auth.token_file of the settings."
    )
    return option(settings_options(with_path))


def _claim(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    claims: dict[str, str] = {}
    for value in values:
        name, equals, rest = value.partition("=")
        if not equals or not name or not rest:
            raise click.BadParameter(f"{value!r} is not NAME=VALUE.")
        if name in claims:
            raise click.BadParameter(f"{name} was given twice.")
        claims[name] = rest
    return claims


def _complete_id(context: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the ids of the tokens in the file, with their subjects as help; nothing if it cannot be read."""
    own = (context.params.get(name) for name in ("profile", "config", "config_dir"))
    try:
        with context.scope(cleanup=False):
            records = _records(_path(context.params.get("file"), settings_files(*own)))
    except (CommandError, click.UsageError):
        return []
    return [CompletionItem(each.id, help=each.subject) for each in records if each.id.startswith(incomplete)]


@click.group("token")
def command() -> None:
    """
    Create, list and revoke static bearer tokens.

    They are in the file of auth.token_file, which has no token itself but only their hashes. A running server reads a
    changed file within a second.
    """


@command.command("create")
@click.option("--subject", required=True, metavar="NAME", help="Who uses the token, for rules and logs.")
@click.option("--group", "groups", multiple=True, metavar="NAME", help="A group of the subject. May be repeated.")
@click.option(
    "--claim", "claims", multiple=True, metavar="NAME=VALUE", callback=_claim, help="For rules. May be repeated."
)
@click.option(
    "--expires-in",
    callback=duration_to(None),
    metavar="DURATION",
    help="How long the token is valid, such as 12h, 90d or 52w. Default: until it is revoked.",
)
@file_option
@json_option
def create(
    subject: str,
    groups: tuple[str, ...],
    claims: dict[str, str],
    expires_in: int | None,
    path: str,
    as_json: bool,
) -> None:
    """
    Create a token, and print it. It is not stored, and cannot be printed again.

    The file is created if it is missing, with the mode 0600. Only the token is printed on the standard output:
    durable-streams-server token create --subject alice > alice.token
    """
    try:
        token, record = new_token(subject, tuple(dict.fromkeys(groups)), claims, time.time(), expires_in)
    except RecordError as error:
        raise click.UsageError(f"The token {error}.") from None
    except OverflowError:
        raise click.UsageError("--expires-in: The token would expire after the year 9999.") from None
    is_new = not os.path.exists(path)
    _change(lambda: add_token(path, record))
    try:
        if as_json:
            listed = _listed(record)
            listed.token = token
            print_json(listed)
        else:
            print_line(token)
    except BaseException:
        # Nobody has seen the token, so that nobody can use it.
        _change(lambda: remove_tokens(path, [record.id]))
        raise
    until = "it is revoked" if record.expires_at is None else f"{_shown(record.expires_at)} UTC"
    note(f"Token {record.id} of {subject} is valid until {until}. It is in {path}, as a hash: keep what was printed.")
    if is_new and os.geteuid() == 0:
        note(f"{path} is new and belongs to root. If the server runs as another user: chown USER {path}")


@command.command("list")
@file_option
@json_option
def list_tokens(path: str, as_json: bool) -> None:
    """
    List the tokens, without anything that is secret.

    Times are in UTC. With --json, the output is an array of objects.
    """
    listed = [_listed(record) for record in _records(path)]
    if as_json:
        print_json(listed)
    elif listed:
        print_table(_COLUMNS, [_row(each) for each in listed])
    else:
        note(f"{path} has no token. Create one with: durable-streams-server token create --subject NAME")


@command.command("revoke")
@click.argument("ids", nargs=-1, required=True, metavar="ID...", shell_complete=_complete_id)
@file_option
@json_option
def revoke(ids: tuple[str, ...], path: str, as_json: bool) -> None:
    """
    Revoke tokens: running servers refuse them within a second, and end the reads that began with them.

    A token itself stands for its ID, which is the part after dst_. If there is no token of one of the ids, no token is
    revoked.
    """
    # A message must not have the secret of a token that was given instead of its id.
    known = [_id_of(given) for given in ids]
    removed = _change(lambda: remove_tokens(path, known))
    if as_json:
        print_json([_listed(record) for record in removed])
        return
    for record in removed:
        print_line(f"Revoked token {record.id} of {record.subject}.")


def _id_of(given: str) -> str:
    prefix = STATIC_PREFIX.decode()
    return given.removeprefix(prefix).partition("_")[0] if given.startswith(prefix) else given


def _path(file: str | None, files: SettingsFiles) -> str:
    """
    Return the path of the file of tokens.

    :raises CommandError: the settings cannot be read.
    :raises click.UsageError: neither the option nor the settings name a file.
    """
    if file is not None:
        return file
    found = settings_in(files).auth.token_file
    if not found:
        raise click.UsageError(
            "No file of tokens is given. Give --file FILE, or the settings of the server with auth.token_file: "
            "--config FILE or --config-dir DIR."
        )
    return found


def _change(change: Callable[[], T]) -> T:
    """
    Change the file.

    :raises CommandError: it cannot be changed.
    """
    try:
        return change()
    except TokenFileError as error:
        raise CommandError(str(error)) from None


def _records(path: str) -> Sequence[TokenRecord]:
    """
    Read the file.

    :raises CommandError: it cannot be used.
    """
    try:
        return [loaded.record for loaded in read_tokens(path).values()]
    except TokenFileError as error:
        raise CommandError(str(error)) from None


def _listed(record: TokenRecord) -> ListedToken:
    expired = record.expires_at is not None and record.expires_at.timestamp() <= time.time()
    return ListedToken(
        record.id, record.subject, record.groups, record.claims, record.created_at, record.expires_at, expired
    )


def _row(token: ListedToken) -> list[str]:
    expires = "never" if token.expires_at is None else _shown(token.expires_at)
    return [
        token.id,
        token.subject,
        ", ".join(token.groups) or "-",
        ", ".join(f"{name}={value}" for name, value in token.claims.items()) or "-",
        "-" if token.created_at is None else _shown(token.created_at),
        f"{expires} (expired)" if token.expired else expires,
    ]


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
