"""The whole server inside another program: over sockets, and how it starts and stops."""

from __future__ import annotations

import ssl
import urllib.request
from pathlib import Path
from typing import Any

import treq
from msgspec.structs import replace
from twisted.application.service import Application, IService, IServiceCollection
from twisted.internet import reactor as running
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent
from twisted.web.http_headers import Headers
from twisted.web.server import Site
from zope.interface import implementer

from durable_streams.server import (
    ConfigError,
    FileStorage,
    MemoryStorage,
    Settings,
    StorageError,
    StorageOwned,
    StreamServer,
    StreamService,
    build_resource,
    build_service,
    errors,
)
from durable_streams.server.config.sections import ConnectionSettings, HttpSettings, TransportSettings
from tests.support.authority import authority

reactor: Any = running
# Its annotations do not know of arguments with defaults.
wait_for: Any = blockingCallFromThread

ANYWHERE = "tcp:0:interface=127.0.0.1"
TEXT: Any = {"content-type": "text/plain"}


def settings_with(**connection: int) -> Settings:
    """Make settings of connections."""
    return Settings(transport=TransportSettings(connection=replace(ConnectionSettings(), **connection)))


class ServingCase(TestCase):
    """Servers on ports of this machine, and requests to them."""

    def serve(self, streams: Any, settings: Settings | None = None, listeners: Any = (ANYWHERE,)) -> StreamServer:
        server = build_service(streams, settings, listeners)
        server.startService()
        self.addCleanup(server.stopService)
        return server

    async def ask(
        self, server: StreamServer, method: str, path: str, data: bytes | None = None, listener: int = 0
    ) -> tuple[int, bytes, Headers]:
        port: Any = server.addresses[listener]
        response: Any = await treq.request(
            method, f"http://127.0.0.1:{port.port}{path}", data=data, headers=TEXT, agent=Agent(reactor)
        )
        return response.code, await response.content(), response.headers

    async def status(self, server: StreamServer, method: str, path: str, data: bytes | None = None) -> int:
        return (await self.ask(server, method, path, data))[0]


