"""Receivers of webhooks, and a sender that may call them."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from durable_streams.server.subscriptions.addresses import Address, AddressPolicy, parse_networks
from durable_streams.server.subscriptions.authorities import Authorities
from durable_streams.server.subscriptions.delivery import DeliveryLimits, DeliveryResult, HttpSender, WebhookRequest
from tests.support.scripted_server import ScriptedServer

#: A policy that allows this machine by both schemes.
HERE = AddressPolicy(http_networks=parse_networks(["127.0.0.0/8", "::1/128"]))


class Names:
    """
    A resolver whose answers a test changes.

    :ivar addresses: the addresses by host; a host that is not in it is not found, and None never answers.
    :ivar asked: the hosts that were looked up.
    """

    def __init__(self, **addresses: Sequence[str] | None) -> None:
        self.addresses: dict[str, Sequence[str] | None] = addresses
        self.asked: list[str] = []

    def __call__(self, host: str) -> Deferred[Sequence[Address]]:
        self.asked.append(host)
        if host not in self.addresses:
            return fail(DNSLookupError("not found"))
        found = self.addresses[host]
        return Deferred() if found is None else succeed([ip_address(text) for text in found])


class Hook(Resource):
    """A receiver on twisted.web that keeps all requests, and answers each with a body."""

    isLeaf = True

    def __init__(self, answer: bytes = b"") -> None:
        super().__init__()
        self.answer = answer
        self.requests: list[tuple[Request, bytes]] = []

    def render_POST(self, request: Any) -> bytes:
        self.requests.append((request, request.content.read()))
        return self.answer


class DeliveryTestCase(TestCase):
    """A test case with a sender. The attempt's limits are shorter than those of the product."""

    limits = DeliveryLimits(total=5.0, lookup=0.2)

    def setUp(self) -> None:
        self.names = Names(localhost=["127.0.0.1"])

    def sender(self, policy: AddressPolicy = HERE, ca_file: str | None = None, **limits: Any) -> HttpSender:
        """Create a sender with a signature that is always the same."""
        chosen = DeliveryLimits(**({"lookup": 0.2} | limits))
        return HttpSender(reactor, policy, self.names, lambda _: "t=1,kid=ds_x,ed25519=x", chosen, Authorities(ca_file))

    def serve(self, script: Any, contexts: Any = None, address: str = "127.0.0.1") -> ScriptedServer:
        """Start a server that answers by a script."""
        server = ScriptedServer(reactor, script, contexts, address)
        self.addCleanup(self.close, server)
        return server

    def serve_hook(self, hook: Hook, address: str = "127.0.0.1") -> str:
        """Start a receiver on twisted.web. Return its origin."""
        any_reactor: Any = reactor
        port = any_reactor.listenTCP(0, Site(hook), interface=address)
        self.addCleanup(port.stopListening)
        host = f"[{address}]" if ":" in address else address
        return f"http://{host}:{port.getHost().port}"

    async def close(self, server: ScriptedServer) -> None:
        await server.stop()
        await self.wait(0.01)

    async def wait(self, seconds: float) -> None:
        """Let the reactor run."""
        await deferLater(reactor, seconds)

    async def deliver(self, url: str, body: bytes = b"{}", sender: HttpSender | None = None) -> DeliveryResult:
        """Send a request."""
        sender = self.sender() if sender is None else sender
        return await sender.deliver(WebhookRequest("s1", url, body))
