"""The programs of the documentation, as they stand there."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import CHECKOUT, PATIENCE, environment, free_port
from tests.support.pages import block_after, run_under_trial

EXAMPLES = CHECKOUT / "docs" / "examples"


def fetch(url: str, method: str = "GET", body: bytes | None = None) -> bytes:
    """Ask, and take the answer's body."""
    request = urllib.request.Request(url, body, {"Content-Type": "text/plain"}, method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        data: bytes = answer.read()
        return data


class ExampleCase(SynchronousTestCase):
    def run_program(self, *command: str, **variables: str) -> subprocess.Popen[str]:
        program = subprocess.Popen(
            [sys.executable, *command],
            env=environment(0) | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.addCleanup(program.wait)
        self.addCleanup(program.kill)
        assert program.stdout is not None
        self.addCleanup(program.stdout.close)
        return program

    def stop(self, program: subprocess.Popen[str], number: int) -> tuple[int, str]:
        """Send a signal, and return the exit status and the output."""
        program.send_signal(number)
        said, _ = program.communicate(timeout=PATIENCE)
        return program.returncode, said

    def until(self, url: str, beginning: bytes) -> bytes:
        """Read a stream until it begins like this, or for long enough."""
        deadline = time.monotonic() + PATIENCE
        data = b""
        while not data.startswith(beginning) and time.monotonic() < deadline:
            try:
                data = fetch(url)
            except urllib.error.URLError:
                data = b"nothing yet"
            time.sleep(0.05)
        self.assertTrue(data.startswith(beginning), data)
        return data


class EmbeddedTests(ExampleCase):
    def start(self, *arguments: str) -> tuple[subprocess.Popen[str], str]:
        program = self.run_program(str(EXAMPLES / "embedded.py"), "0", *arguments)
        assert program.stdout is not None
        return program, program.stdout.readline().strip()

    def test_embedded_py_serves_a_page_and_appends_to_a_stream(self) -> None:
        _, site = self.start()
        self.assertIn(b"/streams/clock", fetch(site))
        self.until(f"{site}streams/clock?offset=-1", b"tick 0\ntick 1\n")

    def test_embedded_py_answers_each_question_once_over_restarts(self) -> None:
        directory = str(Path(self.mktemp()).absolute())
        answers = b""
        for number, question in enumerate((b"Is it safe", b"Is it fast"), 1):
            program, site = self.start(directory)
            fetch(f"{site}streams/questions", "POST", question)
            answers += b"%d: %b? Yes.\n" % (number, question)
            self.assertEqual(self.until(f"{site}streams/answers?offset=-1", answers), answers)
            _, said = self.stop(program, signal.SIGTERM)
            self.assertEqual(said, "stopped\n")


class ApplicationTests(ExampleCase):
    """``streams.tac`` under twistd."""

    def start(self, directory: str) -> tuple[subprocess.Popen[str], list[str]]:
        ports = [free_port(), free_port()]
        program = self.run_program(
            "-c",
            "from twisted.scripts.twistd import run; run()",
            "--nodaemon",
            "--pidfile=",
            f"--rundir={directory}",
            f"--python={EXAMPLES / 'streams.tac'}",
            STREAMS_LISTEN=" ".join(f"http:{port}:interface=127.0.0.1" for port in ports),
        )
        return program, [f"http://127.0.0.1:{port}" for port in ports]

    def test_streams_tac_serves_on_both_listeners_and_stores_streams(self) -> None:
        directory = str(Path(self.mktemp()).absolute())
        Path(directory).mkdir()
        program, (one, other) = self.start(directory)
        self.until(f"{one}/readyz", b"ready")
        fetch(f"{one}/v1/stream/log", "PUT", b"kept")
        self.assertEqual(fetch(f"{other}/v1/stream/log"), b"kept")
        _, said = self.stop(program, signal.SIGTERM)
        self.assertIn("The server has stopped.", said)
        self.assertNotIn("Traceback", said)
        program, (one, other) = self.start(directory)
        self.until(f"{other}/v1/stream/log", b"kept")
        _, said = self.stop(program, signal.SIGINT)
        self.assertIn("The server has stopped.", said)


class ReadmeTests(ExampleCase):
    def test_the_program_of_the_readme_serves_streams(self) -> None:
        port = free_port()
        source = block_after(CHECKOUT / "README.rst", "Inside your program\n").replace("8080", str(port))
        program = self.run_program("-c", source)
        url = f"http://127.0.0.1:{port}/streams/greetings"
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                fetch(url, "PUT", b"hello")
                break
            except urllib.error.URLError:
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.05)
        fetch(url, "POST", b" world")
        self.assertEqual(fetch(url), b"hello world")
        status, said = self.stop(program, signal.SIGTERM)
        self.assertNotIn("Traceback", said)
        self.assertIn(status, (0, -signal.SIGTERM))


class TestingPageTests(SynchronousTestCase):
    def test_the_test_of_the_page_passes_under_trial_and_leaves_the_reactor_clean(self) -> None:
        source = block_after(CHECKOUT / "docs" / "embedding.rst", "a complete test.")
        self.assertIn("PASSED (successes=1)", run_under_trial(Path(self.mktemp()), source))
