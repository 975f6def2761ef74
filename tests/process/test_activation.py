"""Sockets that a service manager passes outlive the daemon, and no client is refused while it is started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import PATIENCE, TWISTD, environment, free_port, read_to_end
from tests.support.fronts import BASE, request
from tests.support.replies import read_replies

#: What passes a socket as systemd does: as descriptor 3, with the process id of the program that it becomes.
PASS = (
    sys.executable,
    "-c",
    (
        "import os, sys\n"
        "os.dup2(int(sys.argv[1]), 3)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1', LISTEN_FDNAMES='http')\n"
        "os.execv(sys.argv[2], sys.argv[2:])\n"
    ),
)


class Manager:
    """A service manager: it holds a listening socket, and starts the daemon with it, again and again."""

    def __init__(self, listening: socket.socket, endpoint: str, folder: Path) -> None:
        self._listening = listening
        self._endpoint = endpoint
        self.folder = folder
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        descriptor = self._listening.fileno()
        settings = {"storage__mode": "file-durable", "storage__data_dir": self.folder / "data"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*PASS, str(descriptor), *TWISTD, "--listen", self._endpoint],
                env=environment(free_port(), **settings),
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                pass_fds=[descriptor],
            )

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class ActivationTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def manage(self, family: socket.AddressFamily, address: object, endpoint: str) -> Manager:
        listening = socket.socket(family)
        self.addCleanup(listening.close)
        listening.bind(address)  # type: ignore[arg-type]
        listening.listen(1024)
        self.family = family
        self.address = listening.getsockname()
        manager = Manager(listening, endpoint, self.folder)
        self.addCleanup(manager.close)
        return manager

    def ask(self, method: str, path: str, body: bytes = b"") -> int:
        """Ask on a connection of its own, and return the status."""
        with socket.socket(self.family) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(self.address)
            fields = {"Content-Type": "text/plain", "Connection": "close"}
            connection.sendall(request(method, path, fields, body))
            (reply,) = read_replies(read_to_end(connection), method)
            return reply.status

    def survives_restarts(self, manager: Manager) -> None:
        manager.start()
        while self.ask("PUT", BASE + "a") == 503:
            time.sleep(0.05)
        statuses: Counter[object] = Counter()
        done = threading.Event()

        def append() -> None:
            while not done.is_set():
                try:
                    outcome: object = self.ask("POST", BASE + "a", b"x")
                except (OSError, ValueError) as error:
                    outcome = type(error)
                statuses[outcome] += 1

        threads = [threading.Thread(target=append) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(2):
                time.sleep(0.3)
                self.assertEqual(manager.stop(), 0, manager.log.read_text())
                # Clients that come now wait in the socket's queue.
                time.sleep(0.2)
                manager.start()
                while self.ask("GET", "/readyz") != 200:
                    time.sleep(0.05)
            time.sleep(0.3)
        finally:
            done.set()
            for thread in threads:
                thread.join()
        self.assertEqual(manager.stop(), 0, manager.log.read_text())
        self.assertNotIn(ConnectionRefusedError, statuses, statuses)
        self.assertNotIn(FileNotFoundError, statuses, statuses)
        self.assertGreater(statuses[204], 50)
        # While the storage is loaded, 503 says when to come back.
        self.assertEqual(set(statuses) - {204, 503}, set(), statuses)

    def test_no_connection_is_refused_over_restarts(self) -> None:
        self.survives_restarts(self.manage(socket.AF_INET, ("127.0.0.1", 0), "systemd:domain=INET:index=0"))

    def test_a_socket_can_be_chosen_by_its_name(self) -> None:
        manager = self.manage(socket.AF_INET6, ("::1", 0), "systemd:domain=INET6:name=http")
        manager.start()
        self.assertEqual(self.ask("GET", "/healthz"), 200)
        self.assertEqual(manager.stop(), 0)
        self.assertIn("systemd:domain=INET6:name=http ([::1]:", manager.log.read_text())

    def test_a_unix_socket_and_its_mode_outlive_the_daemon(self) -> None:
        path = self.folder / "socket"
        manager = self.manage(socket.AF_UNIX, str(path), "systemd:domain=UNIX:index=0")
        path.chmod(0o620)
        self.survives_restarts(manager)
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o620)

    def test_a_socket_that_does_not_listen_is_an_error_of_the_start(self) -> None:
        connected = socket.socket()
        self.addCleanup(connected.close)
        connected.bind(("127.0.0.1", 0))
        manager = Manager(connected, "systemd:domain=INET:index=0", self.folder)
        self.addCleanup(manager.close)
        manager.start()
        assert manager.process is not None
        self.assertEqual(manager.process.wait(PATIENCE), 1)
        self.assertIn("the socket that was passed is not listening", manager.log.read_text())
