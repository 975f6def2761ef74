"""Where the daemon listens: the settings become ports, all of them or none."""

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
from twisted.internet.interfaces import IAddress, IListeningPort
from twisted.internet.main import CONNECTION_DONE
from twisted.internet.protocol import Factory
from twisted.internet.unix import Port as UNIXPort
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.filepath import FilePath, LinkError

from ..config.sections import TlsSettings
from ..config.settings import Settings
from ..config.showing import concealed
from ..config.validation import parse_bind_address
from ..startup import StartupError
from .descriptors import PatientPort
from .endpoints import BACKLOG, Endpoint, InheritedEndpoint
from .tls import Certificates, NamedFile, TLSContextError, TLSFileError, TLSFiles, VersionRange
from .tls.files import read_files

#: The first argument of Twisted's tls: endpoint. It may be given by its name too, and is not looked at then.
_TLS_DIRECTORY: Final = re.compile(r"tls:((?:\\.|[^:=\\])+)(?::|$)")

_VERSIONS: Final = {"http1": "HTTP/1.1", "http2": "HTTP/2"}

_log = Logger()


class _Place(Struct, frozen=True):
    """
    One place to listen at.

    :ivar setting: the dotted name of the setting that asks for it.
    :ivar listen: binds it for a factory.
    :ivar scheme: what clients begin its URL with; empty where only an endpoint knows.
    """

    setting: str
    value: str
    listen: Callable[[Factory], IListeningPort]
    scheme: str = ""
    remark: str = ""

    def url_of(self, address: str) -> str:
        """Write an address of it as a URL, if it is known what speaks there."""
        return f"{self.scheme}://{address}{self.remark}" if self.scheme else address


class Listeners:
    """
    All ports of a daemon.

    :raises StartupError: in the phases ``resolve_transport``, ``check_tls_files`` and ``build_tls_context``.
    """

    def __init__(self, settings: Settings, reactor: Any) -> None:
        self._reactor = reactor
        self._certificates: list[Certificates] = []
        self._patient: list[PatientPort] = []
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
                    f"server.listen says where and how to listen, and transport.mode is {transport.mode}. Give the TLS "
                    "endpoints as server.listen, such as mtls:4437:certificate=...:key=...:clientCA=..., and leave "
                    "transport.mode at http; or leave server.listen empty.",
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
                f"{setting} is {address}, which must be an IP address and a port, such as 127.0.0.1:4437.",
            ) from None
        endpoint = Endpoint(self._reactor, port, host, BACKLOG, certificates)
        return _Place(setting, address, endpoint.listen_now, scheme, remark)

    def _at_endpoint(self, text: str) -> Callable[[Factory], IListeningPort]:
        try:
            endpoint = serverFromString(self._reactor, text)
        except Exception as error:  # whatever an endpoint's parser makes of what a user wrote
            raise StartupError(
                "resolve_transport",
                f"server.listen has {concealed(text)}, which is no endpoint: {_why_no_endpoint(text, error)}. "
                "Change it.",
            ) from None
        if isinstance(endpoint, AdoptedStreamServerEndpoint):
            endpoint = InheritedEndpoint(self._reactor, endpoint.fileno)
        _check_endpoint(endpoint, text)
        if isinstance(endpoint, Endpoint) and endpoint.certificates is not None:
            self._certificates.append(endpoint.certificates)

        def listen(factory: Factory) -> IListeningPort:
            ports: list[IListeningPort] = []
            failures: list[Failure] = []
            endpoint.listen(factory).addCallbacks(ports.append, failures.append)
            if failures:
                failures[0].raiseException()
            if not ports:
                raise ValueError("it does not listen at once, and so it is not known whether it ever will")
            if not IListeningPort.providedBy(ports[0]):
                raise ValueError("it is no port, at which clients could connect one after the other")
            return ports[0]

        return listen

    def bind(self, factory: Factory, admin_factory: Factory | None = None) -> None:
        """
        Listen.

        :param factory: of the connections for everybody.
        :param admin_factory: of the connections for operators, where these have an address of their own.
        :raises StartupError: in the phase ``bind_listener``; then nothing is bound.
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
        self._patient = [PatientPort(port, self._reactor) for _, port in self._bound + self._bound_for_admin]

    def give_up(self) -> None:
        """Let go of the ports of a start that fails: at once, since the reactor's next turn may never come."""
        for _, port in self._bound + self._bound_for_admin:
            if isinstance(port, UNIXPort):
                # What its stopListening does later: the files of the socket and its lock go.
                port.stopReading()
                with suppress(OSError):
                    port.connectionLost(Failure(CONNECTION_DONE))
        self.stop()

    def stop(self) -> Deferred[None]:
        """Take no more connections; the ones that are there stay."""
        bound = self._bound + self._bound_for_admin
        patient, self._patient = self._patient, []
        for port in patient:
            port.stop()
        self._bound, self._bound_for_admin = [], []
        stopping = [maybeDeferred(port.stopListening) for _, port in bound]
        return Deferred.fromCoroutine(_all_stopped(stopping))

    def reload(self) -> None:
        """Take up the certificates as they are on disk, for connections from now on. What is wrong is logged."""
        for certificates in self._certificates:
            certificates.reload()

    @property
    def bound(self) -> bool:
        """Whether the ports are bound."""
        return bool(self._bound)

    @property
    def addresses(self) -> list[IAddress]:
        """Where it listens for everybody; nowhere before :meth:`bind`."""
        return [port.getHost() for _, port in self._bound]

    @property
    def admin_addresses(self) -> list[IAddress]:
        """Where it listens for operators only."""
        return [port.getHost() for _, port in self._bound_for_admin]

    def describe(self) -> str:
        """Say where it listens, or would listen before :meth:`bind`."""
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
                f"transport.mode is {mode}, which needs transport.tls.{name}. Set it to the path of a PEM file.",
            )
        files.append(NamedFile(f"transport.tls.{name}", path))
    return TLSFiles(*files)


