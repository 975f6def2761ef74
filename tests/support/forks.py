"""Processes forked from one that has the server imported: they start within a fraction of the time of a new process."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from types import TracebackType
from typing import Any, Self

#: What the forking process imports. No module of these needs the reactor when it is imported.
_MODULES = ["durable_streams.server.tap", "durable_streams.server.transfer", "tests.support.killed_daemon"]


def start_fork(target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Start a process that calls a function, and that ends at the latest with this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_MODULES)
    process: ForkServerProcess = context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


def install_reactor() -> None:
    """Install a reactor that does not share the descriptors of the process that this one was forked from."""
    sys.modules.pop("twisted.internet.reactor", None)
    from twisted.internet import epollreactor  # noqa: PLC0415 (its time is now)

    epollreactor.install()


def _run(module: str, arguments: list[str], output: Connection) -> None:
    os.dup2(output.fileno(), 1)
    output.close()
    install_reactor()
    importlib.import_module(module).main(*arguments)


class ForkedProgram:
    """
    A program in a process of its own. As a context, it is killed at the end.

    :param module: a module whose function ``main`` takes the arguments of the command line.
    :ivar output: what it prints, as a file.
    """

    def __init__(self, module: str, *arguments: object) -> None:
        receiving, sending = multiprocessing.Pipe(duplex=False)
        self._process = start_fork(_run, module, [str(argument) for argument in arguments], sending)
        sending.close()
        self.output = os.fdopen(os.dup(receiving.fileno()), "rb")
        receiving.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self._process.join()
        self.output.close()

    def kill(self) -> None:
        """Kill it if it runs."""
        self._process.kill()

    def run(self, seconds: float) -> tuple[int, list[bytes]]:
        """
        Read all that it prints, and return its exit status with that.

        :raises AssertionError: it does not end in this time.
        """
        deadline = time.monotonic() + seconds
        timer = threading.Timer(seconds, self.kill)
        timer.start()
        lines = self.output.readlines()
        timer.cancel()
        assert time.monotonic() < deadline, f"The program did not end within {seconds} s."
        return self.wait(seconds), lines

    def wait(self, seconds: float) -> int:
        """
        Wait for its end. Return its exit status, or minus the number of the signal that ended it.

        :raises AssertionError: it runs on.
        """
        self._process.join(seconds)
        status = self._process.exitcode
        assert status is not None, f"The program runs on after {seconds} s."
        return status
