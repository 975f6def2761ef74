"""Soak of two nodes on one database: a mixed load, of which a node is killed every minute, and nothing may grow."""

import argparse
import contextlib
import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from benchmarks.databases import Database, fresh
from benchmarks.generator import HOST
from benchmarks.peers import MEBIBYTE, POSTGRES
from benchmarks.servers import Server, start
from benchmarks.speed import BASE

#: The clients of each kind, and the pause between requests of one of them, in seconds.
_WRITERS: Final = 12
_PAUSE: Final = 0.01

#: A writer reads, compares and deletes its stream after so many appends, and begins another one.
_APPENDS: Final = 1_000

#: How long a request is sent again before it counts as failed, in seconds.
_PATIENCE: Final = 30.0

#: How often figures are printed, in seconds.
_EVERY: Final = 15.0

_TABLES: Final = """
SELECT c.relname, pg_total_relation_size(c.oid) / 1024, s.n_live_tup, s.n_dead_tup
FROM pg_class AS c JOIN pg_stat_user_tables AS s ON s.relid = c.oid
WHERE c.relnamespace = 'durable_streams'::regnamespace ORDER BY 2 DESC
"""


class Load:
    """
    The clients, each a thread with a connection of its own that moves to the other node if its node does not answer.

    :ivar problems: what was lost, doubled or damaged, in words.
    :ivar counts: how often each kind of request was answered, and ``again`` how often one was sent again.
    """

    def __init__(self, nodes: list[Server]) -> None:
        self._nodes = nodes
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._newest = [f"{BASE}/soak/{number}/0" for number in range(_WRITERS)]
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()

    def start(self) -> None:
        """Start the clients."""
        clients: list[Callable[[int], None]] = [*[self._write] * _WRITERS, *[self._create] * 2, *[self._follow] * 4]
        for number, client in enumerate(clients):
            self._threads.append(threading.Thread(target=self._run, args=(client, number), daemon=True))
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop the clients and wait for them."""
        self._over.set()
        for thread in self._threads:
            thread.join(_PATIENCE + 10)
            if thread.is_alive():
                self._problem("a client did not end")

    def _run(self, client: Callable[[int], None], number: int) -> None:
        try:
            client(number)
        except Exception as error:
            self._problem(f"{client.__name__} {number}: {error!r}")

    def _problem(self, text: str) -> None:
        with self._lock:
            self.problems.append(text)

    def _count(self, kind: str) -> None:
        with self._lock:
            self.counts[kind] += 1

    def _write(self, number: int) -> None:
        """Append as an idempotent producer, compare what is there with what was acknowledged, delete it, and repeat."""
        client = Client(self._nodes, number, self._count)
        generation = 0
        while not self._over.is_set():
            path = f"{BASE}/soak/{number}/{generation}"
            client.expect("PUT", path, (200, 201))
            self._newest[number] = path
            written = b""
            for seq in range(_APPENDS):
                if self._over.is_set():
                    break
                body = b"%d,%d;" % (number, seq) + b"x" * 240 + b"\n"
                producer = {"Producer-Id": f"w{number}", "Producer-Epoch": "0", "Producer-Seq": str(seq)}
                client.expect("POST", path, (200, 204), body, producer)
                written += body
                time.sleep(_PAUSE)
            found = client.whole(path)
            if found != written:
                self._problem(f"{path}: {len(found)} bytes instead of {len(written)}, or others")
            client.expect("DELETE", path, (204, 404))
            generation += 1

    def _create(self, number: int) -> None:
        """Create streams that expire, and append once to each."""
        client = Client(self._nodes, number, self._count)
        generation = 0
        while not self._over.is_set():
            path = f"{BASE}/mortal/{number}/{generation}"
            client.expect("PUT", path, (200, 201), headers={"Stream-TTL": "5"})
            client.expect("POST", path, (200, 204), b"x" * 100)
            generation += 1
            time.sleep(10 * _PAUSE)

    def _follow(self, number: int) -> None:
        """Read the newest streams of writers from their beginnings, and wait at their tails for the next append."""
        client = Client(self._nodes, number, self._count)
        chosen = random.Random(number)
        while not self._over.is_set():
            path = chosen.choice(self._newest)
            client.request("GET", f"{path}?offset=-1")
            client.request("GET", f"{path}?offset=now&live=long-poll")
            time.sleep(_PAUSE * 5)


class Client:
    """
    A client that sends a request again, to the other node, until it is answered.

    :param count: is called with the kind of each answered request.
    """

    def __init__(self, nodes: list[Server], number: int, count: Callable[[str], None]) -> None:
        self._nodes = nodes
        self._turn = number
        self._count = count
        self._connection: http.client.HTTPConnection | None = None

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, bytes, http.client.HTTPMessage]:
        """Return the status, body and headers of the first answer below 500."""
        until = time.monotonic() + _PATIENCE
        sent = {"Content-Type": "application/octet-stream"} | (headers or {})
        while True:
            try:
                if self._connection is None:
                    self._turn += 1
                    port = self._nodes[self._turn % len(self._nodes)].port
                    self._connection = http.client.HTTPConnection(HOST, port, timeout=10)
                self._connection.request(method, path, body, sent)
                response = self._connection.getresponse()
                received = response.read()
                if response.status < 500:
                    self._count(method)
                    return response.status, received, response.headers
            except (OSError, http.client.HTTPException):
                pass
            self._count("again")
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            if time.monotonic() > until:
                raise TimeoutError(f"{method} {path} was not answered within {_PATIENCE:g} s")
            time.sleep(0.05)

    def expect(
        self,
        method: str,
        path: str,
        statuses: tuple[int, ...],
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Send a request that must be answered with one of some statuses."""
        status, received, _ = self.request(method, path, body, headers)
        if status not in statuses:
            raise AssertionError(f"{method} {path}: {status} {received[:200]!r}")

    def whole(self, path: str) -> bytes:
        """Return all bytes of a stream, each piece from the other node."""
        found, offset = b"", "-1"
        while True:
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            _, body, headers = self.request("GET", f"{path}?offset={offset}")
            found += body
            offset = headers["Stream-Next-Offset"]
            if headers["Stream-Up-To-Date"] == "true":
                return found


