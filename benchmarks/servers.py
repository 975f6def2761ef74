"""A peer as it runs: started on one core, awaited, weighed, stopped, killed, and started again on its data."""

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
from pathlib import Path

from benchmarks.generator import HOST, pinned
from benchmarks.peers import CHECKOUT, HERE, MEBIBYTE, Peer, crate_folder
from tests.support.authority import authority


class ServerFailed(Exception):
    """A server did not start, or died; the message holds the end of its log."""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Server:
    """
    A server that runs: the group of processes that its command started.

    :param peer: which one.
    :param core: the core for all of its threads.
    :param folder: where its packages are installed.
    :param work: its own folder, empty.
    :param open_files: how many descriptors it may have, or None for as many as the caller.
    :raises ServerFailed: there is no such program.
    """

    def __init__(self, peer: Peer, core: int, folder: Path, work: Path, open_files: int | None = None) -> None:
        self.peer = peer
        self.port = _free_port()
        self._core = core
        self._work = work
        places = {
            "port": self.port,
            "folder": folder,
            "crate": crate_folder(peer, folder),
            "work": work,
            "here": HERE,
            "scripts": Path(sys.executable).parent,
            "checkout": CHECKOUT,
        }
        inherited = {name: value for name, value in os.environ.items() if not (peer.sealed and name.startswith("DS_"))}
        fixed = {name: value.format(**places) for name, value in peer.environment.items()}
        self._environment = {**peer.defaults, **inherited, **fixed}
        self._command = [word.format(**places) for word in peer.command]
        if shutil.which(self._command[0]) is None:
            raise ServerFailed(f"{peer.name}: there is no {self._command[0]}")
        if peer.secure:
            authority().issue().write(work, "server")
        if open_files is not None:  # the hard limit too: some servers raise the soft one to it
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

    @property
    def alive(self) -> bool:
        """Whether the process started still runs."""
        return self._leader.poll() is None

    @property
    def state(self) -> str:
        """How it is, in words."""
        return "alive" if self.alive else f"dead:\n{self.complaint()}"

    def complaint(self) -> str:
        """
        The end of what it printed.

        :returns: up to ten lines.
        """
        return "\n".join((self._work / "log").read_text(encoding="utf-8", errors="replace").splitlines()[-10:])

    def connection(self, timeout: float) -> http.client.HTTPConnection:
        """
        A connection to ask it on.

        :param timeout: the seconds that anything may take.
        """
        if not self.peer.secure:
            return http.client.HTTPConnection(HOST, self.port, timeout=timeout)
        context = ssl.create_default_context(cadata=authority().certificate_pem.decode())
        return http.client.HTTPSConnection(HOST, self.port, timeout=timeout, context=context)

    def answers(self, path: str) -> bool:
        """
        Whether it answers a GET, with any status below 500.

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
        Waits until it says that it is ready.

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
        Starts it again where it was, after :meth:`stop` or :meth:`kill`, and waits until it says that it is ready.

        :param seconds: for how long at most.
        :returns: the seconds that it took.
        :raises ServerFailed: it ended, or never was ready.
        """
        started = time.monotonic()
        self._launch()
        self.await_ready(seconds)
        return time.monotonic() - started

    def _members(self) -> Iterator[tuple[Path, list[str]]]:
        """The processes of its group: their folders in /proc, and their stat from the third field on."""
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            with contextlib.suppress(OSError):  # it has ended meanwhile
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
        The memory of its processes that is resident now.

        :returns: bytes.
        """
        return self._memory("VmRSS")

    def peak(self) -> int:
        """
        The most that was resident, of each process, since it started or since :meth:`forget_peak`.

        :returns: bytes; 0 when it has died.
        """
        return self._memory("VmHWM")

    def forget_peak(self) -> None:
        """Makes what is resident now the peak so far."""
        for entry, _ in self._members():
            with contextlib.suppress(OSError):
                (entry / "clear_refs").write_text("5")

    def processor_seconds(self) -> float:
        """
        The processor time that its processes have used, user and system.

        :returns: seconds, to a hundredth.
        """
        ticks = sum(int(fields[11]) + int(fields[12]) for _, fields in self._members())
        return ticks / os.sysconf("SC_CLK_TCK")

    def settled(self, seconds: float = 15) -> int:
        """
        Waits until its resident memory stands still, as far as it does.

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
        """Sends its processes a signal; tells whether the one started has ended within so many seconds."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._leader.pid, kind)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._leader.wait(seconds)
        return not self.alive

    def stop(self, patience: float = 5) -> None:
        """
        Ends it: politely, and after some seconds not.

        :param patience: how many.
        """
        if not self._signal(signal.SIGTERM, patience):
            self.kill()

    def kill(self) -> None:
        """Ends it as a crash does: it can't say a last word, nor write one."""
        self._signal(signal.SIGKILL, 30)


@contextlib.contextmanager
def start(peer: Peer, core: int, folder: Path, open_files: int | None = None) -> Iterator[Server]:
    """
    Runs a server for the length of a block. Its data folder is a temporary one.

    :param peer: which one; what it needs is installed.
    :param core: the core for all of its threads.
    :param folder: where its packages are installed.
    :param open_files: how many descriptors it may have, or None for as many as the caller.
    :returns: the server, which answers.
    :raises ServerFailed: it did not start.
    """
    with tempfile.TemporaryDirectory(prefix="durable-streams-benchmark-") as work:
        server = Server(peer, core, folder, Path(work), open_files)
        try:
            server.await_ready()
            yield server
        finally:
            server.stop()


class PeakWatch:
    """
    Follows a server's peak, so that it is known even when the server dies of it.

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
        The most seen so far.

        :returns: bytes.
        """
        self._peak = max(self._peak, self._server.peak())
        return self._peak
