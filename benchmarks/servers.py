"""A peer's process on one core: start, wait, memory, stop, kill and restart."""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

from benchmarks.databases import Database, NoDatabase, fresh
from benchmarks.generator import HOST, pinned
from benchmarks.peers import CHECKOUT, HERE, MEBIBYTE, Peer, crate_folder
from tests.support.authority import authority


class ServerFailed(Exception):
    """A server did not start, or died; the message has the end of its log."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Server:
    """
    A running server: the process group that its command started.

    :param peer: which one.
    :param core: the core for all of its threads.
    :param folder: where its packages are installed.
    :param work: its own folder, empty.
    :param open_files: how many descriptors it may have, or None for as many as the caller.
    :param database: the database of a peer that needs one.
    :raises ServerFailed: there is no such program.
    """

    def __init__(
        self,
        peer: Peer,
        core: int,
        folder: Path,
        work: Path,
        open_files: int | None = None,
        database: Database | None = None,
    ) -> None:
        self.peer = peer
        self.port = _free_port()
        self.database = database
        self._core = core
        self._folder = folder
        self._work = work
        places = {
            "port": self.port,
            "folder": folder,
            "crate": crate_folder(peer, folder),
            "work": work,
            "here": HERE,
            "scripts": Path(sys.executable).parent,
            "checkout": CHECKOUT,
            "dsn": database.dsn if database is not None else "",
        }
        inherited = {name: value for name, value in os.environ.items() if not (peer.sealed and name.startswith("DS_"))}
        fixed = {name: value.format(**places) for name, value in peer.environment.items()}
        self._environment = {**peer.defaults, **inherited, **fixed}
        self._command = [word.format(**places) for word in peer.command]
        if shutil.which(self._command[0]) is None:
            raise ServerFailed(f"{peer.name}: there is no {self._command[0]}")
        if peer.secure:
            authority().issue().write(work, "server")
        if open_files is not None:  # the hard limit too, since some servers raise the soft one to it
            self._command = ["sh", "-c", f'ulimit -n {open_files} && exec "$@"', "sh", *self._command]
        self._launch()

    def _launch(self) -> None:
        with (self._work / "log").open("ab") as output, pinned(self._core):
            self._leader = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._work,
                env=self._environment,
                start_new_session=True,
            )

    def beside(self, **settings: str) -> "AbstractContextManager[Server]":
        """
        Run another server on the same database and core for the length of a block.

        :param settings: variables of its environment that differ.
        """
        peer = replace(self.peer, environment={**self.peer.environment, **settings})
        return start(peer, self._core, self._folder, database=self.database)

    @property
    def alive(self) -> bool:
        """True if the started process still runs."""
        return self._leader.poll() is None

    @property
    def state(self) -> str:
        """Whether it runs, or how it ended, in words."""
        return "alive" if self.alive else f"dead:\n{self.complaint()}"

    def complaint(self) -> str:
        """
        Return the end of its output.

        :returns: up to ten lines.
        """
        return "\n".join((self._work / "log").read_text(encoding="utf-8", errors="replace").splitlines()[-10:])

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        """
        Open a connection to it for the length of a block.

        :param timeout: the seconds that anything may take.
        """
        if not self.peer.secure:
            return http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        context = ssl.create_default_context(cadata=authority().certificate_pem.decode())
        return http.client.HTTPSConnection(HOST, self.port, timeout=timeout, context=context)

    def answers(self, path: str) -> bool:
        """
        Return whether it answers a GET with a status below 500.

        :param path: the path.
        """
        connection = self.connection(2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def await_ready(self, seconds: float = 30) -> None:
        """
        Wait until it reports that it is ready.

        :param seconds: for how long at most.
        :raises ServerFailed: it ended, or never was.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.alive:
            if self.answers(self.peer.ready):
                return
            time.sleep(0.01)
        raise ServerFailed(f"{self.peer.name} did not start:\n{self.complaint()}")

    def restart(self, seconds: float = 600) -> float:
        """
        Restart it on its data after :meth:`stop` or :meth:`kill`, and wait until it is ready.

        :param seconds: for how long at most.
        :returns: the seconds that it took.
        :raises ServerFailed: it ended, or never was ready.
        """
        started = time.monotonic()
        self._launch()
        self.await_ready(seconds)
        return time.monotonic() - started

    def _members(self) -> Iterator[tuple[Path, list[str]]]:
        """Return the processes of its group: their folders in /proc, and their stat from the third field on."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):  # the process has ended meanwhile
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[2]) == self._leader.pid:
                    yield entry, fields

    def _memory(self, name: str) -> int:
        total = 0
        for entry, _ in self._members():
            with contextlib.suppress(OSError):
                for line in (entry / "status").read_text().splitlines():
                    if line.startswith(name + ":"):
                        total += int(line.split()[1]) * 1024
        return total

    def resident(self) -> int:
        """
        Return the resident memory of its processes.

        :returns: bytes.
        """
        return self._memory("VmRSS")

    def peak(self) -> int:
        """
        Return the sum of its processes' peaks of resident memory since the start or :meth:`forget_peak`.

        :returns: bytes; 0 when it has died.
        """
        return self._memory("VmHWM")

    def forget_peak(self) -> None:
        """Reset the peak to the present resident memory."""
        for entry, _ in self._members():
            with contextlib.suppress(OSError):
                (entry / "clear_refs").write_text("5")

    def processor_seconds(self) -> float:
        """
        Return the user and system time of its processes.

        :returns: seconds, to a hundredth.
        """
        ticks = sum(int(fields[11]) + int(fields[12]) for _, fields in self._members())
        return ticks / os.sysconf("SC_CLK_TCK")

    def run_seconds(self) -> float:
        """
        Return for how long the threads of its processes have run, without those that have ended.

        :returns: seconds, to a nanosecond: for slices in which :meth:`processor_seconds` has few ticks.
        """
        nanoseconds = 0
        for entry, _ in self._members():
            for task in (entry / "task").iterdir():
                with contextlib.suppress(OSError):  # the thread has ended meanwhile
                    nanoseconds += int((task / "schedstat").read_text().split()[0])
        return nanoseconds / 1e9

    def settled(self, seconds: float = 15) -> int:
        """
        Wait until its resident memory is stable, or until the timeout.

        :param seconds: for how long at most.
        :returns: bytes.
        """
        before = self.resident()
        for _ in range(int(seconds)):
            time.sleep(1)
            now = self.resident()
            if abs(now - before) < MEBIBYTE // 4:
                return now
            before = now
        return before

    def _signal(self, kind: signal.Signals, seconds: float) -> bool:
        """Send its processes a signal; return whether the started one ended within so many seconds."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._leader.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._leader.wait(seconds)
        return not self.alive

    def stop(self, patience: float = 5) -> None:
        """
        Stop it with SIGTERM; kill it after some seconds.

        :param patience: how many.
        """
        if not self._signal(signal.SIGTERM, patience):
            self.kill()

    def kill(self) -> None:
        """Kill it, as a crash would."""
        self._signal(signal.SIGKILL, 30)


