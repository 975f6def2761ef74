"""Cases of :mod:`benchmarks.holds` with many requests, readers or HTTP/2 frames at the same time."""

from __future__ import annotations

import contextlib
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final

from h2.config import H2Configuration
from h2.connection import H2Connection
from hyperframe.frame import DataFrame, PingFrame, PriorityFrame, WindowUpdateFrame

if TYPE_CHECKING:
    from benchmarks.holds import Served

BASE: Final = "/v1/stream/"

#: The size of a packet, and the data that readers read, in bytes.
PACKET: Final = 65_536
LARGE: Final = 5_000_000

READERS: Final = 1_000
FLOODERS: Final = 12
TAILS: Final = 10_000
MORTALS: Final = 50_000

#: How many requests are sent before their answers are read.
PIPELINED: Final = 200


def packet_of(request: bytes) -> tuple[bytes, int]:
    """Return as many requests as fit into one packet."""
    count = PACKET // len(request)
    return request * count, count


#: Packets that are full of one kind of request.
REQUESTS: Final[dict[str, bytes]] = {
    "GET /metrics": b"GET /metrics HTTP/1.1\r\nHost:a\r\n\r\n",
    "GET of a stream": b"GET /v1/stream/small HTTP/1.1\r\nHost:a\r\n\r\n",
    "GET of a stream of 5 MB": b"GET /v1/stream/large HTTP/1.1\r\nHost:a\r\n\r\n",
    "POST to a stream": b"POST /v1/stream/small HTTP/1.1\r\nHost:a\r\nContent-Type:text/plain\r\n"
    b"Content-Length:1\r\n\r\nx",
}


def pipeline(server: Served, request: bytes, connections: int) -> None:
    """Send a packet on each of some connections at once, and read all answers."""
    packet, count = packet_of(request)

    def one() -> None:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.settimeout(20)
            client.sendall(packet)
            answers, end = 0, b""
            until = time.monotonic() + 5
            while answers < count and time.monotonic() < until:
                data = client.recv(1_048_576)
                answers += (end + data).count(b"HTTP/1.1 20")
                end = data[-10:]

    threads = [threading.Thread(target=one) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def pipelined(server: Served, requests: Iterable[bytes], status: bytes) -> None:
    """Send requests on one connection, some at a time, and check that each is answered with this status."""
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.settimeout(60)
        requests = iter(requests)
        while some := list(islice(requests, PIPELINED)):
            client.sendall(b"".join(some))
            left, received = len(some), b""
            while left > 0:
                data = client.recv(1_048_576)
                assert data, "the connection ended"
                # An answer may arrive in pieces.
                *lines, received = (received + data).split(b"\r\n")
                found = [line for line in lines if line.startswith(b"HTTP/1.1 ")]
                assert all(line.startswith(b"HTTP/1.1 " + status) for line in found), found
                left -= len(found)


def put(name: str, *headers: str) -> bytes:
    """Render a request that creates an empty stream."""
    lines = "".join(f"{header}\r\n" for header in headers)
    return (
        f"PUT {BASE}{name} HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\n{lines}Content-Length: 0\r\n\r\n"
    ).encode()


def post(name: str, body: str) -> bytes:
    """Render a request that appends a text."""
    head = f"POST {BASE}{name} HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n{body}".encode()


def chain(depth: int) -> Iterator[bytes]:
    """Render requests that create a stream and forks of forks of it, each with an append of its own."""
    yield put("chain/0")
    yield post("chain/0", "0,")
    for number in range(1, depth + 1):
        yield put(f"chain/{number}", f"Stream-Forked-From: {BASE}chain/{number - 1}")
        yield post(f"chain/{number}", f"{number},")


def connect(server: Served, target: str) -> socket.socket:
    """Connect and send a request for a read."""
    reader = socket.create_connection(("127.0.0.1", server.port))
    reader.sendall(f"GET {BASE}{target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    return reader


def read_for(readers: list[socket.socket], seconds: float) -> int:
    """Read until the deadline and return the number of bytes."""
    received = 0
    with selectors.DefaultSelector() as selector:
        for reader in readers:
            reader.setblocking(False)
            selector.register(reader, selectors.EVENT_READ)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            for key, _ in selector.select(0.1):
                with contextlib.suppress(OSError):
                    data = key.fileobj.recv(1_048_576)  # type: ignore[union-attr]
                    if not data:
                        selector.unregister(key.fileobj)
                    received += len(data)
    return received


#: HTTP/2 frames that request nothing.
FRAMES: Final[dict[str, bytes]] = {
    "PING": PingFrame(0).serialize(),
    "empty DATA": DataFrame(1).serialize(),
    "padded DATA": DataFrame(1, flags=["PADDED"], pad_length=10).serialize(),
    "PRIORITY": PriorityFrame(1, depends_on=0, stream_weight=1).serialize(),
    "WINDOW_UPDATE": WindowUpdateFrame(0, window_increment=1).serialize(),
}


def flood(server: Served, frame: bytes, seconds: float) -> list[float]:
    """Send frames on an HTTP/2 connection while the server reads them; return the bytes and seconds."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    client = context.wrap_socket(socket.create_connection(("127.0.0.1", server.port)))
    client.settimeout(seconds)
    connection = H2Connection(H2Configuration(header_encoding="latin-1"))
    connection.initiate_connection()
    fields = [(":method", "POST"), (":path", BASE + "small"), (":scheme", "https"), (":authority", "a")]
    connection.send_headers(1, [*fields, ("content-type", "text/plain")])
    client.sendall(connection.data_to_send())
    began_at = time.monotonic()
    sent = 0
    packet = frame * (PACKET // len(frame))
    with contextlib.suppress(OSError):
        while time.monotonic() < began_at + seconds:
            client.sendall(packet)
            sent += len(packet)
    took = time.monotonic() - began_at
    with contextlib.suppress(OSError):
        client.close()
    return [sent, took]
