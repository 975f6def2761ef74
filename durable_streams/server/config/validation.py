"""Validation of the settings by all rules, and warnings about valid but risky or ineffective settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from .choices import ACID_BACKENDS, STORAGE_MODES
from .ineffective import changed_ineffective_settings, ineffective_warnings
from .rules import (
    BrokenRule,
    SettingsWithSources,
    check_numbers,
    check_observability,
    check_origins,
    check_paths,
    check_server,
    check_storage,
    check_words,
    parse_bind_address,
)
from .sections import Sections, value_of
from .showing import in_one_line, shown
from .transport_rules import check_identity, check_proxies, check_tls_files, check_versions

__all__ = ["ACID_BACKENDS", "STORAGE_MODES", "ConfigError", "parse_bind_address", "validate", "warnings_about"]

_RULES = (
    check_words,
    check_server,
    check_numbers,
    check_storage,
    check_paths,
    check_origins,
    check_tls_files,
    check_versions,
    check_proxies,
    check_identity,
    check_observability,
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


def validate(settings: Sections, sources: Mapping[str, str], profile: str = "default") -> None:
    """
    Check the settings by all rules.

    :param sources: dotted name -> the layer that set it, for messages.
    :param profile: the profile's name; ``prod`` and ``prod-*`` have stricter rules.
    :raises ConfigError: a rule is broken; the error is about the first one.
    """
    config = SettingsWithSources(settings, sources, profile)
    for rule in _RULES:
        for broken in rule(config):
            raise ConfigError(_message(broken, config), rule=broken.rule, phase="validate_config")


def _message(broken: BrokenRule, config: SettingsWithSources) -> str:
    value = value_of(config.settings, broken.name) if broken.part is None else broken.part
    says = "it is not set" if value is None else f"{config.source(broken.name)} sets it to {shown(value)}"
    return f"{broken.name} must be {broken.wanted}; {says}."


def warnings_about(settings: Sections, sources: Mapping[str, str] | None = None) -> Iterator[str]:
    """
    Yield a warning for each setting that is valid but risky, or has no effect.

    :param sources: dotted name -> the layer that set it; None if unknown, then settings without effect are only
        reported if they are not at their defaults.
    """
    yield from ineffective_warnings(changed_ineffective_settings(settings) if sources is None else sources)
    if "*" in settings.http.cors_origins and not settings.http.allow_wildcard_cors:
        yield (
            "http.cors_origins is *: the pages of any site may use the streams. Name the origins, or set "
            "http.allow_wildcard_cors to true if that is meant."
        )
    if settings.admin.enabled:
        places = [*(settings.server.listen or [settings.server.bind_address])]
        setting = "server.listen" if settings.server.listen else "server.bind_address"
        if settings.admin.bind_address is not None:
            places, setting = [settings.admin.bind_address], "admin.bind_address"
        for place in places:
            if not _is_local(place):
                yield (
                    f"admin.enabled is true and {setting} is {shown(place)}: anyone who can connect to that address "
                    f"can use {settings.admin.base_path}, which has no authentication. Set admin.bind_address to a "
                    "loopback address such as 127.0.0.1:4438."
                )
                return


def _is_local(place: str) -> bool:
    """Return whether an address or a string endpoint is reachable from this machine only."""
    try:
        host = parse_bind_address(place)[0]
    except ValueError:
        endpoint = place.replace("\\:", ":")
        return endpoint.startswith("unix:") or "interface=127." in endpoint or "interface=::1" in endpoint
    return ip_address(host).is_loopback
