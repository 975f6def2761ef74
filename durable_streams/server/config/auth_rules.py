"""The rules for authentication: a server is open only if that was chosen, and each method has what it needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from .places import is_local, is_mtls, is_plain, places_of_streams
from .rules import BrokenRule, SettingsWithSources, check_path
from .sections import JwtSection, Sections, value_of
from .showing import shown

_METHODS: Final = "auth.methods"
_ANONYMOUS: Final = "auth.allow_anonymous"
_RULES: Final = "auth.rules"
_RULES_FILE: Final = "auth.rules_file"
_JWT_SOURCES: Final = ("auth.jwt.keys_file", "auth.jwt.jwks_url", "auth.jwt.discovery_url")

_METHODS_WANTED: Final = "a list such as ['token'] with auth.token_file and auth.rules"

#: Setting with the path of a file -> what the file has.
_PATHS: Final = {
    _RULES_FILE: "the path of a file with a rule on each line",
    "auth.token_file": "the path of a file of tokens",
    "auth.signing_keys_file": "the path of a file of signing keys",
    "auth.jwt.keys_file": "the path of a file of public keys",
    "auth.jwt.ca_file": "the path of a PEM file",
}

#: Method -> the settings of which it needs one, and which nothing else reads.
_NEEDED: Final = {
    "token": ("auth.token_file",),
    "jwt": _JWT_SOURCES,
    "signed-url": ("auth.signing_keys_file",),
}


def has_access_control(settings: Sections) -> bool:
    """Return whether anything decides who may use the streams. Otherwise everybody may."""
    auth = settings.auth
    return bool(auth.methods) or not auth.allow_anonymous or has_rules(settings)


def has_rules(settings: Sections) -> bool:
    """Return whether the settings have rules, or a file of them, which may be empty."""
    return settings.auth.rules_file is not None or any(map(str.strip, settings.auth.rules))


def check_auth(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield a server that would be open without that being chosen, and methods that nobody could use."""
    for name, wanted in _PATHS.items():
        yield from check_path(config, name, wanted)
    auth = config.settings.auth
    if auth.rules_file is not None and any(map(str.strip, auth.rules)):
        wanted = f"left out while {config.describe(_RULES)}, or those rules removed there"
        yield BrokenRule("RulesConflictWithRulesFile", _RULES_FILE, wanted)
    yield from _check_method_settings(config)
    if not auth.methods and not auth.allow_anonymous:
        yield BrokenRule(
            "NoAuthenticationMethod",
            _METHODS,
            f"{_METHODS_WANTED} (docs/deploy.rst shows each step), or auth.allow_anonymous set to true if everybody "
            f"who can reach the server may use all streams, while {config.describe(_ANONYMOUS)}",
        )
    if auth.methods and not has_rules(config.settings):
        yield BrokenRule(
            "MethodsRequireRules",
            _RULES,
            "a list of rules such as ['allow authenticated all **'], or auth.rules_file the path of a file with a rule "
            f"on each line, while {config.describe(_METHODS)}, since without a rule nothing is allowed",
        )


def _check_method_settings(config: SettingsWithSources) -> Iterator[BrokenRule]:
    methods = config.settings.auth.methods
    for method, names in _NEEDED.items():
        given = [name for name in names if value_of(config.settings, name) is not None]
        if method in methods and not given:
            yield BrokenRule(
                "MethodRequiresSetting",
                names[0],
                f"{_PATHS[names[0]]}{''.join(f', or {name} set' for name in names[1:])}, while "
                f"{config.describe(_METHODS)}",
            )
        if given and method not in methods:
            # A server with tokens and without the method would be open to everybody.
            yield BrokenRule(
                "SettingRequiresMethod",
                given[0],
                f"left out, or auth.methods a list with '{method}', while {config.describe(_METHODS)}",
            )
    if "header" in methods and config.settings.proxy.identity.mode != "header":
        yield BrokenRule(
            "HeaderMethodRequiresHeaderIdentity",
            "proxy.identity.mode",
            f"header, with the settings in docs/proxies.rst, while {config.describe(_METHODS)}",
        )


