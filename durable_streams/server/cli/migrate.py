"""``migrate``: create or upgrade the tables of the PostgreSQL storage."""

from __future__ import annotations

import os
from typing import Final

import click
from msgspec import Struct

from ..config.choices import STORAGE_MODES
from ..config.layers import read_layers
from ..config.settings import Settings
from ..config.validation import ConfigError, validate_storage
from ..errors import StorageError
from ..storage.postgres.schema import SCHEMA_VERSION
from ..storage.postgres.scripts import whole_script
from .errors import CommandError
from .options import SettingsFiles, json_option, settings_options
from .output import print_json, print_line, write_text

_LABEL: Final = "migrate failed"


class Migrated(Struct, frozen=True):
    """
    The JSON object that ``migrate --json`` prints.

    :ivar version: the version that the tables have now.
    :ivar installed: the versions that were installed by this command.
    """

    database: str
    version: int
    installed: list[int]
    granted_to: str | None


@click.command("migrate")
@settings_options
@click.option("--grant-to", "role", metavar="ROLE", help="Give this role the rights that a server needs, too.")
@click.option("--print-sql", is_flag=True, help="Print a script for psql instead; the database is not used.")
@click.option(
    "--from-version",
    metavar="N",
    type=click.IntRange(0, SCHEMA_VERSION),
    help="The version of the tables to begin with in --print-sql. Default: 0, no tables.",
)
@json_option
def command(files: SettingsFiles, role: str | None, print_sql: bool, from_version: int | None, as_json: bool) -> None:
    """
    Create or upgrade the tables of the PostgreSQL storage.

    All of it is one transaction, and nothing is done if the tables are up to date. Servers do the same at a start,
    unless storage.postgres.migrate is false. Stop servers of an earlier version before an upgrade. The role of the
    settings must own the schema, or be allowed to create it.
    """
    if from_version is not None and not print_sql:
        raise click.UsageError("--from-version is for --print-sql: without it, the database says which version it has.")
    if print_sql and as_json:
        raise click.UsageError("--print-sql prints SQL. Leave out --json.")
    settings = _settings(files)
    if print_sql:
        write_text(whole_script(settings.storage.postgres.schema, from_version or 0, role))
        return
    done = _migrate(settings, role)
    if as_json:
        print_json(done)
        return
    for version in done.installed:
        print_line(f"Installed version {version} of the tables.")
    if role is not None:
        print_line(f"Granted {role} the rights that a server needs.")
    print_line(f"{done.database}: the tables have version {done.version}.")


def _settings(files: SettingsFiles) -> Settings:
    """
    Read the settings, of which only those of the storage are validated.

    :raises CommandError: they cannot be read, or are for another storage.
    """
    try:
        loaded = read_layers(files.profile, files.config, os.environ, files.config_dir)
        validate_storage(loaded.settings, loaded.sources)
    except ConfigError as error:
        raise CommandError(f"[{error.phase}] {error}", label="") from None
    settings = Settings.of(loaded.settings)
    mode = settings.storage.mode
    if STORAGE_MODES[mode] != "postgres":
        raise CommandError(
            f"storage.mode is {mode}, which has no tables. The command reads the settings that the server reads: give "
            "it the same --config, --profile and variables.",
            _LABEL,
        )
    return settings


def _migrate(settings: Settings, role: str | None) -> Migrated:
    """
    Create or upgrade the tables.

    :raises CommandError: the database cannot be used.
    """
    from ..daemon.databases import postgres_settings_from  # noqa: PLC0415 (--print-sql does not need it)

    try:
        chosen = postgres_settings_from(settings)
        # Imported here since psycopg may be missing.
        from ..storage.postgres.migrating import upgrade  # noqa: PLC0415
        from ..storage.postgres.opening import check_server, connected, place_of  # noqa: PLC0415

        with connected(chosen) as connection:
            check_server(connection)
            installed = upgrade(connection, chosen.schema, role)
            return Migrated(place_of(connection, chosen.schema), SCHEMA_VERSION, installed, role)
    except ConfigError as error:
        raise CommandError(f"[{error.phase}] {error}", label="") from None
    except StorageError as error:
        raise CommandError(str(error), _LABEL) from None