def _figures(database: Database, nodes: list[Server], load: Load, began_at: float) -> None:
    memory = " ".join(f"{node.resident() / MEBIBYTE:.0f}" for node in nodes)
    tables = " ".join(
        f"{name} {size / 1024:.1f} MiB ({live:,} + {dead:,} dead)"
        for name, size, live, dead in database.server.run(_TABLES, database=database.name)[:4]
    )
    [(connections,)] = database.server.run(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()", database=database.name
    )
    answered = " ".join(f"{kind} {count:,}" for kind, count in sorted(load.counts.items()))
    print(
        f"{time.monotonic() - began_at:5.0f} s: nodes {memory} MiB; {tables}; {connections} connections; {answered}; "
        f"problems {len(load.problems)}",
        flush=True,
    )


@contextlib.contextmanager
def _two_nodes(database: Database, options: argparse.Namespace) -> Iterator[list[Server]]:
    with (
        start(POSTGRES, options.server_core, options.cache_folder, database=database) as first,
        first.beside() as other,
    ):
        yield [first, other]


def run(options: argparse.Namespace) -> int:
    """Run the soak of the command line; return the exit status: 1 if anything was lost."""
    with fresh(options.database_core) as database, _two_nodes(database, options) as nodes:
        load = Load(nodes)
        load.start()
        began_at = time.monotonic()
        killed = 0
        while (now := time.monotonic() - began_at) < options.minutes * 60:
            if now > (killed + 1) * options.kill_every:
                node = nodes[killed % 2]
                node.kill()
                print(f"{now:5.0f} s: killed a node; ready again after {node.restart(60):.1f} s", flush=True)
                killed += 1
            time.sleep(_EVERY)
            _figures(database, nodes, load, began_at)
        load.stop()
        for problem in load.problems:
            print(f"PROBLEM: {problem}")
        print(f"{killed} kills, {load.counts['POST']:,} appends, {len(load.problems)} problems")
        return int(bool(load.problems))
