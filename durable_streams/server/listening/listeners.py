"""The ports of the daemon: from the settings to bound ports, all of them or none."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from msgspec import Struct
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import AdoptedStreamServerEndpoint, StandardIOEndpoint, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress, IListeningPort, IProtocolNegotiationFactory
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.unix import Port as UNIXPort
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath, LinkError
from zope.interface import implementer

from ..config.sections import TlsSettings
from ..config.settings import Settings
from ..config.showing import concealed
from ..config.validation import parse_bind_address
from ..startup import StartupError
from .descriptors import AcceptLimiter
from .endpoints import BACKLOG, Endpoint, InheritedEndpoint
from .tls import Certificates, NamedFile, TLSContextError, TLSFileError, TLSFiles, VersionRange
from .tls.files import read_files

#: The first argument of Twisted's tls: endpoint. If it is given by its name instead, it is not checked.
_TLS_DIRECTORY: Final = re.compile(r"tls:((?:\\.|[^:=\\])+)(?::|$)")

_VERSIONS: Final = {"http1": "HTTP/1.1", "http2": "HTTP/2"}

_log = Logger()


class _Place(Struct, frozen=True):
    """
    An address to listen on.

    :ivar setting: the dotted name of the setting that has it.
    :ivar listen: binds the port for a factory.
    :ivar scheme: the scheme of its URLs; empty if only the endpoint knows it.
    """

    setting: str
    value: str
    listen: Callable[[Factory], IListeningPort]
    scheme: str = ""
    remark: str = ""

    def url_of(self, address: str) -> str:
        """Return an address as a URL if the scheme is known."""
        return f"{self.scheme}://{address}{self.remark}" if self.scheme else address


@implementer(IProtocolNegotiationFactory)
class _BehindProxy:
    """A factory whose connections come from a proxy, which says with the first bytes who the client is."""

    def __init__(self, factory: Any) -> None:
        self._factory = factory
        self.doStart = factory.doStart
        self.doStop = factory.doStop
        self.logPrefix = factory.logPrefix
        self.acceptableProtocols = getattr(factory, "acceptableProtocols", list)

    def buildProtocol(self, addr: IAddress | None) -> Protocol | None:
        """Make a protocol for a client that is not known yet."""
        protocol: Protocol | None = self._factory.buildProtocol(None)
        return protocol


class Listeners:
    """
    All ports of a daemon.

    :raises StartupError: in the phases ``resolve_transport``, ``check_tls_files`` and ``build_tls_context``.
    """

    def __init__(self, settings: Settings, reactor: Any) -> None:
        self._reactor = reactor
        self._certificates: list[Certificates] = []
        self._limiters: list[AcceptLimiter] = []
        self._bound: list[tuple[_Place, IListeningPort]] = []
        self._bound_for_admin: list[tuple[_Place, IListeningPort]] = []
        self._places = self._resolve(settings)
        admin_address = settings.admin.bind_address
        self._admin_places = (
            [] if admin_address is None else [self._tcp_place("admin.bind_address", admin_address, None, "http")]
        )

    def _resolve(self, settings: Settings) -> list[_Place]:
        transport = settings.transport
        if settings.server.listen:
            if transport.mode != "http":
                raise StartupError(
                    "resolve_transport",
                    f"server.listen and transport.mode = {transport.mode!r} exclude each other. Set transport.mode to "
                    "http and put TLS endpoints such as mtls:4437:certificate=...:key=...:clientCA=... into "
                    "server.listen, or remove server.listen.",
                )
            return [_Place("server.listen", text, self._at_endpoint(text)) for text in settings.server.listen]
        address = settings.server.bind_address
        if transport.mode == "http":
            return [self._tcp_place("server.bind_address", address, None, "http")]
        certificates = _certificates_from(transport.tls, transport.mode)
        self._certificates.append(certificates)
        versions = " and ".join(_VERSIONS[version] for version in sorted(transport.http.versions))
        remark = f" ({transport.mode}, {versions})"
        return [self._tcp_place("server.bind_address", address, certificates, "https", remark)]

    def _tcp_place(
        self, setting: str, address: str, certificates: Certificates | None, scheme: str, remark: str = ""
    ) -> _Place:
        try:
            host, port = parse_bind_address(address)
        except ValueError:
            raise StartupError(
                "resolve_transport",
                f"{setting} is {address}; it must be an IP address and a port, such as 127.0.0.1:4437.",
            ) from None
        endpoint = Endpoint(self._reactor, port, host, BACKLOG, certificates)
        return _Place(setting, address, endpoint.listen_now, scheme, remark)

    def _at_endpoint(self, text: str) -> Callable[[Factory], IListeningPort]:
        try:
            endpoint = serverFromString(self._reactor, text)
        except Exception as error:  # an endpoint's parser may raise anything
            raise StartupError(
                "resolve_transport",
                f"server.listen: {concealed(text)} is not a valid endpoint: {_why_invalid(text, error)}.",
            ) from None
        if isinstance(endpoint, AdoptedStreamServerEndpoint):
            endpoint = InheritedEndpoint(self._reactor, endpoint.fileno)
        _check_endpoint(endpoint, text)
        if isinstance(endpoint, Endpoint) and endpoint.certificates is not None:
            self._certificates.append(endpoint.certificates)

        def listen(factory: Factory) -> IListeningPort:
            ports: list[IListeningPort] = []
            failures: list[Failure] = []
            endpoint.listen(_BehindProxy(factory) if text.startswith("haproxy:") else factory).addCallbacks(
                ports.append, failures.append
            )
            if failures:
                failures[0].raiseException()
            if not ports:
                raise ValueError("the endpoint does not bind its port at once; it cannot be used here")
            if not IListeningPort.providedBy(ports[0]):
                raise ValueError("the endpoint is not a listening port")
            return ports[0]

        return listen

    def bind(self, factory: Factory, admin_factory: Factory | None = None) -> None:
        """
        Bind all ports, or none.

        :param admin_factory: the factory for ``admin.bind_address``; None if that is not set.
        :raises StartupError: in the phase ``bind_listener``; then no port is bound.
        """
        try:
            for place in self._places:
                self._bound.append((place, _bound(place, factory)))
            if admin_factory is not None:
                for place in self._admin_places:
                    self._bound_for_admin.append((place, _bound(place, admin_factory)))
        except StartupError:
            self.give_up()
            raise
        self._limiters = [AcceptLimiter(port, self._reactor) for _, port in self._bound + self._bound_for_admin]

    def give_up(self) -> None:
        """Close the ports of a failed start at once, since the reactor may not run."""
        for _, port in self._bound + self._bound_for_admin:
            if isinstance(port, UNIXPort):
                # stopListening would remove the files of the socket and its lock in a later turn.
                port.stopReading()
                with suppress(OSError):
                    port.connectionLost(Failure(CONNECTION_DONE))
        self.stop()

    def stop(self) -> Deferred[None]:
        """Close the ports; open connections stay open."""
        bound = self._bound + self._bound_for_admin
        limiters, self._limiters = self._limiters, []
        for limiter in limiters:
            limiter.stop()
        self._bound, self._bound_for_admin = [], []
        stopping = [maybeDeferred(port.stopListening) for _, port in bound]
        return Deferred.fromCoroutine(_all_stopped(stopping))

    def reload(self) -> bool:
        """
        Reload the certificates for new connections; log errors.

        :returns: whether all of them are valid.
        """
        valid = [certificates.reload() for certificates in self._certificates]
        return all(valid)

    @property
    def bound(self) -> bool:
        """Whether the ports are bound."""
        return bool(self._bound)

    @property
    def addresses(self) -> list[IAddress]:
        """The addresses of the ports for clients, without the admin port; empty before :meth:`bind`."""
        return [port.getHost() for _, port in self._bound]

    @property
    def admin_addresses(self) -> list[IAddress]:
        """The addresses of the ports of ``admin.bind_address``."""
        return [port.getHost() for _, port in self._bound_for_admin]

    def describe(self) -> str:
        """Return the addresses of the ports for messages; before :meth:`bind`, the configured ones."""
        if not self._bound:
            places = [concealed(place.url_of(place.value)) for place in self._places]
            places += [f"{place.url_of(place.value)} (admin)" for place in self._admin_places]
        else:
            places = [_described(place, port) for place, port in self._bound]
            places += [f"{_described(place, port)} (admin)" for place, port in self._bound_for_admin]
        return ", ".join(places)


def _certificates_from(tls: TlsSettings, mode: str) -> Certificates:
    files = _files_from(tls, mode)
    try:
        contents = read_files(files)
    except TLSFileError as error:
        raise StartupError("check_tls_files", str(error)) from None
    try:
        return Certificates(files, VersionRange(tls.min_version, tls.max_version), contents)
    except TLSContextError as error:
        raise StartupError("build_tls_context", str(error)) from None


def _files_from(tls: TlsSettings, mode: str) -> TLSFiles:
    named = {"cert_path": tls.cert_path, "key_path": tls.key_path}
    if mode == "mtls":
        named["client_ca_path"] = tls.client_ca_path
    files = []
    for name, path in named.items():
        if path is None:
            raise StartupError(
                "resolve_transport",
                f"transport.mode = {mode!r} requires transport.tls.{name}. Set it to the path of a PEM file.",
            )
        files.append(NamedFile(f"transport.tls.{name}", path))
    return TLSFiles(*files)


def _innermost(text: str) -> str:
    """Return an endpoint's text without wrapping prefixes."""
    while text.startswith("haproxy:"):
        text = text.removeprefix("haproxy:")
    return text


