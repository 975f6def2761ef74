"""The rules for HTTP versions, TLS files and proxies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Final

from .rules import BrokenRule, SettingsWithSources, check_path
from .sections import value_of

_CERTIFICATE: Final = "transport.tls.cert_path"
_KEY: Final = "transport.tls.key_path"
_CLIENT_CA: Final = "transport.tls.client_ca_path"

#: transport.mode -> the files that it requires; all others are rejected.
_FILES: Final = {"http": (), "tls": (_CERTIFICATE, _KEY), "mtls": (_CERTIFICATE, _KEY, _CLIENT_CA)}

#: Version of HTTP -> its ALPN protocol name.
_ALPN: Final = {"http1": "http/1.1", "http2": "h2"}

_PROXIES_WANTED: Final = "a list of IP addresses and networks such as 10.0.0.0/8"
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def check_versions(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield versions of HTTP and TLS that are incompatible with each other or with the mode."""
    transport = config.settings.transport
    versions, tls = transport.http.versions, transport.tls
    name = "transport.http.versions"
    if not versions:
        yield BrokenRule("EmptyHttpVersions", name, "a list of http1, http2 or both")
    # Endpoints of server.listen configure TLS themselves; those without TLS serve HTTP/1.1.
    if "http2" in versions and transport.mode == "http" and not config.settings.server.listen:
        yield BrokenRule(
            "HttpModeDoesNotSupportHttp2",
            name,
            f"['http1'] while {config.describe('transport.mode')}, since HTTP/2 needs TLS",
        )
    if tls.min_version > tls.max_version:
        yield BrokenRule(
            "InvalidTlsVersionRange",
            "transport.tls.min_version",
            f"the same or lower while {config.describe('transport.tls.max_version')}",
        )
    if tls.alpn_protocols is None:
        return
    names = [_ALPN[version] for version in versions if version in _ALPN]
    for protocol in names:
        if protocol not in tls.alpn_protocols:
            yield BrokenRule(
                "MissingAlpnProtocol",
                "transport.tls.alpn_protocols",
                f"left out, or a list with {protocol}, while {config.describe(name)}",
            )
    for protocol in tls.alpn_protocols:
        if protocol not in names:
            yield BrokenRule(
                "UnexpectedAlpnProtocol",
                "transport.tls.alpn_protocols",
                f"left out, or a list without {protocol}, while {config.describe(name)}",
            )


def check_tls_files(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield certificate and key files that are missing, or not used in the mode."""
    mode = config.settings.transport.mode
    needed = _FILES.get(mode, ())
    for name in (_CERTIFICATE, _KEY, _CLIENT_CA):
        path = value_of(config.settings, name)
        yield from check_path(config, name, "the path of a PEM file")
        if path is None and name in needed:
            yield BrokenRule(
                "MissingTlsField", name, f"the path of a PEM file while {config.describe('transport.mode')}"
            )
        elif path is not None and mode == "http":
            yield BrokenRule(
                "HttpModeDisallowsTlsField",
                name,
                f"left out, or transport.mode set to tls or mtls, while {config.describe('transport.mode')}",
            )
        elif path is not None and name not in needed:
            yield BrokenRule(
                "ClientCaRequiresMtls",
                name,
                f"left out, or transport.mode set to mtls, while {config.describe('transport.mode')}",
            )


def check_proxies(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield proxy settings that are incomplete, or set although proxies are disabled."""
    proxy = config.settings.proxy
    state = config.describe("proxy.enabled")
    if proxy.enabled:
        if proxy.forwarded_headers == "none":
            yield BrokenRule(
                "ProxyEnabledRequiresForwardedHeaders",
                "proxy.forwarded_headers",
                f"x-forwarded or forwarded while {state}",
            )
        if not proxy.trusted_proxies:
            yield BrokenRule(
                "ProxyEnabledRequiresTrustedProxies", "proxy.trusted_proxies", f"{_PROXIES_WANTED} while {state}"
            )
    else:
        for rule, name, is_set in (
            ("TrustedProxies", "trusted_proxies", bool(proxy.trusted_proxies)),
            ("ForwardedHeaders", "forwarded_headers", proxy.forwarded_headers != "none"),
            ("IdentityMode", "identity.mode", proxy.identity.mode != "none"),
            ("IdentityHeader", "identity.header_name", proxy.identity.header_name is not None),
        ):
            if is_set:
                yield BrokenRule(
                    f"ProxyDisabledDisallows{rule}",
                    f"proxy.{name}",
                    f"left out, or proxy.enabled set to true, while {state}",
                )
    for text in proxy.trusted_proxies:
        wanted = _check_proxy(text)
        if wanted is not None:
            yield BrokenRule("InvalidTrustedProxy", "proxy.trusted_proxies", wanted, text)


def _check_proxy(text: str) -> str | None:
    """Return the error of an item of ``trusted_proxies``, or None if it is an address, a network or ``unix``."""
    if text == "unix":
        return None
    address, slash, length = text.partition("/")
    try:
        if "%" in text or (slash and not (length.isascii() and length.isdigit())):
            return _PROXIES_WANTED
        ip_address(address)
        network = ip_network(text, strict=False)
    except ValueError:
        return _PROXIES_WANTED
    if slash and ip_address(address) != network.network_address:
        return f"{_PROXIES_WANTED}, without bits beyond the prefix length (here probably {network})"
    return None


def check_identity(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield identity settings that are malformed, or that would trust a header from any client."""
    identity = config.settings.proxy.identity
    name = "proxy.identity.header_name"
    if identity.mode == "header":
        if config.settings.transport.mode != "mtls":
            yield BrokenRule(
                "HeaderIdentityRequiresMtls",
                "proxy.identity.mode",
                f"none, or transport.mode set to mtls, while {config.describe('transport.mode')}",
            )
        if identity.header_name is None:
            yield BrokenRule(
                "HeaderIdentityRequiresHeaderName",
                name,
                f"the name of a header such as X-Client-Identity while {config.describe('proxy.identity.mode')}",
            )
    elif identity.header_name is not None:
        yield BrokenRule(
            "IdentityHeaderRequiresHeaderMode",
            name,
            f"left out, or proxy.identity.mode set to header, while {config.describe('proxy.identity.mode')}",
        )
    if identity.header_name is not None and _HEADER_NAME.fullmatch(identity.header_name) is None:
        yield BrokenRule(
            "InvalidIdentityHeaderName", name, "the name of a header: letters, digits and !#$%&'*+.^_`|~- only"
        )
