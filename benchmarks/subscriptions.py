"""
Benchmark of subscriptions: what they cost appends, memory, sweeps and a start; and the latency of wakes.

It is a program of its own, since only the latency compares servers::

    python -m benchmarks.subscriptions scale --mode file-durable
    python -m benchmarks.subscriptions latency --rounds 3
"""

import argparse
import contextlib
import http.client
import json
import os
import queue
import socket
import statistics
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from benchmarks.generator import HOST, Generator, build, pinned
from benchmarks.peers import NODE, Peer, install, ours_in
from benchmarks.servers import Server, start

BASE = "/v1/stream"
JSON = {"Content-Type": "application/json"}

#: Streams that have subscriptions, and streams that have none.
LINKED = f"{BASE}/linked/{{n}}"
PLAIN = f"{BASE}/plain/{{n}}"

#: The timeout of a phase that does something once for each stream, in seconds.
PATIENCE = 900


def subscribing(peer: Peer) -> Peer:
    """Return a peer that serves subscriptions, with webhooks to this machine."""
    if peer.name == "node":
        return replace(peer, command=(*peer.command, "webhooks"))
    settings = {
        "DS_SUBSCRIPTIONS__ENABLED": "true",
        "DS_HTTP__ALLOW_INSECURE_WEBHOOKS": "true",
    }
    return replace(peer, environment={**peer.environment, **settings})


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: object = None) -> bytes:
    """
    Send a request with a JSON body.

    :raises RuntimeError: it is refused.
    """
    connection.request(method, path, None if body is None else json.dumps(body), JSON)
    response = connection.getresponse()
    answer = response.read()
    if response.status >= 300:
        raise RuntimeError(f"{method} {path}: {response.status} {answer.decode(errors='replace')}")
    return answer


# The cost of many subscriptions


def metric(server: Server, name: str) -> float:
    """Return a metric without labels."""
    connection = server.connection(60)
    with contextlib.closing(connection):
        lines = ask(connection, "GET", "/metrics").decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


def mean_sweep(server: Server) -> float:
    """Return the mean duration of the sweeps of the next minute, in milliseconds."""
    name = "durable_streams_subscription_sweep_seconds"
    before = metric(server, f"{name}_sum"), metric(server, f"{name}_count")
    time.sleep(61)
    seconds, count = (
        metric(server, f"{name}_{each}") - old for each, old in zip(("sum", "count"), before, strict=True)
    )
    return seconds / count * 1000


def wait_until_idle(server: Server, seconds: float = 60) -> None:
    """Wait until a server has delivered all wakes and written what it writes in the background."""
    deadline = time.monotonic() + seconds
    before = server.processor_seconds()
    while time.monotonic() < deadline:
        time.sleep(1)
        now = server.processor_seconds()
        if now - before < 0.03:
            return
        before = now


def subscribe(server: Server, count: int, links: int, connections: int = 16) -> None:
    """Create subscriptions with so many links each, on several connections."""
    ask(server.connection(60), "PUT", f"{BASE}/wakes")

    def create(numbers: range) -> None:
        connection = server.connection(60)
        for number in numbers:
            streams = [f"linked/{each}" for each in range(number * links, (number + 1) * links)]
            body = {"type": "pull-wake", "streams": streams, "wake_stream": "wakes"}
            ask(connection, "PUT", f"{BASE}/__ds/subscriptions/s{number}", body)

    with ThreadPoolExecutor(connections) as threads:
        for done in [threads.submit(create, range(first, count, connections)) for first in range(connections)]:
            done.result()


