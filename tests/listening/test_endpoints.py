"""The string endpoints, as any Twisted program has them."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor as running_reactor
from twisted.internet.endpoints import serverFromString
from twisted.internet.interfaces import IProtocolFactory
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import Site

from tests.support.authority import authority
from tests.support.daemon import CHECKOUT, PATIENCE
from tests.support.handshakes import Echo, client_context

reactor: Any = running_reactor


class Hello(Resource):
    """A resource that answers with the HTTP version."""

    isLeaf = True

    def render_GET(self, request: Any) -> bytes:
        return b"hello by " + bytes(request.clientproto)


class EndpointTestCase(TestCase):
    timeout = 60

    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.certificate, self.key = authority().issue().write(self.folder, "server")
        self.ca = self.folder / "ca.pem"
        self.ca.write_bytes(authority().certificate_pem)
        self.mtls = f"mtls:0:interface=127.0.0.1:certificate={self.certificate}:key={self.key}:clientCA={self.ca}"

    async def listen(self, text: str, factory: IProtocolFactory | None = None) -> int:
        port = await serverFromString(reactor, text).listen(factory or Factory.forProtocol(Echo))
        self.addCleanup(port.stopListening)
        where: Any = port.getHost()
        number: int = where.port
        return number

    def exchange(self, port: int, alpn: list[str] | None = None, shows: bool = True, data: bytes = b"hi") -> Any:
        context = client_context(authority(), self.folder, authority().client() if shows else None, alpn=alpn)

        def talk() -> tuple[bytes, str | None]:
            with (
                socket.create_connection(("127.0.0.1", port), PATIENCE) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                secure.sendall(data)
                return secure.recv(1000), secure.selected_alpn_protocol()

        return deferToThread(talk)


class HttpTests(EndpointTestCase):
    async def test_an_http_endpoint_listens_on_its_port(self) -> None:
        port = await self.listen("http:0:interface=127.0.0.1:backlog=5")

        def talk() -> bytes:
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as connection:
                connection.sendall(b"hi")
                return connection.recv(100)

        self.assertEqual(await deferToThread(talk), b"hi")


class MutualTlsTests(EndpointTestCase):
    async def test_a_client_with_a_certificate_is_served(self) -> None:
        port = await self.listen(self.mtls)
        self.assertEqual(await self.exchange(port), (b"hi", None))

    async def test_a_client_without_a_certificate_is_refused(self) -> None:
        port = await self.listen(self.mtls)
        with self.assertRaises(OSError):
            await self.exchange(port, shows=False)

    async def test_minimum_and_maximum_limit_the_tls_versions(self) -> None:
        port = await self.listen(self.mtls + ":minimum=1.2:maximum=1.2")
        self.assertEqual((await self.exchange(port))[0], b"hi")
        port = await self.listen(self.mtls + ":minimum=1.2")
        self.assertEqual((await self.exchange(port))[0], b"hi")

    async def test_alpn_offers_the_protocols_of_the_factory(self) -> None:
        site = Site(Hello())
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        port = await self.listen(self.mtls + ":http2=no", site)
        answer, chosen = await self.exchange(port, ["h2", "http/1.1"], data=request)
        self.assertEqual(chosen, "http/1.1")
        self.assertIn(b"200 OK", answer)

    async def test_http2_yes_offers_http2_for_a_factory_without_protocols(self) -> None:
        port = await self.listen(self.mtls + ":http2=yes")
        self.assertEqual((await self.exchange(port, ["h2"]))[1], "h2")


class RefusalTests(EndpointTestCase):
    def refusal(self, text: str) -> str:
        with self.assertRaises(ValueError) as caught:
            serverFromString(reactor, text)
        said = str(caught.exception)
        self.assertTrue(said.endswith("."), said)
        return said

    def test_invalid_arguments_are_refused_with_the_argument_and_what_it_must_be(self) -> None:
        for text, said in (
            ("http:", "http: port must be a number from 0 to 65535, not ''."),
            ("http:eighty", "not 'eighty'"),
            ("http:70000", "not '70000'"),
            ("http:-1", "not '-1'"),
            ("http:1:2", "write '2' as NAME=VALUE"),
            ("http:1:port=2", "the port is given twice"),
            ("http:1:backlog=0", "http: backlog must be a number from 1"),
            ("http:1:certificate=x", "unknown argument certificate. Arguments are port, interface, backlog."),
            ("mtls:1", "requires certificate=FILE"),
            ("mtls:1:certificate=x", "requires key=FILE"),
            ("mtls:1:certificate=x:key=y", "requires clientCA=FILE"),
            ("mtls:1:certificate=/no/x:key=y:clientCA=z", "mtls: certificate '/no/x': no such file."),
            (self.mtls + ":minimum=1.1", "mtls: minimum must be 1.2 or 1.3, not 1.1."),
            (self.mtls + ":maximum=1.4", "mtls: maximum must be 1.2 or 1.3, not 1.4."),
            (self.mtls + ":minimum=1.3:maximum=1.2", "minimum must not be greater than maximum"),
            (self.mtls + ":http2=maybe", "must be yes or no"),
        ):
            self.assertIn(said, self.refusal(text))

    def test_a_key_given_as_the_certificate_is_refused(self) -> None:
        swapped = f"mtls:1:certificate={self.key}:key={self.certificate}:clientCA={self.ca}"
        self.assertIn("no certificate in the file", self.refusal(swapped))


class PluginTests(SynchronousTestCase):
    def test_the_prefix_tls_belongs_to_twisted(self) -> None:
        code = (
            "from twisted.plugin import getPlugins\n"
            "from twisted.internet.interfaces import IStreamServerEndpointStringParser as P\n"
            "ours = [each for each in getPlugins(P) if type(each).__module__.endswith('durable_streams_server')]\n"
            "print(sorted(plugin.prefix for plugin in ours))\n"
            "import sys; print(any(name.startswith('durable_streams') for name in sys.modules))\n"
        )
        ended = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
        self.assertEqual(ended.stdout.splitlines(), ["['http', 'mtls']", "False"])
