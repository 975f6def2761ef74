"""The sections of settings, frozen, with their defaults. ``_bytes`` and ``_secs`` in a name are its unit."""

from __future__ import annotations

from typing import Any

from .quota_sections import QuotaSettings
from .section import Section
from .showing import shown_setting


class ServerSettings(Section, frozen=True):
    """
    The addresses on which the server listens, and the number of its processes.

    :ivar listen: Twisted's string endpoints; when there are any, the server listens on them and nowhere else.
    :ivar workers: the number of processes that serve these addresses; embedded servers ignore it.
    """

    bind_address: str = "0.0.0.0:4437"
    listen: tuple[str, ...] = ()
    workers: int = 1


class LimitSettings(Section, frozen=True):
    """
    Limits of data, requests and connections.

    :ivar max_read_bytes: 0 for answers without a limit.
    :ivar max_storage_jobs: no effect, see :mod:`.ineffective`.
    """

    max_total_bytes: int = 104_857_600
    max_stream_bytes: int = 10_485_760
    max_streams: int = 1_000_000
    max_producers_per_stream: int = 10_000
    max_fork_depth: int = 1_000
    max_metadata_bytes: int = 268_435_456
    max_request_body_bytes: int = 10_485_760
    max_incoming_bytes: int = 268_435_456
    max_read_bytes: int = 0
    max_stream_name_bytes: int = 1024
    max_stream_name_segments: int = 8
    max_header_bytes: int = 32_768
    max_target_bytes: int = 8_192
    max_connections: int = 10_000
    max_queued_bytes: int = 67_108_864
    max_storage_jobs: int = 64


