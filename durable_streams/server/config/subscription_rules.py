"""The rules for subscriptions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv6Network, ip_network
from typing import Final

from .rules import BrokenRule, SettingsWithSources, check_path
from .sections import value_of

_PUBLIC_URL: Final = re.compile(r"https?://[A-Za-z0-9._~\[\]:-]+(?:/(?![?#])[!-~]*)?")

#: IPv4 addresses inside IPv6: mapped, and NAT64.
_EMBEDDED: Final = (IPv6Network("::ffff:0:0/96"), IPv6Network("64:ff9b::/96"))


def check_subscriptions(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield violations of the rules for subscriptions and their webhooks."""
    for name in ("subscriptions.signing_key_file", "subscriptions.webhook_ca_file"):
        yield from check_path(config, name)
    url = config.settings.http.public_url
    if url is not None and (_PUBLIC_URL.fullmatch(url) is None or "?" in url or "#" in url):
        yield BrokenRule(
            "InvalidPublicUrl", "http.public_url", "a URL without query, such as https://streams.example.com"
        )
    for name in ("subscriptions.webhook_networks", "subscriptions.webhook_http_networks"):
        for text in value_of(config.settings, name):
            if not _is_network(text):
                yield BrokenRule("InvalidWebhookNetwork", name, "a list of networks such as 10.0.0.0/8", text)


def _is_network(text: str) -> bool:
    try:
        network = ip_network(text)
    except ValueError:
        return False
    return not (isinstance(network, IPv6Network) and any(network.subnet_of(each) for each in _EMBEDDED))
