"""Progress bars: on terminals only, with the rate and the time left."""

from __future__ import annotations

import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from tests.support.commands import environment
from tests.support.terminals import run_on_terminal

_CODE = """
import time
from durable_streams.server.cli.progress import progress_bar
with progress_bar("Copying a\\x1b[31m [b]x[/b]", {total}, {counted!r}) as bar:
    for done in range(0, 11):
        time.sleep(0.03)
        bar.update(done * 1048576 // {unit}, {total})
    bar.clear()
    print("a line")
    bar.restart("Again", 5)
    time.sleep(0.11)
    bar.update(5, 5)
print("visible" if bar.visible else "quiet")
"""


def _command(total: int | None, counted: str = "") -> list[str]:
    unit = 1048576 if counted else 1
    return [sys.executable, "-c", _CODE.format(total=total, counted=counted, unit=unit)]


class ProgressTests(SynchronousTestCase):
    def test_a_terminal_shows_the_amount_the_rate_and_the_time_left(self) -> None:
        status, shown = run_on_terminal(_command(10 * 1048576), environment())
        self.assertEqual(0, status, shown)
        self.assertIn("visible", shown)
        self.assertRegex(shown, r"Copying a\\x1b\[31m \[b\]x\[/b\]")
        self.assertRegex(shown, r"[1-9][0-9.]*/10\.5 MB")
        self.assertRegex(shown, r"[0-9.]+ [MG]B/s")
        self.assertRegex(shown, r"0:00:0[0-9]")
        self.assertIn("Again", shown)
        self.assertIn("\x1b[?25h", shown)
        # The line was printed where the bar had been.
        self.assertIn("\r\x1b[2Ka line\r\n", shown)

    def test_other_units_are_named(self) -> None:
        status, shown = run_on_terminal(_command(10, "streams"), environment())
        self.assertEqual(0, status, shown)
        self.assertRegex(shown, r"[0-9]+/10")
        self.assertIn("streams", shown)

    def test_an_unknown_total_is_a_question_mark(self) -> None:
        status, shown = run_on_terminal(_command(None), environment())
        self.assertEqual(0, status, shown)
        self.assertRegex(shown, r"MB|/\?")

    def test_nothing_is_shown_in_a_pipe_or_on_a_dumb_terminal(self) -> None:
        ended = subprocess.run(
            _command(10 * 1048576), capture_output=True, text=True, env=environment(), timeout=60, check=False
        )
        self.assertEqual((0, "a line\nquiet\n", ""), (ended.returncode, ended.stdout, ended.stderr))
        status, shown = run_on_terminal(_command(10 * 1048576), environment() | {"TERM": "dumb"})
        self.assertEqual((0, "a line\r\nquiet\r\n"), (status, shown))

    def test_no_color_is_honoured(self) -> None:
        status, shown = run_on_terminal(_command(10 * 1048576), environment() | {"NO_COLOR": "1"})
        self.assertEqual(0, status, shown)
        self.assertNotRegex(shown, "\x1b\\[[0-9;]*3[0-9]")
