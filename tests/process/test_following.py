"""Many readers over real sockets: none loses anything, and slow ones cost next to nothing."""

from __future__ import annotations

import json
import re
import selectors
import socket
import time
from collections.abc import Iterable

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import PATIENCE, Daemon, read_until

_EVENT = re.compile(rb"event: data\ndata:(\[.*?\])\nid:[0-9_]+\n\n")


def read_all(followers: Iterable[socket.socket], mark: bytes) -> list[bytes]:
    """Read from all of them until each has had ``mark``."""
    followers = list(followers)
    received = {follower: bytearray() for follower in followers}
    with selectors.DefaultSelector() as selector:
        for follower in followers:
            selector.register(follower, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(PATIENCE)
            assert ready, "nothing came for too long"
            for key, _ in ready:
                reader = key.fileobj
                assert isinstance(reader, socket.socket)
                data = reader.recv(262_144)
                assert data, "a follower was hung up on"
                received[reader] += data
                if mark in received[reader][-len(data) - len(mark) :]:
                    selector.unregister(reader)
    return [bytes(received[follower]) for follower in followers]


def numbers_in(answer: bytes) -> list[int]:
    """The numbers that a follower of a JSON stream was sent, in order."""
    # A chunk's size stands in a line of its own between events, never inside one.
    text = re.sub(rb"\r\n[0-9a-f]+\r\n", b"", answer)
    return [message["n"] for event in _EVENT.findall(text) for message in json.loads(event)]


class FollowingTests(SynchronousTestCase):
    def test_two_hundred_tails_of_a_fast_writer_lose_nothing(self) -> None:
        with Daemon() as daemon:
            daemon.create("fast", "application/json")
            followers = [daemon.get("/v1/stream/fast?offset=now&live=sse") for _ in range(200)]
            for follower in followers:
                self.addCleanup(follower.close)
                read_until(follower, b"upToDate")
            writer = daemon.dial()
            self.addCleanup(writer.close)
            for number in range(500):
                body = b'{"n":%d}' % number
                writer.sendall(
                    b"POST /v1/stream/fast HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n"
                    b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
                )
            for answer in read_all(followers, b'"n":499}'):
                self.assertEqual(numbers_in(answer), list(range(500)))

    def test_tails_that_stop_reading_cost_little_and_read_everything_later(self) -> None:
        size = 16_384
        count = 1_280  # 20 MiB
        limits = {"limits__max_stream_bytes": 2**26}
        with Daemon(transport__connection__stall_timeout_secs=120, **limits) as daemon:
            daemon.create("heavy", "application/json")
            followers = [daemon.get("/v1/stream/heavy?offset=now&live=sse", 16_384) for _ in range(50)]
            for follower in followers:
                self.addCleanup(follower.close)
                read_until(follower, b"upToDate")
            before = daemon.resident_bytes()
            for number in range(count):
                filling = b"x" * (size - 32)
                daemon.append("heavy", b'{"n":%d,"p":"%b"}' % (number, filling), "application/json")
            grown = daemon.resident_bytes() - before
            self.assertLess(grown - size * count, 32 * 2**20)
            last = b'"n":%d,' % (count - 1)
            for index in range(0, len(followers), 10):
                for answer in read_all(followers[index : index + 10], last):
                    found = [int(number) for number in re.findall(rb'"n":([0-9]+),', answer)]
                    self.assertEqual(found, list(range(count)))

    def test_a_reader_that_takes_nothing_is_disconnected(self) -> None:
        with Daemon(transport__connection__stall_timeout_secs=1) as daemon:
            daemon.create("large", "application/octet-stream", b"x" * 10_000_000)
            stalled = daemon.get("/v1/stream/large", 16_384)
            self.addCleanup(stalled.close)
            begun = read_until(stalled, b"\r\n\r\n")
            # The server's patience, its clock's tick, and some for a busy machine
            time.sleep(4)
            received = len(begun)
            try:
                while data := stalled.recv(262_144):
                    received += len(data)
            except ConnectionResetError:
                pass
            self.assertLess(received, 10_000_000)
            self.assertEqual(daemon.request("GET", "/healthz")[0], 200)
