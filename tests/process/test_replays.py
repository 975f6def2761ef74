"""Replays of streams whose bytes are in files, to readers of all kinds."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import PATIENCE, Daemon

#: Four appends of this size are more than a journal keeps before a checkpoint.
APPEND = 20_000_000
COUNT = 4


def read_body(connection: socket.socket, pause: float) -> tuple[str, bytes]:
    """
    Read two answers in a row.

    :param pause: how long to wait after each piece, in seconds.
    :returns: the digest of the first body, and the second one.
    """
    buffered = bytearray()

    def take(size: int | None, digest: hashlib._Hash | None = None) -> bytes:
        while size is None and b"\r\n\r\n" not in buffered:
            buffered.extend(_more(connection))
        end = buffered.index(b"\r\n\r\n") + 4 if size is None else size
        taken = bytearray()
        while len(taken) < end:
            if not buffered:
                buffered.extend(_more(connection))
                time.sleep(pause)
            piece = buffered[: end - len(taken)]
            del buffered[: len(piece)]
            if digest is None:
                taken += piece
            else:
                digest.update(piece)
                end -= len(piece)
        return bytes(taken)

    def length(head: bytes) -> int:
        [line] = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        return int(line.partition(b":")[2])

    digest = hashlib.sha256()
    take(length(take(None)), digest)
    return digest.hexdigest(), take(length(take(None)))


def _more(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 20)
    assert data, "the server closed the connection"
    return data


class ReplayTests(SynchronousTestCase):
    def test_fast_and_slow_readers_of_a_file_get_every_byte_and_then_the_next_answer(self) -> None:
        appends = [random.Random(number).randbytes(APPEND) for number in range(COUNT)]
        whole = hashlib.sha256(b"".join(appends)).hexdigest()
        limits = {f"limits__max_{name}_bytes": 2**28 for name in ("stream", "total", "request_body")}
        with Daemon(storage__mode="file-durable", storage__data_dir="data", **limits) as daemon:
            daemon.create("small", "text/plain", b"small")
            daemon.create("large", "application/octet-stream")
            for append in appends:
                daemon.append("large", append, "application/octet-stream")
            self.wait_for_checkpoint(Path(daemon._folder.name, "data"))
            ask = b"".join(b"GET /v1/stream/%b HTTP/1.1\r\nHost: test\r\n\r\n" % name for name in (b"large", b"small"))
            outcomes: dict[str, tuple[str, bytes]] = {}

            def read(kind: str, receive_buffer: int, pause: float) -> None:
                with socket.socket() as connection:
                    if receive_buffer:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
                    connection.settimeout(PATIENCE)
                    connection.connect(("127.0.0.1", daemon.port))
                    connection.sendall(ask)
                    outcomes[kind] = read_body(connection, pause)

            def leave() -> None:
                for _ in range(5):
                    with socket.create_connection(("127.0.0.1", daemon.port)) as connection:
                        connection.sendall(ask)
                        connection.recv(1 << 20)

            readers = [
                threading.Thread(target=read, args=("fast", 0, 0.0)),
                threading.Thread(target=read, args=("small buffer", 16_384, 0.0)),
                threading.Thread(target=read, args=("slow", 0, 0.01)),
                threading.Thread(target=leave),
            ]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join(60)
            expected = (whole, b"small")
            self.assertEqual(outcomes, {"fast": expected, "small buffer": expected, "slow": expected})

    def wait_for_checkpoint(self, directory: Path) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if any(path.stat().st_size >= 3 * APPEND for path in directory.glob("streams/*/*.data")):
                return
            time.sleep(0.1)
        self.fail("No checkpoint was made.")
