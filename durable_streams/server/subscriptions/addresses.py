"""Webhook URLs and the addresses that may be called: protection from server-side request forgery. Pure.

A URL is checked when a subscription is created, and at each delivery attempt with a new look-up of its host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import quote

import idna
from msgspec import Struct

from .errors import WebhookUrlRejected

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_URL_BYTES: Final = 2048

_PORTS: Final = {"http": 80, "https": 443}

_LOCALHOST: Final = "localhost"

_URL: Final = re.compile(r"(https?)://([^/?#]*)([^#]*)(#.*)?", re.IGNORECASE | re.DOTALL)
_AUTHORITY: Final = re.compile(r"(?:\[([^\]]*)\]|([^:\[\]]*))(?::([0-9]*))?")

#: Control characters and spaces, and the backslash, which some parsers take for a slash.
_FORBIDDEN: Final = re.compile(r"[\x00-\x20\x7f-\xa0\\\u2028\u2029]")

#: A last label that C libraries read as a number; the host is then an IPv4 address in some spelling.
_NUMERIC: Final = re.compile(r"(?:[0-9]+|0x[0-9a-f]*)")
_QUAD: Final = re.compile(r"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}")
_LABEL: Final = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")

#: What a request target may have unencoded.
_TARGET: Final = "/?:@!$&'()*+,;=-._~%[]"

_REFUSED_IPV4: Final = tuple(
    IPv4Network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24"),
        *("224.0.0.0/4", "240.0.0.0/4"),
    )
)
_GLOBAL_IPV6: Final = IPv6Network("2000::/3")
_REFUSED_IPV6: Final = tuple(IPv6Network(text) for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"))

#: The prefixes of IPv6 addresses whose last 32 bits are an IPv4 address: mapped, and NAT64.
_MAPPED: Final = IPv6Network("::ffff:0:0/96")
_NAT64: Final = IPv6Network("64:ff9b::/96")

_LITERAL_LOOPBACK: Final = IPv4Network("127.0.0.0/24")
_LOOPBACK: Final = (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128"))


class WebhookUrl(Struct, frozen=True):
    """
    A parsed webhook URL.

    :ivar scheme: ``http`` or ``https``.
    :ivar host: in lower case: a name in ASCII (IDNA) without a dot at its end, or an address without brackets.
    :ivar target: path and query, with characters beyond ASCII percent-encoded.
    :ivar literal: the address, if the host is one.
    """

    scheme: str
    host: str
    port: int
    target: str
    literal: Address | None

    @property
    def _origin(self) -> str:
        host = f"[{self.host}]" if isinstance(self.literal, IPv6Address) else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"

    @property
    def text(self) -> str:
        """The URL to request."""
        return self._origin + self.target

    @property
    def shown(self) -> str:
        """The URL for log lines and errors: without its query, which may have secrets."""
        return self._origin + self.target.partition("?")[0]


class AddressPolicy(Struct, frozen=True):
    """
    Which hosts may be called. By default ``https`` to public addresses only.

    :ivar insecure_loopback: whether ``http`` to ``localhost`` or 127.0.0.x is allowed (http.allow_insecure_webhooks).
    :ivar networks: networks that are allowed although they are not public (subscriptions.webhook_networks).
    :ivar http_networks: networks that may be called by ``http`` or ``https`` (subscriptions.webhook_http_networks).
    """

    insecure_loopback: bool = False
    networks: tuple[Network, ...] = ()
    http_networks: tuple[Network, ...] = ()

    def check_url(self, url: WebhookUrl) -> None:
        """
        Check what is known without a look-up of the host.

        :raises WebhookUrlRejected: the scheme or the literal address is not allowed.
        """
        if url.literal is not None:
            self.check_addresses(url, (url.literal,))
        elif url.scheme == "http" and not self.http_networks and not self._is_test(url):
            raise WebhookUrlRejected("webhook.url must begin with https://.")

    def check_addresses(self, url: WebhookUrl, addresses: Sequence[Address]) -> None:
        """
        Check all addresses of a URL's host. One that is not allowed refuses all.

        :raises WebhookUrlRejected: an address is not allowed, or there is none.
        """
        if not addresses:
            raise WebhookUrlRejected(f"The host {url.host} of webhook.url has no address. Correct its name.")
        for address in addresses:
            if not self._allows(url, address):
                raise WebhookUrlRejected(self._message(url, address))

    def _is_test(self, url: WebhookUrl) -> bool:
        """Return whether ``http`` is allowed because the host is this machine."""
        if not self.insecure_loopback or url.scheme != "http":
            return False
        return url.host == _LOCALHOST or (url.literal is not None and _is_in(url.literal, (_LITERAL_LOOPBACK,)))

    def _allows(self, url: WebhookUrl, address: Address) -> bool:
        inner = unwrapped(address)
        if self._is_test(url) and _is_in(inner, _LOOPBACK):
            return True
        if _is_in(inner, self.http_networks):
            return True
        return url.scheme == "https" and (is_public(inner) or _is_in(inner, self.networks))

    def _message(self, url: WebhookUrl, address: Address) -> str:
        if url.scheme == "http" and (is_public(address) or _is_in(unwrapped(address), self.networks)):
            return "webhook.url must begin with https://."
        where = str(address) if url.literal is not None else f"{url.host} ({address})"
        return (
            f"webhook.url leads to {where}, which is no public address. Use a public host, or have the operator allow "
            "its network (subscriptions.webhook_networks)."
        )


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """
    Parse networks in CIDR notation. Networks of mapped IPv4 addresses are not accepted; write the IPv4 network.

    :raises ValueError: one is malformed, or has bits after its prefix.
    """
    networks = tuple(ip_network(text) for text in texts)
    for network in networks:
        if isinstance(network, IPv6Network) and (network.subnet_of(_MAPPED) or network.subnet_of(_NAT64)):
            raise ValueError(f"{network} is a network of IPv4 addresses inside IPv6; write the IPv4 network")
    return networks


def parse_webhook_url(text: str) -> WebhookUrl:
    """
    Parse a webhook URL.

    :raises WebhookUrlRejected: it is malformed, too long, or has user info or a fragment.
    """
    if len(text.encode("utf-8", "surrogatepass")) > MAX_URL_BYTES:
        raise WebhookUrlRejected(f"webhook.url must not be longer than {MAX_URL_BYTES} bytes.")
    if _FORBIDDEN.search(text):
        raise WebhookUrlRejected(
            "webhook.url must not have spaces, control characters or backslashes. Percent-encode them."
        )
    parts = _URL.fullmatch(text)
    if parts is None:
        raise WebhookUrlRejected("webhook.url must be an absolute URL that begins with https://.")
    scheme, authority, target, fragment = parts.groups()
    if fragment is not None:
        raise WebhookUrlRejected("webhook.url must not have a fragment (#).")
    if "@" in authority:
        raise WebhookUrlRejected("webhook.url must not have a user name or password. Use the signature or the path.")
    scheme = scheme.lower()
    host, literal, port = _parse_authority(authority)
    if scheme == "https" and literal is None:
        _check_certifiable(host)
    if not target.startswith("/"):
        target = f"/{target}"
    try:
        encoded = quote(target, safe=_TARGET)
    except UnicodeEncodeError:
        raise WebhookUrlRejected("webhook.url has characters that are not Unicode.") from None
    return WebhookUrl(scheme, host, _PORTS[scheme] if port is None else port, encoded, literal)


def _parse_authority(authority: str) -> tuple[str, Address | None, int | None]:
    """Return the host, the address if it is one, and the port if there is one."""
    parts = _AUTHORITY.fullmatch(authority)
    if parts is None:
        raise WebhookUrlRejected("webhook.url has no valid host and port.")
    bracketed, name, digits = parts.groups()
    port = None
    if digits is not None:
        port = int(digits) if 0 < len(digits) <= 5 else 0
        if not 1 <= port <= 65_535:
            raise WebhookUrlRejected("The port of webhook.url must be between 1 and 65535.")
    if bracketed is None:
        return *_parse_host(name), port
    try:
        literal = IPv6Address(bracketed)
    except ValueError:
        raise WebhookUrlRejected("The address in brackets in webhook.url is no IPv6 address.") from None
    if literal.scope_id is not None:
        raise WebhookUrlRejected("The address in webhook.url must not have a zone (%).")
    return str(literal), literal, port


def _parse_host(name: str) -> tuple[str, Address | None]:
    """Return a host that has no brackets, and the address if it is a strict dotted quad."""
    host = _ascii(name).removesuffix(".")
    if not host:
        raise WebhookUrlRejected("webhook.url has no host.")
    labels = host.split(".")
    if _NUMERIC.fullmatch(labels[-1]):
        if _QUAD.fullmatch(host) and all(int(label) < 256 for label in labels):
            return host, IPv4Address(host)
        raise WebhookUrlRejected("The address in webhook.url must be written as four decimal numbers, as in 192.0.2.1.")
    if len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise WebhookUrlRejected("The host in webhook.url is no valid host name.")
    return host, None


def _ascii(name: str) -> str:
    """
    Return a host in ASCII and lower case.

    :raises WebhookUrlRejected: IDNA does not allow it.
    """
    lower = name.lower()
    if lower.isascii() and "xn--" not in lower:
        return lower
    if len(name) > 253:
        raise WebhookUrlRejected("The host in webhook.url is too long.")
    try:
        return idna.encode(name, uts46=True).decode("ascii").lower()
    except (idna.IDNAError, UnicodeError):
        raise WebhookUrlRejected("The host in webhook.url is no valid international domain name.") from None


def _check_certifiable(host: str) -> None:
    """
    Check a name as the verification of certificates does: it may have no underscores, and no hyphens as in ``ab--c``.

    :raises WebhookUrlRejected: no certificate can be verified for the name.
    """
    try:
        idna.encode(host)
    except (idna.IDNAError, UnicodeError):
        raise WebhookUrlRejected(
            f"The host {host} of webhook.url breaks the rules of IDNA, so no certificate can be verified for it. Use "
            "another name."
        ) from None


def parse_address(text: str) -> Address:
    """
    Return the address of a look-up's answer. An IPv4 address inside IPv6 (mapped) is returned as the former.

    :raises ValueError: it is malformed.
    """
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address in _MAPPED:
        return unwrapped(address)
    return address


def unwrapped(address: Address) -> Address:
    """Return the IPv4 address inside a mapped or NAT64 address, or else the address itself."""
    if isinstance(address, IPv6Address) and (address in _MAPPED or address in _NAT64):
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def is_public(address: Address) -> bool:
    """Return whether an address is a public unicast one; mapped and NAT64 addresses by the address inside."""
    address = unwrapped(address)
    if isinstance(address, IPv4Address):
        return not _is_in(address, _REFUSED_IPV4)
    return address in _GLOBAL_IPV6 and address.scope_id is None and not _is_in(address, _REFUSED_IPV6)


def _is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address in network for network in networks)
