"""Daemons that are killed, one after the other, on one data directory.

They are forked from a process that has everything imported, and are the ``twistd`` command from then on.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import twisted.application.app
import twisted.scripts.twistd
from msgspec import Struct
from msgspec.structs import replace

from durable_streams.server.daemon import storages
from durable_streams.server.storage.acid import log as acid_log
from durable_streams.server.storage.acid import storage as acid
from durable_streams.server.storage.file import FileSettings, FileStorage
from durable_streams.server.storage.logged.commit_queue import CommitQueue
from durable_streams.server.subscriptions import requests as subscription_requests
from durable_streams.server.subscriptions.dispatching import Dispatcher
from durable_streams.server.subscriptions.entry import Entry

from .daemon import PATIENCE, free_port
from .exchanges import Exchanges, Gone, Reply
from .forks import install_reactor, start_fork
from .trapped_database import trapped_connect
from .traps import KILL, Snare, Trap, TrappedDisk


class Order(Struct, frozen=True):
    """
    The configuration of a daemon.

    :ivar settings: by their names in the environment, without the prefix.
    :ivar file: fields of :class:`.FileSettings` that are other than what the settings come to.
    :ivar log_size: how large an acid storage's write-ahead log may grow; None for as large as usual.
    :ivar passages: a file that is to say, as JSON, how often each point was passed by the end.
    :ivar folder: where it runs, and leaves its pid file; None for here, and for no pid file.
    """

    settings: dict[str, str]
    file: dict[str, Any] = {}
    log_size: int | None = None
    snare: Snare | None = None
    passages: str | None = None
    folder: str | None = None


def serve(order: Order, log: str) -> None:
    """Run a daemon in this process, which was forked for it."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    for name in [name for name in os.environ if name.startswith("DS_")]:
        del os.environ[name]
    os.environ.update({f"DS_{name.upper()}": value for name, value in order.settings.items()})
    install_reactor()
    trap = Trap(order.snare)
    _set_traps(trap, order.file)
    if order.log_size is not None:
        acid_log._LOG_SIZE = order.log_size  # type: ignore[misc]
    sys.argv = ["twistd", "-n", "--pidfile=", "durable-streams"]
    if order.folder is not None:
        os.chdir(order.folder)
        sys.argv.remove("--pidfile=")
    try:
        twisted.scripts.twistd.run()
    finally:
        if order.passages is not None:
            Path(order.passages).write_text(json.dumps(trap.passed))


def _set_traps(trap: Trap, file_settings: dict[str, Any]) -> None:
    def file_storage(directory: str, reactor: Any, limits: Any, settings: FileSettings) -> FileStorage:
        return FileStorage(
            directory, reactor, limits, replace(settings, **file_settings), disk=TrappedDisk(directory, trap)
        )

    acid.connect = trapped_connect(trap)  # type: ignore[attr-defined]
    storages.FileStorage = file_storage  # type: ignore[assignment,attr-defined]
    trap.wrap(CommitQueue, "_committed", "answers")
    # Where a wake is saved, where its delivery has an outcome, and where an ack is saved.
    trap.wrap(Dispatcher, "_send_webhook", "webhook/send")
    trap.wrap(Dispatcher, "_append_event", "event/append")
    trap.wrap(subscription_requests, "acked", "ack/answer")
    save = Dispatcher._save

    def trapped_save(dispatcher: Dispatcher, entry: Entry, *outcome: Any) -> Any:
        is_webhook = entry.current is None or entry.current.subscription.config.type == "webhook"
        what = "webhook/record" if is_webhook else "event/record"
        return trap.around(what, lambda: save(dispatcher, entry, *outcome))

    Dispatcher._save = trapped_save  # type: ignore[assignment,method-assign]


class KilledDaemon:
    """
    A running daemon, with its port and its log.

    :param folder: where its log is, and that of others before it.
    """

    def __init__(self, order: Order, folder: str | Path, port: int | None = None) -> None:
        self.port = free_port() if port is None else port
        self._log = Path(folder, "log")
        self._log_begin = self._log.stat().st_size if self._log.exists() else 0
        order = replace(order, settings={"server__bind_address": f"127.0.0.1:{self.port}"} | order.settings)
        self.process = start_fork(serve, order, str(self._log))

    def __enter__(self) -> KilledDaemon:
        self.wait_until_ready()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def is_ready(self) -> bool:
        """Wait until it serves or dies, and return whether it serves."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.process.exitcode is None:
            try:
                if self.ask("GET", "/readyz").status == 200:
                    return True
            except Gone:
                pass
            self.process.join(0.005)
        return False

    def wait_until_ready(self) -> None:
        """
        Wait until it serves.

        :raises AssertionError: it does not.
        """
        if not self.is_ready():
            status = self.process.exitcode
            self.kill()
            raise AssertionError(f"The daemon did not come up (exit status {status}):\n{self.log()}")

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> Reply:
        """Ask on a connection of its own: ``content_type="text/plain"`` is a header."""
        with Exchanges(self.port) as exchanges:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            return exchanges.ask(method, path, body, named)

    def create(self, name: str, body: bytes = b"", content_type: str = "text/plain") -> None:
        """Make a stream."""
        reply = self.ask("PUT", f"/v1/stream/{name}", body, content_type=content_type)
        assert reply.status == 201, reply

    def append(self, name: str, data: bytes, content_type: str = "text/plain") -> None:
        """Append to it."""
        reply = self.ask("POST", f"/v1/stream/{name}", data, content_type=content_type)
        assert reply.status == 204, reply

    def read(self, name: str) -> bytes:
        """Read all of it."""
        reply = self.ask("GET", f"/v1/stream/{name}?offset=-1")
        assert reply.status == 200, reply
        return reply.body

    def kill(self) -> int:
        """Kill it if it runs, and return how it ended."""
        self.process.kill()
        return self.wait()

    def terminate(self) -> int:
        """Send SIGTERM, and return how it ended."""
        self.process.terminate()
        return self.wait()

    def wait(self, seconds: float = PATIENCE) -> int:
        """
        Wait for its end, and return its exit status, or minus a signal's number.

        :raises AssertionError: it does not end.
        """
        self.process.join(seconds)
        status = self.process.exitcode
        if status is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"The daemon did not end within {seconds} s:\n{self.log()}")
        return status

    def log(self) -> str:
        """Return its log."""
        with self._log.open("rb") as file:
            file.seek(self._log_begin)
            return file.read().decode(errors="replace")


#: The exit status of a killed process.
KILLED = -signal.SIGKILL

__all__ = ["KILL", "KILLED", "KilledDaemon", "Order", "Snare", "serve"]
