"""Running helper programs (npm, node, pip) with a bound on their time and no output unless they fail."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

TAIL_LINES = 30


class ProgramFailure(Exception):
    """A helper program failed, could not be found, or took too long."""


@dataclass(frozen=True)
class Ended:
    """How a program ended; `status` is None when its time ran out."""

    status: int | None
    stdout: str
    stderr: str

    def tail(self) -> str:
        """Return the last lines of everything it wrote."""
        return "\n".join((self.stdout + self.stderr).rstrip().splitlines()[-TAIL_LINES:])


def run_bounded(
    command: Sequence[str], *, seconds: float, cwd: Path, environment: Mapping[str, str] | None = None
) -> Ended:
    """Run `command` to its end, or end it and all its children when `seconds` are over."""
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise ProgramFailure(f"cannot run {command[0]}: {error}") from error
    status: int | None
    try:
        stdout, stderr = process.communicate(timeout=seconds)
        status = process.returncode
    except subprocess.TimeoutExpired:
        _kill_group(process.pid)
        stdout, stderr = process.communicate()
        status = None
    except BaseException:
        _kill_group(process.pid)
        process.wait()
        raise
    return Ended(status, stdout, stderr)


def _kill_group(leader: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)


def run_checked(
    command: Sequence[str], *, seconds: float, cwd: Path, environment: Mapping[str, str] | None = None
) -> str:
    """Return the standard output of `command`, which must succeed in time."""
    ended = run_bounded(command, seconds=seconds, cwd=cwd, environment=environment)
    if ended.status is None:
        raise ProgramFailure(f"{' '.join(command)} took longer than {seconds:.0f} s\n{ended.tail()}")
    if ended.status != 0:
        raise ProgramFailure(f"{' '.join(command)} ended with status {ended.status}\n{ended.tail()}")
    return ended.stdout


def leave_on_sigterm() -> None:
    """Let SIGTERM unwind the program as Ctrl-C does, so that the servers it started are stopped."""

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, leave)
