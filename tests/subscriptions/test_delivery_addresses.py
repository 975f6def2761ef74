"""The addresses and certificates of receivers: checked at each attempt, pinned, and verified."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

from OpenSSL import SSL
from twisted.internet import reactor
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import CertificateOptions, PrivateCertificate

from durable_streams.server.subscriptions.addresses import AddressPolicy, parse_networks
from durable_streams.server.subscriptions.authorities import Authorities
from durable_streams.server.subscriptions.delivery import HttpSender
from durable_streams.server.subscriptions.delivery_failures import FailureReason
from durable_streams.server.subscriptions.errors import WebhookUrlRejected
from durable_streams.server.subscriptions.model import Outcome
from tests.support.authority import DAY, Authority, Issued, authority, self_signed
from tests.support.scripted_server import ScriptedConnection, ScriptedServer, answer

from .receivers import DeliveryTestCase, Hook

DONE: Final = answer("200 OK", b'{"done":true}')

#: A policy that allows this machine by https only.
HTTPS_HERE: Final = AddressPolicy(networks=parse_networks(["127.0.0.0/8"]))


def done(connection: ScriptedConnection, _: str) -> None:
    """Answer that the work is done."""
    connection.write(DONE)


class AddressTests(DeliveryTestCase):
    async def refusal(self, url: str, policy: AddressPolicy | None = None) -> str:
        """Return the message of a refused check."""
        with self.assertRaises(WebhookUrlRejected) as caught:
            await self.sender(AddressPolicy() if policy is None else policy).check(url)
        return str(caught.exception)

    async def test_a_url_is_checked_with_the_addresses_of_its_host(self) -> None:
        self.names.addresses["worker.example"] = ["93.184.216.34", "2606:4700::1"]
        await self.sender(AddressPolicy()).check("https://worker.example/hook")
        self.names.addresses["worker.example"] = ["93.184.216.34", "169.254.169.254"]
        message = await self.refusal("https://worker.example/hook?key=secret")
        self.assertIn("worker.example (169.254.169.254), which is no public address", message)
        self.assertNotIn("secret", message)

    async def test_a_host_that_is_not_found_is_refused(self) -> None:
        message = await self.refusal("https://unknown.example/")
        self.assertEqual(
            "The host unknown.example of webhook.url can't be found. The look-up of unknown.example failed.", message
        )
        self.names.addresses["slow.example"] = None
        self.assertIn("took more than 0.2 seconds", await self.refusal("https://slow.example/"))
        self.names.addresses["empty.example"] = []
        self.assertIn("has no address", await self.refusal("https://empty.example/"))

    async def test_refused_schemes_and_addresses_are_not_looked_up(self) -> None:
        for url in ("http://worker.example/", "https://10.0.0.1/", "http://10.0.0.1/hook", "https://127.1/", "x"):
            await self.refusal(url)
        self.assertEqual([], self.names.asked)

    async def test_addresses_are_looked_up_at_each_attempt(self) -> None:
        server = self.serve(done)
        port = server.url.split(":")[2]
        url, sender = f"http://worker.example:{port}", self.sender()
        self.names.addresses["worker.example"] = ["127.0.0.1"]
        await sender.check(url)
        self.assertEqual(Outcome.DONE, (await self.deliver(url, sender=sender)).outcome)
        self.names.addresses["worker.example"] = ["169.254.169.254"]
        result = await self.deliver(url, sender=sender)
        self.assertEqual((Outcome.FAILED, FailureReason.ADDRESS), (result.outcome, result.reason))
        self.assertIn("169.254.169.254", result.detail)
        self.assertEqual(3, len(self.names.asked))
        self.assertEqual(1, len(server.heads))

    async def test_the_connection_is_to_the_address_that_was_checked(self) -> None:
        # A second look-up within the attempt would be answered by another address.
        server = self.serve(done, address="127.0.0.2")
        other = self.serve(done, address="127.0.0.3")
        port = server.url.split(":")[2]
        self.names.addresses["worker.example"] = ["127.0.0.2"]
        look_up = self.sender()

        class Rebinding(AddressPolicy, frozen=True):
            """A policy after whose check the name has another address."""

            def check_addresses(policy, url: Any, addresses: Any) -> None:
                super().check_addresses(url, addresses)
                self.names.addresses["worker.example"] = ["127.0.0.3"]

        look_up.policy = Rebinding(http_networks=parse_networks(["127.0.0.2/32"]))
        result = await self.deliver(f"http://worker.example:{port}", sender=look_up)
        self.assertEqual((Outcome.DONE, 1), (result.outcome, len(self.names.asked)))
        self.assertIn("Host: worker.example", server.heads[0])
        self.assertEqual([], other.heads)

    async def test_the_next_address_is_tried_if_one_refuses(self) -> None:
        server = self.serve(done, address="127.0.0.2")
        self.names.addresses["worker.example"] = ["127.0.0.4", "127.0.0.2"]
        result = await self.deliver(f"http://worker.example:{server.url.split(':')[2]}")
        self.assertEqual(Outcome.DONE, result.outcome)

    async def test_look_ups_that_fail_or_hang_fail_the_attempt(self) -> None:
        self.names.addresses["slow.example"] = None
        for host, detail in (
            ("slow.example", "The look-up of slow.example took more than 0.2 seconds."),
            ("unknown.example", "The look-up of unknown.example failed."),
        ):
            result = await self.deliver(f"http://{host}/")
            self.assertEqual((Outcome.FAILED, FailureReason.DNS), (result.outcome, result.reason))
            self.assertEqual(detail, result.detail)
        result = await self.deliver("http://slow.example/", sender=self.sender(lookup=3.0, total=0.2))
        self.assertEqual((Outcome.FAILED, FailureReason.TIMEOUT), (result.outcome, result.reason))

    async def test_a_url_that_a_stricter_policy_refuses_fails_the_attempt(self) -> None:
        result = await self.deliver("http://127.0.0.1:1/", sender=self.sender(AddressPolicy()))
        self.assertEqual((Outcome.FAILED, FailureReason.ADDRESS), (result.outcome, result.reason))

    async def test_ipv6_receivers_are_reached_by_address_and_by_name(self) -> None:
        hook = Hook()
        origin = self.serve_hook(hook, "::1")
        self.names.addresses["six.example"] = ["::1"]
        for url in (origin, origin.replace("[::1]", "six.example")):
            self.assertEqual(Outcome.ACCEPTED, (await self.deliver(url)).outcome)
        hosts = [request.getHeader("Host") for request, _ in hook.requests]
        self.assertEqual([origin[7:], origin[7:].replace("[::1]", "six.example")], hosts)


class CertificateTests(DeliveryTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.ca_file = Path(self.mktemp()).absolute()
        self.ca_file.write_bytes(authority().certificate_pem)
        self.asked_names: list[bytes | None] = []

    def serve_tls(self, issued: Issued) -> ScriptedServer:
        """Start a receiver with a certificate that notes the names asked for."""
        pair = PrivateCertificate.loadPEM(issued.certificate_pem + issued.key_pem())
        options = CertificateOptions(pair.privateKey.original, pair.original)

        def note(connection: SSL.Connection) -> None:
            self.asked_names.append(connection.get_servername())

        context: Any = options.getContext()
        context.set_tlsext_servername_callback(note)
        return self.serve(done, options)

    def set_variable(self, name: str, value: str | None) -> None:
        """Set a variable of the environment; None removes it."""
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value

    async def test_a_valid_certificate_is_accepted_for_the_name_and_the_address(self) -> None:
        server = self.serve_tls(authority().issue())
        sender = self.sender(HTTPS_HERE, str(self.ca_file))
        for url in (server.url.replace("127.0.0.1", "localhost"), server.url, server.url):
            result = await self.deliver(url, sender=sender)
            self.assertEqual((Outcome.DONE, ""), (result.outcome, result.detail))
        # No name is sent for an address.
        self.assertEqual(b"localhost", self.asked_names[0])
        self.assertIn("Host: localhost:", server.heads[0])

    async def test_wrong_certificates_fail_before_anything_is_sent(self) -> None:
        for issued in (Authority("Other").issue(), self_signed(), authority().issue(ends=-DAY / 2)):
            server = self.serve_tls(issued)
            result = await self.deliver(server.url, sender=self.sender(HTTPS_HERE, str(self.ca_file)))
            self.assertEqual((Outcome.FAILED, FailureReason.TLS), (result.outcome, result.reason))
            self.assertIn("not trusted", result.detail)
            self.assertEqual([], server.heads)

    async def test_a_certificate_for_another_host_fails_before_anything_is_sent(self) -> None:
        server = self.serve_tls(authority().issue())
        self.names.addresses["worker.example"] = ["127.0.0.1"]
        url = server.url.replace("127.0.0.1", "worker.example")
        result = await self.deliver(url, sender=self.sender(HTTPS_HERE, str(self.ca_file)))
        self.assertEqual((FailureReason.TLS, []), (result.reason, server.heads))
        self.assertEqual("The certificate is for another host.", result.detail)

    async def test_the_systems_authorities_are_the_default(self) -> None:
        server = self.serve_tls(authority().issue())
        result = await self.deliver(server.url, sender=self.sender(HTTPS_HERE))
        self.assertEqual((FailureReason.TLS, []), (result.reason, server.heads))

    async def test_a_reload_of_the_authorities_concerns_the_next_attempt(self) -> None:
        self.ca_file.write_bytes(Authority("Before").certificate_pem)
        authorities = Authorities(str(self.ca_file))
        sender = HttpSender(reactor, HTTPS_HERE, self.names, lambda _: "t=1,kid=ds_x,ed25519=x", None, authorities)
        server = self.serve_tls(authority().issue())
        for content, outcome in ((None, Outcome.FAILED), (authority().certificate_pem, Outcome.DONE)):
            if content is not None:
                self.ca_file.write_bytes(content)
                authorities.reload()
            self.assertEqual(outcome, (await self.deliver(server.url, sender=sender)).outcome)
        self.ca_file.write_bytes(Authority("After").certificate_pem)
        authorities.reload()
        self.assertEqual(Outcome.FAILED, (await self.deliver(server.url, sender=sender)).outcome)

    async def test_the_systems_authorities_are_trusted_besides_those_of_the_file(self) -> None:
        system = Path(self.mktemp()).absolute()
        of_system = Authority("System")
        system.write_bytes(of_system.certificate_pem)
        # OpenSSL reads the variable when a context is created.
        before = os.environ.get("SSL_CERT_FILE")
        os.environ["SSL_CERT_FILE"] = str(system)
        self.addCleanup(self.set_variable, "SSL_CERT_FILE", before)
        sender = self.sender(HTTPS_HERE, str(self.ca_file))
        for issuer in (of_system, authority()):
            server = self.serve_tls(issuer.issue())
            self.assertEqual(Outcome.DONE, (await self.deliver(server.url, sender=sender)).outcome)

    async def test_a_receiver_without_tls_fails(self) -> None:
        server = self.serve(done)
        url = server.url.replace("http:", "https:")
        result = await self.deliver(url, sender=self.sender(HTTPS_HERE, str(self.ca_file)))
        self.assertEqual((Outcome.FAILED, FailureReason.TLS), (result.outcome, result.reason))

    async def test_a_handshake_that_hangs_is_given_up(self) -> None:
        any_reactor: Any = reactor
        port = any_reactor.listenTCP(0, Factory.forProtocol(Protocol), interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        url = f"https://127.0.0.1:{port.getHost().port}/"
        result = await self.deliver(url, sender=self.sender(HTTPS_HERE, str(self.ca_file), total=0.3))
        self.assertEqual((Outcome.FAILED, FailureReason.TIMEOUT), (result.outcome, result.reason))
