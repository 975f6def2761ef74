"""The stop of the daemon: readers get a proper end, no client can delay it for long, and the exit status is 0."""

from __future__ import annotations

import signal
import time

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import Daemon, read_to_end, read_until


class StopTests(SynchronousTestCase):
    def test_sigterm_and_sigint_stop_the_daemon_with_status_0(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            with Daemon() as daemon:
                self.assertEqual(daemon.stop(number), 0)
                self.assertIn("The server has stopped.", daemon.log())
                self.assertNotIn("Traceback", daemon.log())

    def test_a_waiting_long_poll_is_answered_with_204(self) -> None:
        with Daemon() as daemon:
            daemon.create("quiet")
            waiting = daemon.get("/v1/stream/quiet?offset=now&live=long-poll")
            daemon.request("GET", "/healthz")
            daemon.process.send_signal(signal.SIGTERM)
            answer = read_to_end(waiting)
            self.assertTrue(answer.startswith(b"HTTP/1.1 204 "), answer)
            self.assertIn(b"Stream-Up-To-Date: true\r\n", answer)
            self.assertIn(b"Connection: close\r\n", answer)
            self.assertEqual(daemon.process.wait(10), 0)

    def test_a_tail_ends_with_the_last_chunk_at_a_stop(self) -> None:
        with Daemon() as daemon:
            daemon.create("followed", body=b"so far")
            following = daemon.get("/v1/stream/followed?offset=-1&live=sse")
            begun = read_until(following, b"upToDate")
            daemon.process.send_signal(signal.SIGTERM)
            self.assertTrue((begun + read_to_end(following)).endswith(b"\r\n0\r\n\r\n"))
            self.assertEqual(daemon.process.wait(10), 0)

    def test_an_answer_in_progress_arrives_whole(self) -> None:
        size = 8_000_000
        with Daemon() as daemon:
            daemon.create("large", "application/octet-stream", b"x" * size)
            reading = daemon.get("/v1/stream/large", receive_buffer=16_384)
            begun = read_until(reading, b"\r\n\r\n")
            daemon.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            _, _, body = (begun + read_to_end(reading)).partition(b"\r\n\r\n")
            self.assertEqual(len(body), size)
            self.assertEqual(daemon.process.wait(10), 0)

    def test_stalled_clients_are_closed_after_the_drain_timeout(self) -> None:
        with Daemon(transport__connection__drain_timeout_secs=2) as daemon:
            daemon.create("large", "application/octet-stream", b"x" * 10_000_000)
            stalled = daemon.get("/v1/stream/large", receive_buffer=16_384)
            unfinished = daemon.dial()
            unfinished.sendall(b"POST /v1/stream/large HTTP/1.1\r\nHost: test\r\nContent-Le")
            half = daemon.dial()
            half.sendall(b"POST /v1/stream/large HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\nhalf")
            daemon.request("GET", "/healthz")
            began_at = time.monotonic()
            self.assertEqual(daemon.stop(), 0)
            self.assertLess(time.monotonic() - began_at, 10)
            for connection in (stalled, unfinished, half):
                connection.close()

    def test_a_second_signal_closes_all_connections_at_once(self) -> None:
        with Daemon() as daemon:
            daemon.create("large", "application/octet-stream", b"x" * 10_000_000)
            stalled = daemon.get("/v1/stream/large", receive_buffer=16_384)
            self.addCleanup(stalled.close)
            daemon.request("GET", "/healthz")
            daemon.process.send_signal(signal.SIGTERM)
            time.sleep(1)
            self.assertIsNone(daemon.process.poll())
            began_at = time.monotonic()
            self.assertEqual(daemon.stop(), 0)
            self.assertLess(time.monotonic() - began_at, 10)
            self.assertNotIn("Traceback", daemon.log())

    def test_an_idle_connection_is_closed_at_once(self) -> None:
        with Daemon() as daemon:
            idle = daemon.get("/healthz")
            read_until(idle, b"ok")
            began_at = time.monotonic()
            self.assertEqual(daemon.stop(), 0)
            self.assertLess(time.monotonic() - began_at, 5)
            self.assertEqual(read_to_end(idle), b"")
