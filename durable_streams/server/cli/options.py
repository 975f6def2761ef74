"""The options that several commands share."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlsplit

import click
from msgspec import Struct

from .errors import CommandError

if TYPE_CHECKING:
    from ..client import ClientOptions

F = TypeVar("F", bound=Callable[..., Any])

#: The variables of the environment that stand for ``--url`` and ``--token``.
URL_VARIABLE: Final = "DS_URL"
TOKEN_VARIABLE: Final = "DS_TOKEN"  # noqa: S105 (the name of a variable)

#: The beginning of a ``--url`` that is the path of a UNIX socket.
UNIX: Final = "unix:"

_TOKEN: Final = re.compile(r"[!-~]+")
_MAX_TOKEN: Final = 16_384


class SettingsFiles(Struct, frozen=True):
    """Where the settings are: the options ``--profile``, ``--config`` and ``--config-dir``; None where not given."""

    profile: str | None = None
    config: str | None = None
    config_dir: str | None = None

    @property
    def given(self) -> bool:
        """Whether any of the options was given."""
        return (self.profile, self.config, self.config_dir) != (None, None, None)


def add_settings_options(command: F) -> F:
    """Add the options ``--profile``, ``--config`` and ``--config-dir``."""
    for name, metavar, text in (
        ("--config-dir", "DIR", "The folder of default.toml, NAME.toml and local.toml. Default: /etc/durable-streams."),
        ("--config", "FILE", "A TOML file of settings. The environment overrides it."),
        ("--profile", "NAME", "The profile: default, dev, prod, prod-tls, prod-mtls, or NAME of a file NAME.toml."),
    ):
        command = click.option(name, metavar=metavar, help=text)(command)
    return command


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """
    Add the options of the settings to a command, which gets them as ``files``: a :class:`SettingsFiles`.

    Each may also be given before the name of the command; after it, it wins.
    """

    @functools.wraps(command)
    def with_files(profile: str | None, config: str | None, config_dir: str | None, **others: Any) -> Any:
        return command(files=settings_files(profile, config, config_dir), **others)

    return add_settings_options(with_files)


def settings_files(profile: str | None, config: str | None, config_dir: str | None) -> SettingsFiles:
    """Merge a command's own options of the settings with those before its name."""
    before = click.get_current_context().find_root().params
    own = {"profile": profile, "config": config, "config_dir": config_dir}
    return SettingsFiles(**{name: before.get(name) if value is None else value for name, value in own.items()})


