"""The HTTP fronts of the server, each as a real process for suites that speak to it over a socket."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from tests.support.authority import authority

CHECKOUT = Path(__file__).resolve().parents[2]
FRONTS = ("daemon", "web")

#: Two daemons that share a storage, behind a proxy.
PAIR = "pair"

#: What is added to a front's name where it serves over TLS.
SECURE = "-https"
SECURE_FRONTS = tuple(front + SECURE for front in FRONTS)

#: The storages, and the variables that choose each.
STORAGES: Mapping[str, Mapping[str, str]] = {
    "memory": {"DS_STORAGE__MODE": "memory"},
    "file-fast": {"DS_STORAGE__MODE": "file-fast"},
    "file-durable": {"DS_STORAGE__MODE": "file-durable"},
    "acid": {"DS_STORAGE__MODE": "acid"},
    "acid-in-memory": {"DS_STORAGE__MODE": "acid", "DS_STORAGE__ACID_BACKEND": "in-memory"},
    "postgres": {"DS_STORAGE__MODE": "postgres"},
}

#: PostgreSQL behind pgbouncer; not among those that are all tested.
POOLED = "postgres-pgbouncer"

#: The storages that several servers can share, each a front that suites speak to.
SHARED_STORAGES = ("postgres", POOLED)
LONG_POLL_SECONDS = 2
"""How long the server holds an idle long-poll: short, because the suites wait for it to run out."""

START_SECONDS = 30.0
STOP_SECONDS = 20.0
CLEAN_EXIT_STATUS = 0
LOG_LINES_SHOWN = 25
TRACEBACK = "Traceback (most recent call last)"


class FrontFailure(Exception):
    """A front did not come up."""


def chosen_fronts(choice: str) -> tuple[str, ...]:
    """Name the fronts meant by a command line's ``--front``."""
    return {"all": (*FRONTS, PAIR), "both": FRONTS, "secure": SECURE_FRONTS}.get(choice, (choice,))


def environment_of(storage: str) -> dict[str, str]:
    """Return the variables that choose a storage; where it needs a database, that is a new one."""
    if storage not in SHARED_STORAGES:
        return dict(STORAGES[storage])
    from tests.support.postgres_server import shared_server  # noqa: PLC0415 (psycopg is not everywhere)

    server = shared_server()
    pooled = storage == POOLED
    dsn = server.dsn(server.create_database(), over_tcp=pooled)
    return {**STORAGES["postgres"], "DS_STORAGE__POSTGRES__DSN": _through_pgbouncer(dsn) if pooled else dsn}


def _through_pgbouncer(dsn: str) -> str:
    """Start pgbouncer, which ends with this process, and return the connection string that leads through it."""
    from tests.support.pgbouncer import Pgbouncer, pool_mode  # noqa: PLC0415 (psycopg is not everywhere)

    pooler = Pgbouncer(dsn, pool_mode(), default_pool_size=100)
    atexit.register(pooler.remove)
    pooler.start()
    return pooler.dsn


@dataclass(frozen=True)
class Launch:
    """How to start one front on one port."""

    command: tuple[str, ...]
    cwd: Path
    environment: dict[str, str]