class WholeServerTests(ServingCase):
    async def test_the_server_serves_streams_probes_and_metrics(self) -> None:
        server = self.serve(MemoryStorage())
        self.assertEqual((await self.ask(server, "GET", "/healthz"))[:2], (200, b"ok"))
        self.assertEqual((await self.ask(server, "GET", "/readyz"))[:2], (200, b"ready"))
        self.assertEqual(await self.status(server, "PUT", "/v1/stream/log", b"hello"), 201)
        self.assertEqual((await self.ask(server, "GET", "/v1/stream/log?offset=-1"))[:2], (200, b"hello"))
        self.assertIn(b"durable_streams", (await self.ask(server, "GET", "/metrics"))[1])
        self.assertEqual(await self.status(server, "GET", "/elsewhere"), 404)

    async def test_appends_from_python_wake_readers_over_http_and_vice_versa(self) -> None:
        server = self.serve(MemoryStorage())
        await server.streams.create("log", "text/plain")
        following = Deferred.fromCoroutine(server.streams.tail("log").__anext__())
        await self.ask(server, "POST", "/v1/stream/log", b"from the web")
        self.assertEqual((await following).data, b"from the web")
        polling = Deferred.fromCoroutine(self.ask(server, "GET", "/v1/stream/log?offset=now&live=long-poll"))
        await self.somebody_waits(server, "log")
        await server.streams.append("log", b"from Python")
        self.assertEqual((await polling)[:2], (200, b"from Python"))

    async def somebody_waits(self, server: StreamServer, name: str) -> None:
        for _ in range(500):
            if name in server.streams.streams._waiting.watched():
                return
            await deferLater(reactor, 0.01)
        raise AssertionError(f"nobody waits on {name}")

    async def test_streams_are_at_the_base_path_of_the_settings(self) -> None:
        server = self.serve(MemoryStorage(), Settings(http=HttpSettings(stream_base_path="/s")))
        self.assertEqual(await self.status(server, "PUT", "/s/log"), 201)
        self.assertEqual(await self.status(server, "PUT", "/v1/stream/log"), 404)

    async def test_the_server_uses_the_settings_of_its_service(self) -> None:
        service = StreamService(MemoryStorage(), settings=Settings(http=HttpSettings(stream_base_path="/s")))
        server = self.serve(service)
        self.assertIs(server.streams, service)
        self.assertTrue(service.running)
        self.assertEqual(await self.status(server, "PUT", "/s/log"), 201)

    async def test_several_listeners_have_the_same_streams(self) -> None:
        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        server = self.serve(MemoryStorage(), None, [ANYWHERE, endpoint])
        self.assertEqual(len(server.addresses), 2)
        self.assertEqual(await self.status(server, "PUT", "/v1/stream/log", b"one"), 201)
        found = await self.ask(server, "GET", "/v1/stream/log?offset=-1", listener=1)
        self.assertEqual(found[:2], (200, b"one"))
        tails = [
            Deferred.fromCoroutine(
                self.ask(server, "GET", "/v1/stream/log?offset=now&live=long-poll", listener=listener)
            )
            for listener in (0, 1)
        ]
        for _ in range(500):
            if len(server.streams.streams._waiting._watchers.get("log", ())) == 2:
                break
            await deferLater(reactor, 0.01)
        await self.ask(server, "POST", "/v1/stream/log", b"two", listener=1)
        for tail in tails:
            self.assertEqual((await tail)[:2], (200, b"two"))

    async def test_a_listener_may_use_tls(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        certificate, key = authority().issue().write(folder, "server")
        secure = f"ssl:0:privateKey={key}:certKey={certificate}:interface=127.0.0.1"
        server = self.serve(MemoryStorage(), None, ["http:0:interface=127.0.0.1", secure])
        ports: list[Any] = server.addresses
        trusting = ssl.create_default_context(cadata=authority().certificate_pem.decode())

        def put(url: str) -> str | None:
            request = urllib.request.Request(url, b"x", TEXT, method="PUT")
            with urllib.request.urlopen(request, timeout=20, context=trusting) as answer:
                location: str | None = answer.headers["Location"]
                return location

        for scheme, port in (("http", ports[0].port), ("https", ports[1].port)):
            url = f"{scheme}://127.0.0.1:{port}/v1/stream/{scheme}"
            self.assertEqual(await deferToThread(put, url), url)
        self.assertEqual([each.facts.name for each in await server.streams.list()], ["http", "https"])

    async def test_the_tree_can_be_served_by_another_site(self) -> None:
        server = self.serve(MemoryStorage(), None, ())
        port: Any = reactor.listenTCP(0, Site(server.tree), interface="127.0.0.1")
        server.ports.append(port)
        self.assertEqual(await self.status(server, "PUT", "/v1/stream/log", b"one"), 201)
        self.assertEqual((await self.ask(server, "GET", "/readyz"))[:2], (200, b"ready"))

    async def test_threads_can_append_through_the_reactor(self) -> None:
        server = self.serve(MemoryStorage())

        def work() -> bytes:
            wait_for(reactor, server.streams.create, "log", "text/plain")
            wait_for(reactor, server.streams.append, "log", b"from a thread")
            with self.assertRaises(errors.StreamNotFound):
                wait_for(reactor, server.streams.read, "nowhere")
            reading = wait_for(reactor, server.streams.read, "log")
            assert isinstance(reading.data, bytes)
            return reading.data

        self.assertEqual(await deferToThread(work), b"from a thread")

    async def test_an_application_runs_the_server(self) -> None:
        application = Application("streams")
        server = build_service(MemoryStorage(), listeners=[ANYWHERE])
        server.setServiceParent(IServiceCollection(application))
        service = IService(application)
        service.privilegedStartService()
        [port] = server.ports
        service.startService()
        self.assertEqual(server.ports, [port])
        self.assertEqual(await self.status(server, "GET", "/readyz"), 200)
        await service.stopService()
        self.assertEqual(server.ports, [])


class StartTests(ServingCase):
    def test_invalid_settings_are_refused(self) -> None:
        with self.assertRaisesRegex(ConfigError, "http.stream_base_path must be .*; the program sets it to 'x'"):
            build_service(MemoryStorage(), Settings(http=HttpSettings(stream_base_path="x")))

    def test_invalid_listeners_are_refused(self) -> None:
        storage = MemoryStorage()
        for listener in ("nonsense:80", "tcp:x", "tcp", "systemd:domain=INET:name=x", "tcp:1:password=hush"):
            with self.assertRaisesRegex(ValueError, "is not a valid endpoint: ") as caught:
                build_service(storage, listeners=[listener])
            self.assertNotIn("hush", str(caught.exception))
        self.assertEqual(build_service(storage).addresses, [])

    async def test_a_storage_with_another_owner_is_refused(self) -> None:
        storage = MemoryStorage()
        server = self.serve(storage)
        for build in (build_service, build_resource, StreamService):
            with self.assertRaises(StorageOwned):
                build(storage)
        with self.assertRaisesRegex(StorageOwned, "is started, or has a parent"):
            build_service(server.streams)
        await server.stopService()
        other = self.serve(storage)
        self.assertEqual(await self.status(other, "GET", "/readyz"), 200)

    async def test_a_service_that_is_started_or_has_a_parent_is_refused(self) -> None:
        service = StreamService(MemoryStorage())
        service.startService()
        self.addCleanup(service.stopService)
        with self.assertRaises(StorageOwned):
            build_service(service)

    async def test_a_port_in_use_is_an_error_of_the_start(self) -> None:
        first = self.serve(MemoryStorage())
        port: Any = first.addresses[0]
        taken = f"tcp:{port.port}:interface=127.0.0.1"
        storage = MemoryStorage()
        second = build_service(storage, listeners=[ANYWHERE, taken])
        with self.assertRaises(CannotListenError):
            second.startService()
        self.assertEqual((second.ports, second.running, second.streams.running), ([], 0, 0))
        await first.stopService()
        second.startService()
        self.assertEqual(await self.status(second, "GET", "/readyz"), 200)
        await second.stopService()

    async def test_a_storage_that_cannot_be_opened_is_an_error_of_the_start(self) -> None:
        directory = self.mktemp()
        first = self.serve(FileStorage(directory, reactor))
        second = build_service(FileStorage(directory, reactor), listeners=[ANYWHERE])
        with self.assertRaisesRegex(StorageError, "is in use by process"):
            second.startService()
        self.assertEqual((second.ports, second.running), ([], 0))
        self.assertIn("not started", second.obstacle() or "")
        await second.stopService()
        await first.stopService()


@implementer(IStreamServerEndpoint)
class LateEndpoint:
    """An endpoint that listens later."""

    def __init__(self) -> None:
        self.opening: Deferred[Any] = Deferred()

    def listen(self, protocolFactory: Any) -> Deferred[Any]:
        return self.opening


class LateListenerTests(ServingCase):
    async def test_an_endpoint_that_listens_later_is_served(self) -> None:
        endpoint = LateEndpoint()
        server = self.serve(MemoryStorage(), None, [endpoint])
        self.assertEqual(server.ports, [])
        port = reactor.listenTCP(0, server._fronts.factory, interface="127.0.0.1")
        endpoint.opening.callback(port)
        self.assertEqual(server.ports, [port])
        await server.stopService()
        self.assertFalse(port.connected)

    def test_an_endpoint_that_fails_later_is_logged(self) -> None:
        endpoint = LateEndpoint()
        server = self.serve(MemoryStorage(), None, [endpoint, ANYWHERE])
        endpoint.opening.errback(CannotListenError(None, None, OSError("taken")))
        self.assertEqual(len(self.flushLoggedErrors(CannotListenError)), 1)
        self.assertEqual(len(server.ports), 1)

    async def test_a_stop_cancels_an_endpoint_that_does_not_listen_yet(self) -> None:
        endpoint = LateEndpoint()
        server = self.serve(MemoryStorage(), None, [endpoint])
        await server.stopService()
        self.assertTrue(endpoint.opening.called)
        self.assertEqual((server.ports, self.flushLoggedErrors()), ([], []))


class StopTests(ServingCase):
    async def test_a_stop_ends_waiting_readers_and_closes_the_storage(self) -> None:
        directory = self.mktemp()
        server = self.serve(FileStorage(directory, reactor))
        await server.streams.create("log", "text/plain", b"kept")
        following = Deferred.fromCoroutine(server.streams.tail("log", "now").__anext__())
        polling = Deferred.fromCoroutine(self.ask(server, "GET", "/v1/stream/log?offset=now&live=long-poll"))
        events = Deferred.fromCoroutine(self.ask(server, "GET", "/v1/stream/log?offset=-1&live=sse"))
        for _ in range(500):
            if len(server.streams.streams._waiting._watchers.get("log", ())) == 3:
                break
            await deferLater(reactor, 0.01)
        stopping = server.stopService()
        self.assertIn("stopping", server.obstacle() or "")
        await stopping
        with self.assertRaises(errors.Unavailable):
            await following
        self.assertEqual((await polling)[0], 204)
        self.assertIn(b"data:kept", (await events)[1])
        again = self.serve(FileStorage(directory, reactor))
        self.assertEqual((await again.streams.read("log")).data, b"kept")

    async def test_readyz_is_503_during_a_stop(self) -> None:
        server = self.serve(MemoryStorage(), None, ())
        other: Any = reactor.listenTCP(0, Site(server.tree), interface="127.0.0.1")
        self.addCleanup(other.stopListening)
        address = other.getHost()
        await server.stopService()
        response: Any = await treq.get(f"http://127.0.0.1:{address.port}/readyz", agent=Agent(reactor))
        self.assertEqual(response.code, 503)
        self.assertIn(b"UNAVAILABLE", await response.content())
        response = await treq.get(f"http://127.0.0.1:{address.port}/healthz", agent=Agent(reactor))
        self.assertEqual((response.code, await response.content()), (200, b"ok"))

    async def test_connections_that_do_not_end_are_closed_after_the_drain_timeout(self) -> None:
        server = self.serve(MemoryStorage(), settings_with(drain_timeout_secs=1))
        await server.streams.create("large", "text/plain", b"x" * 10_000_000)
        port: Any = server.addresses[0]
        response: Any = await Agent(reactor).request(b"GET", f"http://127.0.0.1:{port.port}/v1/stream/large".encode())
        # Nobody reads the body, so it stays where it is.
        before = reactor.seconds()
        await server.stopService()
        self.assertGreaterEqual(reactor.seconds() - before, 0.9)
        ended: Deferred[Any] = treq.content(response)
        with self.assertRaises(Exception):  # noqa: B017 (which one depends on how far it came)
            await ended

    async def test_a_second_stop_waits_for_the_first(self) -> None:
        server = self.serve(MemoryStorage())
        first, second = server.stopService(), server.stopService()
        await first
        await second
        await server.stopService()
        self.assertEqual(server.running, 0)

    async def test_a_server_that_was_never_started_can_be_stopped(self) -> None:
        storage = MemoryStorage()
        await build_service(storage, listeners=[ANYWHERE]).stopService()
        again = self.serve(storage)
        self.assertEqual(await self.status(again, "GET", "/readyz"), 200)

    async def test_an_error_of_closing_the_storage_fails_the_stop(self) -> None:
        storage = MemoryStorage()
        server = self.serve(storage)

        def close() -> None:
            raise OSError("the disk is gone")

        self.patch(storage, "close", close)
        with self.assertRaisesRegex(OSError, "the disk is gone"):
            await server.stopService()
        self.assertIsNotNone(StreamService(storage))
