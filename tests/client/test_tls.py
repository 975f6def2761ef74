"""TLS: the server's certificate and host are verified, and the client's certificate is shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.ssl import Certificate, CertificateOptions, PrivateCertificate, trustRootFromCertificates
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from durable_streams.server.client import ClientOptions, ConnectionBroken, InvalidUse, StreamClient, TlsFailed
from durable_streams.server.client.tls import TlsPolicy
from tests.support.authority import DAY, Authority, Issued, authority, self_signed
from tests.support.scripted_server import ScriptedServer, answer


class TlsTests(TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.ca = self.folder / "ca.pem"
        self.ca.write_bytes(authority().certificate_pem)

    def serve(self, issued: Issued | None, address: str = "127.0.0.1", **options: Any) -> ScriptedServer:
        """Start a server with a certificate, or a plain one."""
        contexts = None
        if issued is not None:
            pair = PrivateCertificate.loadPEM(issued.certificate_pem + issued.key_pem())
            contexts = CertificateOptions(pair.privateKey.original, pair.original, **options)
        server = ScriptedServer(
            reactor,
            lambda connection, _: connection.write(answer("200 OK", stream_next_offset="1_1")),
            contexts,
            address,
        )
        self.addCleanup(self.close, server)
        return server

    async def close(self, server: ScriptedServer) -> None:
        await server.stop()
        await deferLater(reactor, 0.01)

    async def ask(self, url: str, **options: Any) -> str:
        """Send a request and return the offset that was answered."""
        client = StreamClient(reactor, ClientOptions(**({"ca": str(self.ca), "token": "secret"} | options)))
        try:
            return (await client.head(url)).next_offset
        finally:
            await client.disconnect()

    async def test_a_certificate_of_the_authority_is_trusted(self) -> None:
        server = self.serve(authority().issue())
        self.assertEqual("1_1", await self.ask(server.url))
        self.assertEqual("1_1", await self.ask(server.url.replace("127.0.0.1", "localhost")))

    def test_the_context_of_a_host_is_made_once(self) -> None:
        policy = TlsPolicy(ClientOptions(ca=str(self.ca)))
        first = policy.creatorForNetloc(b"localhost", 443)
        self.assertIs(first, policy.creatorForNetloc(b"localhost", 8443))
        self.assertIsNot(first, policy.creatorForNetloc(b"127.0.0.1", 443))

    async def test_other_certificates_are_refused_before_the_token_is_sent(self) -> None:
        for issued in (Authority("Other").issue(), self_signed(), authority().issue(ends=-DAY / 2)):
            server = self.serve(issued)
            with self.assertRaises(TlsFailed) as caught:
                await self.ask(server.url)
            self.assertIn("is not trusted (certificate verify failed)", str(caught.exception))
            self.assertFalse(caught.exception.temporary)
            self.assertEqual([], server.heads)

    async def test_the_systems_authorities_are_trusted_without_ca(self) -> None:
        server = self.serve(authority().issue())
        with self.assertRaises(TlsFailed):
            await self.ask(server.url, ca=None)

    async def test_a_certificate_for_another_host_is_refused(self) -> None:
        server = self.serve(authority().issue(), "127.0.0.2")
        with self.assertRaises(TlsFailed) as caught:
            await self.ask(server.url)
        self.assertEqual([], server.heads)
        self.assertIn("another host", str(caught.exception))

    async def test_a_server_without_tls_is_named(self) -> None:
        server = self.serve(None)
        with self.assertRaises(TlsFailed) as caught:
            await self.ask(server.url.replace("http:", "https:"))
        self.assertIn("does not speak TLS. Use an http: URL", str(caught.exception))
        self.assertEqual([], server.heads)

    async def test_the_clients_certificate_is_shown(self) -> None:
        trusted = trustRootFromCertificates([Certificate.loadPEM(authority().certificate_pem)])
        server = self.serve(authority().issue(), trustRoot=trusted)
        cert, key = authority().client().write(self.folder, "client")
        self.assertEqual("1_1", await self.ask(server.url, cert=cert, key=key))
        both = self.folder / "both.pem"
        both.write_bytes(Path(cert).read_bytes() + Path(key).read_bytes())
        self.assertEqual("1_1", await self.ask(server.url, cert=str(both)))
        with self.assertRaises((TlsFailed, ConnectionBroken)):
            await self.ask(server.url)
        self.assertEqual(2, len(server.heads))

    def test_files_that_cannot_be_used_are_named(self) -> None:
        cert, key = authority().client().write(self.folder, "client")
        _, other = authority().client("other").write(self.folder, "other")
        empty = self.folder / "empty.pem"
        empty.write_bytes(b"")
        damaged = self.folder / "damaged.pem"
        damaged.write_bytes(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        missing = self.folder / "missing.pem"
        cases: list[tuple[dict[str, Any], str]] = [
            ({"ca": str(missing)}, f"Cannot read {missing} (ca): No such file"),
            ({"ca": str(empty)}, f"{empty} (ca) has no certificate"),
            ({"ca": str(damaged)}, f"{damaged} (ca) has a certificate that cannot be read"),
            ({"key": key}, "key is set without cert"),
            ({"cert": cert}, f"{cert} (key) has no private key"),
            ({"cert": cert, "key": str(empty)}, f"{empty} (key) has no private key"),
            ({"cert": cert, "key": other}, f"The private key in {other} does not belong to the certificate in {cert}"),
        ]
        for options, text in cases:
            with self.assertRaises(InvalidUse) as caught:
                StreamClient(reactor, ClientOptions(**options))
            self.assertIn(text, str(caught.exception))
