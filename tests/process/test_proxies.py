"""Behind real proxies, set up as the samples in ``etc`` say."""

from __future__ import annotations

import gzip
import http.client
import json
import shutil
import ssl
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from tests.support.authority import authority
from tests.support.daemon import PATIENCE, Daemon, free_port
from tests.support.programs import program
from tests.support.proxies import CLIENT, Caddy, CompressingHAProxy, HAProxy, Nginx, Proxy, peers_of, wait_until

TEXT: Final = {"Content-Type": "text/plain"}
BYTES: Final = {"Content-Type": "application/octet-stream"}

#: What a daemon is told of its proxy.
TRUSTING: Final = {
    "proxy__enabled": "true",
    "proxy__forwarded_headers": "x-forwarded",
    "proxy__trusted_proxies": "127.0.0.1",
    "observability__access_log": "all",
    "observability__log_format": "json",
}

#: How soon, in seconds, an event must be there. It takes milliseconds; a machine may be busy.
SOON: Final = 1.0


def read_until(response: http.client.HTTPResponse, mark: bytes) -> bytes:
    """Read events until something has come."""
    received = b""
    while mark not in received:
        data = response.read1(65536)
        assert data, f"The tail ended before {mark!r}; it had {received[-500:]!r}"
        received += data
    return received


def events(log: str, operation: str) -> Iterator[dict[str, Any]]:
    """Return the entries of a proxy's access log for one kind of request."""
    for line in log.splitlines():
        if line.startswith("{"):
            event = json.loads(line)
            if event.get("ds.operation") == operation:
                yield event


class BehindNginxTests(SynchronousTestCase):
    proxy_type: type[Proxy] = Nginx

    def setUp(self) -> None:
        stack = ExitStack()
        self.addCleanup(stack.close)
        self.daemon = stack.enter_context(Daemon(None, **TRUSTING))
        self.proxy = stack.enter_context(self.proxy_type(f"127.0.0.1:{self.daemon.port}"))

    def create(self, name: str, headers: dict[str, str] = TEXT, body: bytes = b"") -> dict[str, str]:
        status, head, answer = self.proxy.request("PUT", f"/v1/stream/{name}", body, headers)
        self.assertEqual(status, 201, answer)
        return head

    def append(self, name: str, data: bytes) -> None:
        status, _, answer = self.proxy.request("POST", f"/v1/stream/{name}", data, TEXT)
        self.assertEqual(status, 204, answer)

    def follow(self, name: str) -> tuple[http.client.HTTPSConnection, http.client.HTTPResponse]:
        connection = self.proxy.connect()
        self.addCleanup(connection.close)
        connection.request("GET", f"/v1/stream/{name}?offset=-1&live=sse", headers={"Host": "streams.example"})
        response = connection.getresponse()
        self.assertEqual(response.status, 200)
        return connection, response

    def test_an_event_is_passed_on_at_once(self) -> None:
        self.create("a")
        _, tail = self.follow("a")
        read_until(tail, b"upToDate")
        took = []
        for number in range(15):
            mark = b"event-%d." % number
            began_at = time.monotonic()
            self.daemon.append("a", mark)
            read_until(tail, mark)
            took.append(time.monotonic() - began_at)
        median = statistics.median(took)
        print(f"{self.proxy.program}: an event is there {median * 1000:.1f} ms after its append began (median of 15)")
        self.assertLess(median, SOON)

    def test_only_streams_are_passed_on(self) -> None:
        for path in ("/metrics", "/healthz", "/readyz", "/admin/streams", "/"):
            self.assertEqual(self.proxy.request("GET", path)[0], 404, path)
        # The proxy itself has refused them.
        for path in ("/metrics", "/healthz", "/readyz"):
            self.assertEqual(self.daemon.request("GET", path)[0], 200, path)

    def test_a_long_poll_is_answered_when_data_arrives(self) -> None:
        offset = self.create("a")["stream-next-offset"]
        connection = self.proxy.connect()
        self.addCleanup(connection.close)
        connection.request("GET", f"/v1/stream/a?live=long-poll&offset={offset}")
        # Most of the time, it waits by then.
        time.sleep(0.3)
        self.daemon.append("a", b"hello")
        response = connection.getresponse()
        self.assertEqual((response.status, response.read()), (200, b"hello"))
        self.assertIsNotNone(response.getheader("Stream-Cursor"))

    def test_bodies_of_10_mib_pass_and_larger_ones_get_413(self) -> None:
        data = bytes(range(250)) * 40_000
        self.create("large", BYTES)
        status, _, answer = self.proxy.request("POST", "/v1/stream/large", data, BYTES)
        self.assertEqual(status, 204, answer)
        status, head, body = self.proxy.request("GET", "/v1/stream/large")
        self.assertEqual((status, head["content-length"], body == data), (200, "10000000", True))
        self.create("larger", BYTES)
        try:
            status = self.proxy.request("POST", "/v1/stream/larger", b"x" * 11_000_000, BYTES)[0]
        except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
            # The answer was there before the client had sent everything, and it did not look.
            status = 413
        self.assertEqual(status, 413)
        self.assertEqual(self.proxy.request("GET", "/v1/stream/larger")[2], b"")

    def test_forwarding_headers_of_clients_are_replaced_by_the_proxy(self) -> None:
        self.assertEqual(self.create("a/b%20c")["location"], "https://streams.example/v1/stream/a/b%20c")
        lies = {
            "X-Forwarded-For": "203.0.113.9",
            "X-Forwarded-Host": "evil.example",
            "X-Forwarded-Proto": "http",
            "X-Forwarded-Port": "666",
            "Forwarded": "host=evil.example",
            "X-Request-Id": "mine",
        }
        head = self.create("a", TEXT | lies)
        self.assertEqual(head["location"], "https://streams.example/v1/stream/a")
        self.assertNotEqual(head["x-request-id"], "mine")
        self.assertNotIn("Ignored forwarding headers", self.daemon.log())
        created = list(events(self.daemon.log(), "create"))
        self.assertEqual([event["client.address"] for event in created], [CLIENT, CLIENT])
        self.assertEqual([event["ds.proxy.peer_ip"] for event in created], ["127.0.0.1"] * 2)
        self.assertEqual(created[-1]["request.id"], head["x-request-id"])
        ids = {self.proxy.request("GET", "/v1/stream/none")[1]["x-request-id"] for _ in range(3)}
        self.assertEqual(len(ids), 3)
        for request_id in ids:
            self.assertRegex(request_id, r"\A(?:[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})\Z")
        asked = {"Origin": "https://app.example", "Access-Control-Request-Method": "POST"}
        for path in ("/v1/stream/a", "/v1/stream/none"):
            status, head, _ = self.proxy.request("OPTIONS", path, headers=asked)
            self.assertEqual((status, head["access-control-allow-origin"]), (204, "*"))

    def test_the_proxy_reuses_connections_to_the_server(self) -> None:
        self.create("a")
        seen = set()
        for _ in range(20):
            self.append("a", b"x")
            peers = peers_of(self.daemon.port)
            self.assertGreater(len(peers), 0)
            seen |= peers
        self.assertLess(len(seen), 10)

    def test_a_tail_is_closed_when_its_client_disconnects(self) -> None:
        self.create("a")
        before = peers_of(self.daemon.port)
        connections = [self.follow("a") for _ in range(5)]
        for _, tail in connections:
            read_until(tail, b"upToDate")
        wait_until(lambda: len(peers_of(self.daemon.port)) >= 5, "The tails are not there.")
        for connection, tail in connections:
            tail.close()
            connection.close()
        wait_until(lambda: len(peers_of(self.daemon.port)) <= len(before), "A tail is still there.")