def json_option(command: F) -> F:
    """Add the option ``--json``, which a command gets as ``as_json``."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON.")(command)


def on_conflict_option(verb: str) -> Callable[[F], F]:
    """
    Add the option ``--on-conflict``, which a command gets as ``on_conflict``: skip, fail or replace.

    :param verb: what the command does with streams.
    """
    return click.option(
        "--on-conflict",
        type=click.Choice(["skip", "fail", "replace"]),
        default="skip",
        show_default=True,
        help=f"What to do with streams that exist: leave them, {verb} nothing at all, or replace each in one step.",
    )


def archive_argument(command: Callable[..., Any]) -> Callable[..., Any]:
    """
    Add the argument ``ARCHIVE``, and ``-i`` for the same, to a command, which gets it as ``archive``.

    It is None for the standard input.
    """

    @functools.wraps(command)
    def with_archive(archive: str | None, source: str | None, **others: Any) -> Any:
        if archive is not None and source is not None:
            raise click.UsageError("ARCHIVE was given twice: as an argument, and by --input.")
        chosen = archive if source is None else source
        return command(archive=None if chosen == "-" else chosen, **others)

    option = click.option("-i", "--input", "source", metavar="FILE", help="The archive, as ARCHIVE.")
    return click.argument("archive", metavar="[ARCHIVE]", required=False)(option(with_archive))


class Connection(Struct, frozen=True):
    """
    How to reach a server.

    :ivar url: as given by ``--url`` or DS_URL; None if neither was.
    :ivar ca: a PEM file of the authorities to trust instead of the system's.
    :ivar cert: a PEM file of the client's certificate.
    :ivar key: a PEM file of its key, which may be the same file.
    :ivar token: a bearer token.
    :ivar token_file: the file that it was read from, which is read again when the server refuses it; None if it is
        from elsewhere.
    """

    url: str | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    token: str | None = None
    token_file: str | None = None

    @property
    def unix_socket(self) -> str | None:
        """The path of the UNIX socket that the URL names; None if it names none."""
        return self.url.removeprefix(UNIX) if self.url is not None and self.url.startswith(UNIX) else None

    def client_options(self, **others: Any) -> ClientOptions:
        """Return the options of a client, with others of them such as time-outs."""
        from ..client.options import ClientOptions  # noqa: PLC0415 (imports Twisted, which --help does not need)

        file = self.token_file
        return ClientOptions(
            token=self.token,
            refresh_token=None if file is None else lambda: _token_in(file),
            ca=self.ca,
            cert=self.cert,
            key=self.key,
            unix_socket=self.unix_socket,
            **others,
        )

    def __repr__(self) -> str:
        """Leave out the token."""
        return f"Connection({self.url!r})"


def connection_options(url_help: str, url_variable: str | None = URL_VARIABLE) -> Callable[[F], Callable[..., Any]]:
    """
    Add ``--url``, ``--ca``, ``--cert``, ``--key``, ``--token`` and ``--token-file``; the command gets ``connection``.

    :param url_help: what the URL names.
    :param url_variable: the variable of the environment that stands for ``--url``; None for none.
    """

    def decorate(command: F) -> Callable[..., Any]:
        @functools.wraps(command)
        def connected(
            url: str | None,
            ca: str | None,
            cert: str | None,
            key: str | None,
            token: str | None,
            token_file: str | None,
            **others: Any,
        ) -> Any:
            if key is not None and cert is None:
                raise click.UsageError("--key needs --cert, the certificate that the key belongs to.")
            chosen = Connection(url or None, ca, cert, key or cert, _token(token, token_file), token_file)
            return command(connection=chosen, **others)

        file = click.Path(exists=True, dir_okay=False, readable=True)
        decorated: Callable[..., Any] = connected
        for option in (
            click.option(
                "--token-file",
                metavar="FILE",
                type=file,
                help="A file with the bearer token. It is read again when the server refuses the token.",
            ),
            click.option(
                "--token",
                metavar="TOKEN",
                help="A bearer token. Every user of this machine can see it in the list of processes: use "
                f"{TOKEN_VARIABLE} or --token-file instead.",
            ),
            click.option("--key", metavar="FILE", type=file, help="PEM file of its key; default: the file of --cert."),
            click.option("--cert", metavar="FILE", type=file, help="PEM file of a client certificate."),
            click.option("--ca", metavar="FILE", type=file, help="PEM file of authorities to trust, not the system's."),
            click.option("--url", metavar="URL", envvar=url_variable, help=url_help),
        ):
            decorated = option(decorated)
        return decorated

    return decorate


def with_path(url: str, default_path: str) -> str:
    """
    Return the URL of requests to a server: ``--url`` as it was given, or with a default path if it has none.

    :raises click.UsageError: it has no scheme.
    """
    if url.startswith(UNIX):
        return f"http://localhost{default_path}"
    if "://" not in url:
        raise click.UsageError(f"{url} is not a URL. Write http://{url} or https://{url}.")
    return url if urlsplit(url).path.strip("/") else url.rstrip("/") + default_path


def _token(given: str | None, file: str | None) -> str | None:
    """
    Return the token of the options or the environment, or None.

    :raises CommandError: it cannot be read, or cannot be a token.
    """
    if given is not None and file is not None:
        raise click.UsageError("--token and --token-file were both given. Give one.")
    if file is not None:
        return _token_in(file)
    where = "--token"
    if given is None:
        where = TOKEN_VARIABLE
        given = os.environ.get(TOKEN_VARIABLE) or None
        if given is None:
            return None
    return _checked(given, where)


def _token_in(file: str) -> str:
    """
    Return the token in a file.

    :raises CommandError: it cannot be read, or has no token.
    """
    try:
        with Path(file).open("rb") as opened:
            found = _first_token(opened.read(_MAX_TOKEN + 1).decode("ascii", "replace"))
    except OSError as error:
        raise CommandError(f"Cannot read the token file {file}: {error.strerror}.") from None
    return _checked(found, file)


def _checked(token: str, where: str) -> str:
    """
    Return a token.

    :raises CommandError: it cannot be one.
    """
    if len(token) > _MAX_TOKEN or not _TOKEN.fullmatch(token):
        # The token itself is not shown.
        raise CommandError(f"{where} has no token: one word of ASCII characters is expected. Correct it.")
    return token


def _first_token(text: str) -> str:
    """Return the first line of a file of tokens that is neither empty nor a comment; "" if there is none."""
    for line in text.splitlines():
        if (token := line.strip()) and not token.startswith("#"):
            return token
    return ""
