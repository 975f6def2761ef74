"""Quotas of a running daemon: a flood of one client leaves the others theirs, and takes bounded memory."""

from __future__ import annotations

import http.client
import resource
import selectors
import socket
import ssl
import threading
import time
from collections import Counter

from durable_streams.server.identity.tokens.file import add_token
from durable_streams.server.identity.tokens.hashes import ScryptCost
from durable_streams.server.identity.tokens.records import new_token
from tests.support.daemon import PATIENCE, Daemon, read_to_end, read_until
from tests.support.fronts import BASE, request
from tests.support.process_case import ProcessTestCase, wait_for
from tests.support.replies import ReplyReader, read_replies
from tests.support.tls_daemon import Certificates, TLSDaemon

#: The rate of a principal, in requests a second, and how long a flood lasts, in seconds.
RATE = 50
FLOOD = 4.0

#: How many slow bodies there are, if the process may open as many files, and how much each has sent, in bytes.
BODIES = 10_000
SENT = 8_192

#: The quota of an address's bodies, and the memory of one connection, in bytes.
INCOMING = 16_777_216
CONNECTION = 24_576

#: An address of this machine other than that of most clients.
ELSEWHERE = "127.0.0.2"


def dial(daemon: Daemon, address: str) -> http.client.HTTPConnection:
    """Return a connection from an address of this machine."""
    return http.client.HTTPConnection("127.0.0.1", daemon.port, PATIENCE, source_address=(address, 0))


class _Regular(threading.Thread):
    """A client that appends at a regular rate, and counts the statuses."""

    def __init__(self, daemon: Daemon, name: str, token: str, per_second: float, seconds: float) -> None:
        super().__init__(daemon=True)
        self.statuses: Counter[int] = Counter()
        self.slowest = 0.0
        self._connection = daemon.connection()
        self._name = name
        self._headers = {"Content-Type": "text/plain", "Authorization": f"Bearer {token}"}
        self._pause = 1 / per_second
        self._count = int(per_second * seconds)

    def run(self) -> None:
        due = time.monotonic()
        for _ in range(self._count):
            time.sleep(max(0.0, due - time.monotonic()))
            due += self._pause
            began = time.monotonic()
            self._connection.request("POST", BASE + self._name, b"x" * 100, self._headers)
            response = self._connection.getresponse()
            response.read()
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.statuses[response.status] += 1
        self._connection.close()


class _Flood(threading.Thread):
    """A client that sends bursts of requests on some connections, far more than it may."""

    def __init__(self, daemon: Daemon, name: str, token: str, per_second: int, seconds: float) -> None:
        super().__init__(daemon=True)
        self.statuses: Counter[int] = Counter()
        self.seconds = 0.0
        self._daemon = daemon
        self._sockets = [daemon.dial() for _ in range(8)]
        head = {"Content-Type": "text/plain", "Authorization": f"Bearer {token}"}
        self._request = request("POST", BASE + name, head, b"x" * 100)
        self._burst = per_second // 100
        self._rounds = int(100 * seconds)

    def run(self) -> None:
        began = due = time.monotonic()
        for number in range(self._rounds):
            time.sleep(max(0.0, due - time.monotonic()))
            due += 0.01
            place = number % len(self._sockets)
            if not self._burst_on(self._sockets[place]):
                self._sockets[place].close()
                self._sockets[place] = self._daemon.dial()
        self.seconds = time.monotonic() - began
        for connection in self._sockets:
            connection.close()

    def _burst_on(self, connection: socket.socket) -> bool:
        """Send a burst and count the answers; return whether the server has left the connection open."""
        reader = ReplyReader()
        for _ in range(self._burst):
            reader.expect("POST")
        try:
            connection.sendall(self._request * self._burst)
            while sum(reply.complete for reply in reader.replies) < self._burst:
                data = connection.recv(65_536)
                if not data:
                    return False
                reader.feed(data)
        except ConnectionError:
            return False
        finally:
            self.statuses.update(reply.status for reply in reader.replies if reply.complete)
        return True


class FairnessTests(ProcessTestCase):
    def test_a_principal_at_fifty_times_its_rate_leaves_the_others_theirs(self) -> None:
        names = [*(f"user{number}" for number in range(4)), "flood"]
        path = self.folder / "tokens"
        tokens = {}
        for name in names:
            tokens[name], record = new_token(name, cost=ScryptCost(ln=4))
            add_token(str(path), record)
        with Daemon(
            auth__methods="token",
            auth__token_file=path,
            auth__rules="allow authenticated all **",
            quotas__principal__requests_per_sec=RATE,
            quotas__principal__request_burst=RATE,
            observability__access_log="none",
        ) as daemon:
            for name in names:
                bearer = {"Authorization": f"Bearer {tokens[name]}", "Content-Type": "text/plain"}
                self.assertEqual(201, daemon.request("PUT", BASE + name, None, **bearer)[0])
            regular = [_Regular(daemon, name, tokens[name], 0.8 * RATE, FLOOD) for name in names[:-1]]
            flood = _Flood(daemon, "flood", tokens["flood"], 50 * RATE, FLOOD)
            for client in (*regular, flood):
                client.start()
            for client in (*regular, flood):
                client.join(FLOOD + 2 * PATIENCE)
            for client in regular:
                self.assertEqual({204: int(0.8 * RATE * FLOOD)}, dict(client.statuses))
            self.assertEqual({204, 429}, set(flood.statuses))
            self.assertLessEqual(flood.statuses[204], RATE * (flood.seconds + 1) + 1)
            self.assertGreaterEqual(flood.statuses[204], RATE)
            self.assertIn(b'quota_refusals_total{quota="requests",scope="principal"}', metrics(daemon, tokens["flood"]))


