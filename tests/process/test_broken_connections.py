"""``tail`` and ``append`` while connections are cut and servers are killed: nothing is missing, nothing comes twice."""

from __future__ import annotations

import http.client
import json
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.support.commands import COMMAND, environment
from tests.support.cutting_proxy import CuttingProxy
from tests.support.daemon import PATIENCE, Daemon, free_port

_JSON = "application/json"

#: How many messages are in an append of the test.
_BATCH = 10


def message(number: int) -> dict[str, Any]:
    """Return a message."""
    return {"n": number, "filling": "x" * (number % 200)}


class Writer(threading.Thread):
    """Appends messages as an idempotent producer, whatever happens to the server."""

    def __init__(self, port: int, first: int, end: int, pause: float = 0) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._first = first
        self._end = end
        self._pause = pause
        self.done = first

    def run(self) -> None:
        for begin in range(self._first, self._end, _BATCH):
            body = json.dumps([message(number) for number in range(begin, begin + _BATCH)]).encode()
            headers = {"Content-Type": _JSON, "Producer-Id": "writer", "Producer-Epoch": str(self._first)}
            headers["Producer-Seq"] = str((begin - self._first) // _BATCH)
            while not self._append(body, headers):
                time.sleep(0.05)
            self.done = begin + _BATCH
            time.sleep(self._pause)

    def _append(self, body: bytes, headers: dict[str, str]) -> bool:
        try:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=PATIENCE)
            connection.request("POST", "/v1/stream/it", body, headers)
            status = connection.getresponse().status
            connection.close()
        except (OSError, http.client.HTTPException):
            return False
        return status in {200, 204}


class BrokenConnectionTestCase(SynchronousTestCase):
    """A test case with a server on a data directory, which can be replaced, and a proxy before it."""

    sizes = (500, 20_000)
    #: The server's limit of one answer to a read, in bytes; 0 for none.
    read_bytes = 0

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="broken-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.port = free_port()
        self.daemon = self.start()
        self.addCleanup(self.close)
        self.proxy = CuttingProxy(self.port, self.sizes)
        self.addCleanup(self.proxy.__exit__, None, None, None)
        self.url = f"http://127.0.0.1:{self.proxy.port}"

    def close(self) -> None:
        self.daemon.close()

    def start(self) -> Daemon:
        settings: dict[str, object] = {"storage__mode": "file-durable", "storage__data_dir": self.folder / "data"}
        settings["limits__max_read_bytes"] = self.read_bytes
        return Daemon(self.port, **settings).__enter__()

    def replace(self, number: signal.Signals) -> None:
        """End the server by a signal, and start another."""
        self.daemon.stop(number)
        self.daemon.close()
        self.daemon = self.start()

    def run_command(self, *arguments: object, output: Path, stdin: bytes | None = None) -> subprocess.Popen[bytes]:
        """Start a command whose output is appended to a file."""
        with output.open("ab") as file:
            process = subprocess.Popen(
                [*COMMAND, *map(str, arguments)],
                env=environment(url=self.url),
                stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
                stdout=file,
                stderr=subprocess.PIPE,
            )
        self.addCleanup(self.end, process)
        return process

    def succeeds(self, process: subprocess.Popen[bytes]) -> None:
        """Wait for the end of a command, which succeeds."""
        status = process.wait(120)
        assert process.stderr is not None
        self.assertEqual(0, status, process.stderr.read().decode())

    @staticmethod
    def end(process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stderr):
            if pipe is not None:
                pipe.close()

    def messages(self) -> list[dict[str, Any]]:
        """Return what the server has."""
        found: list[dict[str, Any]] = []
        offset = "-1"
        while True:
            status, headers, body = self.daemon.request("GET", f"/v1/stream/it?offset={offset}")
            self.assertEqual(200, status)
            found += json.loads(body)
            offset = headers["stream-next-offset"]
            if "stream-up-to-date" in headers:
                return found


class TailTests(BrokenConnectionTestCase):
    # However far behind the tail is, an answer is shorter than what the proxy passes on: an answer that is always cut
    # before the end of the last one is no success.
    read_bytes = 4_096

    def check(self, live: str) -> None:
        self.daemon.create("it", _JSON)
        output = self.folder / "output"
        tail = self.run_command("tail", "it", live, "--retry-for", 60, output=output)
        total = 0
        for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGKILL):
            writer = Writer(self.port, total, total + 1_500, pause=0.005)
            total += 1_500
            writer.start()
            while writer.done < total - 750:
                time.sleep(0.01)
            # The tail is somewhere in the middle, and so is the writer.
            self.replace(number)
            writer.join(60)
            self.assertEqual(total, writer.done)
        self.daemon.request("POST", "/v1/stream/it", b"", stream_closed="true")
        self.succeeds(tail)
        self.assertEqual([message(number) for number in range(total)], self.messages())
        self.assertEqual(
            [message(number) for number in range(total)],
            [json.loads(line) for line in output.read_bytes().splitlines()],
        )
        self.assertGreater(self.proxy.cuts, 3)

    def test_a_tail_by_events_misses_and_repeats_nothing(self) -> None:
        self.check("--sse")

    def test_a_tail_by_long_polls_misses_and_repeats_nothing(self) -> None:
        self.check("--long-poll")

    def test_a_stored_stream_is_read_over_a_connection_that_is_cut_all_the_time(self) -> None:
        self.read_bytes = 0
        self.replace(signal.SIGTERM)
        self.daemon.create("it", "application/octet-stream")
        data = random.Random(1).randbytes(600_000)
        self.daemon.append("it", data, "application/octet-stream")
        self.proxy.sizes = (20_000, 400_000)
        # Each attempt begins at the start of the answer, and has to get further than those before.
        output = self.folder / "output"
        read = self.run_command("read", "it", output=output)
        time.sleep(3)
        self.proxy.is_cutting = False
        self.succeeds(read)
        self.assertEqual(data, output.read_bytes())
        self.assertGreater(self.proxy.cuts, 1)