class BehindHAProxyTests(BehindNginxTests):
    proxy_type = HAProxy


class CompressingHAProxyTests(SynchronousTestCase):
    """HAProxy that compresses whatever it may."""

    def test_a_compressing_proxy_passes_events_uncompressed_and_at_once(self) -> None:
        stack = ExitStack()
        self.addCleanup(stack.close)
        daemon = stack.enter_context(Daemon(None, **TRUSTING))
        proxy = stack.enter_context(CompressingHAProxy(f"127.0.0.1:{daemon.port}"))
        proxy.request("PUT", "/v1/stream/a", b"x" * 1000, TEXT)
        accepted = {"Accept-Encoding": "gzip"}
        _, head, body = proxy.request("GET", "/v1/stream/a", None, accepted)
        self.assertEqual((head["content-encoding"], gzip.decompress(body)), ("gzip", b"x" * 1000))
        connection = proxy.connect()
        self.addCleanup(connection.close)
        connection.request("GET", "/v1/stream/a?offset=now&live=sse", headers={"Host": "streams.example"} | accepted)
        tail = connection.getresponse()
        self.assertEqual((tail.status, tail.getheader("content-encoding")), (200, None))
        read_until(tail, b"upToDate")
        daemon.append("a", b"one")
        read_until(tail, b"data:one\n")


class BehindCaddyTests(BehindNginxTests):
    proxy_type = Caddy


class NearbyTests(SynchronousTestCase):
    """A proxy on the same machine may reach the server by other ways than TCP and HTTP."""

    def start(self, listen: str, upstream: str, kind: type[Proxy], **settings: str) -> tuple[Daemon, Proxy]:
        stack = ExitStack()
        self.addCleanup(stack.close)
        port = free_port()
        settings = TRUSTING | settings | {"server__listen": f"{listen}, tcp:{port}:interface=127.0.0.1"}
        daemon = stack.enter_context(Daemon(port, **settings))
        return daemon, stack.enter_context(kind(upstream))

    def check(self, daemon: Daemon, proxy: Proxy, location: str) -> None:
        status, head, _ = proxy.request("PUT", "/v1/stream/a", b"hello", TEXT)
        self.assertEqual((status, head["location"]), (201, location))
        self.assertEqual(proxy.request("GET", "/v1/stream/a")[2], b"hello")
        (created,) = events(daemon.log(), "create")
        self.assertEqual(created["client.address"], CLIENT)

    def test_a_proxy_can_connect_by_a_unix_socket(self) -> None:
        # The name of a socket may have no more than 107 bytes.
        folder = tempfile.mkdtemp(prefix="ds-")
        self.addCleanup(shutil.rmtree, folder)
        trusted = {"proxy__trusted_proxies": "unix"}
        daemon, proxy = self.start(f"unix:{folder}/http", f"unix:{folder}/http", Nginx, **trusted)
        self.check(daemon, proxy, "https://streams.example/v1/stream/a")

    def test_haproxy_can_send_the_client_by_the_proxy_protocol(self) -> None:
        port = free_port()
        listen = f"haproxy:tcp:{port}:interface=127.0.0.1"
        # The peer is who HAProxy says, and what that one says in its headers is not believed.
        daemon, proxy = self.start(listen, f"127.0.0.1:{port} send-proxy-v2", HAProxy)
        self.check(daemon, proxy, "http://streams.example/v1/stream/a")


