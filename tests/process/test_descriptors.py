"""More connections than the process may open files, while others append: nothing is lost, and all goes on."""

from __future__ import annotations

import os
import selectors
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import TWISTD, Daemon, environment, free_port, read_to_end
from tests.support.fronts import BASE
from tests.support.replies import read_replies

TEXT = {"Content-Type": "text/plain"}
LIMIT = 256


class ShortDaemon(Daemon):
    """A daemon that may open few files."""

    command = ("sh", "-c", f'ulimit -n {LIMIT}; exec "$@"', "sh", *TWISTD)


class SoftlyLimitedDaemon(Daemon):
    command = ("sh", "-c", f'ulimit -Sn {LIMIT}; ulimit -Hn 600; exec "$@"', "sh", *TWISTD)


class DescriptorTests(SynchronousTestCase):
    mode = "memory"

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.settings: dict[str, Any] = {
            "storage__mode": self.mode,
            "storage__data_dir": Path(folder.name, "data"),
            "limits__max_total_bytes": 200 << 20,
        }
        self.held: list[socket.socket] = []
        self.addCleanup(self.leave)

    def leave(self) -> None:
        while self.held:
            self.held.pop().close()

    def crowd(self, daemon: Daemon, count: int) -> list[socket.socket]:
        """Open so many connections, and return those that were answered at once."""
        for _ in range(count):
            self.held.append(daemon.dial())
        with selectors.DefaultSelector() as selector:
            for connection in self.held:
                selector.register(connection, selectors.EVENT_READ)
            answered: list[socket.socket] = []
            while ready := selector.select(0.5):
                for key, _ in ready:
                    assert isinstance(key.fileobj, socket.socket)
                    answered.append(key.fileobj)
                    selector.unregister(key.fileobj)
        return answered

    def test_connections_beyond_the_budget_get_503_while_writes_go_on(self) -> None:
        with ShortDaemon(**self.settings) as daemon:
            for number in range(15):
                daemon.create(str(number))
            writer = daemon.connection()
            self.addCleanup(writer.close)
            writer.connect()
            # More than a segment of the journal, so that files are opened meanwhile.
            piece = os.urandom(1 << 20)
            refused = self.crowd(daemon, LIMIT + 50)
            self.assertGreater(len(self.held) - len(refused), 40)
            for connection in refused:
                (reply,) = read_replies(read_to_end(connection))
                self.assertEqual((reply.status, reply.get("retry-after")), (503, "1"))
            self.assertIn("limits.max_connections", daemon.log())
            for turn in range(90):
                writer.request("POST", f"{BASE}{turn % 15}", piece, TEXT)
                response = writer.getresponse()
                self.assertEqual((response.status, response.read()), (204, b""))
            self.leave()
            writer.request("GET", "/readyz")
            self.assertEqual(writer.getresponse().read(), b"ready")
            writer.close()
            time.sleep(0.2)
            daemon.append("14", b"last")
            for number in range(15):
                content = daemon.request("GET", f"{BASE}{number}?offset=-1")[2]
                self.assertEqual(content, piece * 6 + (b"last" if number == 14 else b""))
            self.assertNotIn("critical", daemon.log())
            self.assertNotIn("Traceback", daemon.log())

    def test_the_soft_limit_is_raised_to_the_hard_one(self) -> None:
        with SoftlyLimitedDaemon(**self.settings) as daemon:
            limits = Path(f"/proc/{daemon.process.pid}/limits").read_text()
            (line,) = [line for line in limits.splitlines() if line.startswith("Max open files")]
            self.assertEqual(line.split()[3:5], ["600", "600"])
            self.assertIn("The process may open 600 files", daemon.log())


class FileDescriptorTests(DescriptorTests):
    mode = "file-durable"


class AcidDescriptorTests(DescriptorTests):
    mode = "acid"


class StartTests(SynchronousTestCase):
    def test_a_limit_that_leaves_no_connection_is_an_error_of_the_start(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        done = subprocess.run(
            ["sh", "-c", 'ulimit -n 50; exec "$@"', "sh", *TWISTD],
            env=environment(free_port(), storage__mode="acid"),
            cwd=folder.name,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("[resolve_transport] The process may open 50 files", done.stderr)
