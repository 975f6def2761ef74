"""
The meaning of each setting, from which ``docs/generate.py`` makes the reference and ``etc/default.toml``.

The texts are reStructuredText: without a capital at the beginning and without a full stop at the end, because they are
cells of a table. Footnotes and links are those of ``docs/configuration.rst``.
"""

from __future__ import annotations

from typing import Final


def _quotas(scope: str) -> dict[str, str]:
    """Return the meanings of the quotas that addresses and principals have."""
    meanings = (
        ("requests_per_sec", "requests. Beyond it: 429. 0: no limit"),
        ("request_burst", "requests that may come at once. 0: what the rate gives in ten seconds"),
        ("bytes_in_per_sec", "bytes of request bodies. What was too much delays the next body: 429. 0: no limit"),
        ("bytes_in_burst", "bytes that may come at once. 0: what the rate gives in ten seconds"),
        ("bytes_out_per_sec", "bytes of answers' bodies; streamed ones are slowed down to it. 0: no limit"),
        ("bytes_out_burst", "bytes that may be read at once. 0: what the rate gives in ten seconds"),
        ("max_live_reads", "long-polls and readers of Server-Sent Events at a time. Beyond it: 429. 0: no limit"),
    )
    return {f"quotas.{scope}.{name}": meaning for name, meaning in meanings}


