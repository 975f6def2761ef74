"""Tests of listeners: the ports that settings describe, and the errors if they cannot be bound."""

from __future__ import annotations

import os
import socket
import ssl
import stat
import tempfile
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from twisted.internet import reactor as running_reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.logger import formatEvent, globalLogPublisher
from twisted.trial.unittest import TestCase

import durable_streams.server.listening.listeners as listeners_module
from durable_streams.server.config.sections import (
    AdminSettings,
    ServerSettings,
    TlsSettings,
    TransportSettings,
    VersionSettings,
)
from durable_streams.server.config.settings import Settings
from durable_streams.server.listening.listeners import Listeners
from durable_streams.server.startup import StartupError
from tests.support.authority import Authority, authority
from tests.support.daemon import PATIENCE, free_port

reactor: Any = running_reactor


class Greeter(Protocol):
    """A protocol that answers with its greeting."""

    greeting = b"hello"

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        peer: Any = self.transport.getPeer()
        self.transport.write(b"%b %b" % (self.greeting, str(getattr(peer, "host", "")).encode()))
        self.transport.loseConnection()


class AdminGreeter(Greeter):
    greeting = b"admin"


def ask(family: int, address: Any, first: bytes = b"hi", tls: ssl.SSLContext | None = None) -> bytes:
    """Connect, say something, and read to the end."""
    with socket.socket(family) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(address)
        if tls is not None:
            with tls.wrap_socket(connection, server_hostname="localhost") as secure:
                return _exchange(secure, first)
        return _exchange(connection, first)


def _exchange(connection: socket.socket, first: bytes) -> bytes:
    connection.sendall(first)
    received = b""
    while data := connection.recv(4096):
        received += data
    return received


