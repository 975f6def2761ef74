"""Coroutines that run on the reactor of a command: results, errors, signals."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.commands import environment
from tests.support.daemon import PATIENCE
from tests.support.terminals import TerminalProcess

_PROGRAM = """
import click, sys
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from durable_streams.server.cli.errors import CommandError
from durable_streams.server.cli.running import run

async def work(reactor):
{body}

@click.command()
def command():
    print("result", run(work))

command()
"""

_CLEANING = """
print("begun", flush=True)
try:
    await Deferred()
finally:
    await deferLater(reactor, 0.01)
    print("cleaned up", flush=True)
"""

_HANGING = """
print("begun", flush=True)
try:
    await Deferred()
finally:
    print("hanging", flush=True)
    await Deferred()
"""


class RunningTests(SynchronousTestCase):
    def program(self, body: str) -> list[str]:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name, "program.py")
        path.write_text(_PROGRAM.format(body=textwrap.indent(body.strip(), "    ")))
        return [sys.executable, str(path)]

    def outcome(self, body: str) -> tuple[int, str, str]:
        ended = subprocess.run(
            self.program(body), capture_output=True, text=True, env=environment(), timeout=60, check=False
        )
        return ended.returncode, ended.stdout, ended.stderr

    def test_the_result_is_returned_whether_the_coroutine_ends_at_once_or_later(self) -> None:
        self.assertEqual((0, "result 5\n", ""), self.outcome("return 5"))
        self.assertEqual((0, "result 6\n", ""), self.outcome("return await deferLater(reactor, 0, lambda: 6)"))

    def test_an_error_is_raised_where_the_command_was(self) -> None:
        body = "await deferLater(reactor, 0)\nraise CommandError('No.')"
        self.assertEqual((1, "", "Error: No.\n"), self.outcome(body))

    def test_warnings_of_the_log_are_on_stderr_and_information_is_not(self) -> None:
        body = "Logger().warn('Careful: {x}.', x=3)\nLogger().info('Fine.')\nreturn 0"
        self.assertEqual((0, "result 0\n", "Warning: Careful: 3.\n"), self.outcome(body))

    def started(self, body: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.program(body), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
        )
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.assertEqual("begun\n", process.stdout.readline())
        return process

    def test_a_signal_cancels_the_coroutine_which_cleans_up(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.started(_CLEANING)
            process.send_signal(number)
            out, err = process.communicate(timeout=PATIENCE)
            self.assertEqual((128 + number, "cleaned up\n", ""), (process.returncode, out, err))

    def test_a_second_signal_ends_a_clean_up_that_hangs(self) -> None:
        process = self.started(_HANGING)
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        self.assertEqual("hanging\n", process.stdout.readline())
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
        self.assertEqual((130, "", ""), (process.returncode, out, err))

    def test_ctrl_c_on_a_terminal_ends_the_command_without_a_traceback(self) -> None:
        process = TerminalProcess(self.program(_CLEANING), environment())
        process.read_until(b"begun")
        process.type(b"\x03")
        self.assertEqual(130, process.wait(), process.printed)
        self.assertIn(b"cleaned up", process.printed)
        self.assertNotIn(b"Traceback", process.printed)
        self.assertNotIn(b"Aborted", process.printed)


#: The command ``config``, which is replaced by a body; its clean-up is printed.
_REPLACED = """\
import os, signal, sys
from durable_streams.server.cli import main, show_config
from durable_streams.server.cli.running import run

def load(*_):
    try:
{body}
    finally:
        print("cleaned up")

show_config.load = load
main(["config"])
"""

#: Sends a signal to the process when the reactor is imported.
_DURING_IMPORT = """\
class Finder:
    def find_spec(self, name, *_):
        if name == "twisted.internet.reactor":
            os.kill(os.getpid(), {number})

sys.meta_path.insert(0, Finder())
async def work(reactor):
    print("begun")
run(work)
"""


class NoReactorTests(SynchronousTestCase):
    def check(self, number: int, body: str) -> None:
        code = _REPLACED.format(body=textwrap.indent(body, " " * 8))
        ended = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=environment(), timeout=60, check=False
        )
        self.assertEqual((128 + number, "cleaned up\n", ""), (ended.returncode, ended.stdout, ended.stderr))

    def test_a_signal_before_the_reactor_runs_ends_the_command_after_its_clean_up(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self.check(number, f"os.kill(os.getpid(), {int(number)})")

    def test_a_signal_inside_of_an_exec_ends_the_command_with_its_exit_status(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self.check(number, f"exec('os.kill(os.getpid(), {int(number)})')")

    def test_a_signal_that_becomes_another_exception_ends_the_command_without_a_traceback(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self.check(number, f"try: os.kill(os.getpid(), {int(number)})\nexcept BaseException: raise TypeError")

    def test_a_signal_while_the_reactor_is_imported_ends_the_command_before_its_work(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self.check(number, _DURING_IMPORT.format(number=int(number)))

    def test_a_signal_that_is_ignored_at_the_start_stays_ignored(self) -> None:
        body = """\
            import os, signal
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            from durable_streams.server.cli import main, show_config
            from durable_streams.server.cli.running import run
            async def work(reactor):
                os.kill(os.getpid(), signal.SIGINT)
                return 1
            def load(*_):
                os.kill(os.getpid(), signal.SIGINT)
                print("result", run(work))
                raise SystemExit(0)
            show_config.load = load
            main(["config"])
        """
        ended = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(body)],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=60,
            check=False,
        )
        self.assertEqual((0, "result 1\n", ""), (ended.returncode, ended.stdout, ended.stderr))
