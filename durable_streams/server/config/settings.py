"""The settings, frozen. Names and defaults are those of the documentation; ``_bytes`` and ``_secs`` say the unit."""

from __future__ import annotations

from msgspec import Struct


class ServerSettings(Struct, frozen=True):
    """Where the server listens."""

    bind_address: str = "0.0.0.0:4437"


class LimitSettings(Struct, frozen=True):
    """How much of everything the server takes."""

    max_memory_bytes: int = 104_857_600
    max_stream_bytes: int = 10_485_760
    max_streams: int = 1_000_000
    max_producers_per_stream: int = 10_000
    max_request_body_bytes: int = 10_485_760
    max_stream_name_bytes: int = 1024
    max_stream_name_segments: int = 8
    max_header_bytes: int = 32_768
    max_target_bytes: int = 8_192
    max_connections: int = 10_000
    max_queued_bytes: int = 67_108_864


class StorageSettings(Struct, frozen=True):
    """Where streams are kept."""

    mode: str = "memory"
    data_dir: str = "./data/streams"
    acid_backend: str = "file"
    acid_shard_count: int = 16


class HttpSettings(Struct, frozen=True):
    """How streams appear on the web."""

    stream_base_path: str = "/v1/stream"
    cors_origins: tuple[str, ...] = ("*",)


class ConnectionSettings(Struct, frozen=True):
    """How long a connection may take over what."""

    long_poll_timeout_secs: int = 20
    sse_reconnect_interval_secs: int = 60
    header_timeout_secs: int = 15
    body_timeout_secs: int = 30
    idle_timeout_secs: int = 75
    stall_timeout_secs: int = 60
    drain_timeout_secs: int = 25


class TransportSettings(Struct, frozen=True):
    """How clients reach the server."""

    connection: ConnectionSettings = ConnectionSettings()


class ObservabilitySettings(Struct, frozen=True):
    """What the server says about itself."""

    log_level: str = "info"


class Settings(Struct, frozen=True):
    """All of them."""

    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()
    storage: StorageSettings = StorageSettings()
    http: HttpSettings = HttpSettings()
    transport: TransportSettings = TransportSettings()
    observability: ObservabilitySettings = ObservabilitySettings()
