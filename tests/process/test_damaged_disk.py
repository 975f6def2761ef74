"""A daemon whose files are changed under it: it answers 500, or breaks an answer off, and serves the rest."""

from __future__ import annotations

import http.client
import json
import re
import sqlite3
from pathlib import Path
from time import monotonic, sleep

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import PATIENCE, Daemon

PIECE = b"x" * 9_999 + b"\n"
PIECES = 100
PATH = "/v1/stream/a"


class DamagedDiskTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.data = Path(self.mktemp()).absolute()

    def daemon(self, mode: str, verify: str = "true") -> Daemon:
        return Daemon(storage__mode=mode, storage__data_dir=self.data, storage__verify_reads=verify)

    def fill(self, mode: str) -> list[str]:
        """Write a stream of 1 MB that the next daemon reads from disk, and return the offsets after its appends."""
        offsets = []
        with self.daemon(mode) as daemon:
            daemon.create("a")
            for _ in range(PIECES):
                status, headers, _ = daemon.request("POST", PATH, PIECE, content_type="text/plain")
                self.assertEqual(204, status)
                offsets.append(headers["stream-next-offset"])
            self.assertEqual(0, daemon.stop())
        return offsets

    def damage_file(self) -> None:
        """Flip one bit in the stream's own file, when the checkpoint that follows the start has made it."""
        deadline = monotonic() + PATIENCE
        while not list(self.data.glob("checkpoint/*[0-9]")):
            self.assertLess(monotonic(), deadline)
            sleep(0.05)
        [path] = self.data.glob("streams/*/*.data")
        with path.open("r+b") as file:
            file.seek(500_000)
            byte = file.read(1)[0]
            file.seek(500_000)
            file.write(bytes([byte ^ 1]))

    def assert_never_served(self, daemon: Daemon, offsets: list[str], place: str) -> None:
        with self.assertRaises((http.client.IncompleteRead, ConnectionResetError)) as broken:
            daemon.request("GET", PATH)
        read = getattr(broken.exception, "partial", b"")
        self.assertEqual(b"", read.replace(PIECE, b""))
        status, _, body = daemon.request("GET", f"{PATH}?offset={offsets[49]}")
        self.assertEqual((500, "DATA_DAMAGED"), (status, json.loads(body)["code"]))
        status, _, body = daemon.request("GET", f"{PATH}?offset={offsets[50]}")
        self.assertEqual((200, PIECE * 49), (status, body))
        self.assertRegex(daemon.log(), place)
        self.assertNotIn("Traceback", daemon.log())
        self.assertEqual(200, daemon.request("GET", "/readyz")[0])
        status, _, _ = daemon.request("POST", PATH, b"more", content_type="text/plain")
        self.assertEqual(204, status)

    def test_a_flipped_bit_in_a_file_is_never_served(self) -> None:
        offsets = self.fill("file-durable")
        with self.daemon("file-durable") as daemon:
            self.damage_file()
            place = (
                r"Damaged data: streams/../\d+\.data at 500000: stream a, "
                "bytes 500000 to 510000 do not have their checksum"
            )
            self.assert_never_served(daemon, offsets, place)

    def test_a_flipped_bit_in_a_database_is_never_served(self) -> None:
        offsets = self.fill("acid")
        connection = sqlite3.connect(self.data / "acid.sqlite")
        connection.execute("UPDATE appends SET data = zeroblob(10000) WHERE start = 500000")
        connection.commit()
        connection.close()
        with self.daemon("acid") as daemon:
            place = (
                r"Damaged data: acid\.sqlite, appends, stream \d+: stream a, "
                "bytes 500000 to 510000 do not have their checksum"
            )
            self.assert_never_served(daemon, offsets, place)

    def test_without_verify_reads_damaged_bytes_are_served(self) -> None:
        self.fill("file-durable")
        with self.daemon("file-durable", "false") as daemon:
            self.damage_file()
            status, _, body = daemon.request("GET", PATH)
            self.assertEqual((200, PIECES * len(PIECE), b"y"), (status, len(body), body[500_000:500_001]))
            self.assertIsNone(re.search("Damaged data", daemon.log()))