@contextlib.contextmanager
def start(
    peer: Peer,
    core: int,
    folder: Path,
    open_files: int | None = None,
    database_core: int | None = None,
    database: Database | None = None,
) -> Iterator[Server]:
    """
    Run a server with a temporary data folder for the length of a block.

    :param peer: which one; what it needs is installed.
    :param core: the core for all of its threads.
    :param folder: where its packages are installed.
    :param open_files: how many descriptors it may have, or None for as many as the caller.
    :param database_core: the core of its database server, or None for any.
    :param database: the database, or None for a new one if the peer needs one.
    :returns: the server, which answers.
    :raises ServerFailed: it did not start.
    """
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(tempfile.TemporaryDirectory(prefix="durable-streams-benchmark-"))
        if peer.database and database is None:
            try:
                database = stack.enter_context(fresh(database_core))
            except NoDatabase as missing:
                raise ServerFailed(f"{peer.name}: {missing}") from None
        server = Server(peer, core, folder, Path(work), open_files, database)
        try:
            server.await_ready()
            yield server
        finally:
            server.stop()


class PeakWatch:
    """
    A thread that samples a server's peak memory, so that it is known even if the server dies.

    :param server: the server.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._over = threading.Event()
        self._peak = 0
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def _follow(self) -> None:
        while not self._over.wait(0.1):
            self._peak = max(self._peak, self._server.peak())

    def __enter__(self) -> "PeakWatch":
        self._server.forget_peak()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def peak(self) -> int:
        """
        Return the highest sample so far.

        :returns: bytes.
        """
        self._peak = max(self._peak, self._server.peak())
        return self._peak