class Load:
    """
    Appends to the streams of servers.

    :param generator: sends them.
    :param streams: the number of linked streams, and of others.
    """

    def __init__(self, generator: Generator, streams: int) -> None:
        self._generator = generator
        self._streams = streams

    def create(self, server: Server) -> None:
        """Create the streams."""
        for path in (LINKED, PLAIN):
            self._generator.run(
                "create", server.port, path, self._streams, connections=32, type="application/json", timeout=PATIENCE
            )

    def first(self, server: Server, path: str) -> float:
        """
        Append to each stream once, and wait until the wakes that this causes are delivered.

        :returns: the processor time of an append and its share of the wakes, in microseconds.
        """
        before = server.processor_seconds()
        self._generator.run(
            "fill", server.port, path, 32, 100, streams=self._streams, type="application/json", timeout=PATIENCE
        )
        wait_until_idle(server)
        return (server.processor_seconds() - before) / self._streams * 1e6

    def append(self, server: Server, path: str, seconds: float) -> tuple[float, float]:
        """
        Append to all streams in turn.

        :returns: the appends per second, and the processor time of each in microseconds.
        """
        before = server.processor_seconds()
        run = self._generator.run(
            "append", server.port, path, 32, seconds, 100, streams=self._streams, type="application/json"
        )
        spent = server.processor_seconds() - before
        return run["per_second"], spent / (run["per_second"] * seconds) * 1e6


def compare(options: argparse.Namespace, load: Load, without: Server, beside: Server) -> None:
    """
    Print what appends cost on a server without subscriptions and on one with them.

    The two are measured in turn, in slices of a second or so, and compared slice by slice: whatever else the machine
    does concerns both.
    """
    for path, kind in ((PLAIN, "unlinked"), (LINKED, "linked")):
        first = load.first(without, path), load.first(beside, path)
        print(
            f"first append to each of the {kind} streams: {first[0]:.1f} us without, {first[1]:.1f} us with", flush=True
        )
    for path, kind in ((PLAIN, "unlinked"), (LINKED, "linked")):
        slices = []
        for number in range(options.slices):
            # Which comes first changes, since what else runs may be in step with the slices.
            pair = [without, beside] if number % 2 else [beside, without]
            found = {server: load.append(server, path, options.seconds) for server in pair}
            slices.append((*found[without], *found[beside]))
        rates, spents, other_rates, other_spents = zip(*slices, strict=True)
        rate = statistics.median(after / before for before, _, after, _ in slices)
        spent = statistics.median(after / before for _, before, _, after in slices)
        print(
            f"appends to {kind} streams: {statistics.median(rates):,.0f}/s without, "
            f"{statistics.median(other_rates):,.0f}/s with, ratio {rate:.3f}; "
            f"{statistics.median(spents):.1f} us and {statistics.median(other_spents):.1f} us of processor time, "
            f"ratio {spent:.3f}",
            flush=True,
        )


def scale(options: argparse.Namespace, load: Load, without: Server, beside: Server) -> None:
    """Print what subscriptions cost, on two servers that have just started."""
    links = options.subscriptions * options.links
    for server in (without, beside):
        load.create(server)
    before = beside.settled()
    begun = time.monotonic()
    subscribe(beside, options.subscriptions, options.links)
    created = options.subscriptions / (time.monotonic() - begun)
    print(f"{options.subscriptions:,} subscriptions of {options.links} links: {created:,.0f} created/s", flush=True)
    print(f"memory: {(beside.settled() - before) / links:,.0f} bytes a link", flush=True)
    compare(options, load, without, beside)
    print(f"sweep: {mean_sweep(beside):.1f} ms", flush=True)
    if beside.peer.keeps:
        for server, label in ((without, "without"), (beside, "with")):
            server.kill()
            print(f"start {label}: {server.restart():.2f} s", flush=True)
        ask(beside.connection(60), "GET", f"{BASE}/__ds/subscriptions/s{options.subscriptions - 1}")


# The latency of a wake


