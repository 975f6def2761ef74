"""``config``: print the effective settings."""

from __future__ import annotations

import os

import click
import msgspec

from ..config.layers import load
from ..config.rendering import as_json as rendered
from ..config.rendering import as_toml
from ..config.validation import ConfigError
from .errors import CommandError
from .options import SettingsFiles, json_option, settings_options
from .output import note, print_json, write_text


@click.command("config")
@settings_options
@json_option
def command(files: SettingsFiles, as_json: bool) -> None:
    """
    Print the effective settings as a configuration file, each with its source.

    Secrets are shown as ***. The exit status is 1 if the settings are invalid.
    """
    try:
        loaded = load(files.profile, files.config, os.environ, files.config_dir)
    except ConfigError as error:
        raise CommandError(f"[{error.phase}] {error}", label="") from None
    for warning in loaded.warnings:
        note(f"Warning: {warning}")
    if as_json:
        print_json(msgspec.Raw(rendered(loaded)))
    else:
        write_text(as_toml(loaded))