MEANINGS: Final[dict[str, str]] = {
    "server.bind_address": (
        "IP address and port; IPv6 in brackets. Host names are not allowed. ``0.0.0.0`` is reachable from every network"
    ),
    "server.listen": (
        "Twisted's string endpoints. If there are any, the server listens on them instead of ``bind_address``. None "
        "may be blank"
    ),
    "server.workers": (
        "number of processes that serve these addresses, from 1 to 256. More than 1 needs ``storage.mode`` "
        "``postgres``; limits of connections, arriving bodies and queued appends then hold for each of them; see "
        "`operations.rst <operations.rst>`_"
    ),
    "limits.max_total_bytes": "data of all streams, on disk too [#data]_. Beyond it: 413",
    "limits.max_stream_bytes": "data of one stream [#data]_. Beyond it: 413",
    "limits.max_streams": "number of streams. Beyond it: 507",
    "limits.max_producers_per_stream": (
        "idempotent producers that a stream remembers. A new one beyond that replaces the producer whose last "
        "accepted append is the oldest"
    ),
    "limits.max_fork_depth": (
        "how often a stream may be a fork of a fork. Beyond it: 507. A read that begins in the first stream goes "
        "through all of them"
    ),
    "limits.max_metadata_bytes": (
        "names, content types, ``Stream-Seq`` and producers of all streams, on disk too [#metadata]_. Beyond it: 507"
    ),
    "limits.max_request_body_bytes": "a request's body",
    "limits.max_incoming_bytes": (
        "all request bodies together that are arriving. Beyond it: 503. Bodies that arrive with their head are not "
        "counted"
    ),
    "limits.max_read_bytes": (
        "about how much of a stream one catch-up read returns: the answer ends with the first append that reaches the "
        "limit, and has no ``Stream-Up-To-Date``, so that clients follow. 0: no limit"
    ),
    "limits.max_stream_name_bytes": "a stream's name, as UTF-8",
    "limits.max_stream_name_segments": "parts of a name between slashes",
    "limits.max_header_bytes": "a request's headers",
    "limits.max_target_bytes": "a request's path and query",
    "limits.max_connections": (
        "concurrent connections; fewer, if the process may not open so many files (see `operations.rst "
        "<operations.rst>`_)"
    ),
    "limits.max_queued_bytes": "appends that wait for the disk. Beyond it: 503",
    "limits.max_storage_jobs": "no effect; see `Settings without effect`_",
    "storage.mode": (
        "``memory``, ``file-durable``, ``file-fast``, ``acid`` or ``postgres``; `storage.rst <storage.rst>`_ says "
        "which to choose"
    ),
    "storage.data_dir": (
        "the data directory, in all modes except ``memory`` and ``postgres``; not blank. Relative paths, here and in "
        "``transport.tls``, are relative to the directory in which ``twistd`` is started, also with ``--rundir``"
    ),
    "storage.acid_backend": "``file``, or ``in-memory`` for tests",
    "storage.acid_shard_count": "a power of two from 1 to 256; no effect; see `Settings without effect`_",
    "storage.verify_reads": (
        "whether bytes read from disk or from a database are compared with their checksums. Reads of damaged bytes "
        "are answered with 500, and an answer that has begun is aborted. With ``false``, damaged bytes are served"
    ),
    "storage.postgres.dsn": (
        "a connection string of libpq: a URL such as ``postgresql://durable_streams@db.example.com/streams``, or "
        "``host=db.example.com dbname=streams``. It is a secret and shown as ``***``. Not set or empty: libpq's "
        "defaults, which are the variables ``PGHOST``, ``PGSERVICE`` and so on; service files and ``~/.pgpass`` work "
        "too. Only with ``storage.mode`` ``postgres``"
    ),
    "storage.postgres.dsn_file": (
        "the path of a file with mode 0600 that has the connection string, instead of ``dsn``"
    ),
    "storage.postgres.schema": "the schema of the tables: lower-case letters, digits and ``_``",
    "storage.postgres.connections": "connections of a node for reading; writing, waking and leases have their own",
    "storage.postgres.lock_timeout_ms": (
        "how long a write waits for a stream that another node is writing, before it leaves that stream out and tries "
        "again"
    ),
    "storage.postgres.commit_deadline_ms": (
        "how long a commit may take, as while a standby does not confirm it. Beyond it, the outcome is looked up on a "
        "new connection. More than ``lock_timeout_ms``"
    ),
    "storage.postgres.wait_ms": "how long requests wait while the database cannot be reached. Beyond it: 503",
    "storage.postgres.cache_bytes": "data of streams that a node keeps in memory; 0: none",
    "storage.postgres.migrate": (
        "whether a start creates the tables and upgrades those of earlier versions. With ``false``, it refuses, and "
        "``durable-streams-server migrate`` does that"
    ),
    "http.stream_base_path": (
        "the path above the streams: what follows it is a stream's name. ``/``, or a path without a slash at its end, "
        "without ``.`` and ``..``, of letters, digits and ``-._~!$&'()+,;=@``. Not ``/healthz``, ``/readyz`` or "
        "``/metrics``, nor below them"
    ),
    "http.cors_origins": (
        "the web pages that may use the streams: ``*`` for those of every site, or a list of origins such as "
        "``https://app.example.com``; ``null`` is one. If origins are listed, writes by other pages get 403"
    ),
    "http.allow_wildcard_cors": "confirms ``*``: no warning, and no refusal in ``prod``",
    "http.cors_credentials": (
        "whether the pages of ``cors_origins``, which must not be ``*``, may send cookies and client certificates "
        "(``Access-Control-Allow-Credentials``); an ``Authorization`` header needs no permission"
    ),
    "http.allow_insecure_webhooks": (
        "whether webhooks may be sent by plain HTTP to ``localhost`` and to 127.0.0.x; for tests"
    ),
    "http.cache": "what caches may keep: ``no-store``, ``private`` or ``public``",
    "http.public_url": (
        "the server as its clients see it, without ``stream_base_path``, such as ``https://streams.example.com``: what "
        "callback URLs begin with. Not set: what the request had that created the subscription, so that whoever may "
        "create subscriptions chooses the host in callbacks"
    ),
    "auth.methods": (
        "how clients authenticate, in the order in which a request is looked at: a list of ``token``, ``jwt``, "
        "``certificate``, ``header`` and ``signed-url``. The first kind of credential that a request has decides; one "
        "that is not valid gets 401. None: nobody does. See `deploy.rst <deploy.rst>`_"
    ),
    "auth.allow_anonymous": (
        "whether requests without credentials are accepted, and may do what the rules allow ``anyone`` or "
        "``anonymous``; without ``methods`` and rules, that is everything. ``prod`` profiles have ``false``: they "
        "start without ``methods`` only if this is set to ``true``"
    ),
    "auth.rules": (
        "who may do what: a list of rules such as ``allow group:staff read chats/**``. The first that matches decides; "
        "what none matches is denied. ``methods`` needs rules. In the environment, and in a text of several lines, "
        "each line is a rule"
    ),
    "auth.rules_file": (
        "the path of a file with a rule on each line, instead of ``rules``. It is read again when it changes; rules of "
        "a built-in profile are not used with it"
    ),
    "auth.token_file": (
        "the path of a file of static tokens with mode 0600, which ``durable-streams-server token create`` writes. It "
        "is read again when it changes. The method ``token`` needs it"
    ),
    "auth.signing_keys_file": (
        "the path of a file with mode 0600 that has the keys of signed URLs: an id and a secret on each line. The "
        "first signs, all verify. It is read again when it changes. The method ``signed-url`` needs it"
    ),
    "auth.hide_forbidden": (
        "whether a stream that a client may not read is answered like one that does not exist: 404 instead of 403"
    ),
    "auth.certificate_name": (
        "the part of a client's certificate that is its subject in rules: ``subject`` for the whole distinguished name "
        "(RFC 4514), ``cn``, or the only ``dns``, ``uri`` or ``email`` of its alternative names. See "
        "`client-certificates.rst <client-certificates.rst>`_"
    ),
    "auth.jwt.keys_file": (
        "the path of a JWK set, or of public keys in PEM, with which tokens are verified; mode 0600 if it has secrets. "
        "The method ``jwt`` needs this or one of the next two"
    ),
    "auth.jwt.jwks_url": (
        "the URL of a JWK set of the issuer: ``https``, or ``http`` on a loopback address. Its keys are fetched again "
        "every ``refresh_secs``"
    ),
    "auth.jwt.discovery_url": "the URL of the metadata of an OpenID Connect issuer, which has the URL of its JWK set",
    "auth.jwt.ca_file": (
        "certificates (PEM) of the authorities that sign the certificate of these URLs. Not set: those of the system"
    ),
    "auth.jwt.algorithms": (
        "the accepted algorithms of signatures; ``none`` never is, and ``HS256``, ``HS384`` and ``HS512`` need "
        "``keys_file``"
    ),
    "auth.jwt.issuer": "what ``iss`` of a token must be. Needed with a URL",
    "auth.jwt.audience": ("``aud`` of a token must have one of these values. None: tokens with ``aud`` are refused"),
    "auth.jwt.leeway_secs": "how far the issuer's clock may differ, from 0 to 600",
    "auth.jwt.required_claims": (
        "what a token must claim besides ``exp`` and its subject: ``NAME``, or ``NAME=VALUE``, with points for nested "
        "claims"
    ),
    "auth.jwt.subject_claim": "the claim that is the client's subject in rules",
    "auth.jwt.groups_claim": "the claim that has the client's groups: a list of texts, or one text",
    "auth.jwt.refresh_secs": "time between two fetches of the keys, from 10 to 86400",
    "auth.jwt.max_stale_secs": (
        "how long keys are used after the last fetch that succeeded; more than ``refresh_secs``. Beyond it, requests "
        "with a JWT get 503"
    ),
    "admin.enabled": "whether the pages for operators are served; see `admin.rst <admin.rst>`_",
    "admin.base_path": (
        "a path like ``http.stream_base_path``, but not ``/``; neither above nor below that one, unless there is "
        "``admin.bind_address``"
    ),
    "admin.bind_address": (
        "IP address and port of a separate listener for the pages of operators, metrics and probes; not the one of "
        "``server.bind_address``. Only with ``admin.enabled``"
    ),
    "admin.token_file": (
        "the path of a file with mode 0600 that has a bearer token on each line; each request for a page of operators "
        "needs one. Not set: only clients on this machine, or with a client certificate, may use the pages. Only with "
        "``admin.enabled``"
    ),
    "transport.mode": "``http``, ``tls``, or ``mtls``: TLS where clients must have certificates",
    "transport.http.versions": (
        "a list of ``http1``, ``http2`` or both; ``http2`` needs TLS, or ``server.listen``. Setting it unsets "
        "``alpn_protocols`` of earlier layers"
    ),
    "transport.tls.cert_path": (
        "PEM file with the certificate and its chain. ``tls`` and ``mtls`` need it, ``http`` refuses it"
    ),
    "transport.tls.key_path": "PEM file with its key. ``tls`` and ``mtls`` need it, ``http`` refuses it",
    "transport.tls.client_ca_path": (
        "PEM file with the authorities whose client certificates are accepted. ``mtls`` needs it, ``http`` and "
        "``tls`` refuse it"
    ),
    "transport.tls.min_version": "``1.2`` or ``1.3``, no later than ``max_version``",
    "transport.tls.max_version": "``1.2`` or ``1.3``",
    "transport.tls.alpn_protocols": (
        "a list of ``h2`` and ``http/1.1`` in the order of preference, for the same versions as "
        "``transport.http.versions``. Not set: those, HTTP/2 first"
    ),
    "transport.connection.long_poll_timeout_secs": "how long a long-poll waits [#wait]_",
    "transport.connection.sse_reconnect_interval_secs": (
        "after which a Server-Sent Events tail is ended so that its client reconnects; 0: never"
    ),
    "transport.connection.header_timeout_secs": "time for a request's headers to arrive",
    "transport.connection.body_timeout_secs": "time without a byte of a request's body",
    "transport.connection.min_body_bytes_per_sec": (
        "how many bytes of a request's body must arrive a second, on average over ``body_timeout_secs``; 408 below. "
        "0: any rate"
    ),
    "transport.connection.idle_timeout_secs": "time between two requests of a connection",
    "transport.connection.stall_timeout_secs": "time for a slow reader to take another 64 KiB",
    "transport.connection.drain_timeout_secs": "time for answers to arrive when the server stops",
    "transport.connection.drain_spread_secs": (
        "the part of that time over which the ends of tails are spread, so that their clients do not all reconnect at "
        "once; 0: at once. Less than ``drain_timeout_secs``"
    ),
    "proxy.enabled": (
        "whether to trust forwarding headers of ``proxy.trusted_proxies``. It needs the two settings below; without "
        "it, all of ``proxy`` except ``require_tls`` is refused"
    ),
    "proxy.forwarded_headers": "``x-forwarded``, ``forwarded`` or ``none``",
    "proxy.trusted_proxies": (
        "IP addresses and networks, such as ``10.0.0.0/8``. A network's address has no bits beyond its length. "
        "``unix`` stands for every peer on a UNIX socket. `proxies.rst <proxies.rst>`_ says what is read of them"
    ),
    "proxy.identity.mode": (
        "``header``: a trusted proxy sends the client's name in a header, which needs ``transport.mode`` ``mtls``; or "
        "``none``"
    ),
    "proxy.identity.header_name": "that header; only with ``mode`` ``header``, which needs it",
    "proxy.identity.require_tls": "no effect; see `Settings without effect`_",
    **_quotas("address"),
    "quotas.address.failed_authentications_per_min": (
        "invalid tokens and signatures; as many may come at once. Beyond it, credentials that are not known yet get "
        "429 and are not checked. 0: no limit"
    ),
    "quotas.address.connections_per_sec": (
        "connections that are opened; those of trusted proxies are not counted. Further ones are refused before a TLS "
        "handshake. 0: no limit"
    ),
    "quotas.address.connection_burst": "connections that may be opened at once. 0: what the rate gives in ten seconds",
    "quotas.address.max_connections": (
        "connections at a time; those of trusted proxies are not counted. Further ones are refused before a TLS "
        "handshake. 0: no limit"
    ),
    "quotas.address.max_incoming_bytes": (
        "the address's share of ``limits.max_incoming_bytes``. Beyond it: 429. 0: no share of its own"
    ),
    **_quotas("principal"),
    "quotas.principal.creations_per_hour": (
        "streams that are created; as many may be created at once. Beyond it: 429. 0: no limit"
    ),
    "subscriptions.enabled": "whether the subscription APIs are served. Off: paths below ``__ds`` are 404",
    "subscriptions.max_subscriptions": "number of subscriptions. Beyond it: 507",
    "subscriptions.max_links": (
        "streams of all subscriptions together. Beyond it: 507, and new streams that match a pattern are linked when "
        "there is room again"
    ),
    "subscriptions.deliveries": (
        "webhooks that are sent at once; at most 4 of them to one host. Retries use a quarter of the slots"
    ),
    "subscriptions.request_timeout_ms": "time limit of sending a webhook, from the look-up of its host to the answer",
    "subscriptions.sweep_interval_ms": (
        "between two checks of all subscriptions, which find what has been missed. Normally that is nothing"
    ),
    "subscriptions.signing_key_file": (
        "an Ed25519 private key (PEM, PKCS8) that signs webhooks; others must not be able to read it. Not set: the "
        "server makes a key and stores it with the streams"
    ),
    "subscriptions.webhook_ca_file": (
        "certificates (PEM) of authorities that sign the certificates of receivers, trusted besides the system's"
    ),
    "subscriptions.webhook_networks": (
        "networks, such as ``10.0.0.0/8``, whose addresses webhooks may call by HTTPS although they are not public"
    ),
    "subscriptions.webhook_http_networks": "networks whose addresses webhooks may call by HTTPS and by plain HTTP",
    "observability.log_level": "``debug``, ``info``, ``warn`` or ``error``",
    "observability.log_format": "``text`` or ``json``",
    "observability.log_file": (
        "the log file; not set: where twistd logs. If the server is started as root, as with ``--uid``, symbolic "
        "links in the path are followed only if root owns them"
    ),
    "observability.access_log": (
        "the requests that are logged: ``none``, ``failures`` (statuses from 400 on) or ``all``"
    ),
    "observability.metrics": "whether ``/metrics`` is served",
    "observability.traces": (
        "whether requests are traced by OpenTelemetry, configured by its own ``OTEL_`` variables; see `operations.rst "
        "<operations.rst>`_ for all of these"
    ),
    "audit.file": (
        "the path of the audit log: who did what to which stream, allowed or not, as JSON lines; see `audit.rst "
        "<audit.rst>`_. Not set: no audit log"
    ),
    "audit.events": (
        "the requests that it has: ``none``, ``denied``, ``changes`` (denied ones, and allowed ones that change "
        "something) or ``all``"
    ),
    "audit.required": (
        "whether allowed requests that the audit log should have get 503 while its file cannot be written. With "
        "``false`` they are served, and up to 4 MiB of lines wait for the file"
    ),
}
