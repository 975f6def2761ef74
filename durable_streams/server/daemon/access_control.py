"""The access control of a server that is not open, created from its settings."""

from __future__ import annotations

from typing import Any

from twisted.cred.portal import Portal

from ..clocks import clock_of
from ..config.settings import Settings
from ..config.validation import unusable
from ..identity.authentication import Authentication
from ..identity.control import AccessControl
from ..identity.policy import Policy, parse_rules
from ..identity.realm import PrincipalRealm
from ..identity.rules import RuleError
from ..identity.rules_file import RulesFile, RulesFileError
from .checkers import register_checkers


def restricting_control(settings: Settings, reactor: Any) -> AccessControl:
    """
    Create the authentication and the rules of the settings, and read their files.

    :param reactor: the time, the thread for files, and the network for keys.
    :raises ConfigError: a file cannot be used, or a rule or a setting of JWTs is invalid.
    """
    auth = settings.auth
    rules, policy = _rules_from(settings, reactor)
    if settings.http.cache == "public" and not any(rule.public for rule in policy.rules):
        raise unusable(
            "PublicCacheRequiresPublicRule",
            "http.cache is public, and no rule has cache:public: caches would keep for everybody what only some may "
            "read. Set http.cache to private, or say what is public by a rule such as: allow anyone read public/** "
            "cache:public",
        )
    portal = Portal(PrincipalRealm())
    sources = register_checkers(portal, settings, reactor)
    authentication = Authentication(portal, auth.methods, auth.allow_anonymous, clock_of(reactor))
    control = AccessControl(authentication, policy, reactor, sources)
    if rules is not None:
        rules.on_change(lambda: control.set_policy(rules.policy))
        control.add_source(rules)
    return control


def _rules_from(settings: Settings, reactor: Any) -> tuple[RulesFile | None, Policy]:
    auth = settings.auth
    if auth.rules_file is None:
        try:
            return None, parse_rules(auth.rules, "auth.rules")
        except RuleError as error:
            raise unusable("InvalidRule", f"{error.source}, rule {error.line}: {error.sentence}") from None
    try:
        file = RulesFile(auth.rules_file, reactor)
    except RulesFileError as error:
        raise unusable("InvalidRulesFile", f"auth.rules_file: {error}") from None
    return file, file.policy
