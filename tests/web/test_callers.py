"""Tests of callers: addresses, and subjects of certificates in any encoding."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import crypto
from twisted.internet.address import IPv6Address
from twisted.internet.interfaces import IAddress
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.web.callers import Caller, Client, caller_on, presented_on
from durable_streams.server.web.proxies import Proxies

_PRINTABLE, _T61 = b"\x13", b"\x14"


def certificate_of(name: str) -> bytes:
    """Make a certificate of a common name, in DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"), x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.DER)


class Connection:
    """A connection whose client has shown a certificate."""

    def __init__(self, der: bytes | None) -> None:
        self._der = der

    def getPeerCertificate(self) -> Any:
        return None if self._der is None else crypto.load_certificate(crypto.FILETYPE_ASN1, self._der)


def subject_on(connection: Connection) -> str:
    """Return the subject of the certificate on a connection."""
    certificate = presented_on(connection)
    assert certificate is not None
    return certificate.subject


class Peer:
    """A connection from an address."""

    def __init__(self, host: str) -> None:
        self._host = host

    def getPeer(self) -> IAddress:
        return IPv6Address("TCP", self._host, 1)


class AddressTests(SynchronousTestCase):
    def test_an_ipv4_peer_of_an_ipv6_listener_has_its_ipv4_address(self) -> None:
        self.assertEqual(caller_on(Peer("::ffff:192.0.2.1")).address, "192.0.2.1")

    def test_addresses_of_other_ipv6_peers_are_unchanged(self) -> None:
        for address in ("::1", "2001:db8::1", "::ffff:0:1", "fe80::1%eth0"):
            self.assertEqual(caller_on(Peer(address)).address, address)


class CertificateTests(SynchronousTestCase):
    def caller(self, identity_header: str | None, identifies: bool = True) -> Caller:
        """Return a trusted proxy that has presented a certificate and sends a request."""
        presented = presented_on(Connection(certificate_of("proxy")))
        proxies = Proxies(Clock().seconds, "x-forwarded", ["192.0.2.1"], identity_header, identifies)
        caller = Caller("192.0.2.1", True, True, "CN=proxy,C=DE", presented=presented)
        return caller.forwarding(proxies.client({}))

    def test_a_client_without_a_certificate_has_no_names(self) -> None:
        self.assertIsNone(Caller("192.0.2.1", True).certificate)

    def test_the_certificate_of_a_proxy_is_the_clients_unless_the_proxy_names_identities(self) -> None:
        certificate = self.caller(None).certificate
        assert certificate is not None
        self.assertEqual(certificate.subject, "CN=proxy,C=DE")
        self.assertIsNone(self.caller("X-User").certificate)
        # The header is for logs only.
        self.assertEqual(self.caller("X-User", identifies=False).certificate, certificate)

    def test_all_requests_of_a_connection_have_the_same_names(self) -> None:
        caller = self.caller(None)
        self.assertIs(caller.certificate, caller.forwarding(Client(address="192.0.2.9")).certificate)


class SubjectTests(SynchronousTestCase):
    def test_the_subject_is_rendered_as_a_distinguished_name(self) -> None:
        self.assertEqual(subject_on(Connection(certificate_of("reporter"))), "CN=reporter,C=DE")

    def test_a_client_without_a_certificate_has_no_subject(self) -> None:
        self.assertIsNone(presented_on(Connection(None)))

    def test_a_subject_that_the_library_cannot_parse_is_rendered(self) -> None:
        der = certificate_of("J_rgen")
        utf8 = b"\x0c\x06J_rgen"
        self.assertIn(utf8, der)
        old = der.replace(utf8, _T61 + b"\x06J\xfcrgen")
        self.assertEqual(subject_on(Connection(old)), "C=DE,CN=J\\xfcrgen")
