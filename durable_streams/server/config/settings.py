"""The settings, frozen. Names and defaults are those of the documentation; ``_bytes`` and ``_secs`` say the unit."""

from __future__ import annotations

from typing import Any

from msgspec import Struct


class ServerSettings(Struct, frozen=True):
    """
    Where the server listens.

    :ivar listen: Twisted's string endpoints; when there are any, the server listens on them and nowhere else.
    """

    bind_address: str = "0.0.0.0:4437"
    listen: tuple[str, ...] = ()


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
    max_storage_jobs: int = 64


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
    allow_wildcard_cors: bool = False
    allow_insecure_webhooks: bool = False
    cache: str = "no-store"


class AdminSettings(Struct, frozen=True):
    """
    What is for operators only.

    :ivar bind_address: a listener of its own for it; None to have it where the streams are.
    """

    enabled: bool = False
    base_path: str = "/admin"
    bind_address: str | None = None


class VersionSettings(Struct, frozen=True):
    """Which versions of HTTP there are: ``http1``, ``http2``."""

    versions: tuple[str, ...] = ("http1",)


class TlsSettings(Struct, frozen=True):
    """
    Certificates, and the range of TLS versions.

    :ivar alpn_protocols: None for what the versions of HTTP come to, HTTP/2 first.
    """

    cert_path: str | None = None
    key_path: str | None = None
    client_ca_path: str | None = None
    min_version: str = "1.3"
    max_version: str = "1.3"
    alpn_protocols: tuple[str, ...] | None = None


class ConnectionSettings(Struct, frozen=True):
    """How long a connection may take over what."""

    long_poll_timeout_secs: int = 20
    sse_reconnect_interval_secs: int = 60
    header_timeout_secs: int = 15
    body_timeout_secs: int = 30
    idle_timeout_secs: int = 75
    stall_timeout_secs: int = 60
    drain_timeout_secs: int = 30
    drain_spread_secs: int = 0


class TransportSettings(Struct, frozen=True):
    """
    How clients reach the server.

    :ivar mode: ``http``, ``tls`` or ``mtls``.
    """

    mode: str = "http"
    http: VersionSettings = VersionSettings()
    tls: TlsSettings = TlsSettings()
    connection: ConnectionSettings = ConnectionSettings()


class IdentitySettings(Struct, frozen=True):
    """Whether a trusted proxy says who the client is: ``none``, or ``header``, in ``header_name``."""

    mode: str = "none"
    header_name: str | None = None
    require_tls: bool = True


class ProxySettings(Struct, frozen=True):
    """
    Which proxies are believed what they say of their clients.

    :ivar forwarded_headers: ``none``, ``x-forwarded`` or ``forwarded``.
    :ivar trusted_proxies: addresses and networks.
    """

    enabled: bool = False
    forwarded_headers: str = "none"
    trusted_proxies: tuple[str, ...] = ()
    identity: IdentitySettings = IdentitySettings()


class ObservabilitySettings(Struct, frozen=True):
    """
    What the server says about itself.

    :ivar log_level: ``debug``, ``info``, ``warn`` or ``error``.
    :ivar log_format: ``text`` or ``json``.
    :ivar log_file: None for where twistd logs.
    :ivar access_log: which requests have a line: ``none``, ``failures`` (statuses from 400 on) or ``all``.
    :ivar metrics: whether there is ``/metrics``.
    :ivar traces: whether requests are traced by OpenTelemetry, whose own variables say where to.
    """

    log_level: str = "info"
    log_format: str = "text"
    log_file: str | None = None
    access_log: str = "failures"
    metrics: bool = True
    traces: bool = False


class Settings(Struct, frozen=True):
    """All of them."""

    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()
    storage: StorageSettings = StorageSettings()
    http: HttpSettings = HttpSettings()
    admin: AdminSettings = AdminSettings()
    transport: TransportSettings = TransportSettings()
    proxy: ProxySettings = ProxySettings()
    observability: ObservabilitySettings = ObservabilitySettings()


def value_of(settings: Settings, name: str) -> Any:
    """Get a setting by its dotted name."""
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value
