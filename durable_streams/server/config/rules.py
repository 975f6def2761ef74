"""What the server, its limits, its storage and its paths must be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Final

from msgspec import Struct

from .choices import CHOICES, STORAGE_MODES, words_of
from .sections import Sections, value_of
from .showing import shown


class Broken(Struct, frozen=True):
    """
    A rule that is broken.

    :ivar rule: its name.
    :ivar name: the setting to change.
    :ivar wanted: what that must be.
    :ivar part: of a list, what is wrong in it.
    """

    rule: str
    name: str
    wanted: str
    part: str | None = None


class Stated(Struct, frozen=True):
    """
    The settings, and who says so.

    :ivar sources: where the settings that are not at their defaults come from, by dotted name.
    :ivar profile: the profile's name.
    """

    settings: Sections
    sources: Mapping[str, str]
    profile: str = "default"

    def source(self, name: str) -> str:
        """Say where a setting comes from."""
        return self.sources.get(name, "the default")

    def says(self, name: str) -> str:
        """Say what a setting is, for a rule about another."""
        return f"{name} is {shown(value_of(self.settings, name))} by {self.source(name)}"


#: The settings that must be at least 1.
_POSITIVE: Final = (
    *(
        f"limits.max_{name}"
        for name in (
            "total_bytes",
            "stream_bytes",
            "streams",
            "producers_per_stream",
            "metadata_bytes",
            "request_body_bytes",
            "stream_name_bytes",
            "stream_name_segments",
            "header_bytes",
            "target_bytes",
            "connections",
            "queued_bytes",
        )
    ),
    *(
        f"transport.connection.{name}_timeout_secs"
        for name in ("long_poll", "header", "body", "idle", "stall", "drain")
    ),
)

_BASE_PATH: Final = re.compile(r"/|(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()+,;=@-]+)+")
_ORIGIN: Final = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://(?:(?![,/@])[!-~])+")

#: Paths of pages that the server has whatever the settings are.
RESERVED_PATHS: Final = ("/healthz", "/readyz", "/metrics")

_ADDRESS_WANTED: Final = "an IP address and a port, such as 127.0.0.1:4437"
_PATH_WANTED: Final = "no slash at its end, no . or .., only letters, digits and -._~!$&'()+,;=@"
_ORIGINS_WANTED: Final = "*, or a list of origins such as https://app.example.com"


def parse_bind_address(text: str) -> tuple[str, int]:
    """
    Take an address apart.

    :raises ValueError: it is not an IP address, a colon and a port; an IPv6 address stands in brackets.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(text)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(text)
    return str(ip_address(host)), int(port)


def broken_words(stated: Stated) -> Iterator[Broken]:
    """Find settings that are none of the words that they may be."""
    for name, words in CHOICES.items():
        value = value_of(stated.settings, name)
        # The two of the storage may still have another name. All others have lost it when they were read.
        right = words.keys() if name.startswith("storage.") else words.values()
        for word in value if isinstance(value, tuple) else () if value is None else (value,):
            if word not in right:
                yield Broken("InvalidValue", name, words_of(name), word)


def broken_numbers(stated: Stated) -> Iterator[Broken]:
    """Find numbers that are too small, or too large for one another."""
    for name in _POSITIVE:
        if value_of(stated.settings, name) < 1:
            words = name.rpartition(".")[2].removesuffix("_secs").split("_")
            yield Broken("".join(map(str.capitalize, words)) + "TooSmall", name, "1 or more")
    if stated.settings.limits.max_storage_jobs < 1:
        yield Broken("InvalidMaxStorageJobs", "limits.max_storage_jobs", "1 or more")
    connection = stated.settings.transport.connection
    if connection.sse_reconnect_interval_secs < 0:
        yield Broken(
            "SseReconnectIntervalTooSmall",
            "transport.connection.sse_reconnect_interval_secs",
            "0, for never, or more",
        )
    if not 0 <= connection.drain_spread_secs < connection.drain_timeout_secs:
        yield Broken(
            "InvalidDrainSpread",
            "transport.connection.drain_spread_secs",
            "0 or more, and less than the time that all clients have, while "
            + stated.says("transport.connection.drain_timeout_secs"),
        )


