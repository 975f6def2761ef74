"""Whether addresses and endpoints can be reached from other machines, use TLS, and require client certificates."""

from __future__ import annotations

from ipaddress import ip_address

from .rules import parse_bind_address
from .sections import Sections


def places_of_streams(settings: Sections) -> tuple[str, tuple[str, ...]]:
    """Return where streams are served: the name of the setting, and the addresses or endpoints."""
    server = settings.server
    return ("server.listen", server.listen) if server.listen else ("server.bind_address", (server.bind_address,))


def is_local(place: str) -> bool:
    """Return whether an address or a string endpoint is known to be reachable from this machine only."""
    try:
        host = parse_bind_address(place)[0]
    except ValueError:
        endpoint = place.replace("\\:", ":")
        return endpoint.startswith("unix:") or "interface=127." in endpoint or "interface=::1" in endpoint
    return ip_address(host).is_loopback


def is_plain(settings: Sections, name: str, place: str) -> bool:
    """Return whether an address or endpoint of a setting is known to be served without TLS."""
    if name == "server.listen":
        return place.startswith(("tcp:", "tcp4:", "tcp6:", "http:"))
    return name == "admin.bind_address" or settings.transport.mode == "http"


def is_mtls(place: str) -> bool:
    """Return whether an endpoint requires client certificates."""
    while place.startswith("haproxy:"):
        place = place.removeprefix("haproxy:")
    return place.startswith("mtls:")
