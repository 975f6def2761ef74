"""A process on a terminal: what it prints there."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios
import time
from collections.abc import Mapping, Sequence

from tests.support.daemon import PATIENCE


class TerminalProcess:
    """
    A process whose stdin, stdout and stderr are a terminal of 120 columns.

    :param environment: TERM is set in it.
    :ivar printed: what it has printed so far.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str]) -> None:
        self._terminal, inside = pty.openpty()
        fcntl.ioctl(inside, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
        self.process = subprocess.Popen(
            list(arguments),
            stdin=inside,
            stdout=inside,
            stderr=inside,
            env={"TERM": "xterm-256color", **environment},
            start_new_session=True,
            # Ctrl-C of the terminal reaches its foreground processes only.
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509 (one system call)
        )
        os.close(inside)
        self.printed = b""

    def type(self, keys: bytes) -> None:
        """Type on the terminal."""
        os.write(self._terminal, keys)

    def read_until(self, mark: bytes) -> bytes:
        """Read until something was printed; fail if the process ends before."""
        while mark not in self.printed:
            data = self._read()
            assert data, f"It ended before {mark!r}: {self.printed!r}"
            self.printed += data
        return self.printed

    def wait(self) -> int:
        """Read to the end, and return the exit status."""
        deadline = time.monotonic() + PATIENCE
        while data := self._read():
            self.printed += data
            assert time.monotonic() < deadline, self.printed[-500:]
        os.close(self._terminal)
        return self.process.wait(PATIENCE)

    def _read(self) -> bytes:
        try:
            return os.read(self._terminal, 65536)
        except OSError:
            # The last process has closed it.
            return b""


def run_on_terminal(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    """Run a process on a terminal, and return its exit status and what it printed."""
    process = TerminalProcess(arguments, environment)
    status = process.wait()
    return status, process.printed.decode()
