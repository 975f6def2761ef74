"""The command ``bench``: figures, cleaning up, errors."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from durable_streams.server.cli.measuring import together
from tests.support.commands import COMMAND, environment, run_command
from tests.support.daemon import PATIENCE, Daemon, free_port
from tests.support.terminals import run_on_terminal

_SHORT = ("--seconds", "0.3", "--clients", "4", "--tails", "3", "--streams", "2")


class BenchTests(SynchronousTestCase):
    @contextmanager
    def server(self) -> Iterator[tuple[Daemon, str]]:
        with Daemon(admin__enabled="true") as daemon:
            yield daemon, f"http://127.0.0.1:{daemon.port}/v1/stream"

    def streams(self, daemon: Daemon) -> list[str]:
        return [stream["name"] for stream in json.loads(daemon.request("GET", "/admin/streams")[2])]

    def test_the_table_has_a_row_for_each_phase_and_the_streams_are_deleted(self) -> None:
        with self.server() as (daemon, url):
            daemon.create("mine")
            ended = run_command("bench", "--url", url, *_SHORT)
            self.assertEqual((0, b""), (ended.returncode, ended.stderr))
            first, _, titles, _, *rows = ended.stdout.decode().splitlines()
            self.assertIn("by a client in Python (durable-streams-server ", first)
            self.assertRegex(titles, r"^Phase +Each second +MB/s +p50 ms +p99 ms +max ms +Errors +Client busy$")
            for row, name in zip(
                rows,
                ("append, 1 client", "append, 4 clients", "read of 1 MiB, 4 clients", "append to 3 tails"),
                strict=False,
            ):
                self.assertRegex(row, rf"^{name} +[0-9,]+ +[0-9,.]+ +[0-9.]+ +[0-9.]+ +[0-9.]+ +0 +[0-9]+%$")
            self.assertEqual(["mine"], self.streams(daemon))

    def test_json_has_the_load_and_the_figures(self) -> None:
        with self.server() as (daemon, url):
            ended = run_command("bench", "--json", "--size", "1000", *_SHORT, url=url.removesuffix("/v1/stream"))
            self.assertEqual((0, b""), (ended.returncode, ended.stderr))
            self.assertEqual([], self.streams(daemon))
        report = json.loads(ended.stdout)
        self.assertEqual((url, 1000, 3), (report["url"], report["load"]["size"], report["load"]["tails"]))
        self.assertEqual(4, len(report["phases"]))
        for phase in report["phases"]:
            self.assertGreater(phase["count"], 0)
            self.assertGreater(phase["per_second"], 0)
            self.assertLessEqual(phase["p50_ms"], phase["p99_ms"])
            self.assertLessEqual(phase["p99_ms"], phase["max_ms"])
            self.assertEqual((0, None), (phase["failures"], phase["failure"]))
            self.assertTrue(0 < phase["client_busy"] <= 1)
        tails = report["phases"][3]
        self.assertEqual(0, tails["count"] % 3, "each append reaches each tail")

    def test_ctrl_c_deletes_the_streams_and_exits_with_130(self) -> None:
        with self.server() as (daemon, url):
            process = subprocess.Popen(
                [*COMMAND, "bench", "--url", url, "--seconds", "60"],
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            deadline = time.monotonic() + PATIENCE
            while len(self.streams(daemon)) < 8:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.02)
            process.send_signal(signal.SIGINT)
            self.assertEqual((b"", b""), process.communicate(timeout=PATIENCE))
            self.assertEqual(130, process.returncode)
            self.assertEqual([], self.streams(daemon))

    def test_a_terminal_shows_each_phase_while_it_runs(self) -> None:
        with self.server() as (_, url):
            status, shown = run_on_terminal([*COMMAND, "bench", "--url", url, *_SHORT], environment())
        self.assertEqual(0, status, shown)
        self.assertIn("append to 3 tails", shown.partition("Phase")[0])

    def test_a_server_that_cannot_be_used_is_a_failure_with_a_sentence(self) -> None:
        with self.server() as (daemon, _):
            ended = run_command("bench", "--url", f"http://127.0.0.1:{daemon.port}/elsewhere", *_SHORT)
            self.assertEqual((1, b""), (ended.returncode, ended.stdout))
            self.assertIn(b"Error: ", ended.stderr)
            self.assertNotIn(b"Traceback", ended.stderr)
        ended = run_command("bench", "--url", f"http://127.0.0.1:{free_port()}/v1/stream", *_SHORT)
        self.assertEqual((1, b""), (ended.returncode, ended.stdout))
        self.assertIn(b"connection refused", ended.stderr)

    def test_a_server_must_be_named(self) -> None:
        ended = run_command("bench")
        self.assertEqual((2, b""), (ended.returncode, ended.stdout))
        self.assertIn(b"give its URL by --url or DS_URL, such as http://localhost:4437", ended.stderr)
        for arguments in (("--seconds", "0"), ("--clients", "0"), ("--size", "x")):
            self.assertEqual(2, run_command("bench", *arguments).returncode)


class TogetherTests(TestCase):
    async def test_the_first_error_ends_the_other_coroutines(self) -> None:
        ended: list[str] = []

        async def fail() -> None:
            await deferLater(reactor, 0.01)
            raise ValueError("mine")

        async def wait() -> None:
            try:
                await Deferred()
            finally:
                ended.append("waiting")

        with self.assertRaisesRegex(ValueError, "mine"):
            await together(reactor, [wait(), fail(), wait()])
        self.assertEqual(["waiting", "waiting"], ended)

    async def test_an_error_at_once_is_raised(self) -> None:
        async def fail() -> None:
            raise ValueError("at once")

        with self.assertRaisesRegex(ValueError, "at once"):
            await together(reactor, [fail()])
