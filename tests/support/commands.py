"""The command ``durable-streams-server``, run in this process or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

from click.testing import CliRunner, Result

from durable_streams.server.cli import main
from tests.support.daemon import CHECKOUT
from tests.support.forks import run_forked

#: How a process runs the command, as the console script does.
COMMAND = (sys.executable, "-m", "durable_streams.server")


def command(name: str, *arguments: object, **settings: str) -> Result:
    """Run a command in this process: ``storage__mode="memory"`` sets DS_STORAGE__MODE."""
    unset = {name: None for name in os.environ if name.startswith("DS_") or name == "RUST_LOG"}
    inherited: dict[str, str | None] = {**unset}
    chosen = {f"DS_{name.upper()}": value for name, value in settings.items()}
    return CliRunner().invoke(main, [name, *map(str, arguments)], env=inherited | chosen)


def environment(**settings: object) -> dict[str, str]:
    """Return the environment of a process without the caller's settings: ``storage__mode`` sets DS_STORAGE__MODE."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("DS_") and name != "RUST_LOG"}
    inherited |= {"PYTHONPATH": str(CHECKOUT)}
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        inherited.pop(name, None)
    return inherited | {f"DS_{name.upper()}": str(value) for name, value in settings.items()}


def run_command(
    *arguments: object, stdin: Any = b"", folder: Any = None, **settings: object
) -> subprocess.CompletedProcess[bytes]:
    """
    Run a command in a process of its own, with pipes. The process is a forked interpreter.

    :param stdin: the bytes that it reads.
    :param folder: its current directory.
    """
    return run_forked([*COMMAND[1:], *map(str, arguments)], stdin, environment(**settings), folder, 60)
