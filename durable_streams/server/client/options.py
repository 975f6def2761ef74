"""Options of a client: credentials, time-outs and limits."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct


class ClientOptions(Struct, frozen=True, kw_only=True):
    """
    How a client connects, and how much it accepts.

    :ivar token: a bearer token that is sent with each request; None for none.
    :ivar refresh_token: returns the token to use from then on; called after an answer of 401. If it is another one, the
        request is sent again, once, unless its body was an iterator. What it raises is raised by the request.
    :ivar ca: a PEM file of certificate authorities that are trusted instead of the system's.
    :ivar cert: a PEM file of the client's certificate and its intermediate certificates.
    :ivar key: a PEM file of the certificate's private key; None if it is in ``cert``.
    :ivar unix_socket: the path of a UNIX socket to connect to, whatever host the URL has.
    :ivar connect_timeout: how long a connection may take, in seconds.
    :ivar timeout: how long the server may be silent before and within an answer, in seconds. While a request's body is
        sent, how long the server may read nothing.
    :ivar live_timeout: the same for live reads, in seconds. It must be longer than the server lets a long-poll wait,
        and longer than the interval of comments in a silent tail (15 s).
    :ivar kept_connections: how many idle connections are kept for further requests.
    :ivar max_head_bytes: the largest head of an answer, interim answers included.
    :ivar max_message_bytes: the largest JSON message, and the largest event of a tail by Server-Sent Events.
    """

    token: str | None = None
    refresh_token: Callable[[], str] | None = None
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    unix_socket: str | None = None
    connect_timeout: float = 10.0
    timeout: float = 60.0
    live_timeout: float = 90.0
    kept_connections: int = 2
    max_head_bytes: int = 65_536
    max_message_bytes: int = 64 * 2**20

    def __repr__(self) -> str:
        """Return a text without the token."""
        return f"<ClientOptions for {'a' if self.token else 'no'} token>"
