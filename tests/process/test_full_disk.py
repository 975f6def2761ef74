"""Tests of a full disk: writes are refused, no acknowledged data is lost, and deleting streams makes room."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.exchanges import Exchanges, Reply
from tests.support.killed_daemon import KILLED, KilledDaemon, Order
from tests.support.mounts import small_disk

#: How large the disk is. The journal's usual segment does not fit.
SIZE = "24m"

#: How long, in seconds, it may take until there is room again for appends when streams were deleted.
_RELIEF = 8.0

_PIECE = 60_000
_STREAMS = 4


class FullDiskTestCase(SynchronousTestCase):
    """A daemon on a small disk."""

    mode = "file-durable"
    ends_quietly = True
    settings: dict[str, str] = {}  # noqa: RUF012 (never changed in place)

    def start_on(self, disk: Path) -> KilledDaemon:
        settings = {
            "storage__mode": self.mode,
            "storage__data_dir": str(disk / "data"),
            "limits__max_total_bytes": str(1 << 30),
            "limits__max_stream_bytes": str(1 << 29),
            **self.settings,
        }
        daemon = KilledDaemon(Order(settings), disk.parent / f"{disk.name}-log")
        daemon.wait_until_ready()
        self.addCleanup(daemon.kill)
        return daemon

    def disk(self) -> Path:
        disk = small_disk(SIZE, self.addCleanup)
        log = disk.parent / f"{disk.name}-log"
        log.mkdir()
        self.addCleanup(log.rmdir)
        self.addCleanup((log / "log").unlink)
        return disk

    def fill(self, exchanges: Exchanges) -> dict[str, bytearray]:
        """Append until the disk is full, large pieces first, and return the acknowledged data."""
        taken = {f"full-{number}": bytearray() for number in range(_STREAMS)}
        for name in taken:
            self.assertEqual(exchanges.ask("PUT", path(name), b"", {"Content-Type": "text/plain"}).status, 201)
        number = 0
        for size in (_PIECE, 6_000, 600):
            while True:
                number += 1
                name = f"full-{number % _STREAMS}"
                data = b"<%08d:%b>" % (number, b"f" * size)
                reply = exchanges.ask("POST", path(name), data, {"Content-Type": "text/plain"})
                if reply.status != 204:
                    self.assertIsFull(reply)
                    break
                taken[name] += data
                self.assertLess(number, 100_000)
        return taken

    def assertIsFull(self, reply: Reply) -> None:
        self.assertEqual(reply.status, 507, reply)
        self.assertEqual(reply.headers["content-type"], "application/problem+json")
        self.assertIn(b"INSUFFICIENT_STORAGE", reply.body)

    def assertHas(self, daemon: KilledDaemon, taken: dict[str, bytearray]) -> None:
        for name, data in taken.items():
            self.assertTrue(daemon.read(name) == data, f"{name} is not what was taken for it")
        self.assertEqual(daemon.ask("GET", "/readyz").status, 200, daemon.log())
        self.assertEqual(daemon.ask("GET", "/healthz").status, 200)


class FullDiskTests(FullDiskTestCase):
    """In mode file-durable."""

    def test_a_full_disk_refuses_writes_and_loses_nothing_where_mounting_is_allowed(self) -> None:
        disk = self.disk()
        daemon = self.start_on(disk)
        with Exchanges(daemon.port) as exchanges:
            taken = self.fill(exchanges)
            self.assertGreater(sum(map(len, taken.values())), 4 << 20)
            self.assertHas(daemon, taken)
            self.assertIsFull(exchanges.ask("PUT", path("more"), b"x" * _PIECE, {"Content-Type": "text/plain"}))
            self.assertEqual(exchanges.ask("GET", path("more")).status, 404)
        self.assertNotIn("Traceback", daemon.log())
        # On the full disk, it starts, and reads, as often as it is killed.
        for _ in range(5):
            self.assertEqual(daemon.kill(), KILLED)
            daemon = self.start_on(disk)
            self.assertHas(daemon, taken)
            # A checkpoint at the start may have made some room.
            reply = daemon.ask("POST", path("full-0"), b"x" * _PIECE, content_type="text/plain")
            if reply.status == 204:
                taken["full-0"] += b"x" * _PIECE
            else:
                self.assertIsFull(reply)
        self.assertEqual(daemon.ask("DELETE", path("full-3")).status, 204)
        del taken["full-3"]
        self.assertEqual(daemon.kill(), KILLED)
        daemon = self.start_on(disk)
        self.assertHas(daemon, taken)
        self.assertEqual(daemon.ask("GET", path("full-3")).status, 404)
        self.assertEqual(daemon.terminate(), 0)
        if self.ends_quietly:
            self.assertNotIn("Traceback", daemon.log())
            self.assertNotIn("#critical", daemon.log())


class RoomTests(FullDiskTestCase):
    """In mode file-durable, and therefore in file-fast."""

    def test_deleting_streams_makes_room_where_mounting_is_allowed(self) -> None:
        disk = self.disk()
        daemon = self.start_on(disk)
        with Exchanges(daemon.port) as exchanges:
            taken = self.fill(exchanges)
        for name in [name for name in taken if name != "full-0"]:
            self.assertEqual(daemon.ask("DELETE", path(name)).status, 204)
            del taken[name]
            self.assertEqual(daemon.ask("GET", path(name)).status, 404)
        deadline = time.monotonic() + _RELIEF
        data = b"<%b>" % (b"r" * _PIECE)
        while (reply := daemon.ask("POST", path("full-0"), data, content_type="text/plain")).status != 204:
            self.assertIsFull(reply)
            self.assertLess(time.monotonic(), deadline, f"There is no room yet:\n{daemon.log()}")
            time.sleep(0.2)
        taken["full-0"] += data
        for _ in range(20):
            daemon.append("full-0", data)
            taken["full-0"] += data
        self.assertHas(daemon, taken)
        self.assertEqual(daemon.kill(), KILLED)
        daemon = self.start_on(disk)
        self.assertHas(daemon, taken)
        self.assertEqual(daemon.terminate(), 0)


class RoomAcidTests(RoomTests):
    """In mode acid, where it is the database's own file that has the room."""

    mode = "acid"


