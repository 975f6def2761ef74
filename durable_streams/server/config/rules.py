"""The rules for server addresses, limits, paths and CORS origins."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address
from typing import Final

from msgspec import Struct

from .choices import CHOICES, SHARED_MODES, is_shared, words_of
from .sections import Sections, value_of
from .showing import shown_setting


class BrokenRule(Struct, frozen=True):
    """
    A validation rule that the settings violate.

    :ivar rule: the name of the rule.
    :ivar name: the setting to change.
    :ivar wanted: what the setting must be, to complete "must be".
    :ivar part: if the setting is a list, the invalid item.
    """

    rule: str
    name: str
    wanted: str
    part: str | None = None


class SettingsWithSources(Struct, frozen=True):
    """
    The settings to validate, with their sources for messages.

    :ivar sources: dotted name -> the layer that set it; settings that no layer set are missing.
    :ivar profile: the name of the profile.
    """

    settings: Sections
    sources: Mapping[str, str]
    profile: str = "default"

    def source(self, name: str) -> str:
        """Return the source of a setting."""
        return self.sources.get(name, "the default")

    def describe(self, name: str) -> str:
        """Return a setting's value and source, for the message of a rule about another setting."""
        return f"{name} is {shown_setting(name, value_of(self.settings, name))} by {self.source(name)}"


def check_path(config: SettingsWithSources, name: str, wanted: str = "the path of a file") -> Iterator[BrokenRule]:
    """Yield a path that is set and empty."""
    path = value_of(config.settings, name)
    if path is not None and not path.strip():
        yield BrokenRule("EmptyPath", name, f"{wanted}, or left out")


