"""Tests of the fetching of keys: TLS, limits on time and size, redirects, and broken servers."""

from __future__ import annotations

import socket
from collections.abc import Callable
from itertools import repeat
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from durable_streams.server.identity.jwt.errors import KeysUnusable
from durable_streams.server.identity.jwt.fetching import Fetcher, FetchFailed, FetchLimits, load_authorities
from tests.support.authority import DAY, Authority, Issued, authority, self_signed
from tests.support.daemon import free_port
from tests.support.scripted_server import ScriptedConnection, ScriptedServer, answer

BODY = b'{"keys":[]}'
Script = Callable[[ScriptedConnection, str], object]


def say(data: bytes) -> Script:
    """Return a script that answers each request with the same bytes."""
    return lambda connection, _: connection.write(data)


class FetchingCase(TestCase):
    def setUp(self) -> None:
        self.ca = Path(self.mktemp())
        self.ca.write_bytes(authority().certificate_pem)

    def serve(self, script: Script, issued: Issued | None = None, address: str = "127.0.0.1") -> ScriptedServer:
        contexts = None
        if issued is not None:
            pair = PrivateCertificate.loadPEM(issued.certificate_pem + issued.key_pem())
            contexts = CertificateOptions(pair.privateKey.original, pair.original)
        server = ScriptedServer(reactor, script, contexts, address)
        self.addCleanup(self.close, server)
        return server

    async def close(self, server: ScriptedServer) -> None:
        await server.stop()
        await deferLater(reactor, 0.01)

    def fetch(self, url: str, ca: bool = True, **limits: Any) -> Deferred[bytes]:
        return Fetcher(reactor, str(self.ca) if ca else None, FetchLimits(**{"total": 10.0} | limits)).fetch(url)

    async def check_fails(self, url: str, message: str, **how: Any) -> None:
        """Check the message."""
        with self.assertRaises(FetchFailed) as caught:
            await self.fetch(url, **how)
        self.assertEqual(message, str(caught.exception))

    async def check_answer_fails(self, data: bytes, message: str, **how: Any) -> None:
        """Check the message about an answer, and that the connection is closed."""
        server = self.serve(say(data))
        await self.check_fails(server.url, message, **how)
        for _ in range(100):
            if not server.connections:
                break
            await deferLater(reactor, 0.02)
        self.assertEqual(set(), server.connections)


class FetchTests(FetchingCase):
    async def test_a_document_is_fetched(self) -> None:
        server = self.serve(say(answer("200 OK", BODY)))
        self.assertEqual(BODY, await self.fetch(server.url + "?tenant=1"))
        [head] = server.heads
        self.assertTrue(head.startswith("GET /v1/stream/it?tenant=1 HTTP/1.1\r\n"), head)
        self.assertIn("Accept-Encoding: identity", head)
        self.assertNotIn("Cookie", head)

    async def test_a_chunked_body_and_one_without_a_length_are_read(self) -> None:
        chunked = b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{"key\r\n6\r\ns":[]}\r\n0\r\n\r\n'
        self.assertEqual(BODY, await self.fetch(self.serve(say(chunked)).url))

        def close(connection: ScriptedConnection, _: str) -> None:
            connection.write(b"HTTP/1.0 200 OK\r\n\r\n" + BODY)
            connection.close()

        self.assertEqual(BODY, await self.fetch(self.serve(close).url))

    async def test_other_statuses_are_failures(self) -> None:
        for status in (204, 206, 304, 400, 401, 404, 500, 503):
            await self.check_answer_fails(
                answer(f"{status} X", b"" if status in (204, 304) else BODY),
                f"was answered with status {status}, not 200",
            )

    async def test_a_compressed_body_is_refused(self) -> None:
        await self.check_answer_fails(
            answer("200 OK", b"\x1f\x8b", content_encoding="gzip"),
            "was answered with a compressed body, which was not asked for",
        )

    async def test_a_refused_connection_is_a_failure(self) -> None:
        await self.check_fails(f"http://127.0.0.1:{free_port()}/", "failed: the connection was refused")

    async def test_a_host_that_does_not_exist_is_a_failure(self) -> None:
        with self.assertRaises(FetchFailed) as caught:
            await self.fetch("http://nobody.invalid/", total=2.0)
        # The second is of a machine without a name server.
        self.assertIn(str(caught.exception), ("failed: the DNS lookup of the host failed", "took more than 2 seconds"))

    async def test_a_cancelled_fetch_closes_its_connection(self) -> None:
        server = self.serve(lambda connection, head: None)
        fetch = self.fetch(server.url)
        while not server.heads:
            await deferLater(reactor, 0.01)
        fetch.cancel()
        with self.assertRaises((CancelledError, FetchFailed)):
            await fetch
        while server.connections:
            await deferLater(reactor, 0.01)
        self.assertEqual(1, len(server.heads))


