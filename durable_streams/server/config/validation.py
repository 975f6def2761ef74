"""Validation of the settings by all rules, and warnings about valid but risky or ineffective settings."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from .admin_rules import check_admin, check_admin_exposure, remote_admin_place
from .audit_rules import audit_warnings, check_audit, check_audit_access
from .auth_rules import auth_warnings, check_auth, check_certificate_method, check_credentials_of_pages, check_jwt
from .choices import ACID_BACKENDS, STORAGE_MODES
from .ineffective import changed_ineffective_settings, ineffective_warnings
from .places import is_plain
from .quota_rules import check_quotas
from .rules import (
    BrokenRule,
    SettingsWithSources,
    check_numbers,
    check_observability,
    check_origins,
    check_paths,
    check_server,
    check_words,
    check_workers,
    is_production,
    parse_bind_address,
)
from .sections import Sections, value_of
from .showing import in_one_line, shown, shown_setting
from .storage_rules import check_postgres, check_storage, unused_by_postgres
from .subscription_rules import check_subscriptions
from .transport_rules import check_identity, check_proxies, check_tls_files, check_versions

__all__ = [
    "ACID_BACKENDS",
    "STORAGE_MODES",
    "ConfigError",
    "parse_bind_address",
    "validate",
    "validate_storage",
    "warnings_about",
]

_RULES = (
    check_words,
    check_server,
    check_numbers,
    check_storage,
    check_postgres,
    check_workers,
    check_paths,
    check_origins,
    check_tls_files,
    check_versions,
    check_proxies,
    check_identity,
    check_observability,
    check_admin,
    check_subscriptions,
    check_quotas,
    check_credentials_of_pages,
    check_auth,
    check_jwt,
    check_audit,
)


class ConfigError(Exception):
    """
    An invalid configuration. The message names the setting, its value, its source and the fix.

    :ivar rule: the name of the broken rule.
    :ivar phase: ``load_config`` if a layer cannot be read or parsed, ``validate_config`` if the merged settings break a
        rule.
    """

    def __init__(self, message: str, *, rule: str, phase: str) -> None:
        super().__init__(in_one_line(message))
        self.rule = rule
        self.phase = phase


def unusable(rule: str, message: str) -> ConfigError:
    """Return the error of valid settings that cannot be used: what they name is missing, or its content is wrong."""
    return ConfigError(message, rule=rule, phase="validate_config")


def validate(
    settings: Sections, sources: Mapping[str, str], profile: str = "default", binds_addresses: bool = False
) -> None:
    """
    Check the settings by all rules.

    :param sources: dotted name -> the layer that set it, for messages.
    :param profile: the profile's name; ``prod`` and ``prod-*`` have stricter rules.
    :param binds_addresses: whether the server listens on the addresses in the settings, as the daemon does.
    :raises ConfigError: a rule is broken; the error is about the first one.
    """
    rules = (*_RULES, check_admin_exposure, check_certificate_method, check_audit_access) if binds_addresses else _RULES
    _check(SettingsWithSources(settings, sources, profile), rules)


def validate_storage(settings: Sections, sources: Mapping[str, str]) -> None:
    """
    Check the settings of the storage only, for commands that open it without a server.

    :param sources: dotted name -> the layer that set it, for messages.
    :raises ConfigError: a rule is broken; the error is about the first one.
    """
    _check(SettingsWithSources(settings, sources), (check_storage, check_postgres))


def _check(config: SettingsWithSources, rules: Iterable[Callable[[SettingsWithSources], Iterator[BrokenRule]]]) -> None:
    for rule in rules:
        for broken in rule(config):
            raise ConfigError(_message(broken, config), rule=broken.rule, phase="validate_config")


def _message(broken: BrokenRule, config: SettingsWithSources) -> str:
    value = value_of(config.settings, broken.name) if broken.part is None else broken.part
    says = (
        "it is not set"
        if value is None
        else f"{config.source(broken.name)} sets it to {shown_setting(broken.name, value)}"
    )
    return f"{broken.name} must be {broken.wanted}; {says}."


def warnings_about(
    settings: Sections, sources: Mapping[str, str] | None = None, profile: str = "default"
) -> Iterator[str]:
    """
    Yield a warning for each setting that is valid but risky, or has no effect.

    :param sources: dotted name -> the layer that set it; None if unknown, then settings without effect are only
        reported if they are not at their defaults.
    :param profile: the profile's name; there are more warnings in ``prod`` and ``prod-*``.
    """
    yield from ineffective_warnings(changed_ineffective_settings(settings) if sources is None else sources)
    if "*" in settings.http.cors_origins and not settings.http.allow_wildcard_cors:
        yield (
            "http.cors_origins is *: the pages of any site may use the streams. Name the origins, or set "
            "http.allow_wildcard_cors to true if that is meant."
        )
    yield from auth_warnings(settings, sources)
    yield from audit_warnings(settings)
    yield from _plain_text_warnings(settings)
    for name in unused_by_postgres(settings, sources or {}):
        yield (
            f"{name} has no effect: storage.mode is {shown(settings.storage.mode)}, which stores nothing in a "
            "directory. Remove it."
        )
    if is_production(profile) and settings.subscriptions.enabled and settings.http.public_url is None:
        yield (
            "http.public_url is not set: whoever may create subscriptions chooses the host of the callback URLs in "
            "webhooks. Set it to the URL of the server as clients see it, or subscriptions.enabled to false."
        )


def _plain_text_warnings(settings: Sections) -> Iterator[str]:
    remote = remote_admin_place(settings) if settings.admin.enabled and settings.admin.token_file is not None else None
    if remote is not None and is_plain(settings, *remote):
        name, place = remote
        yield (
            f"admin.token_file is set, and {name} is {shown(place)}, without TLS: who reads the network's traffic sees "
            f"the tokens that are sent to {settings.admin.base_path}. Use TLS, or a loopback address such as "
            "127.0.0.1:4438 for admin.bind_address."
        )