#: The settings that must be at least 1.
_POSITIVE: Final = (
    "server.workers",
    *(
        f"limits.max_{name}"
        for name in (
            "total_bytes",
            "stream_bytes",
            "streams",
            "producers_per_stream",
            "fork_depth",
            "metadata_bytes",
            "request_body_bytes",
            "incoming_bytes",
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
    *(
        f"subscriptions.{name}"
        for name in ("max_subscriptions", "max_links", "deliveries", "request_timeout_ms", "sweep_interval_ms")
    ),
    *(f"storage.postgres.{name}" for name in ("connections", "lock_timeout_ms", "commit_deadline_ms", "wait_ms")),
)

_BASE_PATH: Final = re.compile(r"/|(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()+,;=@-]+)+")
_ORIGIN: Final = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://(?:(?![,/@])[!-~])+")

#: The paths of pages that no setting can move.
RESERVED_PATHS: Final = ("/healthz", "/readyz", "/metrics")

#: The largest ``server.workers``.
MAX_WORKERS: Final = 256

_ADDRESS_WANTED: Final = "an IP address and a port, such as 127.0.0.1:4437"
_PATH_WANTED: Final = "no slash at its end, no . or .., only letters, digits and -._~!$&'()+,;=@"
_ORIGINS_WANTED: Final = "*, or a list of origins such as https://app.example.com"


def parse_bind_address(text: str) -> tuple[str, int]:
    """
    Split an address into host and port.

    :raises ValueError: it is not an IP address, a colon and a port; an IPv6 address must be in brackets.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(text)
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(text)
    return str(ip_address(host)), int(port)


def check_words(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield the settings with a value that is not one of the accepted words."""
    for name, words in CHOICES.items():
        value = value_of(config.settings, name)
        # Storage settings may still have an alternative spelling. All others were normalised when they were read.
        right = words.keys() if name.startswith("storage.") else words.values()
        for word in value if isinstance(value, tuple) else () if value is None else (value,):
            if word not in right:
                yield BrokenRule("InvalidValue", name, words_of(name), word)


def check_numbers(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield numbers that are below their minimum, or too large for each other."""
    for name in _POSITIVE:
        if value_of(config.settings, name) < 1:
            words = name.rpartition(".")[2].removesuffix("_secs").removesuffix("_ms").split("_")
            yield BrokenRule("".join(map(str.capitalize, words)) + "TooSmall", name, "1 or more")
    if config.settings.limits.max_storage_jobs < 1:
        yield BrokenRule("InvalidMaxStorageJobs", "limits.max_storage_jobs", "1 or more")
    if config.settings.limits.max_read_bytes < 0:
        yield BrokenRule("MaxReadBytesTooSmall", "limits.max_read_bytes", "0 (no limit) or more")
    connection = config.settings.transport.connection
    if connection.sse_reconnect_interval_secs < 0:
        yield BrokenRule(
            "SseReconnectIntervalTooSmall",
            "transport.connection.sse_reconnect_interval_secs",
            "0 (never) or more",
        )
    if connection.min_body_bytes_per_sec < 0:
        yield BrokenRule(
            "MinBodyBytesPerSecTooSmall", "transport.connection.min_body_bytes_per_sec", "0 (any rate) or more"
        )
    if not 0 <= connection.drain_spread_secs < connection.drain_timeout_secs:
        yield BrokenRule(
            "InvalidDrainSpread",
            "transport.connection.drain_spread_secs",
            "0 or more, and less than the drain timeout, while "
            + config.describe("transport.connection.drain_timeout_secs"),
        )


def check_server(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield malformed and conflicting addresses of listeners."""
    server, admin = config.settings.server, config.settings.admin
    addresses: dict[str, tuple[str, int]] = {}
    for rule, name in (
        ("InvalidBindAddress", "server.bind_address"),
        ("InvalidAdminBindAddress", "admin.bind_address"),
    ):
        text = value_of(config.settings, name)
        if text is not None:
            try:
                addresses[name] = parse_bind_address(text)
            except ValueError:
                yield BrokenRule(rule, name, _ADDRESS_WANTED)
    for endpoint in server.listen:
        if not endpoint.strip():
            yield BrokenRule("EmptyListenEndpoint", "server.listen", "a list of endpoints such as tcp:4437", endpoint)
    if admin.bind_address is None:
        return
    if not admin.enabled:
        yield BrokenRule(
            "AdminBindAddressRequiresAdmin",
            "admin.bind_address",
            f"left out, or admin.enabled set to true, while {config.describe('admin.enabled')}",
        )
    if not server.listen and _collide(*addresses.values()):
        yield BrokenRule(
            "AdminBindAddressConflictsWithBindAddress",
            "admin.bind_address",
            f"another address and port while {config.describe('server.bind_address')}",
        )


def check_workers(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield a number of workers that is too large, or that the storage does not allow."""
    workers, mode = config.settings.server.workers, config.settings.storage.mode
    if workers > MAX_WORKERS:
        yield BrokenRule("TooManyWorkers", "server.workers", f"{MAX_WORKERS} or less")
    elif workers > 1 and not is_shared(mode):
        shared = " or ".join(sorted(SHARED_MODES))
        yield BrokenRule(
            "WorkersRequireSharedStorage",
            "server.workers",
            f"1, or storage.mode set to {shared}, while {config.describe('storage.mode')}, since its streams belong to "
            "a single process",
        )


def _collide(*addresses: tuple[str, int]) -> bool:
    """Return whether two addresses cannot both be bound. Port 0 never collides: each bind gets its own port."""
    if len(addresses) < 2:
        return False
    (host, port), (other_host, other_port) = addresses
    hosts = ip_address(host), ip_address(other_host)
    return port == other_port != 0 and (hosts[0] == hosts[1] or any(each.is_unspecified for each in hosts))


def check_paths(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield base paths that are malformed, reserved, or overlap."""
    base, admin = config.settings.http.stream_base_path, config.settings.admin
    for rule, name, path in (
        ("StreamBasePathIsReserved", "http.stream_base_path", base),
        ("AdminBasePathIsReserved", "admin.base_path", admin.base_path),
    ):
        if any(path == page or path.startswith(f"{page}/") for page in RESERVED_PATHS):
            yield BrokenRule(rule, name, f"a path other than {', '.join(RESERVED_PATHS)}, which the server uses")
    if _BASE_PATH.fullmatch(base) is None:
        yield BrokenRule(
            "InvalidStreamBasePath", "http.stream_base_path", f"/, or a path like /v1/stream: {_PATH_WANTED}"
        )
    if admin.base_path == "/" or _BASE_PATH.fullmatch(admin.base_path) is None:
        yield BrokenRule("InvalidAdminBasePath", "admin.base_path", f"a path like /admin, and not /: {_PATH_WANTED}")
    # On a separate listener there are no streams that the pages could conflict with.
    if admin.enabled and admin.bind_address is None and _overlap(base, admin.base_path):
        yield BrokenRule(
            "AdminBasePathConflictsWithStreamBasePath",
            "admin.base_path",
            "a path neither above nor below http.stream_base_path, or served on a separate listener "
            f"(admin.bind_address), while {config.describe('http.stream_base_path')}",
        )


def _overlap(one: str, other: str) -> bool:
    """Return whether one path equals the other or is above it, by whole segments."""
    first, second = f"{one.rstrip('/')}/", f"{other.rstrip('/')}/"
    return first.startswith(second) or second.startswith(first)


def is_production(profile: str) -> bool:
    """Return whether a profile is ``prod`` or ``prod-*``."""
    return profile == "prod" or profile.startswith("prod-")


def check_origins(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield malformed origins, and a ``*`` in a prod profile without ``http.allow_wildcard_cors``."""
    http = config.settings.http
    if not http.cors_origins:
        yield BrokenRule("EmptyCorsOrigin", "http.cors_origins", _ORIGINS_WANTED, "")
    for origin in http.cors_origins:
        if _ORIGIN.fullmatch(origin) is None:
            rule = "InvalidCorsOrigin" if origin.strip() else "EmptyCorsOrigin"
            yield BrokenRule(rule, "http.cors_origins", _ORIGINS_WANTED, origin)
    if is_production(config.profile) and "*" in http.cors_origins and not http.allow_wildcard_cors:
        yield BrokenRule(
            "WildcardCorsOriginsProd",
            "http.cors_origins",
            "a list of the origins whose pages may use the streams, or http.allow_wildcard_cors set to true, in the "
            f"profile {config.profile}",
        )


def check_observability(config: SettingsWithSources) -> Iterator[BrokenRule]:
    """Yield an empty path of the log file."""
    yield from check_path(config, "observability.log_file")
