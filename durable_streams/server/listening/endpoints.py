"""String endpoints for any Twisted program: ``http:``, and ``mtls:``, which requires client certificates.

The prefix ``tls:`` belongs to Twisted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from zope.interface import implementer

from .inheritance import adopt, listen
from .tls import TLS_VERSIONS, Certificates, NamedFile, TLSFactory, TLSFiles, VersionRange

#: The default length of the queue of connections that wait to be accepted.
BACKLOG: Final = 1024

_FILES: Final = ("certificate", "key", "clientCA")
_TCP: Final = ("port", "interface", "backlog")


@implementer(IStreamServerEndpoint)
class Endpoint:
    """
    A TCP port, with or without TLS.

    :param certificates: None for plain TCP.
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

        :raises CannotListenError: the port cannot be bound.
        """
        if self.certificates is not None:
            factory = TLSFactory(self.certificates, factory, self._reactor)
        is_secure = self.certificates is not None
        return listen(self._reactor, self._port, factory, self._backlog, self._interface, prompt=is_secure)


@implementer(IStreamServerEndpoint)
class InheritedEndpoint:
    """
    A listening socket that a service manager has passed, for plain HTTP. It stays bound when the process ends.

    :param descriptor: the socket's descriptor; it is duplicated, and closed when the endpoint listens.
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
    Create an endpoint from ``http:PORT:interface=ADDRESS:backlog=NUMBER``.

    :raises ValueError: an argument is invalid; the message says what to change.
    """
    given = _take("http", arguments, named, _TCP)
    return Endpoint(reactor, *_tcp("http", given))


def mtls(reactor: Any, *arguments: str, **named: str) -> Endpoint:
    """
    Create an endpoint from ``mtls:PORT:certificate=FILE:key=FILE:clientCA=FILE``.

    ``interface`` and ``backlog`` are optional as with ``http:``; ``minimum`` and ``maximum`` are versions of TLS, 1.3
    by default; ``http2`` is ``yes`` or ``no``, by default as the factory's ``acceptableProtocols`` has it.

    :raises ValueError: an argument is invalid, or a file cannot be used; the message says what to change.
    """
    given = _take("mtls", arguments, named, (*_TCP, *_FILES, "minimum", "maximum", "http2"))
    port, interface, backlog = _tcp("mtls", given)
    missing = [name for name in _FILES if not given.get(name)]
    if missing:
        raise ValueError(f"mtls: requires {missing[0]}=FILE, a PEM file.")
    files = TLSFiles(*(NamedFile(f"mtls: {name}", given[name]) for name in _FILES))
    http2 = given.get("http2")
    if http2 not in (None, "yes", "no"):
        raise ValueError(f"mtls: http2 must be yes or no, not {http2}.")
    certificates = Certificates(files, _versions(given), http2=None if http2 is None else http2 == "yes")
    return Endpoint(reactor, port, interface, backlog, certificates)


def _take(prefix: str, arguments: tuple[str, ...], named: dict[str, str], known: tuple[str, ...]) -> dict[str, str]:
    given = dict(named)
    if len(arguments) > 1:
        raise ValueError(f"{prefix}: only the port has no name; write {arguments[1]!r} as NAME=VALUE.")
    if arguments:
        if "port" in given:
            raise ValueError(f"{prefix}: the port is given twice.")
        given["port"] = arguments[0]
    for name in given:
        if name not in known:
            raise ValueError(f"{prefix}: unknown argument {name}. Arguments are {', '.join(known)}.")
    return given


def _tcp(prefix: str, given: Mapping[str, str]) -> tuple[int, str, int]:
    port = _number(prefix, given, "port", 0, 65_535, "")
    return port, given.get("interface", ""), _number(prefix, given, "backlog", 1, 65_535, str(BACKLOG))


def _number(prefix: str, given: Mapping[str, str], name: str, minimum: int, maximum: int, default: str) -> int:
    text = given.get(name, default)
    if not (text.isascii() and text.isdigit()) or not minimum <= int(text) <= maximum:
        raise ValueError(f"{prefix}: {name} must be a number from {minimum} to {maximum}, not {text!r}.")
    return int(text)


def _versions(given: Mapping[str, str]) -> VersionRange:
    maximum = given.get("maximum", "1.3")
    versions = VersionRange(given.get("minimum", maximum), maximum)
    for name, version in (("maximum", versions.maximum), ("minimum", versions.minimum)):
        if version not in TLS_VERSIONS:
            raise ValueError(f"mtls: {name} must be {' or '.join(TLS_VERSIONS)}, not {version}.")
    if versions.minimum > versions.maximum:
        raise ValueError("mtls: minimum must not be greater than maximum.")
    return versions
