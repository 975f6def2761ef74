"""Tests of TLS handshakes: versions, ciphers, certificates and ALPN."""

from __future__ import annotations

import ssl
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from twisted.internet.interfaces import IProtocolNegotiationFactory
from twisted.internet.protocol import Factory
from twisted.protocols.policies import WrappingFactory
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from durable_streams.server.listening.tls import (
    Certificates,
    NamedFile,
    TLSContextError,
    TLSFactory,
    TLSFiles,
    VersionRange,
    protocols_of,
)
from tests.support.authority import CLIENT_AUTH, DAY, SERVER_AUTH, Authority, Issued, authority, self_signed
from tests.support.handshakes import Client, Echo, Wire, client_context

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
BOTH = VersionRange("1.2", "1.3")


@implementer(IProtocolNegotiationFactory)
class Speaker(Factory):
    """A factory with ALPN names."""

    noisy = False
    protocol = Echo

    def __init__(self, *protocols: bytes) -> None:
        self.protocols = list(protocols)

    def acceptableProtocols(self) -> list[bytes]:
        return self.protocols


class HandshakeTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.wire = Wire()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.ca = self.folder / "ca.pem"
        self.ca.write_bytes(authority().certificate_pem)

    def files(self, server: Issued | None = None, mutual: bool = False) -> TLSFiles:
        certificate, key = (server or authority().issue()).write(self.folder, "server")
        return TLSFiles(
            NamedFile("c", certificate), NamedFile("k", key), NamedFile("a", str(self.ca)) if mutual else None
        )

    def serve(self, files: TLSFiles, versions: VersionRange = BOTH, factory: Any = None, **how: Any) -> TLSFactory:
        speaker = factory or Factory.forProtocol(Echo)
        return TLSFactory(Certificates(files, versions, **how), speaker, self.wire.clock)

    def connect(self, served: TLSFactory, context: ssl.SSLContext | None = None, session: Any = None) -> Client:
        client = Client(self.wire.network, served, context or client_context(authority()), session)
        self.addCleanup(client.leave)
        return client

    def assert_served(self, client: Client) -> None:
        self.assertIsNone(client.error)
        self.assertEqual(client.exchange(b"hello"), b"hello")

    def assert_refused(self, client: Client, reason: str) -> None:
        self.assertIsNotNone(client.error)
        self.assertIn(reason, str(client.error).lower())


