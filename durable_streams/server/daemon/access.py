"""The access control of a server, created from its settings."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace
from twisted.cred.portal import Portal
from twisted.logger import Logger

from ..clocks import clock_of
from ..config.auth_rules import has_access_control
from ..config.section import Section
from ..config.settings import Settings
from ..config.validation import ConfigError
from ..identity.authentication import Authentication
from ..identity.control import AccessControl
from ..identity.policy import Policy, parse_rules
from ..identity.realm import PrincipalRealm
from ..identity.rules import RuleError
from ..identity.rules_file import RulesFile, RulesFileError, log_warnings

_log = Logger()


def access_control_from(settings: Settings, reactor: Any) -> AccessControl | None:
    """
    Create the authentication and the rules of the settings, and read their files.

    :param reactor: the time, the thread for files, and the network for keys.
    :returns: None if nothing is restricted: no method is set, anonymous requests are accepted, and there are no rules.
    :raises ConfigError: a file cannot be used, or a rule or a setting of JWTs is invalid.
    """
    auth = settings.auth
    if not has_access_control(settings):
        return None
    rules, policy = _rules_from(settings, reactor)
    if settings.http.cache == "public" and not any(rule.public for rule in policy.rules):
        raise _invalid(
            "PublicCacheRequiresPublicRule",
            "http.cache is public, and no rule has cache:public: caches would keep for everybody what only some may "
            "read. Set http.cache to private, or say what is public by a rule such as: allow anyone read public/** "
            "cache:public",
        )
    portal = Portal(PrincipalRealm())
    sources = []
    if auth.methods:
        from .checkers import register_checkers  # noqa: PLC0415 (10 ms, and an open server does not need them)

        sources = register_checkers(portal, settings, reactor)
    authentication = Authentication(portal, auth.methods, auth.allow_anonymous, clock_of(reactor))
    control = AccessControl(authentication, policy, reactor, sources)
    if rules is not None:
        rules.on_change(lambda: control.set_policy(rules.policy))
        control.add_source(rules)
    return control


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
    log_warnings(control.policy)
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


def _rules_from(settings: Settings, reactor: Any) -> tuple[RulesFile | None, Policy]:
    auth = settings.auth
    if auth.rules_file is None:
        try:
            return None, parse_rules(auth.rules, "auth.rules")
        except RuleError as error:
            raise _invalid("InvalidRule", f"{error.source}, rule {error.line}: {error.sentence}") from None
    try:
        file = RulesFile(auth.rules_file, reactor)
    except RulesFileError as error:
        raise _invalid("InvalidRulesFile", f"auth.rules_file: {error}") from None
    return file, file.policy


def _invalid(rule: str, message: str) -> ConfigError:
    return ConfigError(message, rule=rule, phase="validate_config")