def trusting(*authorities: Authority) -> ssl.SSLContext:
    """Make a client's context."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for each in authorities:
        context.load_verify_locations(cadata=each.certificate_pem.decode())
    return context


class ListenersTestCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.certificate, self.key = authority().issue().write(self.folder, "server")
        self.ca = self.folder / "ca.pem"
        self.ca.write_bytes(authority().certificate_pem)

    def tls(self, mode: str = "tls", **changes: Any) -> Settings:
        tls = TlsSettings(self.certificate, self.key, str(self.ca) if mode == "mtls" else None)
        return Settings(
            server=ServerSettings("127.0.0.1:0"),
            transport=TransportSettings(mode, VersionSettings(("http1", "http2")), replace(tls, **changes)),
        )

    def listen(self, settings: Settings) -> Listeners:
        listeners = Listeners(settings, reactor)
        listeners.bind(Factory.forProtocol(Greeter), Factory.forProtocol(AdminGreeter))
        self.addCleanup(listeners.stop)
        return listeners

    def refusal(self, settings: Settings) -> StartupError:
        with self.assertRaises(StartupError) as caught:
            listeners = Listeners(settings, reactor)
            listeners.bind(Factory.forProtocol(Greeter))
            self.addCleanup(listeners.stop)
        refused: StartupError = caught.exception
        return refused

    def ask(self, listeners: Listeners, **how: Any) -> Deferred[bytes]:
        address: Any = listeners.addresses[0]
        return deferToThread(ask, socket.AF_INET, (address.host, address.port), **how)


class PlaceTests(ListenersTestCase):
    async def test_mode_http_serves_plain_http(self) -> None:
        listeners = self.listen(Settings(server=ServerSettings("127.0.0.1:0")))
        address: Any = listeners.addresses[0]
        self.assertEqual(await self.ask(listeners), b"hello 127.0.0.1")
        self.assertEqual(listeners.describe(), f"http://127.0.0.1:{address.port}")
        self.assertEqual(listeners.admin_addresses, [])

    async def test_mode_tls_serves_tls(self) -> None:
        listeners = self.listen(self.tls())
        address: Any = listeners.addresses[0]
        self.assertEqual(await self.ask(listeners, tls=trusting(authority())), b"hello 127.0.0.1")
        self.assertEqual(listeners.describe(), f"https://127.0.0.1:{address.port} (tls, HTTP/1.1 and HTTP/2)")

    async def test_mode_mtls_requires_client_certificates(self) -> None:
        context = trusting(authority())
        context.load_cert_chain(*authority().client().write(self.folder, "client"))
        listeners = self.listen(self.tls("mtls"))
        self.assertEqual(await self.ask(listeners, tls=context), b"hello 127.0.0.1")
        self.assertIn("(mtls, HTTP/1.1 and HTTP/2)", listeners.describe())

    async def test_admin_bind_address_is_a_separate_listener(self) -> None:
        settings = replace(self.tls(), admin=AdminSettings(bind_address="127.0.0.1:0"))
        listeners = self.listen(settings)
        admin: Any = listeners.admin_addresses[0]
        answer = await deferToThread(ask, socket.AF_INET, (admin.host, admin.port))
        self.assertEqual(answer, b"admin 127.0.0.1")
        self.assertTrue(listeners.describe().endswith(f", http://127.0.0.1:{admin.port} (admin)"))

    async def test_server_listen_replaces_bind_address(self) -> None:
        path = str(self.folder / "socket")
        port = free_port()
        listeners = self.listen(
            Settings(server=ServerSettings(f"127.0.0.1:{port}", ("tcp:0:interface=127.0.0.1", f"unix:{path}")))
        )
        self.assertEqual(len(listeners.addresses), 2)
        self.assertEqual(await self.ask(listeners), b"hello 127.0.0.1")
        self.assertEqual(await deferToThread(ask, socket.AF_UNIX, path), b"hello ")
        with self.assertRaises(ConnectionRefusedError):
            await deferToThread(ask, socket.AF_INET, ("127.0.0.1", port))
        chosen: Any = listeners.addresses[0]
        self.assertEqual(listeners.describe(), f"tcp:0:interface=127.0.0.1 (127.0.0.1:{chosen.port}), unix:{path}")

    async def test_a_haproxy_endpoint_has_the_clients_address(self) -> None:
        listeners = self.listen(Settings(server=ServerSettings(listen=("haproxy:tcp:0:interface=127.0.0.1",))))
        first = b"PROXY TCP4 198.51.100.7 192.0.2.1 51000 443\r\nhi"
        self.assertEqual(await self.ask(listeners, first=first), b"hello 198.51.100.7")

    async def test_http_and_mtls_endpoints_listen(self) -> None:
        mtls = f"mtls:0:interface=127.0.0.1:certificate={self.certificate}:key={self.key}:clientCA={self.ca}"
        listeners = self.listen(Settings(server=ServerSettings(listen=("http:0:interface=127.0.0.1", mtls))))
        self.assertEqual(await self.ask(listeners), b"hello 127.0.0.1")
        context = trusting(authority())
        context.load_cert_chain(*authority().client().write(self.folder, "client"))
        address: Any = listeners.addresses[1]
        answer = await deferToThread(ask, socket.AF_INET, (address.host, address.port), tls=context)
        self.assertEqual(answer, b"hello 127.0.0.1")

    async def test_twisteds_tls_endpoint_listens(self) -> None:
        pems = self.folder / "pems"
        pems.mkdir()
        (pems / "server.pem").write_bytes(Path(self.key).read_bytes() + Path(self.certificate).read_bytes())
        text = f"tls:{pems}:0:interface=\\:\\:1"
        if not socket.has_ipv6:
            text = text.replace("\\:\\:1", "127.0.0.1")
        listeners = self.listen(Settings(server=ServerSettings(listen=(text,))))
        address: Any = listeners.addresses[0]
        answer = await deferToThread(ask, socket.AF_INET6, (address.host, address.port), tls=trusting(authority()))
        self.assertEqual(answer, b"hello ::1")

    async def test_no_connection_is_accepted_after_stop(self) -> None:
        listeners = self.listen(self.tls())
        address: Any = listeners.addresses[0]
        await listeners.stop()
        self.assertEqual(listeners.addresses, [])
        with self.assertRaises(ConnectionRefusedError):
            await deferToThread(ask, socket.AF_INET, (address.host, address.port))
        # What is left is trial's own, for this test.
        self.assertEqual(len(reactor.getDelayedCalls()), 1)


class RefusalTests(ListenersTestCase):
    def test_a_port_in_use_is_an_error_that_names_the_setting(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            place = f"127.0.0.1:{taken.getsockname()[1]}"
            error = self.refusal(Settings(server=ServerSettings(place)))
            self.assertEqual(error.phase, "bind_listener")
            self.assertIn(f"Cannot listen on {place} (server.bind_address): [Errno 98]", error.cause)
            admin = replace(Settings(server=ServerSettings("127.0.0.1:0")), admin=AdminSettings(bind_address=place))
            with self.assertRaises(StartupError) as caught:
                Listeners(admin, reactor).bind(Factory.forProtocol(Greeter), Factory.forProtocol(Greeter))
            self.assertIn(f"Cannot listen on {place} (admin.bind_address)", caught.exception.cause)

    async def test_if_one_port_cannot_be_bound_none_is(self) -> None:
        port = free_port()
        listen = (f"tcp:{port}:interface=127.0.0.1", "unix:/no/such/folder/socket")
        error = self.refusal(Settings(server=ServerSettings(listen=listen)))
        self.assertIn("Cannot listen on unix:/no/such/folder/socket (server.listen)", error.cause)
        await deferLater(reactor, 0)
        with socket.socket() as free:
            free.bind(("127.0.0.1", port))

    def test_a_failed_start_removes_its_unix_sockets_at_once(self) -> Deferred[None]:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        listen = [f"unix:{folder.name}/one", f"haproxy:unix:{folder.name}/two", "unix:/no/such/folder/socket"]
        for _ in range(2):
            self.refusal(Settings(server=ServerSettings(listen=tuple(listen))))
            self.assertEqual(os.listdir(folder.name), [])
        listeners = Listeners(Settings(server=ServerSettings(listen=tuple(listen[:2]))), reactor)
        listeners.bind(Factory.forProtocol(Greeter))
        self.assertEqual(len(os.listdir(folder.name)), 4)
        return listeners.stop()

    def test_an_endpoint_that_cannot_be_used_is_refused_with_the_reason(self) -> None:
        pems = self.folder / "empty"
        pems.mkdir()
        for text, said in (
            ("systemd:domain=INET:index=0", "systemd has not passed this socket."),
            ("systemd:domain=INET:name=x", "systemd has not passed this socket."),
            ("haproxy:systemd:domain=INET:index=0", "systemd has not passed this socket."),
            ("tcp", "tcp: endpoints have other arguments."),
            ("tcp:1:color=red", "tcp: endpoints have other arguments."),
            ("stdio:", "is not a listening port"),
            ("tls:7752", "The form is tls:DIRECTORY:PORT"),
            (f"tls:{pems}:7752", "needs a directory of *.pem files"),
            (f"haproxy:tls:{pems}:7752", "needs a directory of *.pem files"),
        ):
            error = self.refusal(Settings(server=ServerSettings(listen=(text,))))
            self.assertEqual(error.phase, "resolve_transport", text)
            self.assertIn(f"server.listen: {text} ", error.cause)
            self.assertIn(said, error.cause)

    def test_a_unix_socket_needs_its_directory(self) -> None:
        for text in ("unix:/no/such/folder/socket", "unix:/no/such/folder/socket:lockfile=0"):
            error = self.refusal(Settings(server=ServerSettings(listen=(text,))))
            self.assertEqual(
                f"Cannot listen on {text} (server.listen): [Errno 2] No such file or directory. Create the "
                "directory of the socket.",
                error.cause,
            )

    def test_errors_hide_secrets_in_endpoints(self) -> Deferred[None]:
        for text in ("gopher:70:password=hush", "http:1:password=hush", "tcp:1:password=hush"):
            error = self.refusal(Settings(server=ServerSettings(listen=(text,))))
            self.assertIn("password=***", error.cause)
            self.assertNotIn("hush", error.cause)
        self.patch(listeners_module, "serverFromString", lambda *_: TCP4ServerEndpoint(reactor, 0, 50, "127.0.0.1"))
        listeners = Listeners(Settings(server=ServerSettings(listen=("ours:password=hush",))), reactor)
        self.assertEqual(listeners.describe(), "ours:password=***")
        listeners.bind(Factory.forProtocol(Greeter))
        self.assertRegex(listeners.describe(), r"^ours:password=\*\*\* \(127\.0\.0\.1:\d+\)$")
        return listeners.stop()

    def test_invalid_endpoints_are_refused(self) -> None:
        for text in (
            "gopher:70",
            "tcp",
            "tcp:http",
            "tcp:1:2:3:4:5",
            "http:",
            "http:x",
            "http:1:color=red",
            "mtls:1",
            "systemd:domain=INET:index=0",
            "",
        ):
            error = self.refusal(Settings(server=ServerSettings(listen=(text,))))
            self.assertEqual(error.phase, "resolve_transport", text)
            self.assertIn(f"server.listen: {text} is not a valid endpoint: ", error.cause)

    def test_the_first_missing_file_is_named(self) -> None:
        for changes, setting in (
            ({"cert_path": "/no/c", "key_path": "/no/k", "client_ca_path": "/no/a"}, "cert_path"),
            ({"key_path": "/no/k", "client_ca_path": "/no/a"}, "key_path"),
            ({"client_ca_path": "/no/a"}, "client_ca_path"),
        ):
            error = self.refusal(self.tls("mtls", **changes))
            self.assertEqual(error.phase, "check_tls_files")
            self.assertIn(f"transport.tls.{setting} '/no/", error.cause)
            self.assertIn("no such file", error.cause)

    def test_directories_and_pipes_are_refused(self) -> None:
        pipe = self.folder / "pipe"
        os.mkfifo(pipe)
        for path in (self.folder, pipe):
            error = self.refusal(self.tls(cert_path=str(path)))
            self.assertEqual(error.phase, "check_tls_files")
            self.assertIn("not a regular file", error.cause)

    def test_a_certificate_as_the_key_and_a_key_as_the_certificate_are_refused(self) -> None:
        for changes in ({"cert_path": self.key}, {"key_path": self.certificate}):
            error = self.refusal(self.tls(**changes))
            self.assertEqual(error.phase, "build_tls_context")
            self.assertIn("transport.tls.", error.cause)

    def test_tls_and_mtls_require_their_files(self) -> None:
        for mode, changes, setting in (
            ("tls", {"cert_path": None}, "cert_path"),
            ("tls", {"key_path": None}, "key_path"),
            ("mtls", {"client_ca_path": None}, "client_ca_path"),
        ):
            error = self.refusal(self.tls(mode, **changes))
            self.assertEqual(error.phase, "resolve_transport")
            self.assertIn(f"transport.mode = {mode!r} requires transport.tls.{setting}", error.cause)

    def test_endpoints_and_a_mode_exclude_each_other(self) -> None:
        settings = replace(self.tls(), server=ServerSettings(listen=("tcp:0",)))
        error = self.refusal(settings)
        self.assertEqual(error.phase, "resolve_transport")
        self.assertIn("server.listen", error.cause)

    def test_a_key_that_every_user_may_read_is_logged(self) -> None:
        said: list[str] = []
        observer: Any = lambda event: said.append(formatEvent(event))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        Listeners(self.tls(), reactor)
        self.assertEqual(said, [])
        Path(self.key).chmod(stat.S_IRUSR | stat.S_IROTH)
        Listeners(self.tls(), reactor)
        [warning] = said
        self.assertIn(
            f"transport.tls.key_path '{self.key}': every user of this machine may read the private key", warning
        )