def _why_invalid(text: str, error: Exception) -> str:
    prefix = _innermost(text).partition(":")[0]
    if prefix == "systemd" and isinstance(error, (IndexError, KeyError)):
        return "systemd has not passed this socket"
    if isinstance(error, TypeError):
        return f"{prefix}: endpoints have other arguments"
    return concealed(str(error)).rstrip(".") or type(error).__name__


def _check_endpoint(endpoint: object, text: str) -> None:
    """
    Check for errors that Twisted would detect only when the daemon stops or a client connects.

    :raises StartupError: the endpoint cannot be used.
    """
    found = _TLS_DIRECTORY.match(_innermost(text))
    directory = None if found is None else re.sub(r"\\(.)", r"\1", found[1])
    if isinstance(endpoint, StandardIOEndpoint):
        why = "is not a listening port. Use an endpoint such as tcp:4437."
    elif directory is not None and not _has_pem_file(directory):
        why = f"needs a directory of *.pem files, and {directory!r} is not one. The form is tls:DIRECTORY:PORT."
    else:
        return
    raise StartupError("resolve_transport", f"server.listen: {concealed(text)} {why}")


def _has_pem_file(directory: str) -> bool:
    """Return whether Twisted would find a PEM file in the directory."""
    try:
        return any(path.basename().endswith(".pem") and path.isfile() for path in FilePath(directory).walk())
    except (OSError, LinkError):
        return False


