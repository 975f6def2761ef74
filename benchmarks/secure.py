"""Benchmarks of TLS and HTTP/2, with h2load."""

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.figures import Outcome
from benchmarks.generator import HOST, Generator, pinned
from benchmarks.servers import Server
from benchmarks.speed import BASE, Load

_FINISHED = re.compile(r"finished in [0-9.]+m?s, ([0-9.]+) req/s")
_REQUESTS = re.compile(r"([0-9]+) done, ([0-9]+) succeeded, ([0-9]+) failed, ([0-9]+) errored, ([0-9]+) timeout")
_STATUSES = re.compile(r"status codes: ([0-9]+) 2xx, ([0-9]+) 3xx, ([0-9]+) 4xx, ([0-9]+) 5xx")


def secure(server: Server, generator: Generator, load: Load) -> Outcome:
    """
    Measure appends of one small body each on kept connections, over HTTP/1.1 and, with TLS, HTTP/2.

    :param server: the server.
    :param generator: whose core h2load has.
    :param load: how much.
    :returns: appends per second, and the server's processor time for one.
    """
    outcome = Outcome()
    with _prepared(server, load, outcome) as (words, body, urls):
        if words:
            words += ["-m", "1", "-c", str(load.connections), *body]
            _measure(server, generator, load, [*words, "--h1"], urls, "secure_http1", outcome)
            if server.peer.secure:
                _measure(server, generator, load, words, urls, "secure_http2", outcome)
    return outcome


def http2(server: Server, generator: Generator, load: Load) -> Outcome:
    """
    Measure appends and reads of the tail over HTTP/2 and TLS: 16 connections with 10 requests each at a time.

    :param server: the server.
    :param generator: whose core h2load has.
    :param load: how much.
    :returns: requests per second, and the server's processor time for one.
    """
    outcome = Outcome()
    with _prepared(server, load, outcome) as (words, body, urls):
        if words:
            words += ["-m", "10", "-c", "16"]
            _measure(server, generator, load, [*words, *body], urls, "http2_appends", outcome)
            reads = [f"{url}?offset=now" for url in urls]
            _measure(server, generator, load, words, reads, "http2_reads", outcome)
    return outcome


@contextlib.contextmanager
def _prepared(server: Server, load: Load, outcome: Outcome) -> Iterator[tuple[list[str], list[str], list[str]]]:
    """Create streams; return the words of h2load's command, those of a body, and the URLs of the streams."""
    program = shutil.which("h2load")
    if program is None:
        outcome.faults.append("h2load is not installed: apt-get install nghttp2-client")
        yield [], [], []
        return
    paths = [f"{BASE}/secure/{number}" for number in range(load.streams)]
    connection = server.connection(10)
    for path in paths:
        connection.request("PUT", path, headers={"Content-Type": load.content_type})
        connection.getresponse().read()
    connection.close()
    scheme = "https" if server.peer.secure else "http"
    with TemporaryDirectory() as folder:
        body = Path(folder, "body")
        body.write_text('"' + "x" * (load.size - 2) + '"')
        words = ["-d", str(body), "-H", f"content-type: {load.content_type}"]
        yield [program, "-t", "1"], words, [f"{scheme}://{HOST}:{server.port}{path}" for path in paths]


def _measure(
    server: Server, generator: Generator, load: Load, words: list[str], urls: list[str], figure: str, outcome: Outcome
) -> None:
    def run(seconds: float) -> str:
        with pinned(generator.core):
            command = [*words, "-D", f"{seconds:g}", *urls]
            return subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False).stdout

    if load.warmup:
        run(load.warmup)
    before = server.processor_seconds()
    said = run(load.seconds)
    spent = server.processor_seconds() - before
    speed, requests, statuses = _FINISHED.search(said), _REQUESTS.search(said), _STATUSES.search(said)
    if speed is None or requests is None or statuses is None:
        outcome.faults.append(f"h2load says no figures; the server is {server.state}")
        return
    bad = sum(map(int, statuses.groups()[1:])) + int(requests[3])
    if bad:
        outcome.faults.append(f"{figure}: {bad} requests were not answered as they should be")
    outcome.figures[figure] = float(speed[1])
    outcome.figures[f"{figure}_cpu"] = spent * 1e6 / max(int(requests[1]), 1)