class KilledTailTests(BrokenConnectionTestCase):
    sizes = (5_000, 60_000)

    def tail_in_pieces(self, live: str, number: signal.Signals) -> list[list[int]]:
        """Run a tail that is ended by a signal again and again; return the numbers that each has printed."""
        self.daemon.create("it", _JSON)
        rng = random.Random(number)
        writer = Writer(self.port, 0, 4_000, pause=0.01)
        writer.start()
        printed: list[list[int]] = []
        for run in range(5):
            output = self.folder / f"output{live}-{run}"
            tail = self.run_command("tail", "it", live, "--save-offset", self.folder / "place", output=output)
            if run < 4:
                deadline = time.monotonic() + 3
                while not output.stat().st_size and time.monotonic() < deadline:
                    time.sleep(0.005)
                time.sleep(rng.uniform(0, 0.15))
                tail.send_signal(number)
            else:
                writer.join(60)
                self.daemon.request("POST", "/v1/stream/it", b"", stream_closed="true")
            tail.wait(60)
            lines = output.read_bytes()
            # A killed process may have written a part of a line.
            printed.append([json.loads(line)["n"] for line in lines[: lines.rfind(b"\n") + 1].splitlines()])
        return printed

    def test_a_terminated_tail_is_continued_without_a_gap_or_a_repeat(self) -> None:
        for live in ("--sse", "--long-poll"):
            printed = self.tail_in_pieces(live, signal.SIGTERM)
            self.assertEqual(list(range(4_000)), [number for run in printed for number in run])
            (self.folder / "place").unlink()
            self.daemon.request("DELETE", "/v1/stream/it")

    def test_a_killed_tail_is_continued_without_a_gap(self) -> None:
        printed = self.tail_in_pieces("--sse", signal.SIGKILL)
        expected = 0
        for run in printed:
            if run:
                # At least once: what was written after the last saved offset is written again.
                self.assertLessEqual(run[0], expected)
                self.assertEqual(list(range(run[0], run[-1] + 1)), run)
                expected = run[-1] + 1
        self.assertEqual(4_000, expected)


class AppendTests(BrokenConnectionTestCase):
    sizes = (300, 8_000)

    def lines(self, count: int) -> bytes:
        return b"".join(json.dumps(message(number)).encode() + b"\n" for number in range(count))

    def test_a_producer_stores_each_line_once_over_cut_connections_and_killed_servers(self) -> None:
        self.daemon.create("it", _JSON)
        source = self.folder / "lines"
        source.write_bytes(self.lines(3_000))
        arguments = (
            "append",
            "it",
            "--json-lines",
            "--retry-for",
            60,
            "--batch",
            3,
            "-f",
            source,
            "--producer-id",
            "me",
            "--json",
        )
        append = self.run_command(*arguments, output=self.folder / "output")
        for number in (signal.SIGKILL, signal.SIGTERM):
            time.sleep(1)
            self.replace(number)
        self.succeeds(append)
        done = json.loads((self.folder / "output").read_text())
        self.assertEqual((1_000, 0), (done["appends"], done["duplicates"]))
        self.assertEqual([message(number) for number in range(3_000)], self.messages())
        self.assertGreater(self.proxy.cuts, 10)

    def test_a_killed_producer_is_repeated_without_storing_anything_twice(self) -> None:
        for name, option in (("--epoch", "7"), ("--state", str(self.folder / "run"))):
            self.daemon.create("it", _JSON)
            source = self.folder / "lines"
            source.write_bytes(self.lines(600))
            # Without --retry-for the first request is not repeated, and the proxy cuts it now and then.
            arguments = ("append", "it", "--json-lines", "-f", source, "--retry-for", 60, "--producer-id", "me")
            for _ in range(4):
                append = self.run_command(*arguments, name, option, output=self.folder / "output")
                time.sleep(random.uniform(0.4, 1.0))
                append.kill()
                if append.wait(20) == 0:
                    # It was faster. With --state, another run would be another session, which appends all again.
                    break
            else:
                self.succeeds(self.run_command(*arguments, name, option, output=self.folder / "output"))
            self.assertEqual([message(number) for number in range(600)], self.messages())
            self.daemon.request("DELETE", "/v1/stream/it")
