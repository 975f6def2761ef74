"""String endpoints for any Twisted program: ``http:``, and ``mtls:`` for clients that show a certificate.

``tls:`` is Twisted's own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from .epoll_port import adopt, listen
from .tls import TLS_VERSIONS, Certificates, NamedFile, TLSFactory, TLSFiles, VersionRange

#: How many connections may wait to be accepted, unless an endpoint says otherwise.
BACKLOG: Final = 1024

_FILES: Final = ("certificate", "key", "clientCA")
_TCP: Final = ("port", "interface", "backlog")


@implementer(IStreamServerEndpoint)
class Endpoint:
    """
    A TCP port, with TLS or without.

    :param certificates: for TLS; None to do without.
    """

    def __init__(
        self, reactor: Any, port: int, interface: str, backlog: int, certificates: Certificates | None = None
    ) -> None:
        self._reactor = reactor
        self._port = port
        self._interface = interface
        self._backlog = backlog
        self.certificates = certificates

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return maybeDeferred(self.listen_now, protocolFactory)

    def listen_now(self, factory: Any) -> IListeningPort:
        """
        Bind the port.

        :raises CannotListenError: it can't be had.
        """
        if self.certificates is not None:
            factory = TLSFactory(self.certificates, factory, self._reactor)
        is_secure = self.certificates is not None
        return listen(self._reactor, self._port, factory, self._backlog, self._interface, prompt=is_secure)


@implementer(IStreamServerEndpoint)
class InheritedEndpoint:
    """
    A socket that a service manager has passed, for plain HTTP. It stays bound when the process ends.

    :param descriptor: the socket's; it is closed when the endpoint listens at it.
    """

    def __init__(self, reactor: Any, descriptor: int) -> None:
        self._reactor = reactor
        self._descriptor = descriptor

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return maybeDeferred(self._listen, protocolFactory)

    def _listen(self, factory: Any) -> IListeningPort:
        port = adopt(self._reactor, self._descriptor, factory)
        os.close(self._descriptor)
        return port


def http(reactor: Any, *arguments: str, **named: str) -> Endpoint:
    """
    Make an endpoint of ``http:PORT:interface=ADDRESS:backlog=NUMBER``.

    :raises ValueError: the string makes no sense; the message says what to change.
    """
    given = _take("http", arguments, named, _TCP)
    return Endpoint(reactor, *_tcp("http", given))


def mtls(reactor: Any, *arguments: str, **named: str) -> Endpoint:
    """
    Make an endpoint of ``mtls:PORT:certificate=FILE:key=FILE:clientCA=FILE``.

    ``interface`` and ``backlog`` may be given as with ``http:``; ``minimum`` and ``maximum`` are versions of TLS, 1.3
    unless given; ``http2`` is ``yes`` or ``no``, and without it what is served says what it speaks.

    :raises ValueError: the string makes no sense, or the files are of no use; the message says what to change.
    """
    given = _take("mtls", arguments, named, (*_TCP, *_FILES, "minimum", "maximum", "http2"))
    port, interface, backlog = _tcp("mtls", given)
    missing = [name for name in _FILES if not given.get(name)]
    if missing:
        raise ValueError(f"An mtls: endpoint needs {missing[0]}=FILE, a PEM file.")
    files = TLSFiles(*(NamedFile(f"{name} of an mtls: endpoint", given[name]) for name in _FILES))
    http2 = given.get("http2")
    if http2 not in (None, "yes", "no"):
        raise ValueError(f"http2={http2} of an mtls: endpoint must be yes or no.")
    certificates = Certificates(files, _versions(given), http2=None if http2 is None else http2 == "yes")
    return Endpoint(reactor, port, interface, backlog, certificates)


def _take(prefix: str, arguments: tuple[str, ...], named: dict[str, str], known: tuple[str, ...]) -> dict[str, str]:
    given = dict(named)
    if len(arguments) > 1:
        raise ValueError(
            f"An {prefix}: endpoint takes its port first, and NAME=VALUE for all else; not {arguments[1]!r}."
        )
    if arguments:
        if "port" in given:
            raise ValueError(f"An {prefix}: endpoint takes one port.")
        given["port"] = arguments[0]
    for name in given:
        if name not in known:
            raise ValueError(f"An {prefix}: endpoint knows no {name}. It knows {', '.join(known)}.")
    return given


def _tcp(prefix: str, given: Mapping[str, str]) -> tuple[int, str, int]:
    port = _number(prefix, given, "port", 0, 65_535, "")
    return port, given.get("interface", ""), _number(prefix, given, "backlog", 1, 65_535, str(BACKLOG))


def _number(prefix: str, given: Mapping[str, str], name: str, least: int, most: int, default: str) -> int:
    text = given.get(name, default)
    if not (text.isascii() and text.isdigit()) or not least <= int(text) <= most:
        raise ValueError(f"The {name} of an {prefix}: endpoint must be a number from {least} to {most}; not {text!r}.")
    return int(text)


def _versions(given: Mapping[str, str]) -> VersionRange:
    maximum = given.get("maximum", "1.3")
    versions = VersionRange(given.get("minimum", maximum), maximum)
    for name, version in (("maximum", versions.maximum), ("minimum", versions.minimum)):
        if version not in TLS_VERSIONS:
            raise ValueError(f"{name}={version} of an mtls: endpoint must be {' or '.join(TLS_VERSIONS)}.")
    if versions.minimum > versions.maximum:
        raise ValueError("minimum of an mtls: endpoint must not be above its maximum.")
    return versions