def check_jwt(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield times of JWT authentication that are out of range. The start checks its other settings."""
    jwt = config.settings.auth.jwt
    if not 0 <= jwt.leeway_secs <= 600:
        yield BrokenRule("InvalidJwtLeeway", "auth.jwt.leeway_secs", "0 to 600")
    if not 10 <= jwt.refresh_secs <= 86_400:
        yield BrokenRule("InvalidJwtRefresh", "auth.jwt.refresh_secs", "10 to 86400")
    if not jwt.refresh_secs < jwt.max_stale_secs <= 2_592_000:
        yield BrokenRule(
            "InvalidJwtMaxStale",
            "auth.jwt.max_stale_secs",
            f"at most 2592000, and more than the refresh time while {config.describe('auth.jwt.refresh_secs')}",
        )


def check_certificate_method(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield the method ``certificate`` if no listener asks clients for certificates."""
    settings = config.settings
    if "certificate" not in settings.auth.methods:
        return
    name, places = places_of_streams(settings)
    mode = settings.transport.mode
    if name == "server.bind_address" and mode != "mtls":
        yield BrokenRule(
            "CertificateMethodRequiresMtls",
            "transport.mode",
            f"mtls while {config.describe(_METHODS)}",
        )
    elif name == "server.listen" and settings.auth.methods == ("certificate",) and not any(map(is_mtls, places)):
        yield BrokenRule(
            "CertificateMethodRequiresMtls",
            name,
            f"a list with an mtls: endpoint while {config.describe(_METHODS)}, since nobody could authenticate",
        )


def check_credentials_of_pages(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield ``http.cors_credentials`` if the pages of any site could use the credentials of a browser's user."""
    http = config.settings.http
    if http.cors_credentials and "*" in http.cors_origins:
        yield BrokenRule(
            "CorsCredentialsRequireOrigins",
            "http.cors_origins",
            f"a list of the origins whose pages may send credentials, while {config.describe('http.cors_credentials')}",
        )


def auth_warnings(settings: Sections, sources: Mapping[str, str] | None) -> Iterator[str]:
    """
    Yield a warning for a server that everybody can use, for credentials without TLS, and for unused settings.

    :param sources: dotted name -> the layer that set it; None for an embedded server, which may listen elsewhere.
    """
    name, places = places_of_streams(settings)
    remote = next((place for place in places if not is_local(place)), None)
    if not has_access_control(settings):
        if remote is not None and sources is not None and _ANONYMOUS not in sources:
            yield (
                f"{name} is {shown(remote)}, and auth.methods is not set: everybody who can reach that address may "
                "read, change and delete all streams. Set auth.methods and auth.rules, or server.bind_address to "
                "127.0.0.1:4437; auth.allow_anonymous = true confirms that it is meant."
            )
    else:
        yield from _plain_text_warnings(settings)
    yield from _unused(settings)


def _plain_text_warnings(settings: Sections) -> Iterator[str]:
    name, places = places_of_streams(settings)
    sent = [method for method in settings.auth.methods if method in ("token", "jwt", "signed-url")]
    for place in places:
        if sent and not is_local(place) and is_plain(settings, name, place):
            yield (
                f"auth.methods has {sent[0]}, and {name} is {shown(place)}, without TLS: who reads the network's "
                "traffic can use the credentials of clients. Use TLS, or a loopback address behind a proxy that does."
            )
            return


def _unused(settings: Sections) -> Iterator[str]:
    auth = settings.auth
    if auth.certificate_name != "subject" and "certificate" not in auth.methods:
        yield "auth.certificate_name has no effect without certificate in auth.methods. Remove it."
    if auth.hide_forbidden and not has_access_control(settings):
        yield "auth.hide_forbidden has no effect without auth.methods and auth.rules. Remove it."
    if auth.jwt != JwtSection() and "jwt" not in auth.methods:
        yield "auth.jwt has no effect without jwt in auth.methods. Remove its settings."
    if settings.proxy.identity.mode == "header" and auth.methods and "header" not in auth.methods:
        yield (
            "proxy.identity.mode is header, and auth.methods does not have header: the client's name that a proxy "
            "sends is in the access log, and no rule is about it. Add header to auth.methods, or remove proxy.identity."
        )