class IdentityTests(SynchronousTestCase):
    """A proxy with a client certificate can name the client's identity, over any HTTP version."""

    def setUp(self) -> None:
        folder = Path(self.mktemp())
        folder.mkdir()
        certificate, key = authority().issue("streams.example").write(folder.absolute(), "server")
        own, own_key = authority().client("proxy").write(folder.absolute(), "proxy")
        bundle = folder.absolute() / "ca.pem"
        bundle.write_bytes(authority().certificate_pem)
        self.port = free_port()
        stack = ExitStack()
        self.addCleanup(stack.close)
        settings = TRUSTING | {
            "transport__mode": "mtls",
            "transport__http__versions": "http1,http2",
            "transport__tls__cert_path": certificate,
            "transport__tls__key_path": key,
            "transport__tls__client_ca_path": str(bundle),
            "proxy__identity__mode": "header",
            "proxy__identity__header_name": "X-User",
            "server__bind_address": f"127.0.0.1:{self.port}",
        }
        self.daemon = stack.enter_context(Encrypted(self.port, **settings))
        self.curl = [program("curl"), "-sS", "--max-time", str(PATIENCE), "--cacert", str(bundle)]
        self.curl += ["--cert", own, "--key", own_key, "-D", "-", "-X", "PUT", "-H", "Content-Type: text/plain"]

    def ask(self, name: str, *options: str) -> str:
        url = f"https://127.0.0.1:{self.port}/v1/stream/{name}"
        done = subprocess.run([*self.curl, *options, url], capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def test_the_identity_header_of_an_authenticated_proxy_is_logged(self) -> None:
        said = ["-H", "X-User: alice", "-H", "X-Forwarded-For: 203.0.113.9", "-H", "X-Forwarded-Host: outer.example"]
        said += ["-H", "X-Request-Id: abc-1"]
        for number, version in enumerate(("--http1.1", "--http2")):
            answer = self.ask(f"a{number}", version, *said).lower()
            self.assertIn(f"location: https://outer.example/v1/stream/a{number}\n", answer)
            self.assertIn("x-request-id: abc-1\n", answer)
            refused = self.ask(f"b{number}", version, "-H", "X-Forwarded-Proto: gopher")
            self.assertIn("X-Forwarded-Proto must be http or https", refused)
            # Somebody who has a certificate too, and is not trusted
            answer = self.ask(f"c{number}", version, "--interface", CLIENT, *said).lower()
            self.assertIn(f"location: https://127.0.0.1:{self.port}/v1/stream/c{number}\n", answer)
        created = [event for event in events(self.daemon.log(), "create") if event["http.response.status_code"] == 201]
        self.assertEqual(
            [(event["client.address"], event.get("client.identity"), event["client.subject"]) for event in created],
            [("203.0.113.9", "alice", "CN=proxy"), (CLIENT, None, "CN=proxy")] * 2,
        )
        self.assertEqual([event["request.id"] for event in created][::2], ["abc-1"] * 2)


class Encrypted(Daemon):
    """A daemon that only a proxy can ask whether it is ready."""

    def __enter__(self) -> Encrypted:
        try:
            wait_until(lambda: "Listening on" in self.log() or self.process.poll() is not None, "It does not listen.")
            assert self.process.poll() is None, self.log()
        except AssertionError:
            self.close()
            raise
        return self


class NotBehindTests(SynchronousTestCase):
    def test_forwarding_headers_of_direct_clients_are_ignored(self) -> None:
        with Daemon(None, **TRUSTING) as daemon:
            connection = http.client.HTTPConnection(
                "127.0.0.1", daemon.port, timeout=PATIENCE, source_address=(CLIENT, 0)
            )
            self.addCleanup(connection.close)
            for name in "ab":
                lies = {**TEXT, "Host": "streams.example", "X-Forwarded-Host": "evil.example"}
                connection.request("PUT", f"/v1/stream/{name}", headers=lies)
                response = connection.getresponse()
                response.read()
                self.assertEqual(response.getheader("Location"), f"http://streams.example/v1/stream/{name}")
            said = [line for line in daemon.log().splitlines() if "Ignored forwarding headers" in line]
            self.assertEqual(len(said), 1)
            self.assertIn(CLIENT, said[0])
