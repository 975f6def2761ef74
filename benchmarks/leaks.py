"""
Measures what is left in memory of requests and clients that come to nothing: ``python -m benchmarks.leaks CASE``.

Each case is done in rounds, and the resident memory of the server is printed after each. It must not grow from
round to round. The case ``collections`` times the garbage collector while streams are made and appended to.
"""

from __future__ import annotations

import argparse
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from benchmarks.holds import BASE, HOST, PATIENCE, WATCHED, Served
from benchmarks.peers import CHECKOUT, MEBIBYTE

#: The number of repetitions of a case.
ROUNDS: Final = 6

#: The number of concurrent requests on one connection.
PIPELINED: Final = 200

#: Starts twistd, and records each garbage collection of more than two milliseconds.
_COLLECTED: Final = """
import gc
import sys
from time import thread_time
from twisted.scripts.twistd import run

holds = open("holds", "a", buffering=1)
began_at = 0

def collected(phase, info):
    global began_at
    if phase == "start":
        began_at = thread_time()
    elif thread_time() - began_at > 0.002:
        print((thread_time() - began_at) * 1000, file=holds)

gc.callbacks.append(collected)
sys.argv[0] = "twistd"
run()
"""


def request(method: str, name: str, body: bytes = b"", length: int | None = None) -> bytes:
    """Return a request with the given Content-Length."""
    return (
        f"{method} {BASE}{name} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: text/plain\r\n"
        f"Content-Length: {len(body) if length is None else length}\r\n\r\n"
    ).encode() + body


def dial(server: Served) -> socket.socket:
    """Return a connection to the server."""
    connection = socket.create_connection((HOST, server.port))
    connection.settimeout(PATIENCE)
    return connection


def send_all(server: Served, requests: Iterable[bytes]) -> None:
    """Send pipelined requests on one connection and read the answers."""
    waiting = list(requests)
    with dial(server) as connection:
        for first in range(0, len(waiting), PIPELINED):
            some = waiting[first : first + PIPELINED]
            connection.sendall(b"".join(some))
            left = len(some)
            while left:
                left -= connection.recv(MEBIBYTE).count(b"HTTP/1.1 ")


def refusals(server: Served) -> None:
    """Send 10,000 requests that are rejected, 20 of them with a body of 5 MB."""
    send_all(server, [request(method, "none") for method in ("GET", "DELETE", "PATCH", "GET") for _ in range(2500)])
    for _ in range(20):
        send_all(server, [request("POST", "none", b"x" * 5_000_000)])


def uploads(server: Served) -> None:
    """Abort 300 uploads after 2 of 9 MB: the clients close or reset the connection."""
    body = b"x" * 2_000_000
    for number in range(300):
        with dial(server) as connection:
            connection.sendall(request("POST", "large", body, 9_000_000))
            if number % 2:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Uploads under way at the same time are not a leak.
        time.sleep(0.01)


def readers(server: Served) -> None:
    """Let 1,000 clients request 8 MB, half of them as a tail, and disconnect after 64 KiB."""
    for number in range(1000):
        with dial(server) as connection:
            connection.sendall(request("GET", "large" + ("?offset=-1&live=sse" if number % 2 else "")))
            connection.recv(65_536)


def halves(server: Served) -> None:
    """Let 2,000 clients shut down their sending side after an append, a read or a long-poll."""
    for number in range(2000):
        asked = (
            request("POST", "small", b"x"),
            request("GET", "none"),
            request("GET", "small?offset=now&live=long-poll"),
        )
        with dial(server) as connection:
            connection.sendall(asked[number % 3])
            connection.shutdown(socket.SHUT_WR)
            status = (b"204", b"404", b"204")[number % 3]
            received = connection.recv(4096)
            assert received.startswith(b"HTTP/1.1 " + status), received


def collections(server: Served, count: int = 200_000) -> None:
    """Create 200,000 streams, append to each, and print the longest pause of the garbage collector."""
    for title, method, body in (("made", "PUT", b""), ("appended to", "POST", b"x" * 100)):
        server.longest_hold()
        began_at = time.perf_counter()
        for first in range(0, count, 10_000):
            send_all(server, [request(method, f"s/{number:08d}", body) for number in range(first, first + 10_000)])
        print(
            f"{count} streams {title}: {time.perf_counter() - began_at:.1f} s, longest collection "
            f"{server.longest_hold():.0f} ms, resident {server.resident():.0f} MiB",
            flush=True,
        )


CASES: Final[dict[str, Callable[[Served], None]]] = {
    "refusals": refusals,
    "uploads": uploads,
    "readers": readers,
    "halves": halves,
}


def main() -> None:
    """Run the cases of the command line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("case", choices=[*CASES, "collections"])
    options.add_argument("--mode", default="memory", help="the storage mode")
    options.add_argument("--checkout", type=Path, default=CHECKOUT, help="of which checkout the server is")
    chosen = options.parse_args()
    collecting = chosen.case == "collections"
    with tempfile.TemporaryDirectory() as folder:
        server = Served(chosen.mode, chosen.checkout, Path(folder), _COLLECTED if collecting else WATCHED)
        try:
            if collecting:
                collections(server)
                return
            send_all(server, [request("PUT", "small"), request("PUT", "large", b"x" * 8_000_000)])
            resident = [server.resident()]
            began_at = time.perf_counter()
            for _ in range(ROUNDS):
                CASES[chosen.case](server)
                time.sleep(0.3)
                resident.append(server.resident())
            rounds = ", ".join(f"{each:.0f}" for each in resident)
            print(
                f"{chosen.case}, {chosen.mode}: resident MiB {rounds}; longest turn of the reactor "
                f"{server.longest_hold():.0f} ms; {time.perf_counter() - began_at:.1f} s"
            )
        finally:
            server.close()


if __name__ == "__main__":
    main()
