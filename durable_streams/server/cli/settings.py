"""The settings of the server, as commands read them that work on its files."""

from __future__ import annotations

import os

from ..config.layers import read_layers
from ..config.sections import Sections
from ..config.validation import ConfigError
from .errors import CommandError
from .options import SettingsFiles


def settings_in(files: SettingsFiles) -> Sections:
    """
    Return the settings of a server, which need not be valid together.

    :raises CommandError: they cannot be read.
    """
    try:
        return read_layers(files.profile, files.config, os.environ, files.config_dir).settings
    except ConfigError as error:
        raise CommandError(f"[{error.phase}] {error}", label="") from None