def _innermost(text: str) -> str:
    """Leave out of an endpoint's text what it is wrapped in."""
    while text.startswith("haproxy:"):
        text = text.removeprefix("haproxy:")
    return text


def _why_no_endpoint(text: str, error: Exception) -> str:
    prefix = _innermost(text).partition(":")[0]
    if prefix == "systemd" and isinstance(error, (IndexError, KeyError)):
        return "systemd has passed no such socket"
    if isinstance(error, TypeError):
        return f"its arguments are not those that it takes; see the form of the endpoint {prefix}:"
    return concealed(str(error)).rstrip(".") or type(error).__name__


def _check_endpoint(endpoint: object, text: str) -> None:
    """
    See to what Twisted finds out about too late: when the daemon stops, or when a client connects.

    :raises StartupError: it is of no use.
    """
    found = _TLS_DIRECTORY.match(_innermost(text))
    directory = None if found is None else re.sub(r"\\(.)", r"\1", found[1])
    if isinstance(endpoint, StandardIOEndpoint):
        why = "is no port, at which clients could connect one after the other. Change it."
    elif directory is not None and not _has_pem_file(directory):
        why = (
            f"needs a directory with files *.pem, and {directory!r} is none. Its form is tls:DIRECTORY:PORT; give such "
            "a directory."
        )
    else:
        return
    raise StartupError("resolve_transport", f"server.listen has {concealed(text)}, which {why}")


def _has_pem_file(directory: str) -> bool:
    """Look as Twisted does."""
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
    except Exception as error:  # whatever an endpoint's parser makes of what a user wrote
        cause = error
        advice = "Change it."
    if isinstance(cause, FileNotFoundError) and _innermost(place.value).startswith("unix:"):
        advice = "Make the directory of the socket."
    if isinstance(cause, OSError) and cause.filename2 is not None:
        # The names are those of a link, to a process id.
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
    # Of an endpoint's text it is not known which part of it is the port: that of tls:4437 is 443.
    return place.url_of(where) if place.scheme else f"{concealed(place.value)} ({where})"


async def _all_stopped(stopping: list[Deferred[Any]]) -> None:
    for stopped in stopping:
        try:
            await stopped
        except Exception:
            _log.failure("Closing a port failed.")