class DatabaseSettings(Section, frozen=True):
    """
    The database of ``storage.mode`` ``postgres``. ``_ms`` in a name is its unit.

    :ivar dsn: a connection string of libpq, a secret; None or empty for the defaults of libpq: ``PG*`` variables.
    :ivar dsn_file: the path of a file with the connection string; None for ``dsn``.
    :ivar schema: the schema of the tables.
    :ivar connections: the number of connections for reading.
    :ivar wait_ms: how long requests wait for a database that does not answer, before they get 503.
    :ivar cache_bytes: the size of the cache of data; 0 for none.
    :ivar migrate: whether the start creates and upgrades the tables.
    """

    dsn: str | None = None
    dsn_file: str | None = None
    schema: str = "durable_streams"
    connections: int = 4
    lock_timeout_ms: int = 1_000
    commit_deadline_ms: int = 10_000
    wait_ms: int = 5_000
    cache_bytes: int = 67_108_864
    migrate: bool = True

    def __repr__(self) -> str:
        fields = (f"{name}={shown_setting(name, getattr(self, name))}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({', '.join(fields)})"


class StorageSettings(Section, frozen=True):
    """The storage mode, its data directory, and its database."""

    mode: str = "memory"
    data_dir: str = "./data/streams"
    acid_backend: str = "file"
    acid_shard_count: int = 16
    verify_reads: bool = True
    postgres: DatabaseSettings = DatabaseSettings()


class HttpSettings(Section, frozen=True):
    """
    The path of streams, CORS, and caching.

    :ivar public_url: the server as clients see it, without the base path; None to take it from requests.
    :ivar cors_credentials: whether pages of the origins may send cookies and client certificates.
    :ivar allow_insecure_webhooks: whether webhooks to this machine may be plain HTTP.
    """

    stream_base_path: str = "/v1/stream"
    cors_origins: tuple[str, ...] = ("*",)
    allow_wildcard_cors: bool = False
    cors_credentials: bool = False
    allow_insecure_webhooks: bool = False
    cache: str = "no-store"
    public_url: str | None = None


class JwtSection(Section, frozen=True):
    """
    The keys and claims of JSON Web Tokens. ``_secs`` in a name is its unit.

    :ivar keys_file: the path of a JWK set or of PEM keys; one of the first three settings is needed.
    :ivar jwks_url: the URL of a JWK set.
    :ivar discovery_url: the URL of the issuer's metadata, which has the URL of the JWK set.
    :ivar ca_file: the path of a PEM file of authorities for these URLs; None for those of the system.
    :ivar issuer: what ``iss`` must be.
    :ivar audience: ``aud`` must have one of them.
    :ivar leeway_secs: how far the issuer's clock may differ.
    :ivar required_claims: ``NAME`` or ``NAME=VALUE`` each.
    :ivar refresh_secs: how often the keys of a URL are fetched.
    :ivar max_stale_secs: how long keys are used after the last successful fetch.
    """

    keys_file: str | None = None
    jwks_url: str | None = None
    discovery_url: str | None = None
    ca_file: str | None = None
    algorithms: tuple[str, ...] = ("RS256", "ES256", "EdDSA")
    issuer: str | None = None
    audience: tuple[str, ...] = ()
    leeway_secs: int = 30
    required_claims: tuple[str, ...] = ()
    subject_claim: str = "sub"
    groups_claim: str = "groups"
    refresh_secs: int = 300
    max_stale_secs: int = 86_400


class AuthSettings(Section, frozen=True):
    """
    Who may use the server: the methods by which clients authenticate, and the rules about what they may do.

    :ivar methods: in the order in which requests are looked at: ``token``, ``jwt``, ``certificate``, ``header``,
        ``signed-url``.
    :ivar allow_anonymous: whether requests without credentials are accepted, as far as the rules allow them.
    :ivar rules: a rule each; the first that matches decides.
    :ivar rules_file: the path of a file with a rule on each line, instead of ``rules``.
    :ivar token_file: the path of the file of static tokens.
    :ivar signing_keys_file: the path of the file of keys that sign URLs.
    :ivar hide_forbidden: whether a stream that may not be read answers like one that does not exist.
    :ivar certificate_name: the part of a client certificate that is the subject: ``subject``, ``cn``, ``dns``, ``uri``
        or ``email``.
    """

    methods: tuple[str, ...] = ()
    allow_anonymous: bool = True
    rules: tuple[str, ...] = ()
    rules_file: str | None = None
    token_file: str | None = None
    signing_keys_file: str | None = None
    hide_forbidden: bool = False
    certificate_name: str = "subject"
    jwt: JwtSection = JwtSection()


class AdminSettings(Section, frozen=True):
    """
    The pages for operators.

    :ivar bind_address: a separate listener for the pages; None to serve them on the streams' listener.
    :ivar token_file: the path of a file with bearer tokens; None to let only this machine use the pages.
    """

    enabled: bool = False
    base_path: str = "/admin"
    bind_address: str | None = None
    token_file: str | None = None


class VersionSettings(Section, frozen=True):
    """The versions of HTTP that are served: ``http1``, ``http2``."""

    versions: tuple[str, ...] = ("http1",)


class TlsSettings(Section, frozen=True):
    """
    Certificates, and the range of TLS versions.

    :ivar alpn_protocols: None to derive them from ``transport.http.versions``, HTTP/2 first.
    """

    cert_path: str | None = None
    key_path: str | None = None
    client_ca_path: str | None = None
    min_version: str = "1.3"
    max_version: str = "1.3"
    alpn_protocols: tuple[str, ...] | None = None


class ConnectionSettings(Section, frozen=True):
    """Timeouts of connections."""

    long_poll_timeout_secs: int = 20
    sse_reconnect_interval_secs: int = 60
    header_timeout_secs: int = 15
    body_timeout_secs: int = 30
    min_body_bytes_per_sec: int = 500
    idle_timeout_secs: int = 75
    stall_timeout_secs: int = 60
    drain_timeout_secs: int = 30
    drain_spread_secs: int = 0


class TransportSettings(Section, frozen=True):
    """
    The transport: HTTP versions, TLS, and timeouts of connections.

    :ivar mode: ``http``, ``tls`` or ``mtls``.
    """

    mode: str = "http"
    http: VersionSettings = VersionSettings()
    tls: TlsSettings = TlsSettings()
    connection: ConnectionSettings = ConnectionSettings()


class IdentitySettings(Section, frozen=True):
    """The client's identity from a trusted proxy: ``none``, or ``header`` to take it from ``header_name``."""

    mode: str = "none"
    header_name: str | None = None
    require_tls: bool = True


class ProxySettings(Section, frozen=True):
    """
    The proxies whose forwarding headers are trusted.

    :ivar forwarded_headers: ``none``, ``x-forwarded`` or ``forwarded``.
    :ivar trusted_proxies: addresses and networks, or ``unix`` for all UNIX sockets.
    """

    enabled: bool = False
    forwarded_headers: str = "none"
    trusted_proxies: tuple[str, ...] = ()
    identity: IdentitySettings = IdentitySettings()


class SubscriptionSettings(Section, frozen=True):
    """
    The subscription APIs. ``_ms`` in a name is its unit.

    :ivar deliveries: the number of webhooks that are sent at once.
    :ivar signing_key_file: the path of a private key in PEM; None for one that the server makes and stores.
    :ivar webhook_ca_file: the path of a PEM file of authorities that sign receivers' certificates; None for those of
        the system.
    :ivar webhook_networks: networks that webhooks may call although they are not public.
    :ivar webhook_http_networks: networks that they may call without TLS, too.
    """

    enabled: bool = True
    max_subscriptions: int = 10_000
    max_links: int = 1_000_000
    deliveries: int = 16
    request_timeout_ms: int = 5_000
    sweep_interval_ms: int = 30_000
    signing_key_file: str | None = None
    webhook_ca_file: str | None = None
    webhook_networks: tuple[str, ...] = ()
    webhook_http_networks: tuple[str, ...] = ()


class ObservabilitySettings(Section, frozen=True):
    """
    Log, metrics and traces.

    :ivar log_level: ``debug``, ``info``, ``warn`` or ``error``.
    :ivar log_format: ``text`` or ``json``.
    :ivar log_file: the path of the log file; None for twistd's log.
    :ivar access_log: the requests that are logged: ``none``, ``failures`` (status 400 and above) or ``all``.
    :ivar metrics: whether ``/metrics`` is served.
    :ivar traces: whether requests are traced with OpenTelemetry, which is configured by its own variables.
    """

    log_level: str = "info"
    log_format: str = "text"
    log_file: str | None = None
    access_log: str = "failures"
    metrics: bool = True
    traces: bool = False


class AuditSettings(Section, frozen=True):
    """
    The audit log.

    :ivar file: its path; None for no audit log.
    :ivar events: the recorded requests: ``none``, ``denied``, ``changes`` (denied ones and changes) or ``all``.
    :ivar required: whether requests that would be recorded are refused while the file cannot be written.
    """

    file: str | None = None
    events: str = "changes"
    required: bool = False


class Sections(Section, frozen=True):
    """All settings."""

    server: ServerSettings = ServerSettings()
    limits: LimitSettings = LimitSettings()
    storage: StorageSettings = StorageSettings()
    http: HttpSettings = HttpSettings()
    auth: AuthSettings = AuthSettings()
    admin: AdminSettings = AdminSettings()
    transport: TransportSettings = TransportSettings()
    proxy: ProxySettings = ProxySettings()
    quotas: QuotaSettings = QuotaSettings()
    subscriptions: SubscriptionSettings = SubscriptionSettings()
    observability: ObservabilitySettings = ObservabilitySettings()
    audit: AuditSettings = AuditSettings()


def value_of(settings: Sections, name: str) -> Any:
    """Return the value of a setting by its dotted name."""
    value: Any = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value