def _bound(place: _Place, factory: Factory) -> IListeningPort:
    try:
        return place.listen(factory)
    except CannotListenError as error:
        cause: object = error.socketError
        advice = "Stop whatever uses it, or choose another address."
    except Exception as error:  # an endpoint may raise anything
        cause = error
        advice = "Choose another endpoint."
    if isinstance(cause, FileNotFoundError) and _innermost(place.value).startswith("unix:"):
        advice = "Create the directory of the socket."
    if isinstance(cause, OSError) and cause.filename2 is not None:
        # The file names are those of the lock, a symbolic link to a process id.
        cause = f"[Errno {cause.errno}] {cause.strerror}"
    why = concealed(str(cause)).rstrip(".")
    value = concealed(place.value)
    raise StartupError("bind_listener", f"Cannot listen on {value} ({place.setting}): {why}. {advice}")


def _described(place: _Place, port: IListeningPort) -> str:
    address: Any = port.getHost()
    if not isinstance(address, IPv4Address | IPv6Address):
        return concealed(place.value)
    host = f"[{address.host}]" if ":" in address.host else address.host
    where = f"{host}:{address.port}"
    # The text of an endpoint does not show the port: that of tls:4437 is 443.
    return place.url_of(where) if place.scheme else f"{concealed(place.value)} ({where})"


async def _all_stopped(stopping: list[Deferred[Any]]) -> None:
    for stopped in stopping:
        try:
            await stopped
        except Exception:
            _log.failure("Closing a port failed.")