class LimitTests(FetchingCase):
    async def test_a_large_body_is_refused_by_its_length(self) -> None:
        await self.check_answer_fails(
            b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n", "was answered with more than 1000 bytes", max_body=1000
        )

    async def test_a_body_without_end_is_refused(self) -> None:
        def flood(connection: ScriptedConnection, _: str) -> None:
            sent.append(connection)
            connection.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            connection.flood(repeat(b"1000\r\n" + b" " * 4096 + b"\r\n"))

        sent: list[ScriptedConnection] = []
        await self.check_fails(self.serve(flood).url, "was answered with more than 262144 bytes")
        self.assertLess(sent[0].sent, 16_777_216)

    async def test_a_head_without_end_is_refused(self) -> None:
        def flood(connection: ScriptedConnection, _: str) -> None:
            connection.write(b"HTTP/1.1 200 OK\r\n")
            connection.flood(repeat(b"X: " + b"x" * 1000 + b"\r\n"))

        await self.check_fails(
            self.serve(flood).url, "failed: the head of the server's answer is larger than 16384 bytes"
        )

    async def test_a_server_that_is_silent_or_slow_takes_limited_time(self) -> None:
        def drip(connection: ScriptedConnection, _: str) -> None:
            def one() -> None:
                if not connection.is_lost:
                    connection.write(b" ")
                    calls.append(deferLater(reactor, 0.02, one))

            connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
            one()

        calls: list[Any] = []
        for script in (lambda connection, head: None, say(b"HTTP/1.1 200 OK\r\n"), drip):
            await self.check_fails(self.serve(script).url, "took more than 0.2 seconds", total=0.2)
        for call in calls:
            await call

    async def test_a_handshake_that_never_ends_takes_limited_time(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"https://127.0.0.1:{silent.getsockname()[1]}/"
            await self.check_fails(url, "took more than 0.2 seconds", total=0.2)

    async def test_broken_answers_are_failures(self) -> None:
        def cut(data: bytes) -> Script:
            def script(connection: ScriptedConnection, _: str) -> None:
                connection.write(data)
                connection.close()

            return script

        for data, message in (
            (b"", "failed: the connection broke before the answer was complete"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
             "failed: the connection broke before the answer was complete"),
            (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", "failed: the answer is not valid HTTP"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
             "failed: the answer is not valid HTTP"),
        ):  # fmt: skip
            await self.check_fails(self.serve(cut(data)).url, message)


class RedirectTests(FetchingCase):
    async def test_a_redirect_on_the_same_host_is_followed(self) -> None:
        def script(connection: ScriptedConnection, head: str) -> None:
            if head.startswith("GET /keys?x=1 "):
                connection.write(answer("200 OK", BODY))
            else:
                connection.write(answer("302 Found", location=server.url.rpartition("/v1")[0] + "/keys?x=1"))

        for status in ("301", "302", "303", "307", "308"):
            server = self.serve(script)
            self.assertEqual(BODY, await self.fetch(server.url), status)
            self.assertEqual(2, len(server.heads))
        relative = self.serve(lambda connection, head: connection.write(
            answer("200 OK", BODY) if head.startswith("GET /k ") else answer("307 X", location="/k")))  # fmt: skip
        self.assertEqual(BODY, await self.fetch(relative.url))

    async def test_a_redirect_to_another_host_or_port_is_not_followed(self) -> None:
        other = self.serve(say(answer("200 OK", BODY)))
        for location in (other.url, other.url.replace("127.0.0.1", "localhost"), "https://127.0.0.1/k",
                         "//evil.example/",
                         "file:///etc/passwd", "gopher://127.0.0.1/", "data:,{}"):  # fmt: skip
            await self.check_answer_fails(
                answer("302 Found", location=location),
                "was redirected to another host or port; set the URL to where the keys are",
            )
        self.assertEqual([], other.heads)

    async def test_a_loop_of_redirects_ends(self) -> None:
        server = self.serve(say(answer("302 Found", location="/again")))
        await self.check_fails(server.url, "was redirected more than 3 times")
        self.assertEqual(4, len(server.heads))

    async def test_a_redirect_without_a_valid_location_is_a_failure(self) -> None:
        for data in (answer("302 Found"), answer("302 Found", location="http://[::1/"),
                     answer("302 Found", location="/\xe9"), answer("302 Found", location="/a b")):  # fmt: skip
            await self.check_answer_fails(data, "was answered with status 302 without a valid Location")


class TlsTests(FetchingCase):
    async def test_a_certificate_of_the_file_of_authorities_is_trusted(self) -> None:
        server = self.serve(say(answer("200 OK", BODY)), authority().issue())
        self.assertEqual(BODY, await self.fetch(server.url))
        self.assertEqual(BODY, await self.fetch(server.url.replace("127.0.0.1", "localhost")))

    async def test_other_certificates_are_refused_before_the_request(self) -> None:
        for issued, address, message in (
            (Authority("Other").issue(), "127.0.0.1", "certificate verify failed"),
            (self_signed(), "127.0.0.1", "certificate verify failed"),
            (authority().issue(ends=-DAY / 2), "127.0.0.1", "certificate verify failed"),
            (authority().issue(), "127.0.0.2", "failed: the certificate is for another host"),
        ):
            server = self.serve(say(answer("200 OK", BODY)), issued, address)
            with self.assertRaises(FetchFailed) as caught:
                await self.fetch(server.url)
            self.assertIn(message, str(caught.exception))
            self.assertEqual([], server.heads)

    async def test_the_systems_authorities_are_trusted_without_a_file(self) -> None:
        server = self.serve(say(answer("200 OK", BODY)), authority().issue())
        await self.check_fails(
            server.url,
            "failed: the TLS handshake failed (certificate verify failed; auth.jwt.ca_file names other authorities)",
            ca=False,
        )

    async def test_the_file_of_authorities_is_read_at_each_fetch(self) -> None:
        server = self.serve(say(answer("200 OK", BODY)), authority().issue())
        fetcher = Fetcher(reactor, str(self.ca), FetchLimits(total=10.0))
        self.ca.write_bytes(Authority("Other").certificate_pem)
        with self.assertRaises(FetchFailed):
            await fetcher.fetch(server.url)
        self.ca.write_bytes(Authority("Other").certificate_pem + authority().certificate_pem)
        self.assertEqual(BODY, await fetcher.fetch(server.url))
        self.ca.unlink()
        with self.assertRaises(FetchFailed) as caught:
            await fetcher.fetch(server.url)
        self.assertEqual(
            f"cannot use the file of authorities: auth.jwt.ca_file {str(self.ca.absolute())!r}: no such file. "
            "Give the path of a PEM file",
            str(caught.exception),
        )

    async def test_a_server_without_tls_is_a_failure(self) -> None:
        server = self.serve(say(answer("200 OK", BODY)))
        with self.assertRaises(FetchFailed) as caught:
            await self.fetch(server.url.replace("http:", "https:"))
        self.assertIn("failed: the TLS handshake failed", str(caught.exception))

    def test_files_of_authorities_that_cannot_be_used_are_named(self) -> None:
        path = str(self.ca)
        self.assertIsNot(None, load_authorities(path))
        self.ca.write_bytes(authority().certificate_pem.replace(b" CERTIFICATE-", b" X509 CERTIFICATE-"))
        self.assertIsNot(None, load_authorities(path))
        for data, message in (
            (b"", "must have PEM certificates"),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "a certificate is damaged"),
            (authority().certificate_pem * 2 + authority().certificate_pem[:100], "a certificate is damaged"),
            (b"-----BEGIN CERTIFICATE-----" * 38_000, "a certificate is damaged"),
            (authority().certificate_pem + b" " * (1 << 20), "at most 1048576 bytes"),
        ):
            self.ca.write_bytes(data)
            error = self.assertRaises(KeysUnusable, load_authorities, path)
            self.assertIn(f"auth.jwt.ca_file {path!r}: ", str(error))
            self.assertIn(message, str(error))
        for wrong, message in (("/dev/null", "not a regular file"), ("/nonexistent", "no such file")):
            self.assertIn(message, str(self.assertRaises(KeysUnusable, load_authorities, wrong)))
