"""Sockets that one process binds and others inherit. Here, both are in the test's process."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from durable_streams.server.listening.epoll_port import EagerConnection, EpollPort, is_epoll
from durable_streams.server.listening.inheritance import BindingReactor, InheritingReactor, adopt, listen
from durable_streams.server.listening.steering import steer
from tests.support.skipping import skip_other_platform


class Greeting(Protocol):
    """Sends the number of its worker, and closes."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(str(self.factory.worker).encode())
        self.transport.loseConnection()


def greeting(worker: int) -> Any:
    """Return the factory of a worker."""
    factory: Any = Factory.forProtocol(Greeting)
    factory.worker = worker
    return factory


class Receiver(Protocol):
    """Fires with everything that was received."""

    def __init__(self) -> None:
        self.received = b""
        self.ended: Deferred[bytes] = Deferred()

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: object = None) -> None:
        self.ended.callback(self.received)


class InheritanceTests(TestCase):
    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: PLC0415 (trial installs it)

        self.reactor: Any = reactor
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def bind(self, workers: int, *endpoints: str) -> BindingReactor:
        binding = BindingReactor(self.reactor, workers)
        for text in endpoints:
            bound: list[Any] = []
            serverFromString(binding, text).listen(Factory()).addBoth(bound.append)
            self.assertTrue(IListeningPort.providedBy(bound[0]), bound)
            self.addCleanup(bound[0].stopListening)
        return binding

    def inherit(self, binding: BindingReactor, worker: int, *endpoints: str) -> list[Any]:
        """Accept on the sockets of a worker as its process would."""
        descriptors = [os.dup(each.descriptor_of(worker)) for each in binding.bound]
        inheriting = InheritingReactor(self.reactor, descriptors)
        ports: list[Any] = []
        for text in endpoints:
            serverFromString(inheriting, text).listen(greeting(worker)).addCallback(ports.append)
        for port in ports:
            self.addCleanup(port.stopListening)
        for descriptor in descriptors:
            # It was duplicated.
            self.assertRaises(OSError, os.fstat, descriptor)
        return ports

    async def greet(self, address: Any) -> bytes:
        receiver = Receiver()
        factory = Factory.forProtocol(lambda: receiver)
        if isinstance(address, bytes):
            from twisted.internet.endpoints import UNIXClientEndpoint  # noqa: PLC0415

            await UNIXClientEndpoint(self.reactor, address).connect(factory)
        else:
            from twisted.internet.endpoints import HostnameEndpoint  # noqa: PLC0415

            await HostnameEndpoint(self.reactor, address.host, address.port).connect(factory)
        return await receiver.ended

    async def test_each_worker_accepts_on_a_tcp_socket_of_its_own(self) -> None:
        for endpoint in ("tcp:0:interface=127.0.0.1", "http:0:interface=127.0.0.1", "tcp:0:interface=\\:\\:1"):
            binding = self.bind(2, endpoint)
            self.assertEqual(len(set(binding.bound[0].descriptors)), 2)
            address = binding.bound[0].getHost()
            for worker in range(2):
                (port,) = self.inherit(binding, worker, endpoint)
                self.assertEqual(port.getHost(), address)
            greeted = {await self.greet(address) for _ in range(40)}
            self.assertEqual(greeted, {b"0", b"1"})

    async def test_new_connections_are_given_to_the_chosen_workers_only(self) -> None:
        endpoint = "tcp:0:interface=127.0.0.1"
        binding = self.bind(3, endpoint)
        for worker in range(3):
            self.inherit(binding, worker, endpoint)
        (bound,) = binding.bound
        for chosen in ([1], [0, 2], [2, 0, 1]):
            try:
                steer(bound.descriptor_of(0), chosen)
            except OSError as error:
                skip_other_platform(f"the system has no filter: {error}")
            bound.steer(chosen)
            greeted = {await self.greet(bound.getHost()) for _ in range(60)}
            self.assertEqual(greeted, {str(each).encode() for each in chosen})

    async def test_connections_of_a_worker_that_has_ended_wait_for_the_next_one(self) -> None:
        endpoint = "tcp:0:interface=127.0.0.1"
        binding = self.bind(1, endpoint)
        (port,) = self.inherit(binding, 0, endpoint)
        address: Any = binding.bound[0].getHost()
        self.assertEqual(await self.greet(address), b"0")
        await port.stopListening()
        with socket.create_connection(("127.0.0.1", address.port)) as waiting:
            waiting.settimeout(10)
            self.inherit(binding, 0, endpoint)
            self.assertEqual(await self.greet(address), b"0")
            self.assertEqual(waiting.recv(10), b"0")

    async def test_a_unix_socket_is_one_for_all_workers(self) -> None:
        path = self.folder / "socket"
        endpoint = f"unix:{path}:mode=600"
        binding = self.bind(3, endpoint)
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(len(binding.bound[0].descriptors), 1)
        (port,) = self.inherit(binding, 2, endpoint)
        self.assertEqual(await self.greet(str(path).encode()), b"2")
        await port.stopListening()
        self.assertTrue(path.exists())

    async def test_a_passed_socket_is_one_for_all_workers_and_stays_open(self) -> None:
        with socket.socket() as passed:
            passed.bind(("127.0.0.1", 0))
            passed.listen()
            binding = BindingReactor(self.reactor, 2)
            port: Any = adopt(binding, passed.fileno(), Factory())
            (bound,) = binding.bound
            self.assertEqual(bound.passed_as, passed.fileno())
            self.assertEqual(bound.descriptor_of(0), bound.descriptor_of(1))
            self.assertEqual(port.getHost().port, passed.getsockname()[1])
            descriptor = os.dup(bound.descriptor_of(0))
            inherited: Any = adopt(InheritingReactor(self.reactor, [descriptor]), descriptor, greeting(1))
            os.close(descriptor)
            self.assertEqual(await self.greet(port.getHost()), b"1")
            await inherited.stopListening()
            await port.stopListening()
            socket.create_connection(passed.getsockname()).close()

    def test_a_passed_socket_that_does_not_listen_is_refused(self) -> None:
        with socket.socket() as passed:
            self.assertRaises(ValueError, adopt, BindingReactor(self.reactor, 2), passed.fileno(), Factory())

    def test_bound_ports_are_listening_ports(self) -> None:
        binding = self.bind(2, "tcp:0:interface=127.0.0.1")
        verifyObject(IListeningPort, binding.bound[0])

    def test_a_port_in_use_is_refused_although_sockets_share_ports(self) -> None:
        binding = self.bind(2, "tcp:0:interface=127.0.0.1")
        number = binding.bound[0].getHost().port  # type: ignore[attr-defined]
        other = BindingReactor(self.reactor, 2)
        error = self.assertRaises(CannotListenError, listen, other, number, Factory(), 10, "127.0.0.1")
        self.assertIn("in use", str(error.socketError))
        self.assertEqual(other.bound, [])

    def test_an_address_of_another_machine_is_refused(self) -> None:
        for interface in ("192.0.2.1", "2001:db8::1"):
            binding = BindingReactor(self.reactor, 2)
            self.assertRaises(CannotListenError, listen, binding, 0, Factory(), 10, interface)

    def test_closed_ports_can_be_bound_again(self) -> None:
        binding = BindingReactor(self.reactor, 3)
        port = listen(binding, 0, Factory(), 10, "127.0.0.1")
        number: int = port.getHost().port  # type: ignore[attr-defined]
        port.stopListening()
        listen(binding, number, Factory(), 10, "127.0.0.1").stopListening()

    def test_an_inherited_port_is_of_the_kind_that_the_endpoint_creates(self) -> None:
        binding = BindingReactor(self.reactor, 1)
        self.addCleanup(listen(binding, 0, Factory(), 10, "127.0.0.1").stopListening)
        for prompt in (False, True):
            descriptor = os.dup(binding.bound[0].descriptor_of(0))
            inheriting = InheritingReactor(self.reactor, [descriptor])
            port: Any = listen(inheriting, 0, greeting(0), 10, "127.0.0.1", prompt)
            self.addCleanup(port.stopListening)
            if is_epoll(self.reactor):
                self.assertIsInstance(port, EpollPort)
                self.assertEqual(port.transport.func is EagerConnection, prompt)

    def test_everything_else_is_the_reactors(self) -> None:
        self.assertEqual(BindingReactor(self.reactor, 1).callLater, self.reactor.callLater)
