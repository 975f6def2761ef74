"""The undocumented parts of Twisted and hpack that the server uses.

A release of these libraries may change them without notice. setup.cfg therefore has an upper bound for each, and
``tests/test_library_internals.py`` compares this table with the installed versions, and with the private names in the
server's code. Look here first when an upper bound is raised.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple


class Internal(NamedTuple):
    """
    An undocumented attribute of a library's class, or of a module.

    :ivar owner: the module and the name of the class, or the name of the module alone.
    :ivar shape: the parameters of a method; the type of an attribute's first value, by name; or ``property``.
    :ivar used_by: the module of the server that uses it.
    """

    owner: str
    name: str
    shape: Sequence[str] | str
    used_by: str


_PORT: Final = "twisted.internet.tcp.Port"
_UNIX_PORT: Final = "twisted.internet.unix.Port"
_TLS: Final = "twisted.protocols.tls.TLSMemoryBIOProtocol"
_DELAYED_CALL: Final = "twisted.internet.base.DelayedCall"

#: All of them, by library.
INTERNALS: Final = (
    # The shared epoll port creates connections itself, accepts on inherited sockets and sends at once.
    Internal(_PORT, "_fromListeningDescriptor", ("reactor", "fd", "addressFamily", "factory"), "listening.epoll_port"),
    Internal(_PORT, "transport", "type", "listening.epoll_port"),
    Internal(_PORT, "_logger", "Logger", "listening.descriptors"),
    Internal(_UNIX_PORT, "_fromListeningDescriptor", ("reactor", "fd", "factory"), "listening.epoll_port"),
    Internal(_UNIX_PORT, "_preexistingSocket", "NoneType", "listening.epoll_port"),
    Internal(_UNIX_PORT, "_shouldShutdown", "bool", "listening.epoll_port"),
    Internal("twisted.internet.tcp.Server", "dataBuffer", "bytes", "listening.epoll_port"),
    Internal("twisted.internet.tcp.Server", "_tempDataBuffer", "list", "listening.epoll_port"),
    Internal("twisted.internet.tcp.Server", "writeSomeData", ("data",), "web.transports"),
    Internal(
        "twisted.internet.epollreactor.EPollReactor",
        "_disconnectSelectable",
        ("selectable", "why", "isRead", "faildict"),
        "listening.epoll_port",
    ),
    # TLS reads a single complete record without asking OpenSSL for more.
    Internal(_TLS, "_tlsConnection", "Connection", "listening.tls.connections"),
    Internal(_TLS, "_appSendBuffer", "list", "listening.tls.connections"),
    Internal(_TLS, "_aborted", "bool", "listening.tls.connections"),
    Internal(_TLS, "_lostTLSConnection", "bool", "listening.tls.connections"),
    Internal(_TLS, "_handshakeDone", "bool", "listening.tls.connections"),
    Internal(_TLS, "_flushReceiveBIO", (), "listening.tls.connections"),
    Internal(_TLS, "_tlsShutdownFinished", ("reason",), "listening.tls.connections"),
    Internal(_TLS, "wrappedProtocol", "Protocol", "web.negotiation"),
    # The steady clock keeps Twisted's delayed calls in a heap of its own, and replaces the reactor's clock.
    Internal(_DELAYED_CALL, "__init__", ("time", "func", "args", "kw", "cancel", "reset", "seconds"), "clocks"),
    Internal(_DELAYED_CALL, "delayed_time", "float", "clocks"),
    Internal(_DELAYED_CALL, "activate_delay", (), "clocks"),
    Internal(_DELAYED_CALL, "called", "int", "clocks"),
    Internal(_DELAYED_CALL, "cancelled", "int", "clocks"),
    Internal("twisted.internet.epollreactor.EPollReactor", "seconds", (), "clocks"),
    # Whether a twisted.web encoder, such as gzip's, compresses the answer.
    Internal("twisted.web.server.Request", "_encoder", "NoneType", "web.site.delivery"),
    # The connection behind a stream of twisted.web's HTTP/2.
    Internal("twisted.web._http2.H2Stream", "_conn", "H2Connection", "web.proxies"),
    # HTTP/2 decodes Huffman code by hpack's table.
    Internal("hpack.huffman_table", "decode_huffman", ("huffman_string",), "web.http2.decoding"),
)