def broken_server(stated: Stated) -> Iterator[Broken]:
    """Find addresses that can't be listened at."""
    server, admin = stated.settings.server, stated.settings.admin
    addresses: dict[str, tuple[str, int]] = {}
    for rule, name in (
        ("InvalidBindAddress", "server.bind_address"),
        ("InvalidAdminBindAddress", "admin.bind_address"),
    ):
        text = value_of(stated.settings, name)
        if text is not None:
            try:
                addresses[name] = parse_bind_address(text)
            except ValueError:
                yield Broken(rule, name, _ADDRESS_WANTED)
    for endpoint in server.listen:
        if not endpoint.strip():
            yield Broken("EmptyListenEndpoint", "server.listen", "a list of endpoints such as tcp:4437", endpoint)
    if admin.bind_address is None:
        return
    if not admin.enabled:
        yield Broken(
            "AdminBindAddressRequiresAdmin",
            "admin.bind_address",
            f"left out, or admin.enabled set to true, while {stated.says('admin.enabled')}",
        )
    if not server.listen and _collide(*addresses.values()):
        yield Broken(
            "AdminBindAddressConflictsWithBindAddress",
            "admin.bind_address",
            f"another address and port while {stated.says('server.bind_address')}",
        )


def _collide(*addresses: tuple[str, int]) -> bool:
    """Find out whether a socket at one of two addresses leaves none at the other. Port 0 is another each time."""
    if len(addresses) < 2:
        return False
    (host, port), (other_host, other_port) = addresses
    hosts = ip_address(host), ip_address(other_host)
    return port == other_port != 0 and (hosts[0] == hosts[1] or any(each.is_unspecified for each in hosts))


def broken_storage(stated: Stated) -> Iterator[Broken]:
    """Find what keeps streams from being kept."""
    storage = stated.settings.storage
    if STORAGE_MODES.get(storage.mode) != "memory" and not storage.data_dir.strip():
        yield Broken(
            "EmptyStorageDataDir",
            "storage.data_dir",
            f"the path of a directory while {stated.says('storage.mode')}",
        )
    shards = storage.acid_shard_count
    if not 1 <= shards <= 256 or shards & (shards - 1):
        yield Broken("InvalidAcidShardCount", "storage.acid_shard_count", "a power of two from 1 to 256")


def broken_paths(stated: Stated) -> Iterator[Broken]:
    """Find paths that no request can have, or two may."""
    base, admin = stated.settings.http.stream_base_path, stated.settings.admin
    for rule, name, path in (
        ("StreamBasePathIsReserved", "http.stream_base_path", base),
        ("AdminBasePathIsReserved", "admin.base_path", admin.base_path),
    ):
        if any(path == page or path.startswith(f"{page}/") for page in RESERVED_PATHS):
            yield Broken(rule, name, f"another path than the server's own {', '.join(RESERVED_PATHS)}")
    if _BASE_PATH.fullmatch(base) is None:
        yield Broken("InvalidStreamBasePath", "http.stream_base_path", f"/, or a path like /v1/stream: {_PATH_WANTED}")
    if admin.base_path == "/" or _BASE_PATH.fullmatch(admin.base_path) is None:
        yield Broken("InvalidAdminBasePath", "admin.base_path", f"a path like /admin, and not /: {_PATH_WANTED}")
    # On a listener of its own there is nothing else that it could be in the way of.
    if admin.enabled and admin.bind_address is None and _overlap(base, admin.base_path):
        yield Broken(
            "AdminBasePathConflictsWithStreamBasePath",
            "admin.base_path",
            "a path neither above nor below that of the streams, or have a listener of its own by admin.bind_address, "
            f"while {stated.says('http.stream_base_path')}",
        )


def _overlap(one: str, other: str) -> bool:
    """Find out whether a path is the other or above it, by whole segments."""
    first, second = f"{one.rstrip('/')}/", f"{other.rstrip('/')}/"
    return first.startswith(second) or second.startswith(first)


def broken_origins(stated: Stated) -> Iterator[Broken]:
    """Find origins that no browser sends, and a ``*`` that nobody stands for."""
    http = stated.settings.http
    if not http.cors_origins:
        yield Broken("EmptyCorsOrigin", "http.cors_origins", _ORIGINS_WANTED, "")
    for origin in http.cors_origins:
        if _ORIGIN.fullmatch(origin) is None:
            rule = "InvalidCorsOrigin" if origin.strip() else "EmptyCorsOrigin"
            yield Broken(rule, "http.cors_origins", _ORIGINS_WANTED, origin)
    is_prod = stated.profile == "prod" or stated.profile.startswith("prod-")
    if is_prod and "*" in http.cors_origins and not http.allow_wildcard_cors:
        yield Broken(
            "WildcardCorsOriginsProd",
            "http.cors_origins",
            "a list of the origins whose pages may use the streams, or http.allow_wildcard_cors set to true, in the "
            f"profile {stated.profile}",
        )


def broken_observability(stated: Stated) -> Iterator[Broken]:
    """Find a log without a place."""
    log_file = stated.settings.observability.log_file
    if log_file is not None and not log_file.strip():
        yield Broken("EmptyPath", "observability.log_file", "the path of a file, or left out")
