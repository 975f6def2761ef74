"""
Measures how long single clients hold up everybody else: ``python -m benchmarks.holds CASE [--mode MODE]``.

The server is started with a reactor that writes down how long its turns take, in processor time of its thread, so that
whatever else runs on the machine does not count. Another process asks for a stream's tail all the time, and tells how
long it waited.
"""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import os
import resource
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Final

from benchmarks import crowds
from benchmarks.peers import CHECKOUT, MEBIBYTE
from tests.support.authority import authority

HOST: Final = "127.0.0.1"
BASE: Final = "/v1/stream/"

#: The timeout of every operation, in seconds.
PATIENCE: Final = 120

#: The pause between two requests of the client that measures waits, in seconds.
PAUSE: Final = 0.002

#: Starts twistd with a reactor that records each turn of more than two milliseconds.
WATCHED: Final = """
import sys
from time import thread_time
from twisted.internet.epollreactor import EPollReactor
from twisted.scripts.twistd import run

holds = open("holds", "a", buffering=1)
run_until_current = EPollReactor.runUntilCurrent
began_at = None

def watched(reactor):
    global began_at
    now = thread_time()
    if began_at is not None and now - began_at > 0.002:
        print((now - began_at) * 1000, file=holds)
    began_at = thread_time()
    run_until_current(reactor)

EPollReactor.runUntilCurrent = watched
sys.argv[0] = "twistd"
run()
"""

_TICKS: Final = os.sysconf("SC_CLK_TCK")


def connect(port: int, secure: bool) -> http.client.HTTPConnection:
    """Make a connection to a server."""
    if not secure:
        return http.client.HTTPConnection(HOST, port, timeout=PATIENCE)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return http.client.HTTPSConnection(HOST, port, timeout=PATIENCE, context=context)


class Served:
    """
    A running server with its own folder.

    :param secure: whether it serves over TLS.
    """

    def __init__(self, mode: str, checkout: Path, folder: Path, program: str = WATCHED, secure: bool = False) -> None:
        self.secure = secure
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            self.port = int(probe.getsockname()[1])
        environment = {
            "DS_SERVER__BIND_ADDRESS": f"{HOST}:{self.port}",
            "DS_STORAGE__MODE": mode,
            "DS_STORAGE__DATA_DIR": str(folder / "data"),
            "DS_ADMIN__ENABLED": "true",
            "DS_OBSERVABILITY__ACCESS_LOG": "none",
            # The older name of limits.max_total_bytes, so that older commits can be measured too.
            "DS_LIMITS__MAX_MEMORY_BYTES": str(10 * 1024 * MEBIBYTE),
            "DS_LIMITS__MAX_STREAM_BYTES": str(1024 * MEBIBYTE),
            "DS_LIMITS__MAX_CONNECTIONS": str(crowds.TAILS + crowds.READERS),
            "PYTHONPATH": str(checkout),
        }
        if secure:
            certificate, key = authority().issue().write(folder, "server")
            environment |= {
                "DS_TRANSPORT__MODE": "tls",
                "DS_TRANSPORT__TLS__CERT_PATH": certificate,
                "DS_TRANSPORT__TLS__KEY_PATH": key,
                "DS_TRANSPORT__HTTP__VERSIONS": "http1,http2",
            }
        command = [sys.executable, "-c", program, "-n", "--pidfile=", "durable-streams"]
        self._holds = folder / "holds"
        self._process = subprocess.Popen(
            command, cwd=folder, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and self._process.poll() is None:
            try:
                if self.request("GET", "/readyz")[0] == 200:
                    return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("The server did not come up.")

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        content_type: str = "text/plain",
        fork: dict[str, str] | None = None,
    ) -> tuple[int, bytes]:
        connection = connect(self.port, self.secure)
        headers = dict(fork or {})
        if body is not None:
            headers["Content-Type"] = content_type
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def resident(self, field: str = "VmRSS") -> float:
        """Return its resident memory in MiB; the peak with ``VmHWM``."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition(field + ":")[2].split()[0]) / 1024

    def longest_hold(self) -> float:
        """Return the longest turn of the reactor since the last call, in milliseconds."""
        lines = self._holds.read_text().split()
        self._holds.write_text("")
        return max(map(float, lines), default=2)

    def processor_seconds(self) -> float:
        """Return its processor time in seconds."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(") ")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