class Receiver:
    """
    A receiver of webhooks that acknowledges each at once, on connections in threads.

    :ivar arrivals: the time at which each request was complete.
    """

    def __init__(self) -> None:
        self.arrivals: queue.Queue[float] = queue.Queue()
        self._listener = socket.create_server((HOST, 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Stop it."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        answer = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 13\r\n\r\n{"done":true}'
        received = b""
        with connection, contextlib.suppress(OSError):
            while data := connection.recv(65536):
                received += data
                head, end, body = received.partition(b"\r\n\r\n")
                if not end:
                    continue
                fields = [line.split(b":", 1) for line in head.split(b"\r\n")[1:]]
                length = next(int(value) for name, value in fields if name.lower() == b"content-length")
                if len(body) >= length:
                    self.arrivals.put(time.perf_counter())
                    received = body[length:]
                    connection.sendall(answer)


@contextlib.contextmanager
def receiving() -> Iterator[Receiver]:
    """Run a receiver for the length of a block."""
    receiver = Receiver()
    try:
        yield receiver
    finally:
        receiver.close()


def latencies(server: Server, receiver: Receiver, count: int) -> list[float]:
    """
    Append to a stream, and wait for the webhook, again and again.

    :returns: the milliseconds from just before an append is sent to the arrival of its webhook.
    """
    connection = server.connection(30)
    ask(connection, "PUT", f"{BASE}/events/1")
    webhook = {"url": f"http://{HOST}:{receiver.port}/"}
    ask(
        connection,
        "PUT",
        f"{BASE}/__ds/subscriptions/s",
        {"type": "webhook", "pattern": "events/*", "webhook": webhook},
    )
    found = []
    for number in range(count):
        begun = time.perf_counter()
        ask(connection, "POST", f"{BASE}/events/1", {"n": number})
        found.append((receiver.arrivals.get(timeout=30) - begun) * 1000)
        # Let the server record the answer: until then, the append would be part of the same wake.
        time.sleep(0.05)
    return found[count // 10 :]


def percentiles(values: Sequence[float]) -> str:
    """Render the median and the 99th percentile."""
    cuts = statistics.quantiles(values, n=100)
    return f"p50 {cuts[49]:.2f} ms, p99 {cuts[98]:.2f} ms"


def latency(options: argparse.Namespace, peers: Sequence[Peer]) -> None:
    """Print the latency of wakes, of each peer in turn."""
    found: dict[str, list[float]] = {peer.name: [] for peer in peers}
    for _ in range(options.rounds):
        for peer in peers:
            with start(peer, options.server_core, options.folder) as server, receiving() as receiver:
                values = latencies(server, receiver, options.wakes)
            found[peer.name] += values
            print(f"{peer.name}: {percentiles(values)}", flush=True)
    for name, values in found.items():
        print(f"{name}, all rounds: {percentiles(values)} of {len(values)} wakes", flush=True)


def main(words: Sequence[str] | None = None) -> None:
    """Run the command line."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "durable-streams-benchmarks"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("scale", "latency"))
    parser.add_argument("--mode", default="file-durable", help="the storage mode of this server")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of latency")
    parser.add_argument("--slices", type=int, default=30, help="slices of appends on each server")
    parser.add_argument("--seconds", type=float, default=1, help="length of a slice of appends")
    parser.add_argument("--streams", type=int, default=100_000)
    parser.add_argument("--subscriptions", type=int, default=10_000)
    parser.add_argument("--links", type=int, default=5, help="streams of a subscription")
    parser.add_argument("--wakes", type=int, default=500, help="wakes of a round of latency")
    parser.add_argument("--server-core", type=int, default=0)
    parser.add_argument("--load-core", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=cache, help="where packages are installed")
    options = parser.parse_args(words)
    if options.what == "latency":
        install(NODE, options.folder)
        with pinned(options.load_core):
            latency(options, [subscribing(ours_in("memory")), subscribing(ours_in(options.mode)), subscribing(NODE)])
    else:
        half = options.streams // 2
        if options.subscriptions * options.links > half:
            parser.error("--streams must be at least twice the number of links")
        load = Load(Generator(build(options.folder), options.load_core), half)
        peer = subscribing(ours_in(options.mode))
        with (
            start(peer, options.server_core, options.folder) as without,
            start(peer, options.server_core, options.folder) as beside,
        ):
            scale(options, load, without, beside)


if __name__ == "__main__":
    main()