class VersionTests(HandshakeTestCase):
    def test_clients_connect_only_with_versions_in_the_servers_range(self) -> None:
        files = self.files()
        for least, most, served in (
            ("1.2", "1.2", {V12}),
            ("1.2", "1.3", {V12, V13}),
            ("1.3", "1.3", {V13}),
        ):
            server = self.serve(files, VersionRange(least, most))
            for version in (V12, V13):
                context = client_context(authority(), minimum_version=version, maximum_version=version)
                client = self.connect(server, context)
                if version in served:
                    self.assert_served(client)
                    self.assertEqual(client.tls.version(), "TLSv1.2" if version is V12 else "TLSv1.3")
                else:
                    self.assert_refused(client, "version")

    def test_older_versions_are_not_served(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            context = client_context(authority(), minimum_version=ssl.TLSVersion.TLSv1)
            context.maximum_version = ssl.TLSVersion.TLSv1_1
            context.set_ciphers("ALL:@SECLEVEL=0")
        self.assertIsNotNone(self.connect(self.serve(self.files()), context).error)

    def test_weak_ciphers_are_not_served(self) -> None:
        server = self.serve(self.files(authority().issue(key=rsa.generate_private_key(65_537, 2048))))
        for ciphers, good in (
            ("ECDHE+AESGCM", True),
            ("ECDHE+CHACHA20", True),
            ("AES128-GCM-SHA256", False),
            ("ECDHE-RSA-AES128-SHA", False),
            ("ECDHE-RSA-AES256-SHA384", False),
            ("DHE-RSA-AES128-GCM-SHA256", False),
        ):
            context = client_context(authority(), maximum_version=V12)
            context.set_ciphers(ciphers)
            self.assertEqual(self.connect(server, context).error is None, good, ciphers)

    def test_the_server_chooses_the_cipher(self) -> None:
        server = self.serve(self.files(), VersionRange("1.2", "1.2"))
        context = client_context(authority())
        context.set_ciphers("ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-ECDSA-AES256-GCM-SHA384")
        cipher = self.connect(server, context).tls.cipher()
        assert cipher is not None
        self.assertEqual(cipher[0], "ECDHE-ECDSA-AES256-GCM-SHA384")

    def test_nothing_is_compressed(self) -> None:
        client = self.connect(self.serve(self.files()))
        self.assertIsNone(client.tls.compression())

    def test_plain_http_is_answered_with_400_and_the_connection_ends(self) -> None:
        server = self.serve(self.files())
        skt, _ = self.wire.network.accept(server)
        skt.inbound += b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        self.wire.network.settle()
        self.assertTrue(skt.ended)
        self.assertTrue(bytes(skt.outbound).startswith(b"HTTP/1.1 400 "), bytes(skt.outbound))
        self.assertIn(b"use https://", bytes(skt.outbound))


class ClientCertificateTests(HandshakeTestCase):
    """Each kind of client, over both versions."""

    def attempt(self, shows: Issued | None, ca: bytes | None = None, chain: bytes = b"") -> list[Client]:
        if ca is not None:
            self.ca.write_bytes(ca)
        server = self.serve(self.files(mutual=True))
        clients = []
        for version in (V12, V13):
            context = client_context(authority(), minimum_version=version, maximum_version=version)
            if shows is not None:
                certificate, key = shows.write(self.folder, "shown")
                Path(certificate).write_bytes(shows.certificate_pem + chain)
                context.load_cert_chain(certificate, key)
            clients.append(self.connect(server, context))
        return clients

    def assert_all_served(self, clients: list[Client]) -> None:
        for client in clients:
            self.assert_served(client)

    def assert_all_refused(self, clients: list[Client], reason: str) -> None:
        for client in clients:
            self.assert_refused(client, reason)

    def test_a_client_certificate_of_the_authority_is_accepted(self) -> None:
        self.assert_all_served(self.attempt(authority().client()))

    def test_a_client_certificate_for_clients_and_servers_is_accepted(self) -> None:
        self.assert_all_served(self.attempt(authority().issue("both", (SERVER_AUTH, CLIENT_AUTH))))

    def test_a_client_certificate_of_any_of_several_authorities_is_accepted(self) -> None:
        other = Authority("Other")
        both = authority().certificate_pem + other.certificate_pem
        self.assert_all_served(self.attempt(other.client(), both))
        self.assert_all_served(self.attempt(authority().client(), both))

    def test_a_client_without_a_certificate_is_refused(self) -> None:
        self.assert_all_refused(self.attempt(None), "")

    def test_a_client_certificate_of_another_authority_is_refused(self) -> None:
        self.assert_all_refused(self.attempt(Authority("Other").client()), "unknown ca")

    def test_a_client_certificate_of_another_authority_with_the_same_name_is_refused(self) -> None:
        self.assert_all_refused(self.attempt(Authority("Authority").client()), "")

    def test_a_self_signed_client_certificate_is_refused(self) -> None:
        self.assert_all_refused(self.attempt(self_signed()), "unknown ca")

    def test_an_expired_client_certificate_is_refused(self) -> None:
        self.assert_all_refused(self.attempt(authority().client(begins=-2 * DAY, ends=-DAY)), "expired")

    def test_a_client_certificate_that_is_not_yet_valid_is_refused(self) -> None:
        self.assert_all_refused(self.attempt(authority().client(begins=DAY, ends=2 * DAY)), "bad certificate")

    def test_a_client_certificate_for_servers_only_is_refused(self) -> None:
        self.assert_all_refused(self.attempt(authority().issue("server", (SERVER_AUTH,))), "certificate")

    def test_a_client_certificate_issued_by_another_client_is_refused(self) -> None:
        client = authority().client()
        forged = Authority.issue(client, "forged", (CLIENT_AUTH,))  # type: ignore[arg-type]
        self.assert_all_refused(self.attempt(forged, chain=client.certificate_pem), "")

    def test_sessions_are_not_resumed_if_clients_need_certificates(self) -> None:
        server = self.serve(self.files(mutual=True))
        for version in (V12, V13):
            context = client_context(
                authority(), self.folder, authority().client(), minimum_version=version, maximum_version=version
            )
            first = self.connect(server, context)
            self.assert_served(first)
            again = self.connect(server, context, first.tls.session)
            self.assert_served(again)
            self.assertFalse(again.tls.session_reused)

    def test_without_client_certificates_sessions_are_resumed(self) -> None:
        server = self.serve(self.files())
        for version in (V12, V13):
            context = client_context(authority(), minimum_version=version, maximum_version=version)
            first = self.connect(server, context)
            self.assert_served(first)
            again = self.connect(server, context, first.tls.session)
            self.assert_served(again)
            self.assertTrue(again.tls.session_reused)


class ProtocolTests(HandshakeTestCase):
    def chosen(self, factory: Any, *offered: str, **how: Any) -> str | None:
        server = self.serve(self.files(), factory=factory, **how)
        client = self.connect(server, client_context(authority(), alpn=list(offered)))
        if client.error is not None:
            self.assertIn("no application protocol", str(client.error).lower())
            return "none in common"
        self.assert_served(client)
        return client.tls.selected_alpn_protocol()

    def test_alpn_uses_the_servers_order(self) -> None:
        self.assertEqual(self.chosen(Speaker(b"h2", b"http/1.1"), "http/1.1", "h2"), "h2")
        self.assertEqual(self.chosen(Speaker(b"http/1.1", b"h2"), "h2", "http/1.1"), "http/1.1")
        self.assertEqual(self.chosen(Speaker(b"h2", b"http/1.1"), "http/1.1", "spdy/3"), "http/1.1")

    def test_a_client_without_a_common_alpn_protocol_is_refused(self) -> None:
        self.assertEqual(self.chosen(Speaker(b"http/1.1"), "h2"), "none in common")
        self.assertEqual(self.chosen(Speaker(b"h2"), "http/1.1", "spdy/3"), "none in common")

    def test_a_client_without_alpn_is_served(self) -> None:
        client = self.connect(self.serve(self.files(), factory=Speaker(b"h2")))
        self.assert_served(client)
        self.assertIsNone(client.tls.selected_alpn_protocol())

    def test_a_factory_without_protocols_selects_none_by_alpn(self) -> None:
        self.assertIsNone(self.chosen(None, "h2", "http/1.1"))

    def test_http2_can_be_switched_on_and_off(self) -> None:
        self.assertEqual(self.chosen(None, "h2", http2=True), "h2")
        self.assertEqual(self.chosen(Speaker(b"h2", b"http/1.1"), "h2", "http/1.1", http2=False), "http/1.1")
        self.assertEqual(self.chosen(Speaker(b"h2", b"http/1.1"), "h2", http2=False), "none in common")

    def test_protocols_of_a_wrapped_factory_are_found(self) -> None:
        wrapped = WrappingFactory(WrappingFactory(Speaker(b"h2")))
        self.assertEqual(protocols_of(wrapped), (b"h2",))
        self.assertEqual(self.chosen(wrapped, "h2"), "h2")


class ContentTests(HandshakeTestCase):
    def keys(self) -> dict[str, Any]:
        return {
            "rsa": rsa.generate_private_key(65_537, 2048),
            "p256": ec.generate_private_key(ec.SECP256R1()),
            "p384": ec.generate_private_key(ec.SECP384R1()),
            "ed25519": ed25519.Ed25519PrivateKey.generate(),
        }

    def refusal(self, certificate: bytes, key: bytes, ca: bytes | None = None) -> str:
        files = self.files(mutual=ca is not None)
        Path(files.certificate.path).write_bytes(certificate)
        Path(files.key.path).write_bytes(key)
        if ca is not None:
            self.ca.write_bytes(ca)
        with self.assertRaises(TLSContextError) as caught:
            Certificates(files)
        return str(caught.exception)

    def test_keys_of_each_type_and_encoding_are_accepted(self) -> None:
        for name, key in self.keys().items():
            issued = authority().issue(key=key)
            for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
                if name == "ed25519" and form is PrivateFormat.TraditionalOpenSSL:
                    continue
                files = self.files(issued)
                Path(files.key.path).write_bytes(issued.key_pem(form))
                self.assert_served(self.connect(self.serve(files)))

    def test_other_text_in_the_files_is_ignored(self) -> None:
        issued = authority().issue()
        parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        files = self.files(issued)
        both = b"A note.\n" + parameters + issued.key_pem() + issued.certificate_pem + self_signed().key_pem()
        Path(files.certificate.path).write_bytes(both)
        Path(files.key.path).write_bytes(both)
        self.assert_served(self.connect(self.serve(files)))

    def test_the_chain_is_sent(self) -> None:
        middle = authority().intermediate()
        server = middle.issue()
        files = self.files(server)
        alone = self.connect(self.serve(files))
        self.assert_refused(alone, "unable to get local issuer")
        Path(files.certificate.path).write_bytes(server.certificate_pem + middle.certificate_pem)
        self.assert_served(self.connect(self.serve(files)))

    def test_missing_and_damaged_certificates_and_keys_are_named(self) -> None:
        issued = authority().issue()
        good, key = issued.certificate_pem, issued.key_pem()
        damaged = good.replace(b"MII", b"AAA")
        for certificate, private, said in (
            (b"", key, "c '"),
            (key, key, "no certificate in the file"),
            (damaged, key, "a certificate is damaged"),
            (good, b"", "no private key in the file"),
            (good, good, "no private key in the file"),
            (good, key.replace(b"MI", b"AA"), "the private key is damaged"),
            (good, key[:80], "no private key in the file"),
            (good, self_signed().key_pem(), "the key does not belong to the first certificate"),
        ):
            self.assertIn(said, self.refusal(certificate, private))
        for ca, said in ((b"", "a '"), (key, "no certificate in the file"), (damaged, "damaged")):
            self.assertIn(said, self.refusal(good, key, ca))

    def test_an_encrypted_key_is_refused(self) -> None:
        issued = authority().issue()
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            said = self.refusal(issued.certificate_pem, issued.key_pem(form, BestAvailableEncryption(b"secret")))
            self.assertIn("the private key is encrypted", said)
            self.assertNotIn("secret", said)

    def test_a_public_key_is_refused(self) -> None:
        issued = authority().issue()
        public = issued.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        self.assertIn("no private key", self.refusal(issued.certificate_pem, public))

    def test_a_dsa_key_is_refused(self) -> None:
        key = dsa.generate_private_key(2048)
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self.assertIn("TLS cannot use this type of private key", self.refusal(authority().issue().certificate_pem, pem))

    def test_an_expired_server_certificate_is_served(self) -> None:
        expired = authority().issue(begins=-2 * DAY, ends=-timedelta(hours=1))
        context = client_context(authority())
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        self.assert_served(self.connect(self.serve(self.files(expired)), context))
        self.assert_refused(self.connect(self.serve(self.files(expired))), "expired")
