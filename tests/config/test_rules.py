"""Each rule is violated once; its name, phase and whole message are compared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from durable_streams.server.config import rules, storage_rules, subscription_rules, transport_rules
from durable_streams.server.config.rules import RESERVED_PATHS
from durable_streams.server.config.validation import ConfigError
from durable_streams.server.web.wire import PROBES

from .test_layers import LoadTests, variable

TLS: Final = {
    "transport.mode": "tls",
    "transport.tls.cert_path": "/cert.pem",
    "transport.tls.key_path": "/key.pem",
}
MTLS: Final = {**TLS, "transport.mode": "mtls", "transport.tls.client_ca_path": "/ca.pem"}
PROXY: Final = {
    "proxy.enabled": "true",
    "proxy.forwarded_headers": "forwarded",
    "proxy.trusted_proxies": "10.0.0.0/8, ::1",
}
ADMIN: Final = {"admin.enabled": "true"}
POSTGRES: Final = {"storage.mode": "postgres"}
OPEN: Final = {**ADMIN, "admin.token_file": "/tokens"}

Case = tuple[str, dict[str, str], str]

#: By the rule's name: settings that break it, and what is said then.
CASES: Final[list[Case]] = [
    *(
        (
            f"{rule}TooSmall",
            {f"subscriptions.{name}": "0"},
            (
                f"subscriptions.{name} must be 1 or more; environment variable DS_SUBSCRIPTIONS__{name.upper()} sets "
                "it to 0."
            ),
        )
        for rule, name in (
            ("MaxSubscriptions", "max_subscriptions"),
            ("MaxLinks", "max_links"),
            ("Deliveries", "deliveries"),
            ("RequestTimeout", "request_timeout_ms"),
            ("SweepInterval", "sweep_interval_ms"),
        )
    ),
    (
        "WorkersTooSmall",
        {"server.workers": "0"},
        "server.workers must be 1 or more; environment variable DS_SERVER__WORKERS sets it to 0.",
    ),
    (
        "TooManyWorkers",
        {"server.workers": "257"},
        "server.workers must be 256 or less; environment variable DS_SERVER__WORKERS sets it to 257.",
    ),
    *(
        (
            "WorkersRequireSharedStorage",
            {"server.workers": "2", "storage.mode": mode},
            (
                f"server.workers must be 1, or storage.mode set to postgres, while storage.mode is {mode!r} by "
                "environment variable DS_STORAGE__MODE, since its streams belong to a single process; environment "
                "variable DS_SERVER__WORKERS sets it to 2."
            ),
        )
        for mode in ("memory", "file-durable", "file-fast", "acid")
    ),
    (
        "InvalidPublicUrl",
        {"http.public_url": "https://streams.example/?a=b"},
        (
            "http.public_url must be a URL without query, such as https://streams.example.com; environment variable "
            "DS_HTTP__PUBLIC_URL sets it to 'https://streams.example/?a=b'."
        ),
    ),
    (
        "InvalidWebhookNetwork",
        {"subscriptions.webhook_networks": "10.0.0.0/8, 10.0.0.1/8"},
        (
            "subscriptions.webhook_networks must be a list of networks such as 10.0.0.0/8; environment variable "
            "DS_SUBSCRIPTIONS__WEBHOOK_NETWORKS sets it to '10.0.0.1/8'."
        ),
    ),
    (
        "InvalidWebhookNetwork",
        {"subscriptions.webhook_http_networks": "::ffff:10.0.0.0/104"},
        (
            "subscriptions.webhook_http_networks must be a list of networks such as 10.0.0.0/8; environment variable "
            "DS_SUBSCRIPTIONS__WEBHOOK_HTTP_NETWORKS sets it to '::ffff:10.0.0.0/104'."
        ),
    ),
    (
        "EmptyPath",
        {"subscriptions.webhook_ca_file": " "},
        (
            "subscriptions.webhook_ca_file must be the path of a file, or left out; environment variable "
            "DS_SUBSCRIPTIONS__WEBHOOK_CA_FILE sets it to ''."
        ),
    ),
    (
        "EmptyPath",
        {"subscriptions.signing_key_file": " "},
        (
            "subscriptions.signing_key_file must be the path of a file, or left out; environment variable "
            "DS_SUBSCRIPTIONS__SIGNING_KEY_FILE sets it to ''."
        ),
    ),
    (
        "InvalidBindAddress",
        {"server.bind_address": "localhost:4437"},
        (
            "server.bind_address must be an IP address and a port, such as 127.0.0.1:4437; environment "
            "variable DS_SERVER__BIND_ADDRESS sets it to 'localhost:4437'."
        ),
    ),
    (
        "MaxTotalBytesTooSmall",
        {"limits.max_total_bytes": "0"},
        ("limits.max_total_bytes must be 1 or more; environment variable DS_LIMITS__MAX_TOTAL_BYTES sets it to 0."),
    ),
    (
        "MaxStreamBytesTooSmall",
        {"limits.max_stream_bytes": "0"},
        ("limits.max_stream_bytes must be 1 or more; environment variable DS_LIMITS__MAX_STREAM_BYTES sets it to 0."),
    ),
    (
        "MaxStreamsTooSmall",
        {"limits.max_streams": "0"},
        "limits.max_streams must be 1 or more; environment variable DS_LIMITS__MAX_STREAMS sets it to 0.",
    ),
    (
        "MaxProducersPerStreamTooSmall",
        {"limits.max_producers_per_stream": "0"},
        (
            "limits.max_producers_per_stream must be 1 or more; environment variable "
            "DS_LIMITS__MAX_PRODUCERS_PER_STREAM sets it to 0."
        ),
    ),
    (
        "MaxMetadataBytesTooSmall",
        {"limits.max_metadata_bytes": "0"},
        (
            "limits.max_metadata_bytes must be 1 or more; environment variable "
            "DS_LIMITS__MAX_METADATA_BYTES sets it to 0."
        ),
    ),
    (
        "MaxIncomingBytesTooSmall",
        {"limits.max_incoming_bytes": "0"},
        (
            "limits.max_incoming_bytes must be 1 or more; environment variable "
            "DS_LIMITS__MAX_INCOMING_BYTES sets it to 0."
        ),
    ),
    (
        "MinBodyBytesPerSecTooSmall",
        {"transport.connection.min_body_bytes_per_sec": "-1"},
        (
            "transport.connection.min_body_bytes_per_sec must be 0 (any rate) or more; environment variable "
            "DS_TRANSPORT__CONNECTION__MIN_BODY_BYTES_PER_SEC sets it to -1."
        ),
    ),
    (
        "MaxForkDepthTooSmall",
        {"limits.max_fork_depth": "0"},
        "limits.max_fork_depth must be 1 or more; environment variable DS_LIMITS__MAX_FORK_DEPTH sets it to 0.",
    ),
    (
        "MaxReadBytesTooSmall",
        {"limits.max_read_bytes": "-1"},
        (
            "limits.max_read_bytes must be 0 (no limit) or more; environment variable "
            "DS_LIMITS__MAX_READ_BYTES sets it to -1."
        ),
    ),
    (
        "MaxRequestBodyBytesTooSmall",
        {"limits.max_request_body_bytes": "0"},
        (
            "limits.max_request_body_bytes must be 1 or more; environment variable "
            "DS_LIMITS__MAX_REQUEST_BODY_BYTES sets it to 0."
        ),
    ),
    (
        "MaxStreamNameBytesTooSmall",
        {"limits.max_stream_name_bytes": "0"},
        (
            "limits.max_stream_name_bytes must be 1 or more; environment variable "
            "DS_LIMITS__MAX_STREAM_NAME_BYTES sets it to 0."
        ),
    ),
    (
        "MaxStreamNameSegmentsTooSmall",
        {"limits.max_stream_name_segments": "0"},
        (
            "limits.max_stream_name_segments must be 1 or more; environment variable "
            "DS_LIMITS__MAX_STREAM_NAME_SEGMENTS sets it to 0."
        ),
    ),
    (
        "MaxHeaderBytesTooSmall",
        {"limits.max_header_bytes": "0"},
        ("limits.max_header_bytes must be 1 or more; environment variable DS_LIMITS__MAX_HEADER_BYTES sets it to 0."),
    ),
    (
        "MaxTargetBytesTooSmall",
        {"limits.max_target_bytes": "0"},
        ("limits.max_target_bytes must be 1 or more; environment variable DS_LIMITS__MAX_TARGET_BYTES sets it to 0."),
    ),
    (
        "MaxConnectionsTooSmall",
        {"limits.max_connections": "0"},
        ("limits.max_connections must be 1 or more; environment variable DS_LIMITS__MAX_CONNECTIONS sets it to 0."),
    ),
    (
        "MaxQueuedBytesTooSmall",
        {"limits.max_queued_bytes": "0"},
        ("limits.max_queued_bytes must be 1 or more; environment variable DS_LIMITS__MAX_QUEUED_BYTES sets it to 0."),
    ),
    (
        "InvalidMaxStorageJobs",
        {"limits.max_storage_jobs": "0"},
        ("limits.max_storage_jobs must be 1 or more; environment variable DS_LIMITS__MAX_STORAGE_JOBS sets it to 0."),
    ),
    (
        "LongPollTimeoutTooSmall",
        {"transport.connection.long_poll_timeout_secs": "0"},
        (
            "transport.connection.long_poll_timeout_secs must be 1 or more; environment variable "
            "DS_TRANSPORT__CONNECTION__LONG_POLL_TIMEOUT_SECS sets it to 0."
        ),
    ),
    (
        "HeaderTimeoutTooSmall",
        {"transport.connection.header_timeout_secs": "0"},
        (
            "transport.connection.header_timeout_secs must be 1 or more; environment variable "
            "DS_TRANSPORT__CONNECTION__HEADER_TIMEOUT_SECS sets it to 0."
        ),
    ),
    (
        "BodyTimeoutTooSmall",
        {"transport.connection.body_timeout_secs": "0"},
        (
            "transport.connection.body_timeout_secs must be 1 or more; environment variable "
            "DS_TRANSPORT__CONNECTION__BODY_TIMEOUT_SECS sets it to 0."
        ),
    ),
    (
        "IdleTimeoutTooSmall",
        {"transport.connection.idle_timeout_secs": "0"},
        (
            "transport.connection.idle_timeout_secs must be 1 or more; environment variable "
            "DS_TRANSPORT__CONNECTION__IDLE_TIMEOUT_SECS sets it to 0."
        ),
    ),
    (
        "StallTimeoutTooSmall",
        {"transport.connection.stall_timeout_secs": "0"},
        (
            "transport.connection.stall_timeout_secs must be 1 or more; environment variable "
            "DS_TRANSPORT__CONNECTION__STALL_TIMEOUT_SECS sets it to 0."
        ),
    ),
    (
        "SseReconnectIntervalTooSmall",
        {"transport.connection.sse_reconnect_interval_secs": "-1"},
        (
            "transport.connection.sse_reconnect_interval_secs must be 0 (never) or more; environment "
            "variable DS_TRANSPORT__CONNECTION__SSE_RECONNECT_INTERVAL_SECS sets it to -1."
        ),
    ),
    (
        "InvalidDrainSpread",
        {"transport.connection.drain_spread_secs": "30"},
        (
            "transport.connection.drain_spread_secs must be 0 or more, and less than the drain timeout, "
            "while transport.connection.drain_timeout_secs is 30 by the default; environment "
            "variable DS_TRANSPORT__CONNECTION__DRAIN_SPREAD_SECS sets it to 30."
        ),
    ),
    (
        "InvalidAcidShardCount",
        {"storage.acid_shard_count": "3"},
        (
            "storage.acid_shard_count must be a power of two from 1 to 256; environment variable "
            "DS_STORAGE__ACID_SHARD_COUNT sets it to 3."
        ),
    ),
    (
        "EmptyCorsOrigin",
        {"http.cors_origins": ""},
        (
            "http.cors_origins must be *, or a list of origins such as https://app.example.com; environment "
            "variable DS_HTTP__CORS_ORIGINS sets it to ''."
        ),
    ),
    (
        "InvalidStreamBasePath",
        {"http.stream_base_path": "/a/"},
        (
            "http.stream_base_path must be /, or a path like /v1/stream: no slash at its end, no . or .., "
            "only letters, digits and -._~!$&'()+,;=@; environment variable DS_HTTP__STREAM_BASE_PATH sets it"
            " to '/a/'."
        ),
    ),
    (
        "InvalidAdminBasePath",
        {"admin.base_path": "/"},
        (
            "admin.base_path must be a path like /admin, and not /: no slash at its end, no . or .., only "
            "letters, digits and -._~!$&'()+,;=@; environment variable DS_ADMIN__BASE_PATH sets it to '/'."
        ),
    ),
    (
        "StreamBasePathIsReserved",
        {"http.stream_base_path": "/metrics"},
        (
            "http.stream_base_path must be a path other than /healthz, /readyz, /metrics, which the server uses; "
            "environment variable DS_HTTP__STREAM_BASE_PATH sets it to '/metrics'."
        ),
    ),
    (
        "AdminBasePathIsReserved",
        {"admin.base_path": "/readyz/x"},
        (
            "admin.base_path must be a path other than /healthz, /readyz, /metrics, which the server uses; "
            "environment variable DS_ADMIN__BASE_PATH sets it to '/readyz/x'."
        ),
    ),
    (
        "EmptyHttpVersions",
        {"transport.http.versions": ""},
        (
            "transport.http.versions must be a list of http1, http2 or both; environment variable "
            "DS_TRANSPORT__HTTP__VERSIONS sets it to []."
        ),
    ),
    (
        "EmptyPath",
        {"observability.log_file": ""},
        (
            "observability.log_file must be the path of a file, or left out; environment variable "
            "DS_OBSERVABILITY__LOG_FILE sets it to ''."
        ),
    ),
    (
        "AdminBindAddressRequiresAdmin",
        {"admin.bind_address": "127.0.0.1:1"},
        (
            "admin.bind_address must be left out, or admin.enabled set to true, while admin.enabled is false "
            "by the default; environment variable DS_ADMIN__BIND_ADDRESS sets it to '127.0.0.1:1'."
        ),
    ),
    (
        "InvalidCorsOrigin",
        {"http.cors_origins": "app.example"},
        (
            "http.cors_origins must be *, or a list of origins such as https://app.example.com; environment "
            "variable DS_HTTP__CORS_ORIGINS sets it to 'app.example'."
        ),
    ),
    (
        "DrainTimeoutTooSmall",
        {"transport.connection.drain_timeout_secs": "0"},
        (
            "transport.connection.drain_timeout_secs must be 1 or more; environment variable "
            "DS_TRANSPORT__CONNECTION__DRAIN_TIMEOUT_SECS sets it to 0."
        ),
    ),
    (
        "InvalidDrainSpread",
        {"transport.connection.drain_timeout_secs": "2", "transport.connection.drain_spread_secs": "2"},
        (
            "transport.connection.drain_spread_secs must be 0 or more, and less than the drain timeout, "
            "while transport.connection.drain_timeout_secs is 2 by environment variable "
            "DS_TRANSPORT__CONNECTION__DRAIN_TIMEOUT_SECS; environment variable "
            "DS_TRANSPORT__CONNECTION__DRAIN_SPREAD_SECS sets it to 2."
        ),
    ),
    (
        "InvalidDrainSpread",
        {"transport.connection.drain_spread_secs": "-1"},
        (
            "transport.connection.drain_spread_secs must be 0 or more, and less than the drain timeout, "
            "while transport.connection.drain_timeout_secs is 30 by the default; environment "
            "variable DS_TRANSPORT__CONNECTION__DRAIN_SPREAD_SECS sets it to -1."
        ),
    ),
    (
        "EmptyStorageDataDir",
        {"storage.mode": "sqlite", "storage.data_dir": " "},
        (
            "storage.data_dir must be the path of a directory while storage.mode is 'acid' by environment "
            "variable DS_STORAGE__MODE; environment variable DS_STORAGE__DATA_DIR sets it to ''."
        ),
    ),
    (
        "DatabaseRequiresPostgresMode",
        {"storage.postgres.dsn": "postgresql://ds:hush@db/streams"},
        (
            "storage.postgres.dsn must be left out, or storage.mode set to postgres, while storage.mode is 'memory' by "
            "the default; environment variable DS_STORAGE__POSTGRES__DSN sets it to '***'."
        ),
    ),
    (
        "DatabaseRequiresPostgresMode",
        {"storage.mode": "acid", "storage.postgres.dsn_file": "/dsn"},
        (
            "storage.postgres.dsn_file must be left out, or storage.mode set to postgres, while storage.mode is 'acid' "
            "by environment variable DS_STORAGE__MODE; environment variable DS_STORAGE__POSTGRES__DSN_FILE sets it to "
            "'/dsn'."
        ),
    ),
    (
        "EmptyPath",
        {**POSTGRES, "storage.postgres.dsn_file": " "},
        (
            "storage.postgres.dsn_file must be the path of a file with a connection string, or left out; environment "
            "variable DS_STORAGE__POSTGRES__DSN_FILE sets it to ''."
        ),
    ),
    (
        "DsnConflictsWithDsnFile",
        {**POSTGRES, "storage.postgres.dsn": "password=hush", "storage.postgres.dsn_file": "/dsn"},
        (
            "storage.postgres.dsn_file must be left out while storage.postgres.dsn is '***' by environment variable "
            "DS_STORAGE__POSTGRES__DSN; environment variable DS_STORAGE__POSTGRES__DSN_FILE sets it to '/dsn'."
        ),
    ),
    (
        "InvalidPostgresSchema",
        {**POSTGRES, "storage.postgres.schema": "Streams"},
        (
            "storage.postgres.schema must be a name of lower-case letters, digits and _, of at most 63 characters, "
            "that begins neither with a digit nor with pg_; environment variable DS_STORAGE__POSTGRES__SCHEMA sets it "
            "to 'Streams'."
        ),
    ),
    *(
        (
            f"{rule}TooSmall",
            {**POSTGRES, f"storage.postgres.{name}": "0"},
            (
                f"storage.postgres.{name} must be 1 or more; environment variable "
                f"DS_STORAGE__POSTGRES__{name.upper()} sets it to 0."
            ),
        )
        for rule, name in (
            ("Connections", "connections"),
            ("LockTimeout", "lock_timeout_ms"),
            ("CommitDeadline", "commit_deadline_ms"),
            ("Wait", "wait_ms"),
        )
    ),
    (
        "CommitDeadlineTooSmall",
        {**POSTGRES, "storage.postgres.commit_deadline_ms": "1000"},
        (
            "storage.postgres.commit_deadline_ms must be more than the lock timeout while "
            "storage.postgres.lock_timeout_ms is 1000 by the default; environment variable "
            "DS_STORAGE__POSTGRES__COMMIT_DEADLINE_MS sets it to 1000."
        ),
    ),
    (
        "CacheBytesTooSmall",
        {**POSTGRES, "storage.postgres.cache_bytes": "-1"},
        (
            "storage.postgres.cache_bytes must be 0 (no cache) or more; environment variable "
            "DS_STORAGE__POSTGRES__CACHE_BYTES sets it to -1."
        ),
    ),
    (
        "InvalidAdminBindAddress",
        ADMIN | {"admin.bind_address": "localhost:1"},
        (
            "admin.bind_address must be an IP address and a port, such as 127.0.0.1:4437; environment "
            "variable DS_ADMIN__BIND_ADDRESS sets it to 'localhost:1'."
        ),
    ),
    (
        "AdminBindAddressConflictsWithBindAddress",
        ADMIN | {"admin.bind_address": "0.0.0.0:4437"},
        (
            "admin.bind_address must be another address and port while server.bind_address is '0.0.0.0:4437' "
            "by the default; environment variable DS_ADMIN__BIND_ADDRESS sets it to '0.0.0.0:4437'."
        ),
    ),
    (
        "AdminBasePathConflictsWithStreamBasePath",
        ADMIN | {"admin.base_path": "/v1"},
        (
            "admin.base_path must be a path neither above nor below http.stream_base_path, or served on a separate "
            "listener (admin.bind_address), while http.stream_base_path is '/v1/stream' by the default; "
            "environment variable DS_ADMIN__BASE_PATH sets it to '/v1'."
        ),
    ),
    (
        "EmptyPath",
        {"transport.tls.cert_path": ""},
        (
            "transport.tls.cert_path must be the path of a PEM file, or left out; environment variable "
            "DS_TRANSPORT__TLS__CERT_PATH sets it to ''."
        ),
    ),
    (
        "HttpModeDisallowsTlsField",
        {"transport.tls.cert_path": "/c"},
        (
            "transport.tls.cert_path must be left out, or transport.mode set to tls or mtls, while "
            "transport.mode is 'http' by the default; environment variable DS_TRANSPORT__TLS__CERT_PATH sets "
            "it to '/c'."
        ),
    ),
    (
        "HttpModeDisallowsTlsField",
        {"transport.tls.key_path": "/c"},
        (
            "transport.tls.key_path must be left out, or transport.mode set to tls or mtls, while "
            "transport.mode is 'http' by the default; environment variable DS_TRANSPORT__TLS__KEY_PATH sets "
            "it to '/c'."
        ),
    ),
    (
        "HttpModeDisallowsTlsField",
        {"transport.tls.client_ca_path": "/c"},
        (
            "transport.tls.client_ca_path must be left out, or transport.mode set to tls or mtls, while "
            "transport.mode is 'http' by the default; environment variable DS_TRANSPORT__TLS__CLIENT_CA_PATH "
            "sets it to '/c'."
        ),
    ),
    (
        "MissingTlsField",
        {"transport.mode": "tls"},
        (
            "transport.tls.cert_path must be the path of a PEM file while transport.mode is 'tls' by "
            "environment variable DS_TRANSPORT__MODE; it is not set."
        ),
    ),
    (
        "MissingTlsField",
        {"transport.mode": "tls", "transport.tls.cert_path": "/c"},
        (
            "transport.tls.key_path must be the path of a PEM file while transport.mode is 'tls' by "
            "environment variable DS_TRANSPORT__MODE; it is not set."
        ),
    ),
    (
        "MissingTlsField",
        TLS | {"transport.mode": "mtls"},
        (
            "transport.tls.client_ca_path must be the path of a PEM file while transport.mode is 'mtls' by "
            "environment variable DS_TRANSPORT__MODE; it is not set."
        ),
    ),
    (
        "ClientCaRequiresMtls",
        TLS | {"transport.tls.client_ca_path": "/ca.pem"},
        (
            "transport.tls.client_ca_path must be left out, or transport.mode set to mtls, while "
            "transport.mode is 'tls' by environment variable DS_TRANSPORT__MODE; environment variable "
            "DS_TRANSPORT__TLS__CLIENT_CA_PATH sets it to '/ca.pem'."
        ),
    ),
    (
        "HttpModeDoesNotSupportHttp2",
        {"transport.http.versions": "http1,h2"},
        (
            "transport.http.versions must be ['http1'] while transport.mode is 'http' by the default, since "
            "HTTP/2 needs TLS; environment variable DS_TRANSPORT__HTTP__VERSIONS sets it to "
            "['http1', 'http2']."
        ),
    ),
    (
        "InvalidTlsVersionRange",
        TLS | {"transport.tls.max_version": "tls1.2"},
        (
            "transport.tls.min_version must be the same or lower while transport.tls.max_version is '1.2' "
            "by environment variable DS_TRANSPORT__TLS__MAX_VERSION; the default sets it to '1.3'."
        ),
    ),
    (
        "UnexpectedAlpnProtocol",
        {"transport.tls.alpn_protocols": "h2,http/1.1"},
        (
            "transport.tls.alpn_protocols must be left out, or a list without h2, while "
            "transport.http.versions is ['http1'] by the default; environment variable "
            "DS_TRANSPORT__TLS__ALPN_PROTOCOLS sets it to ['h2', 'http/1.1']."
        ),
    ),
    (
        "MissingAlpnProtocol",
        {"transport.tls.alpn_protocols": ""},
        (
            "transport.tls.alpn_protocols must be left out, or a list with http/1.1, while "
            "transport.http.versions is ['http1'] by the default; environment variable "
            "DS_TRANSPORT__TLS__ALPN_PROTOCOLS sets it to []."
        ),
    ),
    (
        "MissingAlpnProtocol",
        TLS | {"transport.http.versions": "http1,http2", "transport.tls.alpn_protocols": "h2"},
        (
            "transport.tls.alpn_protocols must be left out, or a list with http/1.1, while "
            "transport.http.versions is ['http1', 'http2'] by environment variable "
            "DS_TRANSPORT__HTTP__VERSIONS; environment variable DS_TRANSPORT__TLS__ALPN_PROTOCOLS sets it to "
            "['h2']."
        ),
    ),
    (
        "ProxyEnabledRequiresForwardedHeaders",
        PROXY | {"proxy.forwarded_headers": "none"},
        (
            "proxy.forwarded_headers must be x-forwarded or forwarded while proxy.enabled is true by "
            "environment variable DS_PROXY__ENABLED; environment variable DS_PROXY__FORWARDED_HEADERS sets it"
            " to 'none'."
        ),
    ),
    (
        "ProxyEnabledRequiresTrustedProxies",
        PROXY | {"proxy.trusted_proxies": ""},
        (
            "proxy.trusted_proxies must be a list of IP addresses and networks such as 10.0.0.0/8 while "
            "proxy.enabled is true by environment variable DS_PROXY__ENABLED; environment variable "
            "DS_PROXY__TRUSTED_PROXIES sets it to []."
        ),
    ),
    (
        "InvalidTrustedProxy",
        PROXY | {"proxy.trusted_proxies": "10.0.0.1,proxy.internal"},
        (
            "proxy.trusted_proxies must be a list of IP addresses and networks such as 10.0.0.0/8; "
            "environment variable DS_PROXY__TRUSTED_PROXIES sets it to 'proxy.internal'."
        ),
    ),
    (
        "InvalidTrustedProxy",
        PROXY | {"proxy.trusted_proxies": "10.1.2.3/8"},
        (
            "proxy.trusted_proxies must be a list of IP addresses and networks such as 10.0.0.0/8, without bits "
            "beyond the prefix length (here probably 10.0.0.0/8); environment "
            "variable DS_PROXY__TRUSTED_PROXIES sets it to '10.1.2.3/8'."
        ),
    ),
    (
        "ProxyDisabledDisallowsTrustedProxies",
        {"proxy.trusted_proxies": "::1"},
        (
            "proxy.trusted_proxies must be left out, or proxy.enabled set to true, while proxy.enabled is "
            "false by the default; environment variable DS_PROXY__TRUSTED_PROXIES sets it to ['::1']."
        ),
    ),
    (
        "ProxyDisabledDisallowsForwardedHeaders",
        {"proxy.forwarded_headers": "xforwarded"},
        (
            "proxy.forwarded_headers must be left out, or proxy.enabled set to true, while proxy.enabled is "
            "false by the default; environment variable DS_PROXY__FORWARDED_HEADERS sets it to 'x-forwarded'."
        ),
    ),
    (
        "ProxyDisabledDisallowsIdentityMode",
        {"proxy.identity.mode": "header"},
        (
            "proxy.identity.mode must be left out, or proxy.enabled set to true, while proxy.enabled is false"
            " by the default; environment variable DS_PROXY__IDENTITY__MODE sets it to 'header'."
        ),
    ),
    (
        "ProxyDisabledDisallowsIdentityHeader",
        {"proxy.identity.header_name": "X-Id"},
        (
            "proxy.identity.header_name must be left out, or proxy.enabled set to true, while proxy.enabled "
            "is false by the default; environment variable DS_PROXY__IDENTITY__HEADER_NAME sets it to 'X-Id'."
        ),
    ),
    (
        "HeaderIdentityRequiresMtls",
        PROXY | {"proxy.identity.mode": "header", "proxy.identity.header_name": "X-Id"},
        (
            "proxy.identity.mode must be none, or transport.mode set to mtls, while transport.mode is 'http' "
            "by the default; environment variable DS_PROXY__IDENTITY__MODE sets it to 'header'."
        ),
    ),
    (
        "HeaderIdentityRequiresHeaderName",
        PROXY | MTLS | {"proxy.identity.mode": "header"},
        (
            "proxy.identity.header_name must be the name of a header such as X-Client-Identity while "
            "proxy.identity.mode is 'header' by environment variable DS_PROXY__IDENTITY__MODE; it is not set."
        ),
    ),
    (
        "IdentityHeaderRequiresHeaderMode",
        PROXY | {"proxy.identity.header_name": "X-Id"},
        (
            "proxy.identity.header_name must be left out, or proxy.identity.mode set to header, while "
            "proxy.identity.mode is 'none' by the default; environment variable "
            "DS_PROXY__IDENTITY__HEADER_NAME sets it to 'X-Id'."
        ),
    ),
    (
        "InvalidIdentityHeaderName",
        PROXY | MTLS | {"proxy.identity.mode": "header", "proxy.identity.header_name": "X Id"},
        (
            "proxy.identity.header_name must be the name of a header: letters, digits and !#$%&'*+.^_`|~- "
            "only; environment variable DS_PROXY__IDENTITY__HEADER_NAME sets it to 'X Id'."
        ),
    ),
]


class RuleTests(LoadTests):
    def broken(self, changes: dict[str, str], profile: str | None = None) -> ConfigError:
        environment = {variable(name): value for name, value in changes.items()}
        error: ConfigError = self.assertRaises(ConfigError, self.loaded, profile, None, environment)
        return error

    def test_each_error_names_the_setting_its_source_and_the_fix(self) -> None:
        for rule, changes, message in CASES:
            error = self.broken(changes)
            self.assertEqual((rule, "validate_config", message), (error.rule, error.phase, str(error)))

    def test_an_error_about_a_value_from_a_file_has_the_files_path(self) -> None:
        local = self.file("admin.enabled = true\nadmin.base_path = '/v1/stream/of'", "local.toml")
        given = self.file("http.stream_base_path = '/v1'")
        error = self.assertRaises(ConfigError, self.loaded, None, given, {})
        self.assertEqual(
            "admin.base_path must be a path neither above nor below http.stream_base_path, or served on a separate "
            f"listener (admin.bind_address), while http.stream_base_path is '/v1' by {given}; {local} sets it to "
            "'/v1/stream/of'.",
            str(error),
        )

    def test_blank_items_of_a_list_are_rejected(self) -> None:
        for text, rule, message in (
            (
                "server.listen = ['tcp:80', ' ']",
                "EmptyListenEndpoint",
                "server.listen must be a list of endpoints such as tcp:4437; {} sets it to ''.",
            ),
            (
                "http.cors_origins = ['https://a.example', '']",
                "EmptyCorsOrigin",
                "http.cors_origins must be *, or a list of origins such as https://app.example.com; {} sets it to ''.",
            ),
        ):
            file = self.file(text)
            error = self.assertRaises(ConfigError, self.loaded, None, file, {})
            self.assertEqual(("validate_config", rule), (error.phase, error.rule))
            self.assertEqual(message.format(file), str(error))

    def test_wildcard_cors_origins_are_rejected_in_prod(self) -> None:
        error = self.broken({}, "prod")
        self.assertEqual(("validate_config", "WildcardCorsOriginsProd"), (error.phase, error.rule))
        self.assertEqual(
            "http.cors_origins must be a list of the origins whose pages may use the streams, or "
            "http.allow_wildcard_cors set to true, in the profile prod; the default sets it to ['*'].",
            str(error),
        )

    def test_each_rule_has_a_case(self) -> None:
        named = {rule for rule, _, _ in CASES} | {"WildcardCorsOriginsProd", "EmptyListenEndpoint"}
        modules = (rules, storage_rules, transport_rules, subscription_rules)
        sources = [Path(str(module.__file__)).read_text() for module in modules]
        # What is put together from a setting's name is in the table for each such setting.
        written = {rule for source in sources for rule in re.findall(r'"([A-Z][a-z]+(?:[A-Z][A-Za-z0-9]*)+)"', source)}
        parts = {"TooSmall", "TrustedProxies", "ForwardedHeaders", "IdentityMode", "IdentityHeader"}
        self.assertEqual(set(), written - parts - named - {"InvalidValue"})
        self.assertTrue(parts < written)
        self.assertTrue({f"ProxyDisabledDisallows{part}" for part in parts - {"TooSmall"}} < named)

    def test_valid_settings_are_accepted(self) -> None:
        for changes in (
            TLS,
            MTLS,
            PROXY,
            {**PROXY, **MTLS, "proxy.identity.mode": "header", "proxy.identity.header_name": "X-Client"},
            {"proxy.identity.require_tls": "false"},
            {**TLS, "transport.http.versions": "h2"},
            {**TLS, "transport.http.versions": "http1, http2", "transport.tls.alpn_protocols": "http/1.1, h2"},
            {**TLS, "transport.tls.min_version": "1.2"},
            {**TLS, "transport.tls.min_version": "1.2", "transport.tls.max_version": "1.2"},
            {"transport.tls.alpn_protocols": "http/1.1"},
            {"http.public_url": "https://streams.example.com:8443/of", "subscriptions.webhook_networks": "::1/128"},
            {**OPEN, "admin.base_path": "/v1/streams"},
            {**OPEN, "admin.base_path": "/v1/stream-of"},
            {"admin.base_path": "/v1/stream"},
            {**OPEN, "http.stream_base_path": "/", "admin.bind_address": "127.0.0.1:4438"},
            {**OPEN, "admin.bind_address": "0.0.0.0:0", "server.bind_address": "0.0.0.0:0"},
            {**OPEN, "admin.bind_address": "127.0.0.1:1", "server.bind_address": "127.0.0.2:1"},
            {**OPEN, "admin.bind_address": "0.0.0.0:4437", "server.listen": "tcp:80"},
            {"transport.connection.drain_timeout_secs": "1"},
            {"http.cache": "PUBLIC", "observability.access_log": "none", "observability.log_format": "json"},
        ):
            self.loaded(None, None, {variable(name): value for name, value in changes.items()})

    def test_tls_files_are_rejected_in_http_mode_even_with_endpoints(self) -> None:
        error = self.broken({"server.listen": "tcp:80", "transport.tls.cert_path": "/cert.pem"})
        self.assertEqual("HttpModeDisallowsTlsField", error.rule)

    def test_admin_addresses_that_conflict_with_the_servers_are_rejected(self) -> None:
        for server, admin in (
            ("127.0.0.1:1", "127.0.0.1:1"),
            ("127.0.0.1:1", "0.0.0.0:1"),
            ("0.0.0.0:1", "127.0.0.1:01"),
            ("[::]:1", "127.0.0.1:1"),
            ("[::1]:1", "[0::1]:1"),
        ):
            error = self.broken({**ADMIN, "server.bind_address": server, "admin.bind_address": admin})
            self.assertEqual("AdminBindAddressConflictsWithBindAddress", error.rule)

    def test_overlapping_base_paths_are_rejected(self) -> None:
        for base, admin in (("/", "/admin"), ("/admin", "/admin"), ("/a/b", "/a"), ("/a", "/a/b")):
            error = self.broken({**ADMIN, "http.stream_base_path": base, "admin.base_path": admin})
            self.assertEqual("AdminBasePathConflictsWithStreamBasePath", error.rule)

    def test_paths_of_the_servers_own_pages_are_reserved(self) -> None:
        self.assertEqual({path.encode() for path in RESERVED_PATHS}, PROBES)
        for page in RESERVED_PATHS:
            for path in (page, page + "/x"):
                self.assertEqual("StreamBasePathIsReserved", self.broken({"http.stream_base_path": path}).rule)

    def test_invalid_admin_base_paths_are_rejected(self) -> None:
        for path in ("", "/", "admin", "/admin/", "//", "/a b", "/{x}", "/a:b", "/..", "/*", "/a?b", "/a#b"):
            self.assertEqual("InvalidAdminBasePath", self.broken({"admin.base_path": path}).rule)

    def test_trusted_proxies_must_be_addresses_networks_or_unix(self) -> None:
        for text in (
            "10.0.0.1",
            "10.0.0.0/8",
            "0.0.0.0/0",
            "::1",
            "fd00::/8",
            "10.0.0.1/32",
            "::ffff:10.0.0.1",
            "unix",
        ):
            self.loaded(None, None, {variable(name): value for name, value in {**PROXY, **_trusting(text)}.items()})
        for text in (
            *("10.0.0.256", "10.0.0.0/33", "::/129", "proxy.internal", "*", "10.0.0.0/", "/8", "10.0.0.0/-1"),
            *(
                "unix:/run/a",
                "10.0.0.0/255.0.0.0",
                "fe80::1%eth0",
                "10.0.0.1:80",
                "[::1]",
                "10.0.0.0/8/8",
                "10.0.0.0/\u0668",
                "10",
            ),
        ):
            self.assertEqual("InvalidTrustedProxy", self.broken({**PROXY, **_trusting(text)}).rule)

    def test_a_network_with_extra_bits_is_rejected_with_the_probable_network(self) -> None:
        for text, meant in (("10.1.2.3/8", "10.0.0.0/8"), ("fd00::1/64", "fd00::/64"), ("1.2.3.4/0", "0.0.0.0/0")):
            self.assertIn(f"probably {meant}", str(self.broken({**PROXY, **_trusting(text)})))

    def test_header_names_are_validated(self) -> None:
        known = {**PROXY, **MTLS, "proxy.identity.mode": "header"}
        for name in ("", "X Id", "X-Id:", "X\u00efd", "(x)", "a,b"):
            self.assertEqual(
                "InvalidIdentityHeaderName", self.broken({**known, "proxy.identity.header_name": name}).rule
            )


def _trusting(text: str) -> dict[str, str]:
    return {"proxy.trusted_proxies": text}
