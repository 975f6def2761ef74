"""The access control of a server, created from its settings."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

from msgspec.structs import asdict, replace
from twisted.cred.portal import Portal
from twisted.logger import Logger

from ..clocks import clock_of
from ..config.auth_rules import has_access_control
from ..config.section import Section
from ..config.settings import Settings
from ..config.validation import ConfigError
from ..identity.authentication import Authentication
from ..identity.bearer import BearerChecker
from ..identity.certificates import CertificateChecker
from ..identity.control import AccessControl, Source
from ..identity.jwt.checker import JwtChecker, jwt_checker
from ..identity.jwt.errors import KeysUnusable
from ..identity.jwt.settings import JwtSettings
from ..identity.policy import Policy, parse_rules
from ..identity.proxy_identity import ProxyIdentityChecker
from ..identity.realm import PrincipalRealm
from ..identity.rules import RuleError
from ..identity.rules_file import RulesFile, RulesFileError, log_warnings
from ..identity.signed_url_checker import SignedUrlChecker
from ..identity.signing_keys import SigningKeysError
from ..identity.sources import SigningKeysSource
from ..identity.tokens.checker import StaticTokens
from ..identity.tokens.file import TokenFileError

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
    sources = _register_checkers(portal, settings, reactor)
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


def _register_checkers(portal: Portal, settings: Settings, reactor: Any) -> list[Source]:
    """Register the checkers of all methods, and return those that read files or fetch keys."""
    methods = settings.auth.methods
    sources: list[Source] = []
    tokens = jwt = None
    if "token" in methods:
        tokens = _tokens_from(settings, reactor)
        sources.append(tokens)
    if "jwt" in methods:
        jwt = _jwt_checker_from(settings, reactor)
        sources.append(jwt)
    if sources:
        portal.registerChecker(BearerChecker(tokens, jwt))
    if "certificate" in methods:
        portal.registerChecker(CertificateChecker(settings.auth.certificate_name))
    if "header" in methods:
        portal.registerChecker(ProxyIdentityChecker())
    if "signed-url" in methods:
        sources.append(_register_signed_urls(portal, settings, reactor))
    return sources


def _tokens_from(settings: Settings, reactor: Any) -> StaticTokens:
    path = _absolute(settings.auth.token_file)
    assert path is not None, "the settings have a rule about it"
    try:
        return StaticTokens(path, reactor)
    except TokenFileError as error:
        raise _invalid("InvalidTokenFile", f"auth.token_file: {error}") from None


def _jwt_checker_from(settings: Settings, reactor: Any) -> JwtChecker:
    values = asdict(settings.auth.jwt)
    for name in ("keys_file", "ca_file"):
        values[name] = _absolute(values[name])
    try:
        return jwt_checker(JwtSettings(**values), reactor)
    except KeysUnusable as error:
        raise _invalid("InvalidJwtSettings", str(error)) from None


def _register_signed_urls(portal: Portal, settings: Settings, reactor: Any) -> Source:
    path = _absolute(settings.auth.signing_keys_file)
    assert path is not None, "the settings have a rule about it"
    try:
        checker = SignedUrlChecker(clock_of(reactor).wall, path)
    except SigningKeysError as error:
        raise _invalid("InvalidSigningKeysFile", f"auth.signing_keys_file: {error}") from None
    portal.registerChecker(checker)
    return SigningKeysSource(checker, path, reactor)


def _absolute(path: str | None) -> str | None:
    # twistd changes the current directory later.
    return None if path is None else os.path.abspath(path)


def _invalid(rule: str, message: str) -> ConfigError:
    return ConfigError(message, rule=rule, phase="validate_config")
