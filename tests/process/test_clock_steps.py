"""The wall clock of a running server is set back and forward under load: everything goes on, and in time."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.protocol.lifetimes import render_timestamp
from tests.support.daemon import Daemon, read_to_end, read_until
from tests.support.stepped_daemon import SteppedDaemon

#: How far the wall clock is set each time, in seconds, and how many streams there are after it: one that is written to,
#: and of each round one with a TTL of ten minutes and one whose Stream-Expires-At is in half an hour. That of the last
#: round has come when the clock is set forward by an hour.
STEPS = ((-2, 3), (-3600, 5), (3600, 6))

#: How long everything that is to come may take after a step, in seconds. Without one it takes about two, and several
#: times as long on a machine whose cores are taken.
IN_TIME = 20.0

SETTINGS: dict[str, Any] = {
    "transport__connection__long_poll_timeout_secs": 1,
    "transport__connection__header_timeout_secs": 2,
}


class Load(threading.Thread):
    """
    Appends numbers to a stream, one after the other, some hundreds per second, until it is stopped.

    :ivar acknowledged: how many were answered.
    :ivar error: what ended it.
    """

    def __init__(self, daemon: Daemon) -> None:
        super().__init__(daemon=True)
        self._daemon = daemon
        self._stopped = threading.Event()
        self.acknowledged = 0
        self.error: Exception | None = None

    def run(self) -> None:
        connection = self._daemon.connection()
        try:
            while not self._stopped.is_set():
                headers = {"Content-Type": "text/plain"}
                connection.request("POST", "/v1/stream/load", b"<%d>" % self.acknowledged, headers)
                response = connection.getresponse()
                response.read()
                assert response.status == 204, response.status
                self.acknowledged += 1
                # As fast as it can, it would take the core that the daemon's timers need.
                time.sleep(0.002)
        except Exception as error:
            self.error = error
        finally:
            connection.close()

    def stop(self) -> None:
        self._stopped.set()
        self.join(IN_TIME)


class StepTests(SynchronousTestCase):
    def set_clock(self, daemon: SteppedDaemon, mode: str) -> None:
        """Set the clock of a server several times, and see that nothing comes late or too early."""
        daemon.create("load")
        tail = daemon.get("/v1/stream/load?offset=-1&live=sse")
        self.addCleanup(tail.close)
        load = Load(daemon)
        load.start()
        self.addCleanup(load.stop)
        received = b""
        for number, (step, left) in enumerate(STEPS):
            received = self.step(daemon, mode, step, left, f"s{number}", load, tail, received)
        load.stop()
        self.assertIsNone(load.error)
        received = read_until(tail, b"<%d>" % (load.acknowledged - 1), received)
        text = re.sub(rb"\r\n[0-9a-f]+\r\n", b"", received)
        told = [int(found) for found in re.findall(rb"<([0-9]+)>", text)]
        self.assertEqual(told, list(range(load.acknowledged)))
        self.assertEqual(daemon.stop(), 0)

    def step(
        self,
        daemon: SteppedDaemon,
        mode: str,
        step: int,
        left: int,
        name: str,
        load: Load,
        tail: socket.socket,
        received: bytes,
    ) -> bytes:
        def make(kind: str, **headers: str) -> None:
            path = f"/v1/stream/{name}-{kind}"
            self.assertEqual(daemon.request("PUT", path, b"x", content_type="text/plain", **headers)[0], 201)

        make("used", Stream_TTL="600")
        make("dated", Stream_Expires_At=render_timestamp(round(daemon.wall()) + 1800))
        make("short", Stream_TTL="2")
        self.assertEqual(daemon.request("GET", f"/v1/stream/{name}-used")[0], 200)
        poll = daemon.get(f"/v1/stream/{name}-used?offset=now&live=long-poll")
        self.addCleanup(poll.close)
        half = daemon.dial()
        self.addCleanup(half.close)
        half.sendall(b"GET /v1/stream/load HTTP/1.1\r\n")

        daemon.step(step)
        began = time.monotonic()
        acknowledged, syncs = load.acknowledged, daemon.syncs()
        # The header timeout, the long-poll's, delivery, acknowledgements, syncs, and the sweep of an expired stream.
        self.assertIn(b" 408 ", read_to_end(half))
        self.assertIn(b" 204 ", read_until(poll, b"\r\n\r\n"))
        received = read_until(tail, b"<%d>" % (acknowledged + 10), received)
        self.wait_for(lambda: self.kept(daemon) == left, began, f"{left} streams were to be left after {step:+d} s")
        if mode == "file-fast":
            self.wait_for(lambda: daemon.syncs() > syncs + 5, began, "nothing was synced")
        self.wait_for(lambda: load.acknowledged > acknowledged + 100, began, f"no appends: {load.error}")
        self.assertLess(time.monotonic() - began, IN_TIME)

        _, headers, _ = daemon.request("GET", f"/v1/stream/{name}-used")
        self.assertLess(abs(parsedate_to_datetime(headers["date"]).timestamp() - daemon.wall()), 5)
        statuses = [daemon.request("GET", f"/v1/stream/{name}-{kind}")[0] for kind in ("used", "dated", "short")]
        self.assertEqual(statuses, [200, 404 if step == 3600 else 200, 404])
        return received

    def kept(self, daemon: Daemon) -> int:
        """The number of streams in the storage, including expired ones that are not removed yet."""
        found = re.search(rb"^durable_streams_storage_streams ([0-9.]+)$", daemon.request("GET", "/metrics")[2], re.M)
        assert found is not None
        return int(float(found[1]))

    def wait_for(self, condition: Callable[[], bool], began: float, sentence: str) -> None:
        while not condition():
            self.assertLess(time.monotonic() - began, IN_TIME, sentence)
            time.sleep(0.1)

    def test_the_daemon_works_in_memory_when_the_clock_is_set(self) -> None:
        with SteppedDaemon(**SETTINGS) as daemon:
            self.set_clock(daemon, "memory")

    def test_the_daemon_works_in_file_fast_when_the_clock_is_set(self) -> None:
        with SteppedDaemon(storage__mode="file-fast", **SETTINGS) as daemon:
            self.set_clock(daemon, "file-fast")

    def test_the_daemon_works_in_file_durable_when_the_clock_is_set(self) -> None:
        with SteppedDaemon(storage__mode="file-durable", **SETTINGS) as daemon:
            self.set_clock(daemon, "file-durable")

    def test_the_daemon_works_in_acid_when_the_clock_is_set(self) -> None:
        with SteppedDaemon(storage__mode="acid", **SETTINGS) as daemon:
            self.set_clock(daemon, "acid")

    def test_a_program_that_embeds_the_server_works_in_file_fast_when_the_clock_is_set(self) -> None:
        with SteppedDaemon("file-fast", storage__mode="file-fast", **SETTINGS) as daemon:
            self.set_clock(daemon, "file-fast")

    def test_a_program_that_embeds_the_server_works_in_acid_when_the_clock_is_set(self) -> None:
        with SteppedDaemon("acid", storage__mode="acid", **SETTINGS) as daemon:
            self.set_clock(daemon, "acid")