def metrics(daemon: Daemon, token: str | None = None) -> bytes:
    """Return the metrics."""
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return daemon.request("GET", "/metrics", None, **headers)[2]


class SlowBodyTests(ProcessTestCase):
    def setUp(self) -> None:
        super().setUp()
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        hard = limits[1] if limits[1] > 0 else 65_536
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), limits[1]))
        self.addCleanup(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        self.count = min(BODIES, min(hard, 65_536) - 1_000)

    def test_slow_bodies_take_the_memory_of_their_quota_and_others_are_served(self) -> None:
        with Daemon(
            limits__max_connections=self.count + 100,
            quotas__address__max_incoming_bytes=INCOMING,
            transport__connection__min_body_bytes_per_sec=0,
            transport__connection__body_timeout_secs=120,
            observability__access_log="none",
        ) as daemon:
            daemon.create("a")
            before = daemon.resident_bytes()
            head = request("POST", BASE + "a", {"Content-Type": "text/plain", "Transfer-Encoding": "chunked"})
            slow = []
            for _ in range(self.count):
                connection = daemon.dial()
                self.addCleanup(connection.close)
                connection.sendall(head + b"%x\r\n" % 1_000_000)
                slow.append(connection)
            refused = self.send_all(slow, b"x" * SENT)
            other = dial(daemon, ELSEWHERE)
            for _ in range(20):
                other.request("POST", BASE + "a", b"y" * 100_000, {"Content-Type": "text/plain"})
                response = other.getresponse()
                response.read()
                self.assertEqual(204, response.status)
            other.close()
            grown = daemon.resident_bytes() - before
            self.assertLess(grown, 2 * INCOMING + self.count * CONNECTION + 20 * 100_000)
            # As many as fit into the quota are still being received.
            self.assertEqual(self.count - INCOMING // SENT, refused)
            self.assertNotIn("Traceback", daemon.log())

    def send_all(self, connections: list[socket.socket], data: bytes) -> int:
        """Send the beginning of all bodies; return how many were refused."""
        for connection in connections:
            connection.sendall(data)
        refused = 0
        with selectors.DefaultSelector() as selector:
            for connection in connections:
                selector.register(connection, selectors.EVENT_READ, connection)
            while events := selector.select(2):
                for key, _ in events:
                    answer = key.data.recv(4_096)
                    selector.unregister(key.data)
                    self.assertTrue(answer.startswith(b"HTTP/1.1 429 "), answer)
                    refused += 1
        return refused


class ConnectionTests(ProcessTestCase):
    def test_connections_over_the_quota_are_refused_and_those_of_others_are_not(self) -> None:
        with Daemon(quotas__address__max_connections=5) as daemon:
            wait_for(lambda: self.connections(daemon) == 0, "the end of the connection that asked")
            kept = [daemon.dial() for _ in range(5)]
            for connection in kept:
                self.addCleanup(connection.close)
                connection.sendall(request("GET", BASE + "none"))
                read_until(connection, b"404")
            with daemon.dial() as refused:
                (reply,) = read_replies(read_to_end(refused))
            self.assertEqual((429, "close"), (reply.status, reply.get("connection")))
            other = dial(daemon, ELSEWHERE)
            other.request("GET", BASE + "none")
            self.assertEqual(404, other.getresponse().status)
            other.close()
            kept[0].close()
            wait_for(lambda: self.is_served(daemon), "a connection after another was closed")

    def connections(self, daemon: Daemon) -> int:
        other = dial(daemon, ELSEWHERE)
        other.request("GET", "/metrics")
        text = other.getresponse().read()
        other.close()
        line = next(line for line in text.splitlines() if line.startswith(b"durable_streams_connections "))
        return int(float(line.split()[1])) - 1

    def is_served(self, daemon: Daemon) -> bool:
        with daemon.dial() as connection:
            connection.sendall(request("GET", BASE + "none", {"Connection": "close"}))
            return b" 404 " in read_to_end(connection)

    def test_over_tls_they_are_refused_before_the_handshake(self) -> None:
        certificates = Certificates()
        self.addCleanup(certificates.clean_up)
        with TLSDaemon(certificates, quotas__address__max_connections=3) as daemon:
            kept: list[ssl.SSLSocket] = []
            # The connection that has asked for the readiness may still be open.
            wait_for(lambda: self.keep_one(daemon, kept) == 3, "the third connection")
            for _ in range(20):
                with self.assertRaises((ssl.SSLError, OSError)), daemon.dial() as plain:
                    daemon.context().wrap_socket(plain, server_hostname="localhost")
            kept[0].sendall(request("GET", "/metrics"))
            text = read_until(kept[0], b"durable_streams_quota_delays_total")
            self.assertIn(b"\ndurable_streams_tls_handshake_failures_total 0.0\n", text)
            self.assertIn(b'durable_streams_quota_refusals_total{quota="connections",scope="address"}', text)
            self.assertNotIn("handshake", daemon.log())

    def keep_one(self, daemon: TLSDaemon, kept: list[ssl.SSLSocket]) -> int:
        """Open one more connection if that is possible, and return how many there are."""
        plain = daemon.dial()
        try:
            connection = daemon.context().wrap_socket(plain, server_hostname="localhost")
        except OSError:
            plain.close()
        else:
            self.addCleanup(connection.close)
            kept.append(connection)
        return len(kept)
