"""What transports and proxies must be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from typing import Final

from .rules import Broken, Stated
from .sections import value_of

_CERTIFICATE: Final = "transport.tls.cert_path"
_KEY: Final = "transport.tls.key_path"
_CLIENT_CA: Final = "transport.tls.client_ca_path"

#: Which files each mode needs; those that it does not need, it has no use for.
_FILES: Final = {"http": (), "tls": (_CERTIFICATE, _KEY), "mtls": (_CERTIFICATE, _KEY, _CLIENT_CA)}

#: What each version of HTTP is called when TLS agrees on one.
_ALPN: Final = {"http1": "http/1.1", "http2": "h2"}

_PROXIES_WANTED: Final = "a list of IP addresses and networks such as 10.0.0.0/8"
_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def broken_versions(stated: Stated) -> Iterator[Broken]:
    """Find versions of HTTP and of TLS that don't go together."""
    transport = stated.settings.transport
    versions, tls = transport.http.versions, transport.tls
    name = "transport.http.versions"
    if not versions:
        yield Broken("EmptyHttpVersions", name, "a list of http1, http2 or both")
    # Endpoints of server.listen have TLS of their own, or have none and speak HTTP/1.1.
    if "http2" in versions and transport.mode == "http" and not stated.settings.server.listen:
        yield Broken(
            "HttpModeDoesNotSupportHttp2",
            name,
            f"['http1'] while {stated.says('transport.mode')}, since HTTP/2 is only spoken over TLS",
        )
    if tls.min_version > tls.max_version:
        yield Broken(
            "InvalidTlsVersionRange",
            "transport.tls.min_version",
            f"the same or earlier while {stated.says('transport.tls.max_version')}",
        )
    if tls.alpn_protocols is None:
        return
    names = [_ALPN[version] for version in versions if version in _ALPN]
    for protocol in names:
        if protocol not in tls.alpn_protocols:
            yield Broken(
                "MissingAlpnProtocol",
                "transport.tls.alpn_protocols",
                f"left out, or a list with {protocol}, while {stated.says(name)}",
            )
    for protocol in tls.alpn_protocols:
        if protocol not in names:
            yield Broken(
                "UnexpectedAlpnProtocol",
                "transport.tls.alpn_protocols",
                f"left out, or a list without {protocol}, while {stated.says(name)}",
            )


def broken_tls_files(stated: Stated) -> Iterator[Broken]:
    """Find certificates and keys that are missing, or of no use."""
    mode = stated.settings.transport.mode
    needed = _FILES.get(mode, ())
    for name in (_CERTIFICATE, _KEY, _CLIENT_CA):
        path = value_of(stated.settings, name)
        if path is not None and not path.strip():
            yield Broken("EmptyPath", name, "the path of a PEM file, or left out")
        elif path is None and name in needed:
            yield Broken("MissingTlsField", name, f"the path of a PEM file while {stated.says('transport.mode')}")
        elif path is not None and mode == "http":
            yield Broken(
                "HttpModeDisallowsTlsField",
                name,
                f"left out, or transport.mode set to tls or mtls, while {stated.says('transport.mode')}",
            )
        elif path is not None and name not in needed:
            yield Broken(
                "ClientCaRequiresMtls",
                name,
                f"left out, or transport.mode set to mtls, while {stated.says('transport.mode')}",
            )


def broken_proxies(stated: Stated) -> Iterator[Broken]:
    """Find proxies that are believed without need, or needed and not named."""
    proxy = stated.settings.proxy
    state = stated.says("proxy.enabled")
    if proxy.enabled:
        if proxy.forwarded_headers == "none":
            yield Broken(
                "ProxyEnabledRequiresForwardedHeaders",
                "proxy.forwarded_headers",
                f"x-forwarded or forwarded while {state}",
            )
        if not proxy.trusted_proxies:
            yield Broken(
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
                yield Broken(
                    f"ProxyDisabledDisallows{rule}",
                    f"proxy.{name}",
                    f"left out, or proxy.enabled set to true, while {state}",
                )
    for text in proxy.trusted_proxies:
        wanted = _trouble_with_proxy(text)
        if wanted is not None:
            yield Broken("InvalidTrustedProxy", "proxy.trusted_proxies", wanted, text)


def _trouble_with_proxy(text: str) -> str | None:
    """Say what an address or a network should be instead; None when it is one, or stands for UNIX sockets."""
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
        return f"{_PROXIES_WANTED}, where a network's address has no bits beyond its length: perhaps {network} is meant"
    return None


def broken_identity(stated: Stated) -> Iterator[Broken]:
    """Find a header with a client's name that can't be, or that anyone could send."""
    identity = stated.settings.proxy.identity
    name = "proxy.identity.header_name"
    if identity.mode == "header":
        if stated.settings.transport.mode != "mtls":
            yield Broken(
                "HeaderIdentityRequiresMtls",
                "proxy.identity.mode",
                f"none, or transport.mode set to mtls, while {stated.says('transport.mode')}",
            )
        if identity.header_name is None:
            yield Broken(
                "HeaderIdentityRequiresHeaderName",
                name,
                f"the name of a header such as X-Client-Identity while {stated.says('proxy.identity.mode')}",
            )
    elif identity.header_name is not None:
        yield Broken(
            "IdentityHeaderRequiresHeaderMode",
            name,
            f"left out, or proxy.identity.mode set to header, while {stated.says('proxy.identity.mode')}",
        )
    if identity.header_name is not None and _HEADER_NAME.fullmatch(identity.header_name) is None:
        yield Broken(
            "InvalidIdentityHeaderName", name, "the name of a header: letters, digits and !#$%&'*+.^_`|~- only"
        )
