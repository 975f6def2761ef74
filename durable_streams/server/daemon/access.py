"""The access control of a server: none if it is open, or else that of its settings."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace
from twisted.logger import Logger

from ..config.auth_rules import has_access_control
from ..config.section import Section
from ..config.settings import Settings

if TYPE_CHECKING:
    from ..identity.control import AccessControl

_log = Logger()


def access_control_from(settings: Settings, reactor: Any) -> AccessControl | None:
    """
    Create the authentication and the rules of the settings, and read their files.

    :param reactor: the time, the thread for files, and the network for keys.
    :returns: None if nothing is restricted: no method is set, anonymous requests are accepted, and there are no rules.
    :raises ConfigError: a file cannot be used, or a rule or a setting of JWTs is invalid.
    """
    if not has_access_control(settings):
        return None
    from .access_control import restricting_control  # noqa: PLC0415 (20 ms, and an open server does not need it)

    return restricting_control(settings, reactor)


def check_access_files(settings: Settings, reactor: Any, folder: str) -> None:
    """
    Check the files of the section ``auth`` as a start does.

    :param folder: where the process was started, for relative paths.
    :raises ConfigError: one cannot be used.
    """
    auth = settings.auth
    jwt = replace(auth.jwt, **_in_folder(auth.jwt, ("keys_file", "ca_file"), folder))
    files = _in_folder(auth, ("rules_file", "token_file", "signing_keys_file"), folder)
    access_control_from(replace(settings, auth=replace(auth, jwt=jwt, **files)), reactor)


def _in_folder(section: Section, names: Iterable[str], folder: str) -> dict[str, Any]:
    return {name: os.path.join(folder, path) for name in names if (path := getattr(section, name)) is not None}


def log_access(settings: Settings, control: AccessControl | None) -> None:
    """Log who may use the streams, at the start."""
    auth = settings.auth
    if control is None:
        _log.info("Access: open. Everybody who can reach the server may use all streams (auth.methods is not set).")
        return
    for warning in control.policy.warnings:
        _log.warn("{reason}", reason=warning)
    count = len(control.policy.rules)
    if not has_access_control(settings):
        _log.info("Access: by the program; {count} {rules}.", count=count, rules="rule" if count == 1 else "rules")
        return
    _log.info(
        "Access: {methods}; {count} {rules} in {source}; anonymous requests are {anonymous}.",
        methods=f"methods {', '.join(auth.methods)}" if auth.methods else "no method",
        count=count,
        rules="rule" if count == 1 else "rules",
        source="auth.rules" if auth.rules_file is None else "auth.rules_file",
        anonymous="accepted as far as a rule allows" if auth.allow_anonymous else "refused",
    )
