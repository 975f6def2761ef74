"""Credentials of systemd as the paths of files: ``credential:NAME`` is the file NAME in ``$CREDENTIALS_DIRECTORY``."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from .sections import Sections, value_of
from .validation import ConfigError

#: The variable that systemd sets for units with ``LoadCredential=`` or ``SetCredential=``.
DIRECTORY: Final = "CREDENTIALS_DIRECTORY"

_PREFIX: Final = "credential:"

#: The settings with the path of a file that is read.
FILES: Final = (
    "storage.postgres.dsn_file",
    *(f"auth.{name}" for name in ("rules_file", "token_file", "signing_keys_file", "jwt.keys_file", "jwt.ca_file")),
    "admin.token_file",
    *(f"transport.tls.{name}_path" for name in ("cert", "key", "client_ca")),
    *(f"subscriptions.{name}" for name in ("signing_key_file", "webhook_ca_file")),
)


def resolve_credentials(values: dict[str, Any], environment: Mapping[str, str]) -> None:
    """
    Replace ``credential:NAME`` by the path of that file, in the values of settings.

    Without the variable they stay as they are: commands for operators can be used outside of the unit.

    :param values: dotted name -> value.
    """
    directory = environment.get(DIRECTORY)
    for name in FILES:
        value = values.get(name)
        if directory and isinstance(value, str) and value.startswith(_PREFIX):
            values[name] = os.path.join(directory, value.removeprefix(_PREFIX))


def check_credentials(settings: Sections) -> None:
    """
    Check that no path is still ``credential:NAME``.

    :raises ConfigError: one is, since systemd has not set the variable.
    """
    for name in FILES:
        value = value_of(settings, name)
        if value is not None and value.startswith(_PREFIX):
            credential = value.removeprefix(_PREFIX)
            raise ConfigError(
                f"{name} is {value!r}, and {DIRECTORY} is not set. systemd sets it in a unit with "
                f"LoadCredential={credential}:/path/of/the/file; elsewhere, set {name} to the path of a file.",
                rule="NoCredentials",
                phase="validate_config",
            )
