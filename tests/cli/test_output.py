"""Tables and JSON on stdout, on terminals and in pipes; texts that cannot control a terminal."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.cli.errors import CommandError
from durable_streams.server.cli.output import print_json
from durable_streams.server.cli.terminal import is_terminal, printable
from tests.support.commands import environment
from tests.support.terminals import run_on_terminal

_TABLE = (
    "from durable_streams.server.cli.output import print_table\n"
    "print_table([('What', False), ('Each second', True)], [('appends', '1,000'), ('a\\x1b[31m [bold]x[/]' * 3, '9')])"
)


class PrintableTests(SynchronousTestCase):
    def test_control_characters_are_escaped(self) -> None:
        self.assertEqual(r"a\x1b[2J\r\u202e" + "\n日本", printable("a\x1b[2J\r\u202e\n日本"))
        self.assertEqual(r"a\nb", printable("a\nb", lines=False))

    @given(st.text())
    def test_the_result_can_be_printed_whatever_the_text_is(self, text: str) -> None:
        shown = printable(text, lines=False)
        self.assertLessEqual(len(shown.splitlines()), 1)
        self.assertNotRegex(shown, "[\x00-\x1f\x7f-\x9f]")
        self.assertIsNotNone(shown.encode())


class TerminalTests(SynchronousTestCase):
    def test_pipes_closed_streams_and_dumb_terminals_are_no_terminals(self) -> None:
        closed = io.StringIO()
        closed.close()
        for stream in (None, io.StringIO(), closed):
            self.assertFalse(is_terminal(stream))
        terminal = io.StringIO()
        terminal.isatty = lambda: True  # type: ignore[method-assign]
        with patch.dict("os.environ", {"TERM": "xterm"}):
            self.assertTrue(is_terminal(terminal))
        with patch.dict("os.environ", {"TERM": "dumb"}):
            self.assertFalse(is_terminal(terminal))


class TableTests(SynchronousTestCase):
    def piped(self, **variables: str) -> str:
        ended = subprocess.run(
            [sys.executable, "-c", _TABLE],
            capture_output=True,
            text=True,
            env=environment() | variables,
            timeout=60,
            check=False,
        )
        self.assertEqual((0, ""), (ended.returncode, ended.stderr))
        return ended.stdout

    def test_a_table_in_a_pipe_is_plain_text_that_is_not_cut(self) -> None:
        out = self.piped(COLUMNS="20")
        self.assertNotIn("\x1b", out)
        head, _, *rows = out.splitlines()
        self.assertRegex(head, r"^What +Each second$")
        self.assertRegex(rows[0], r"^appends +1,000$")
        self.assertRegex(rows[1], r"^(a\\x1b\[31m \[bold\]x\[/\]){3} +9$")
        self.assertEqual(2, len(rows))

    def test_a_table_in_a_pipe_has_no_colour_even_if_that_is_asked_for(self) -> None:
        self.assertNotIn("\x1b", self.piped(NO_COLOR="1"))

    def test_a_table_on_a_terminal_has_colours_unless_no_color_is_set(self) -> None:
        command = [sys.executable, "-c", _TABLE]
        status, shown = run_on_terminal(command, environment())
        self.assertEqual(0, status, shown)
        self.assertIn("\x1b[1m", shown)
        status, shown = run_on_terminal(command, environment() | {"NO_COLOR": "1"})
        self.assertEqual(0, status, shown)
        self.assertNotRegex(shown, "\x1b\\[[0-9;]*3[0-9]m")
        self.assertIn("appends", shown)

    def test_a_table_on_a_narrow_terminal_is_not_cut(self) -> None:
        code = (
            "import fcntl, struct, termios\n"
            f"fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack('4H', 9, 20, 0, 0))\n{_TABLE}"
        )
        status, shown = run_on_terminal([sys.executable, "-c", code], environment() | {"NO_COLOR": "1"})
        self.assertEqual(0, status, shown)
        self.assertNotIn("\N{HORIZONTAL ELLIPSIS}", shown)
        self.assertRegex(shown, r"(a\\x1b\[31m \[bold\]x\[/\]){3} +9")

    def test_the_table_of_bench_fits_80_columns_of_a_terminal(self) -> None:
        code = (
            "from durable_streams.server.cli.bench import _COLUMNS\n"
            "from durable_streams.server.cli.output import print_table\n"
            "cells = ('read of 1 MiB, 32 clients', '12,345', '1,345.2', '12.3', '123.4', '12345.6', '0', '100%')\n"
            "print_table(_COLUMNS, [cells])"
        )
        status, shown = run_on_terminal([sys.executable, "-c", code], environment() | {"NO_COLOR": "1"})
        self.assertEqual(0, status, shown)
        lines = re.sub("\x1b\\[[0-9;]*m", "", shown).splitlines()
        self.assertEqual(80, max(len(line.rstrip()) for line in lines), lines)


class JsonTests(SynchronousTestCase):
    def printed(self, value: object) -> str:
        with patch("sys.stdout", io.StringIO()) as out:
            print_json(value)
        return out.getvalue()

    def test_json_is_one_line_in_a_pipe(self) -> None:
        text = self.printed({"a": [1, None], "b": "日\x1b"})
        self.assertEqual('{"a":[1,null],"b":"日\\u001b"}\n', text)

    def test_json_is_indented_on_a_terminal(self) -> None:
        code = "from durable_streams.server.cli.output import print_json; print_json({'a': 1})"
        status, shown = run_on_terminal([sys.executable, "-c", code], environment())
        self.assertEqual((0, '{\r\n  "a": 1\r\n}\r\n'), (status, shown))
        self.assertEqual({"a": 1}, json.loads(shown))


class ErrorTests(SynchronousTestCase):
    def shown(self, error: CommandError) -> str:
        with patch("sys.stderr", io.StringIO()) as err:
            error.show()
        return err.getvalue()

    def test_an_error_is_shown_with_its_label(self) -> None:
        self.assertEqual("Error: No.\n", self.shown(CommandError("No.")))
        self.assertEqual("export failed: No.\n", self.shown(CommandError("No.", label="export failed")))
        self.assertEqual("[load_config] No.\n", self.shown(CommandError("[load_config] No.", label="")))

    def test_an_error_cannot_control_the_terminal(self) -> None:
        self.assertEqual("Error: \\x1b]0;x\\x07\n", self.shown(CommandError("\x1b]0;x\x07")))

    def test_errors_and_notes_that_nobody_reads_do_not_change_the_exit_status(self) -> None:
        for code, status in (("raise CommandError('No.')", 1), ("note('Look.')", 0)):
            program = (
                "import click\n"
                "from durable_streams.server.cli.errors import CommandError\n"
                "from durable_streams.server.cli.output import note\n"
                f"@click.command()\ndef command():\n    {code}\ncommand()\n"
            )
            ended = subprocess.run(
                ["sh", "-c", 'exec "$@" 2>/dev/full', "sh", sys.executable, "-c", program],
                env=environment(),
                timeout=60,
                check=False,
            )
            self.assertEqual(status, ended.returncode)
