"""What settings must be, each rule with its own message; and what they had better be."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from .choices import ACID_BACKENDS, STORAGE_MODES
from .rules import (
    Broken,
    Stated,
    broken_numbers,
    broken_observability,
    broken_origins,
    broken_paths,
    broken_server,
    broken_storage,
    broken_words,
    parse_bind_address,
)
from .sections import Sections, value_of
from .showing import in_one_line, shown
from .transport_rules import broken_identity, broken_proxies, broken_tls_files, broken_versions

__all__ = ["ACID_BACKENDS", "STORAGE_MODES", "ConfigError", "parse_bind_address", "validate", "warnings_about"]

_RULES = (
    broken_words,
    broken_server,
    broken_numbers,
    broken_storage,
    broken_paths,
    broken_origins,
    broken_tls_files,
    broken_versions,
    broken_proxies,
    broken_identity,
    broken_observability,
)


class ConfigError(Exception):
    """
    The configuration can't be used; the message names the setting, the value, where it comes from, and the fix.

    :ivar rule: the name of the rule that is broken.
    :ivar phase: ``load_config`` when a layer can't be read or understood, ``validate_config`` when what the layers come
        to breaks a rule.
    """

    def __init__(self, message: str, *, rule: str, phase: str) -> None:
        super().__init__(in_one_line(message))
        self.rule = rule
        self.phase = phase


def validate(settings: Sections, sources: Mapping[str, str], profile: str = "default") -> None:
    """
    Check the settings against each other and against what they are for.

    :param sources: where the settings that are not at their defaults come from, by dotted name.
    :param profile: the profile's name; what begins with ``prod`` is stricter.
    :raises ConfigError: the first rule that is broken.
    """
    stated = Stated(settings, sources, profile)
    for rule in _RULES:
        for broken in rule(stated):
            raise ConfigError(_message(broken, stated), rule=broken.rule, phase="validate_config")


def _message(broken: Broken, stated: Stated) -> str:
    value = value_of(stated.settings, broken.name) if broken.part is None else broken.part
    says = "it is not set" if value is None else f"{stated.source(broken.name)} sets it to {shown(value)}"
    return f"{broken.name} must be {broken.wanted}; {says}."


def warnings_about(settings: Sections) -> Iterator[str]:
    """Find what is allowed, and may still not be meant."""
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
                    f"admin.enabled is true and {setting} is {shown(place)}: whoever reaches that address may use "
                    f"{settings.admin.base_path}, which asks for no password. Set admin.bind_address to an address of "
                    "this machine alone, such as 127.0.0.1:4438."
                )
                return


def _is_local(place: str) -> bool:
    """Find out whether an address, or a string endpoint, is for this machine alone."""
    try:
        host = parse_bind_address(place)[0]
    except ValueError:
        endpoint = place.replace("\\:", ":")
        return endpoint.startswith("unix:") or "interface=127." in endpoint or "interface=::1" in endpoint
    return ip_address(host).is_loopback