def _measure_waits(port: int, secure: bool, ended: Connection) -> None:
    waits = []
    connection = connect(port, secure)
    while not ended.poll(PAUSE):
        began_at = time.perf_counter()
        connection.request("HEAD", BASE + "asked")
        connection.getresponse().read()
        waits.append(time.perf_counter() - began_at)
    ended.send(waits)


@contextmanager
def measured(server: Served, title: str) -> Iterator[None]:
    """Run a case; print the server's longest turn and memory, and the waits of another client."""
    server.request("PUT", BASE + "asked", b"")
    before, busy = server.resident(), server.processor_seconds()
    ours, theirs = multiprocessing.Pipe()
    other = multiprocessing.Process(target=_measure_waits, args=(server.port, server.secure, theirs), daemon=True)
    other.start()
    time.sleep(0.3)
    server.longest_hold()
    began_at = time.perf_counter()
    yield
    took = time.perf_counter() - began_at
    ours.send(None)
    waits = sorted(wait * 1000 for wait in ours.recv())
    other.join()
    percentile = waits[len(waits) * 99 // 100]
    print(
        f"{title}: {took:.2f} s, processor {server.processor_seconds() - busy:.2f} s, "
        f"longest turn of the reactor {server.longest_hold():.0f} ms; "
        f"resident {before:.0f} MiB before, {server.resident():.0f} after, {server.resident('VmHWM'):.0f} at most; "
        f"another client waited {waits[-1]:.0f} ms at most, {percentile:.1f} at the 99th percentile",
        flush=True,
    )


def tails(server: Served) -> None:
    """Stall 40 tails, each with a cursor of its own, append 5 MB of newlines, and let the tails read on."""
    server.request("PUT", BASE + "newlines", b"")
    cursor = int(time.time() - 1_728_432_000) // 20
    sockets = []
    for number in range(40):
        tail = socket.create_connection((HOST, server.port))
        tail.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 131_072)
        tail.settimeout(PATIENCE)
        target = f"{BASE}newlines?offset=-1&live=sse&cursor={cursor + 10_000 + number}"
        tail.sendall(f"GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        received = b""
        while b"upToDate" not in received:
            received += tail.recv(4096)
        sockets.append(tail)
    with measured(server, "40 stalled tails, an append of 5 MB of newlines"):
        status, _ = server.request("POST", BASE + "newlines", b"\n" * 5_000_000)
        assert status == 204, status
        time.sleep(2)
        while server.request("GET", "/healthz")[0] != 200:
            pass
    with measured(server, "the same tails read on to the end"):
        waiting = dict.fromkeys(sockets, b"")
        received_bytes = 0
        while waiting:
            for tail, end in list(waiting.items()):
                data = tail.recv(262_144)
                assert data, "a tail ended"
                received_bytes += len(data)
                rest = end + data[-200:]
                if b"upToDate" in rest:
                    del waiting[tail]
                else:
                    waiting[tail] = rest[-200:]
    print(f"  {received_bytes / MEBIBYTE:.0f} MiB received")


def listing(server: Served, count: int = 200_000) -> None:
    """List 200,000 streams."""
    crowds.pipelined(server, (crowds.put(f"streams/{number:08}") for number in range(count)), b"201")
    time.sleep(1)
    with measured(server, f"a list of {count} streams"):
        status, body = server.request("GET", "/admin/streams")
    names = [stream["name"] for stream in json.loads(body)]
    assert status == 200
    assert len(names) == count + 1
    assert names == sorted(names)


#: JSON bodies that are slow to validate, by name.
BODIES: Final[dict[str, Callable[[], bytes]]] = {
    "lone surrogates": lambda: b'["' + rb"\ud800" * 1_700_000 + b'"]',
    "pairs of surrogates": lambda: b'["' + rb"\ud83d\ude00" * 850_000 + b'"]',
    "empty arrays": lambda: b"[" + b"[]," * 3_400_000 + b"[]]",
    "digits": lambda: b"[" + b"1," * 5_100_000 + b"1]",
    "one long number": lambda: b"[" + b"1" * 10_000_000 + b"]",
    "objects": lambda: b"[" + b'{"a":1},' * 1_200_000 + b"1]",
    "one name, again and again": lambda: b"[{" + b'"a":1,' * 1_700_000 + b'"a":1}]',
    "escapes": lambda: b'["' + rb"\n" * 5_000_000 + b'"]',
    "spaces": lambda: b"[1" + b" " * 10_000_000 + b"]",
    "nested arrays": lambda: b"[" * 5_000_000 + b"]" * 5_000_000,
    "text of two bytes a letter": lambda: b'["' + "\u00e9".encode() * 5_000_000 + b'"]',
    "surrogates and then an error": lambda: b'["' + rb"\ud800" * 1_700_000 + b'"}',
    "messages of one surrogate": lambda: b"[" + rb'"\ud800",' * 1_100_000 + b"1]",
}


def bodies(server: Served) -> None:
    """Append JSON bodies of 10 MB that are slow to validate."""
    for number, (title, make) in enumerate(BODIES.items()):
        body = make()
        server.request("PUT", f"{BASE}json/{number}", b"", "application/json")
        with measured(server, title):
            status, _ = server.request("POST", f"{BASE}json/{number}", body, "application/json")
        print(f"  {len(body)} bytes: {status}")


#: Bodies in which it takes long to find where a fork diverges, by what they are, and how many messages they have.
FORKED: Final[dict[str, Callable[[], tuple[bytes, int]]]] = {
    "digits": lambda: (b"[" + b"1," * 4_999_999 + b"1]", 5_000_000),
    "empty strings": lambda: (b"[" + b'"",' * 3_299_999 + b"1]", 3_300_000),
    "empty arrays": lambda: (b"[" + b"[]," * 3_299_999 + b"1]", 3_300_000),
    "numbers of 4,000 digits": lambda: (b"[" + (b"1" * 4000 + b",") * 2_399 + b"1]", 2_400),
    "strings of 10,000 escapes": lambda: (b"[" + (b'"' + rb"\n" * 10_000 + b'",') * 479 + b"1]", 480),
    "one string of escapes": lambda: (b'["' + rb"\n" * 4_900_000 + b'",1]', 2),
}


def forks(server: Served) -> None:
    """Fork at the end of an append of 10 MB; again, when its source is hidden; and while its source is made anew."""
    for number, (title, make) in enumerate(FORKED.items()):
        body, messages = make()
        source, fork = f"{BASE}forks/{number}", f"{BASE}forks/{number}/fork"
        at = {"Stream-Forked-From": source, "Stream-Fork-Offset": "-1", "Stream-Fork-Sub-Offset": str(messages)}
        status, _ = server.request("PUT", source, body, "application/json")
        assert status == 201, status
        with measured(server, f"a fork after {title}"):
            status, _ = server.request("PUT", fork, fork=at)
        assert status == 201, status
        assert server.request("DELETE", source)[0] == 204
        at["Stream-Fork-Sub-Offset"] = str(messages - 1)
        with measured(server, f"another fork of that name after {title}, the source is hidden"):
            status, _ = server.request("PUT", fork, fork=at)
        assert status == 409, status
        assert server.request("DELETE", fork)[0] == 204
    body, messages = FORKED["digits"]()
    source = BASE + "forks/anew"
    at = {"Stream-Forked-From": source, "Stream-Fork-Offset": "-1", "Stream-Fork-Sub-Offset": str(messages)}
    server.request("PUT", source, body, "application/json")
    with measured(server, "a fork after digits, the source is made anew meanwhile"), ThreadPool(1) as pool:
        forked = pool.apply_async(server.request, ("PUT", source + "/fork"), {"fork": at})
        time.sleep(0.5)
        server.request("DELETE", source)
        server.request("PUT", source, body, "application/json")
        status, _ = forked.get()
    print(f"  {status}")


def packets(server: Served) -> None:
    """Send packets of 64 KiB that are full of requests, on one connection and on 12."""
    server.request("PUT", BASE + "small", b"x")
    server.request("PUT", BASE + "large", b"x" * crowds.LARGE)
    for title, request in crowds.REQUESTS.items():
        for connections in (1, crowds.FLOODERS):
            with measured(server, f"64 KiB of {title} on {connections} connections"):
                crowds.pipeline(server, request, connections)


def readers(server: Served) -> None:
    """Append 5 MB to a stream with 1,000 waiting readers, then let 1,000 readers replay it."""
    for title, query in (("SSE tails", "offset=now&live=sse"), ("long-polls", "offset=now&live=long-poll")):
        name = title.partition(" ")[0]
        server.request("PUT", BASE + name, b"")
        clients = [crowds.connect(server, f"{name}?{query}") for _ in range(crowds.READERS)]
        time.sleep(1)
        with measured(server, f"{crowds.READERS} {title}, an append of 5 MB"):
            status, _ = server.request("POST", BASE + name, b"line\n" * (crowds.LARGE // 5))
            assert status == 204, status
            received = crowds.read_for(clients, 8)
        print(f"  {received / MEBIBYTE:.0f} MiB received")
        with measured(server, "all of them leave"):
            for client in clients:
                client.close()
            time.sleep(1)
    with measured(server, f"{crowds.READERS} replays of 5 MB"):
        clients = [crowds.connect(server, "SSE?offset=-1") for _ in range(crowds.READERS)]
        received = crowds.read_for(clients, 8)
    print(f"  {received / MEBIBYTE:.0f} MiB received")


def chains(server: Served, depth: int = 1_000) -> None:
    """Make the longest chain of forks; read, fork and delete at its end."""
    with measured(server, f"a chain of {depth} forks is made"):
        crowds.pipelined(server, crowds.chain(depth), b"20")
    last = f"{BASE}chain/{depth}"
    with measured(server, "200 reads of the last fork"), ThreadPool(8) as pool:
        bodies = pool.map(lambda _: server.request("GET", last), range(200))
    assert {body for _, body in bodies} == {"".join(f"{number}," for number in range(depth + 1)).encode()}
    with measured(server, "a packet of 64 KiB full of reads of it"):
        crowds.pipeline(server, f"GET {last} HTTP/1.1\r\nHost:a\r\n\r\n".encode(), 1)
    with measured(server, "a fork deeper than the limit is refused"):
        status, _ = server.request("PUT", f"{BASE}chain/deeper", fork={"Stream-Forked-From": last})
    print(f"  {status}")
    with measured(server, "all sources are deleted, then the last fork"):
        for number in range(depth + 1):
            server.request("DELETE", f"{BASE}chain/{number}")


def crowd(server: Served) -> None:
    """Wake 10,000 tails of one stream."""
    server.request("PUT", BASE + "crowd", b"")
    with measured(server, f"{crowds.TAILS} tails connect"):
        clients = [crowds.connect(server, "crowd?offset=now&live=sse") for _ in range(crowds.TAILS)]
        crowds.read_for(clients, 3)
    for size in (100, 10_000):
        with measured(server, f"{crowds.TAILS} tails, an append of {size} bytes"):
            status, _ = server.request("POST", BASE + "crowd", b"x" * size)
            assert status == 204, status
            received = crowds.read_for(clients, 4)
        print(f"  {received / MEBIBYTE:.1f} MiB received")
    with measured(server, "all of them leave"):
        for client in clients:
            client.close()
        time.sleep(2)


def expiry(server: Served, lifetime: int = 5) -> None:
    """Let 50,000 streams expire at about the same time."""
    with measured(server, f"{crowds.MORTALS} streams are made, and expire {lifetime} seconds after that"):
        names = (f"mortals/{number}" for number in range(crowds.MORTALS))
        crowds.pipelined(server, (crowds.put(name, f"Stream-TTL: {lifetime}") for name in names), b"201")
        time.sleep(lifetime + 3)
    status, _ = server.request("HEAD", f"{BASE}mortals/{crowds.MORTALS - 1}")
    print(f"  {status} is the status of the last")


def floods(server: Served) -> None:
    """Send frames that request nothing on 12 HTTP/2 connections."""
    server.request("PUT", BASE + "small", b"x")
    for title, frame in crowds.FRAMES.items():
        with measured(server, f"{crowds.FLOODERS} connections of {title}"), ThreadPool(crowds.FLOODERS) as pool:
            results = pool.starmap(crowds.flood, [(server, frame, 5.0)] * crowds.FLOODERS)
        sent, took = (max(column) for column in zip(*results, strict=True))
        print(f"  at most {sent / MEBIBYTE:.1f} MiB were sent, in {took:.1f} s")


CASES: Final = {
    "tails": tails,
    "listing": listing,
    "bodies": bodies,
    "forks": forks,
    "packets": packets,
    "readers": readers,
    "chains": chains,
    "crowd": crowd,
    "expiry": expiry,
    "floods": floods,
}


def main() -> None:
    """Run the cases of the command line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("case", choices=CASES)
    options.add_argument("--mode", default="memory", help="the storage mode")
    options.add_argument("--checkout", type=Path, default=CHECKOUT, help="of which checkout the server is")
    chosen = options.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as folder:
        server = Served(chosen.mode, chosen.checkout, Path(folder), secure=chosen.case == "floods")
        try:
            CASES[chosen.case](server)
        finally:
            server.close()


if __name__ == "__main__":
    main()
