"""Documents that no server wrote, given to the command: each is refused with a sentence, in bounded memory."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import CHECKOUT, environment
from tests.support.transfers import document_object, pretty, stream_object

#: The most memory that the command may have at its peak, in KiB, over that of an import of one small stream.
_MEMORY = 65_536

#: Runs the command, and writes its peak of memory to a file.
_PROGRAM = """
import atexit, re, runpy, sys
def note():
    with open("/proc/self/status") as status, open(sys.path.pop(), "w") as peak:
        peak.write(re.search("VmHWM:\\s+([0-9]+)", status.read())[1])
sys.path.append(sys.argv.pop(1))
atexit.register(note)
runpy.run_module("durable_streams.server", run_name="__main__")
"""

_MESSAGE = b'{"offset": "0000000000000000_0000000000000000", "data_base64": "MQ=="}, '


class HostileDocumentTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).resolve()
        self.folder.mkdir()
        self.environment = environment(0) | {
            "PYTHONPATH": os.fspath(CHECKOUT),
            "DS_STORAGE__MODE": "acid",
            "DS_STORAGE__DATA_DIR": os.fspath(self.folder / "data"),
        }
        status, said, self.usual = self.imported([pretty(document_object(stream_object("kept", "text/plain", b"old")))])
        self.assertEqual(0, status, said)
        self.before = self.listed()

    def listed(self) -> bytes:
        command = [sys.executable, "-m", "durable_streams.server", "list", "--json"]
        return subprocess.run(command, env=self.environment, capture_output=True, check=True, timeout=60).stdout

    def imported(self, pieces: Iterable[bytes]) -> tuple[int, str, int]:
        """Import what arrives in pieces; return the exit status, what was said, and the peak of memory in KiB."""
        peak = self.folder / "peak"
        command = [sys.executable, "-c", _PROGRAM, os.fspath(peak), "import", "--on-conflict", "replace"]
        process = subprocess.Popen(command, env=self.environment, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stderr is not None
        with process.stderr:
            with contextlib.suppress(BrokenPipeError), process.stdin:
                for piece in pieces:
                    process.stdin.write(piece)
            said = process.stderr.read().decode()
            status = process.wait(60)
        return status, said, int(peak.read_text())

    def is_refused(self, pieces: Iterator[bytes], sentence: str) -> None:
        status, said, memory = self.imported(pieces)
        self.assertEqual(1, status, said)
        self.assertIn(f"import failed: {sentence}", said)
        self.assertNotIn("Traceback", said)
        self.assertEqual(1, said.strip().count("\n") + 1, said)
        self.assertLess(memory - self.usual, _MEMORY)
        self.assertEqual(self.before, self.listed())

    def test_one_endless_line_is_refused_while_it_arrives(self) -> None:
        self.is_refused(repeat(b"x" * 65_536, 2**15), "invalid document: it is not JSON: ")
        self.is_refused(
            chain([b'"'], repeat(b"x" * 65_536, 2**15)), "invalid document: it has a value, or white space, "
        )

    def test_a_message_of_two_gigabytes_is_refused_while_it_arrives(self) -> None:
        start = b'{"format_version": 1, "streams": [{"name": "kept", "messages": [{"data_base64": "'
        self.is_refused(chain([start], repeat(b"A" * 65_536, 2**15)), "invalid document: a message has more than 1")

    def test_deep_nesting_is_refused(self) -> None:
        self.is_refused(
            chain([b'{"x": '], repeat(b"[" * 65_536, 2**15)), "invalid document: a value is nested more than "
        )

    def test_very_many_messages_before_a_bad_one_change_nothing(self) -> None:
        head = pretty(document_object(stream_object("kept", "text/plain", b"new"))).partition(b'"messages": [')[0]
        end = b'{"data_base64": "x"}]}]}'
        many = repeat(_MESSAGE * 1000, 300)
        sentence = "invalid document: message 300001 of stream 'kept' is not padded standard base64"
        self.is_refused(chain([head, b'"messages": ['], many, [end]), sentence)

    def test_very_many_streams_before_a_cut_change_nothing(self) -> None:
        text = pretty(stream_object("N", "text/plain", b"1"))
        streams = (text.replace(b'"N"', b'"s%d"' % number) + b"," for number in range(20_000))
        self.is_refused(chain([b'{"format_version": 1, "streams": ['], streams), "invalid document: it ends after ")