class SqueezedAcidTests(FullDiskTestCase):
    """In mode acid, where others fill the disk faster than the server looks at it."""

    mode = "acid"

    def test_writes_continue_when_there_is_room_again_where_mounting_is_allowed(self) -> None:
        disk = self.disk()
        daemon = self.start_on(disk)
        taken = {"full-0": bytearray()}
        self.assertEqual(daemon.ask("PUT", path("full-0"), content_type="text/plain").status, 201)
        for number in range(3):
            data = b"%d" % number * 200_000
            daemon.append("full-0", data)
            taken["full-0"] += data
            with (disk / "others").open("wb") as others:
                os.posix_fallocate(others.fileno(), 0, shutil.disk_usage(disk).free)
            for _ in range(3):
                data = b"!" * 3_000_000
                self.assertIsFull(daemon.ask("POST", path("full-0"), data, content_type="text/plain"))
                self.assertHas(daemon, taken)
            if number == 1:
                self.assertEqual(daemon.kill(), KILLED)
                daemon = self.start_on(disk)
                self.assertHas(daemon, taken)
            (disk / "others").unlink()
            # It looks at the disk again when half a second is over.
            time.sleep(0.6)
        self.assertIn("Rolled back a batch of writes", daemon.log())
        data = b"?" * 1_000_000
        daemon.append("full-0", data)
        taken["full-0"] += data
        self.assertHas(daemon, taken)
        self.assertEqual(daemon.terminate(), 0)
        self.assertNotIn("Traceback", daemon.log())
        self.assertNotIn("#critical", daemon.log())


class FullDiskFastTests(FullDiskTests):
    """In mode file-fast."""

    mode = "file-fast"


class FullDiskAcidTests(FullDiskTests):
    """In mode acid."""

    mode = "acid"


def path(name: str) -> str:
    """The path of a stream."""
    return f"/v1/stream/{name}"
