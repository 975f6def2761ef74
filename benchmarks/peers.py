"""The servers compared: how each is installed, started on one core, awaited, stopped and weighed."""

import contextlib
import http.client
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.generator import HOST, pinned

HERE = Path(__file__).parent
CHECKOUT = HERE.parent

#: In bytes.
MEBIBYTE = 1024 * 1024


class ServerFailed(Exception):
    """A server did not start, or died; the message holds the end of its log."""


@dataclass(frozen=True)
class Peer:
    """
    A server to compare.

    In the command and in the environment's values, ``{port}`` stands for the port on the loopback interface to
    listen on, ``{folder}`` for the folder where packages are installed, ``{work}`` for an empty folder that is
    removed at the end, ``{here}`` for the folder of the benchmarks, ``{checkout}`` for the one above it, and
    ``{scripts}`` for the folder of the scripts beside the Python in use.

    :param name: its name in the tables.
    :param command: the program and its arguments.
    :param environment: variables to set. The caller's environment wins, except over a value with a ``{``.
    :param ready: a path that it answers when it is up.
    :param npm: the npm package that it needs, with its version.
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    ready: str = "/healthz"
    npm: str = ""


OURS = Peer(
    name="ours",
    command=("{scripts}/twistd", "-n", "--pidfile=", "durable-streams"),
    environment={
        "DS_SERVER__BIND_ADDRESS": f"{HOST}:{{port}}",
        "DS_STORAGE__MODE": "memory",
        "DS_LIMITS__MAX_MEMORY_BYTES": str(16 * 1024 * MEBIBYTE),
        "DS_LIMITS__MAX_STREAM_BYTES": str(16 * 1024 * MEBIBYTE),
        "DS_TRANSPORT__CONNECTION__STALL_TIMEOUT_SECS": "900",
        "PYTHONPATH": "{checkout}",
    },
)

NODE = Peer(
    name="node",
    command=("node", "{here}/node_reference.mjs", "{port}", "{folder}"),
    npm="@durable-streams/server@0.3.7",
)

#: The peers that are known by name.
PEERS: Mapping[str, Peer] = {peer.name: peer for peer in (OURS, NODE)}


def from_text(text: str) -> Peer:
    """
    Reads a peer from the command line.

    :param text: ``NAME=COMMAND``, the command quoted as for a shell, with the placeholders of :class:`Peer`.
    :returns: the peer.
    :raises ValueError: it has no name, or no command.
    """
    name, _, command = text.partition("=")
    if not name or not command:
        raise ValueError(f"not NAME=COMMAND: {text}")
    return Peer(name, tuple(shlex.split(command)))


def install(peer: Peer, folder: Path) -> None:
    """
    Installs what a peer needs and the folder does not have.

    :param peer: the peer.
    :param folder: the folder, made when missing.
    :raises subprocess.CalledProcessError: npm failed.
    """
    if not peer.npm:
        return
    name, _, version = peer.npm.rpartition("@")
    description = folder / "node_modules" / name / "package.json"
    if description.exists() and f'"version": "{version}"' in description.read_text(encoding="utf-8"):
        return
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"]
    subprocess.run(["npm", "install", *options, "--prefix", folder, peer.npm], check=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


class Server:
    """
    A running server: the group of processes that its command started.

    :param peer: which one.
    :param port: where it listens.
    :param leader: the process started, leader of its group.
    :param log: the file with what it prints.
    """

    def __init__(self, peer: Peer, port: int, leader: subprocess.Popen[bytes], log: Path) -> None:
        self.peer = peer
        self.port = port
        self._leader = leader
        self._log = log

    @property
    def alive(self) -> bool:
        """Whether the process started still runs."""
        return self._leader.poll() is None

    def complaint(self) -> str:
        """
        The end of what it printed.

        :returns: up to ten lines.
        """
        return "\n".join(self._log.read_text(encoding="utf-8", errors="replace").splitlines()[-10:])

    def await_ready(self, seconds: float = 30) -> None:
        """
        Waits until it answers.

        :param seconds: for how long at most.
        :raises ServerFailed: it ended, or never answered.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not self.alive:
                break
            connection = http.client.HTTPConnection(HOST, self.port, timeout=2)
            try:
                connection.request("GET", self.peer.ready)
                if connection.getresponse().status < 500:
                    return
            except OSError:
                time.sleep(0.05)
            finally:
                connection.close()
        raise ServerFailed(f"{self.peer.name} did not start:\n{self.complaint()}")

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

    def stop(self) -> None:
        """Ends it: politely, and after five seconds not."""
        for kind in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._leader.pid, kind)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._leader.wait(5)
                return


@contextlib.contextmanager
def start(peer: Peer, core: int, folder: Path) -> Iterator[Server]:
    """
    Runs a server for the length of a block.

    :param peer: which one; what it needs is installed.
    :param core: the core for all of its threads.
    :param folder: where its packages are installed.
    :returns: the server, which answers.
    :raises ServerFailed: it did not start.
    """
    port = _free_port()
    with tempfile.TemporaryDirectory(prefix="durable-streams-benchmark-") as work:
        places = {
            "port": port,
            "folder": folder,
            "work": work,
            "here": HERE,
            "scripts": Path(sys.executable).parent,
            "checkout": CHECKOUT,
        }
        environment = dict(os.environ)
        for name, value in peer.environment.items():
            if "{" in value or name not in environment:
                environment[name] = value.format(**places)
        command = [word.format(**places) for word in peer.command]
        if shutil.which(command[0]) is None:
            raise ServerFailed(f"{peer.name}: there is no {command[0]}")
        log = Path(work) / "log"
        with log.open("wb") as output, pinned(core):
            leader = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=work,
                env=environment,
                start_new_session=True,
            )
        server = Server(peer, port, leader, log)
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