def launch_of(
    front: str, python: Path, port: int, elsewhere: Path, storage: Mapping[str, str] = STORAGES["memory"]
) -> Launch:
    """Return how to start `front` with the virtual environment of `python`.

    `storage` has the variables that choose the storage. The daemon runs `elsewhere`, away from the checkout, so that
    what it serves with is what was installed.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DS_")}
    environment.update(storage)
    environment["DS_STORAGE__DATA_DIR"] = str(elsewhere / "data")
    environment["DS_SERVER__BIND_ADDRESS"] = f"127.0.0.1:{port}"
    environment["DS_SUBSCRIPTIONS__ENABLED"] = "true"
    # The receivers of the suite are on this machine, without TLS.
    environment["DS_HTTP__ALLOW_INSECURE_WEBHOOKS"] = "true"
    environment["DS_TRANSPORT__CONNECTION__LONG_POLL_TIMEOUT_SECS"] = str(LONG_POLL_SECONDS)
    if front.endswith(SECURE):
        front = front.removesuffix(SECURE)
        certificate, key = authority().issue().write(elsewhere, "server")
        environment["DS_TRANSPORT__MODE"] = "tls"
        environment["DS_TRANSPORT__TLS__CERT_PATH"] = certificate
        environment["DS_TRANSPORT__TLS__KEY_PATH"] = key
    if front == "daemon":
        twistd = python.parent / "twistd"
        return Launch((str(twistd), "-n", "--pidfile=", "durable-streams"), elsewhere, environment)
    if front == "web":
        return Launch((str(python), "-m", "tests.support.web_front", str(port)), CHECKOUT, environment)
    raise ValueError(f"no front is called {front!r}")


def free_port() -> int:
    """Find a port of the loopback interface that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class FrontProcess:
    """
    One front, from its start to its exit status.

    :ivar authority: a file with the certificate that clients are to trust; None where there is no TLS.

    :param environment: the variables that choose the storage, instead of those of ``storage``.
    """

    def __init__(
        self,
        front: str,
        python: Path | None = None,
        storage: str = "memory",
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.front = front
        self._storage = environment_of(storage) if environment is None else environment
        self._python = python or Path(sys.executable)
        self._port = free_port()
        self._place = tempfile.TemporaryDirectory(prefix=f"durable-streams-{front}-")
        self._log = Path(self._place.name) / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.authority: Path | None = None
        if front.endswith(SECURE):
            self.authority = Path(self._place.name) / "authority.pem"
            self.authority.write_bytes(authority().certificate_pem)

    @property
    def base_url(self) -> str:
        """Where the front listens, without a path."""
        return f"{'http' if self.authority is None else 'https'}://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start the process and wait until its health page answers."""
        launch = launch_of(self.front, self._python, self._port, Path(self._place.name), self._storage)
        with self._log.open("wb") as log:
            try:
                self._process = subprocess.Popen(
                    launch.command,
                    cwd=launch.cwd,
                    env=launch.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            except OSError as error:
                self._place.cleanup()
                raise FrontFailure(f"cannot run {launch.command[0]}: {error}") from error
        try:
            self._wait_for_health()
        except BaseException:
            self._end()
            raise

    def stop(self) -> list[str]:
        """Stop the process by SIGTERM, and return what was wrong with its end or with its log."""
        try:
            complaints = self._end_politely()
            tracebacks = self._log_text().count(TRACEBACK)
            if tracebacks:
                complaints.append(f"the server's log holds {tracebacks} traceback(s), the first:\n{self._traceback()}")
            elif complaints:
                complaints[-1] += f"\n{self.log_tail()}"
        finally:
            self._end()
        return complaints

    def log_tail(self) -> str:
        """Return the last lines the process wrote."""
        return "\n".join(self._log_text().splitlines()[-LOG_LINES_SHOWN:])

    def _traceback(self) -> str:
        lines = self._log_text().splitlines()
        first = next(number for number, line in enumerate(lines) if TRACEBACK in line)
        return "\n".join(lines[max(first - 3, 0) : first + LOG_LINES_SHOWN])

    def _wait_for_health(self) -> None:
        process = self._running()
        context = None if self.authority is None else ssl.create_default_context(cafile=self.authority)
        deadline = time.monotonic() + START_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(f"{self.base_url}/healthz", timeout=2, context=context) as answer:
                    if answer.status == HTTPStatus.OK:
                        return
            except OSError:
                time.sleep(0.1)
        if process.returncode is None:
            what = f"did not answer at /healthz within {START_SECONDS:.0f} s"
        else:
            what = f"ended with status {process.returncode} while it was starting"
        raise FrontFailure(f"the server {what}\n{self.log_tail()}")

    def _end_politely(self) -> list[str]:
        process = self._running()
        if process.poll() is not None:
            return [f"the server was gone before it was stopped, with status {process.returncode}"]
        process.send_signal(signal.SIGTERM)
        try:
            status = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            return [f"the server still ran {STOP_SECONDS:.0f} s after SIGTERM"]
        return [] if status == CLEAN_EXIT_STATUS else [f"the server ended with status {status} after SIGTERM"]

    def _log_text(self) -> str:
        return self._log.read_text("utf-8", errors="replace")

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("the front was not started")
        return self._process

    def _end(self) -> None:
        process = self._running()
        if process.poll() is None:
            process.kill()
            process.wait()
        self._place.cleanup()
