"""The daemon over TLS, as others' clients meet it."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable

import httpx
from twisted.trial.unittest import SynchronousTestCase

from tests.process import test_start
from tests.support.authority import DAY, Authority, authority, self_signed
from tests.support.daemon import PATIENCE, Daemon, free_port, read_to_end, read_until
from tests.support.handshakes import client_context
from tests.support.programs import program
from tests.support.tls_daemon import Certificates, TLSDaemon

TEXT = ("-H", "content-type: text/plain")
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class TLSTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.certificates = Certificates()
        self.addCleanup(self.certificates.clean_up)

    def wait_for(self, what: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not what():
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.1)


class ClientTests(TLSTestCase):
    def test_curl_uses_http1_and_http2(self) -> None:
        with TLSDaemon(self.certificates) as daemon:
            for option, version in (("--http1.1", b"1.1"), ("--http2", b"2")):
                path = f"/v1/stream/curl{version.decode()}"
                say = (option, "-w", "|%{http_version} %{http_code}")
                made = daemon.curl(*say, *TEXT, "-X", "PUT", "-i", path)
                self.assertTrue(made.stdout.endswith(b"|%b 201" % version), made)
                self.assertIn(f"location: {daemon.url}{path}".encode(), made.stdout.replace(b"Location", b"location"))
                self.assertEqual(daemon.curl(*say, *TEXT, "-d", "hello", path).stdout, b"|%b 204" % version)
                self.assertEqual(daemon.curl(*say, path).stdout, b"hello|%b 200" % version)
                self.assertTrue(daemon.curl(*say, "-I", path).stdout.endswith(b"|%b 200" % version))
                poll = daemon.curl(*say, path + "?offset=-1&live=long-poll")
                self.assertEqual(poll.stdout, b"hello|%b 200" % version)
                closed = daemon.curl(*say, "-X", "POST", "-H", "stream-closed: true", path)
                self.assertEqual(closed.stdout, b"|%b 204" % version)
                tail = daemon.curl(*say, path + "?offset=-1&live=sse")
                self.assertIn(b"data:hello\n", tail.stdout)
                self.assertIn(b'"streamClosed":true', tail.stdout)
                self.assertEqual(daemon.curl(*say, "-X", "DELETE", path).stdout, b"|%b 204" % version)
            self.assertNotIn("Traceback", daemon.log())

    def test_curl_gets_413_for_a_body_over_the_limit(self) -> None:
        body = self.certificates.folder / "body"
        body.write_bytes(b"x" * 3_000_000)
        with TLSDaemon(self.certificates, limits__max_request_body_bytes=1_000_000) as daemon:
            daemon.create("large")
            for how in (("--data-binary", f"@{body}"), ("-T", str(body), "-X", "POST"), ("-T", "-", "-X", "POST")):
                answer = daemon.curl("--http2", "-w", "|%{http_code}", *TEXT, *how, "/v1/stream/large")
                self.assertTrue(answer.stdout.endswith(b"|413") or how[1] == "-", (how, answer))

    def test_nghttp_follows_a_stream(self) -> None:
        with TLSDaemon(self.certificates) as daemon:
            daemon.create("followed", body=b"one")
            tail = subprocess.Popen(
                [program("nghttp"), f"{daemon.url}/v1/stream/followed?offset=-1&live=sse"],
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            try:
                daemon.append("followed", b"two")
                daemon.request("POST", "/v1/stream/followed", stream_closed="true")
                seen = tail.communicate(timeout=PATIENCE)[0]
            finally:
                tail.kill()
            self.assertIn(b"data:one", seen)
            self.assertLess(seen.index(b"data:one"), seen.index(b"two"))

    def test_httpx_reads_many_answers_on_one_connection(self) -> None:
        with TLSDaemon(self.certificates) as daemon:
            daemon.create("many", body=b"hello")
            with httpx.Client(http2=True, http1=False, verify=daemon.context(), timeout=PATIENCE) as client:
                url = f"{daemon.url}/v1/stream/many"
                with client.stream("GET", url + "?offset=-1&live=sse") as tail:
                    lines = tail.iter_lines()
                    self.assertEqual((next(lines), next(lines)), ("event: data", "data:hello"))
                    for number in range(20):
                        headers = {"content-type": "text/plain"}
                        answer = client.post(url, content=b"%d" % number, headers=headers)
                        self.assertEqual((answer.status_code, answer.http_version), (204, "HTTP/2"))
                    seen = ""
                    while not seen.endswith("19"):
                        line = next(lines)
                        if line.startswith("data:") and "{" not in line:
                            seen += line[5:]
                    self.assertEqual(seen, "".join(map(str, range(20))))


class HandshakeTests(TLSTestCase):
    def attempt(self, daemon: TLSDaemon, context: ssl.SSLContext) -> str | None:
        """Ask for the health; say the version of TLS, or None where there is no connection."""
        try:
            with (
                socket.create_connection(("127.0.0.1", daemon.port), PATIENCE) as plain,
                context.wrap_socket(plain, server_hostname="localhost") as secure,
            ):
                secure.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                read_until(secure, b"ok")
                return secure.version()
        except (OSError, AssertionError):
            return None

    def test_each_range_of_tls_versions_is_offered(self) -> None:
        for least, most, served in (("1.2", "1.2", {V12}), ("1.2", "1.3", {V12, V13}), ("1.3", "1.3", {V13})):
            with TLSDaemon(
                self.certificates, transport__tls__min_version=least, transport__tls__max_version=most
            ) as daemon:
                for version, name in ((V12, "TLSv1.2"), (V13, "TLSv1.3")):
                    context = daemon.context(minimum_version=version, maximum_version=version)
                    self.assertEqual(self.attempt(daemon, context), name if version in served else None)

    def test_mtls_accepts_only_clients_with_a_certificate(self) -> None:
        with TLSDaemon(self.certificates, "mtls") as daemon:
            self.assertEqual(self.attempt(daemon, daemon.context()), "TLSv1.3")
            for shows in (
                None,
                self_signed(),
                Authority("Other").client(),
                authority().client(begins=-2 * DAY, ends=-DAY),
                authority().issue(),
            ):
                context = client_context(authority(), self.certificates.folder, shows)
                self.assertIsNone(self.attempt(daemon, context), shows)
            self.assertEqual(daemon.request("GET", "/readyz")[0], 200)
            self.assertNotIn("Traceback", daemon.log())

    def test_plain_http_is_answered_with_400_and_logged(self) -> None:
        with TLSDaemon(self.certificates) as daemon, daemon.dial() as plain:
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            received = read_to_end(plain)
            self.assertTrue(received.startswith(b"HTTP/1.1 400 "), received)
            self.assertTrue(received.endswith(b"This port speaks TLS: use https://\n"), received)
            # The line is written after the connection's end.
            daemon.stop()
            self.assertIn("failed: the client speaks plain HTTP", daemon.log())

    def test_an_http_version_that_is_off_is_neither_offered_nor_served(self) -> None:
        with TLSDaemon(self.certificates, transport__http__versions="http1") as daemon:
            self.assertEqual(daemon.curl("--http2", "-w", "|%{http_version}", "/healthz").stdout, b"ok|1.1")
            self.assertIsNone(self.attempt(daemon, daemon.context(alpn=["h2"])))
        with Http2Daemon(self.certificates, transport__http__versions="http2") as daemon:
            self.assertEqual(daemon.curl("--http2", "-w", "|%{http_version}", "/healthz").stdout, b"ok|2")
            self.assertIsNone(self.attempt(daemon, daemon.context(alpn=["http/1.1"])))
            status, _, body = TLSDaemon.request(daemon, "GET", "/healthz")
            self.assertEqual(status, 505)
            self.assertIn(b"This server speaks HTTP/2 only", body)


class EndpointTests(TLSTestCase):
    def test_http2_works_on_tls_and_mtls_endpoints(self) -> None:
        folder = self.certificates.folder
        pems = folder / "pems"
        pems.mkdir()
        (pems / "server.pem").write_bytes(self.certificates.key.read_bytes() + self.certificates.server.certificate_pem)
        plain, twisteds, ours = free_port(), free_port(), free_port()
        mutual = (
            f"certificate={self.certificates.certificate}:key={self.certificates.key}:clientCA={self.certificates.ca}"
        )
        listen = (
            f"http:{plain}:interface=127.0.0.1",
            f"tls:{pems}:{twisteds}:interface=127.0.0.1",
            f"mtls:{ours}:interface=127.0.0.1:{mutual}",
        )
        with Daemon(plain, server__listen=",".join(listen), transport__http__versions="http1,http2") as daemon:
            self.assertEqual(daemon.request("GET", "/healthz")[2], b"ok")
            command = [program("curl"), "-sS", "--max-time", str(PATIENCE), "--cacert", str(self.certificates.ca)]
            command += ["--cert", self.certificates.client, "--key", self.certificates.client_key]
            for port in (twisteds, ours):
                for option, version in (("--http1.1", b"1.1"), ("--http2", b"2")):
                    words = [*command, option, "-w", "|%{http_version}", f"https://localhost:{port}/healthz"]
                    answer = subprocess.run(words, capture_output=True, timeout=2 * PATIENCE, check=False)
                    self.assertEqual(answer.stdout, b"ok|" + version, answer)


class Http2Daemon(TLSDaemon):
    """One that is asked over HTTP/2."""

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        with httpx.Client(http2=True, http1=False, verify=self.context(), timeout=PATIENCE) as client:
            try:
                answer = client.request(method, self.url + path, content=body, headers=headers)
            except httpx.TransportError as error:
                raise OSError(str(error)) from None
        return answer.status_code, dict(answer.headers), answer.content


class ReplacementTests(TLSTestCase):
    def test_a_certificate_can_be_replaced_under_load(self) -> None:
        after = authority().issue()
        with TLSDaemon(self.certificates) as daemon:
            for name in ("kept", "anew", "two"):
                daemon.create(name)
            load = _Load(daemon)
            load.start()
            self.wait_for(load.is_under_way)
            self.certificates.replace(after)
            self.wait_for(lambda: daemon.shows(after))
            load.forget()
            self.wait_for(load.is_under_way)
            self.assertEqual(load.stop(), [])
            self.assertIn("Loaded the certificate ", daemon.log())
            for name, count in load.all_counts.items():
                self.assertEqual(daemon.request("GET", f"/v1/stream/{name}")[2], b"x" * count)

    def test_a_damaged_new_certificate_is_logged_and_the_old_one_stays(self) -> None:
        with TLSDaemon(self.certificates) as daemon:
            self.certificates.certificate.write_bytes(b"-----BEGIN CERTIFICATE-----\nhalf")
            self.wait_for(lambda: "they stay as they were." in daemon.log())
            self.assertTrue(daemon.shows(self.certificates.server))
            daemon.process.send_signal(signal.SIGHUP)
            after = authority().issue()
            self.certificates.replace(after)
            daemon.process.send_signal(signal.SIGHUP)
            self.wait_for(lambda: daemon.shows(after))
            self.assertNotIn("Traceback", daemon.log())


class _Load:
    """Appends on a connection that is kept, on new ones, and over HTTP/2, until it is stopped."""

    def __init__(self, daemon: TLSDaemon) -> None:
        self._daemon = daemon
        self._over = threading.Event()
        self._problems: list[str] = []
        self._counts = dict.fromkeys(("kept", "anew", "two"), 0)
        self.all_counts = dict(self._counts)
        targets = (self._on_one_connection, self._on_new_ones, self._over_http2)
        self._threads = [threading.Thread(target=self._guarded, args=(target,)) for target in targets]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def is_under_way(self) -> bool:
        return bool(self._problems) or min(self._counts.values()) >= 10

    def forget(self) -> None:
        """Begin to count once more."""
        self._counts = dict.fromkeys(self._counts, 0)

    def stop(self) -> list[str]:
        """Stop the client, and return its errors."""
        self._over.set()
        for thread in self._threads:
            thread.join(PATIENCE)
        return self._problems

    def _guarded(self, target: Callable[[], None]) -> None:
        try:
            target()
        except Exception as error:
            self._problems.append(f"{target.__name__}: {error!r}")

    def _note(self, name: str, status: int) -> None:
        if status != 204:
            self._problems.append(f"{name}: {status}")
        self._counts[name] += 1
        self.all_counts[name] += 1
        time.sleep(0.005)

    def _on_one_connection(self) -> None:
        connection = self._daemon.connection()
        while not self._over.is_set():
            connection.request("POST", "/v1/stream/kept", b"x", {"Content-Type": "text/plain"})
            response = connection.getresponse()
            response.read()
            self._note("kept", response.status)
        connection.close()

    def _on_new_ones(self) -> None:
        while not self._over.is_set():
            self._note("anew", self._daemon.request("POST", "/v1/stream/anew", b"x", content_type="text/plain")[0])

    def _over_http2(self) -> None:
        with httpx.Client(http2=True, http1=False, verify=self._daemon.context(), timeout=PATIENCE) as client:
            url = f"{self._daemon.url}/v1/stream/two"
            while not self._over.is_set():
                self._note("two", client.post(url, content=b"x", headers={"content-type": "text/plain"}).status_code)


class StopTests(TLSTestCase):
    def test_live_readers_over_http2_end_properly_at_a_stop(self) -> None:
        with TLSDaemon(self.certificates) as daemon:
            daemon.create("ending", body=b"hello")
            command = [program("curl"), "-sSN", "--http2", "--cacert", str(self.certificates.ca)]
            url = f"{daemon.url}/v1/stream/ending?offset=-1&live=sse"
            tail = subprocess.Popen([*command, url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            assert tail.stdout is not None
            self.assertEqual(tail.stdout.readline(), b"event: data\n")
            self.assertEqual(daemon.stop(), 0)
            said = tail.communicate(timeout=PATIENCE)[0]
            self.assertEqual((tail.returncode, b"curl:" in said), (0, False), said)


class StartTests(SynchronousTestCase):
    """Errors about the files of certificates."""

    def test_missing_certificate_files_are_an_error_of_the_start(self) -> None:
        output = test_start.RefusalTests("refusal").refusal(
            port=free_port(),
            transport__mode="tls",
            transport__tls__cert_path="/no/such/file.pem",
            transport__tls__key_path="/no/such/file.key",
        )
        self.assertIn("[check_tls_files] transport.tls.cert_path '/no/such/file.pem': no such file.", output)
