"""What settings must be, each rule with its own message."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from .settings import Settings, StorageSettings


class ConfigError(Exception):
    """The configuration can't be used; the message names the setting, the value, where it comes from, and the fix."""


#: The settings that must be at least 1.
_POSITIVE = (
    *(
        f"limits.max_{name}"
        for name in (
            "memory_bytes",
            "stream_bytes",
            "streams",
            "producers_per_stream",
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

#: What ``storage.mode`` may be, and what each is called here.
STORAGE_MODES = {
    "memory": "memory",
    "file": "file-durable",
    "file-durable": "file-durable",
    "file-fast": "file-fast",
    "acid": "acid",
    "sqlite": "acid",
    "redb": "acid",
}

#: What ``storage.acid_backend`` may be, and what each is called here.
ACID_BACKENDS = {"file": "file", "in-memory": "in-memory", "memory": "in-memory", "inmemory": "in-memory"}

_BASE_PATH = re.compile(r"/|(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~!$&'()+,;=@-]+)+")
_ORIGIN = re.compile(r"\*|null|[a-z][a-z0-9+.-]*://(?:(?![,/])[!-~])+")


def validate(settings: Settings, sources: Mapping[str, str]) -> None:
    """
    Check the settings against each other and against what they are for.

    :param sources: where the settings that are not at their defaults come from, by dotted name.
    :raises ConfigError: the first rule that is broken.
    """
    for name, value, rule in _broken_rules(settings):
        raise ConfigError(f"{name} must be {rule}; {sources.get(name, 'the default')} sets it to {value!r}.")


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


def _broken_storage_rules(storage: StorageSettings) -> Iterator[tuple[str, object, str]]:
    if storage.mode not in STORAGE_MODES:
        yield "storage.mode", storage.mode, "memory, file-durable, file-fast or acid"
    if storage.acid_backend not in ACID_BACKENDS:
        yield "storage.acid_backend", storage.acid_backend, "file or in-memory"
    if STORAGE_MODES.get(storage.mode) != "memory" and not storage.data_dir.strip():
        yield "storage.data_dir", storage.data_dir, "the path of a directory"
    shards = storage.acid_shard_count
    if not 1 <= shards <= 256 or shards & (shards - 1):
        yield "storage.acid_shard_count", shards, "a power of two from 1 to 256"


def _broken_rules(settings: Settings) -> Iterator[tuple[str, object, str]]:
    try:
        parse_bind_address(settings.server.bind_address)
    except ValueError:
        yield "server.bind_address", settings.server.bind_address, "an IP address and a port, such as 127.0.0.1:4437"
    for name in _POSITIVE:
        value: object = settings
        for part in name.split("."):
            value = getattr(value, part)
        assert isinstance(value, int)
        if value < 1:
            yield name, value, "1 or more"
    reconnect = settings.transport.connection.sse_reconnect_interval_secs
    if reconnect < 0:
        yield "transport.connection.sse_reconnect_interval_secs", reconnect, "0, for never, or more"
    yield from _broken_storage_rules(settings.storage)
    if _BASE_PATH.fullmatch(settings.http.stream_base_path) is None:
        yield (
            "http.stream_base_path",
            settings.http.stream_base_path,
            "/, or a path like /v1/stream: no slash at its end, no . or .., only letters, digits and -._~!$&'()+,;=@",
        )
    if not settings.http.cors_origins:
        yield "http.cors_origins", "", "*, or a list of origins such as https://app.example.com"
    for origin in settings.http.cors_origins:
        if _ORIGIN.fullmatch(origin) is None:
            yield "http.cors_origins", origin, "*, or a list of origins such as https://app.example.com"
    if settings.observability.log_level not in ("debug", "info"):
        yield "observability.log_level", settings.observability.log_level, "debug or info"
