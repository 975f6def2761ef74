"""Processes forked from one that has the server imported: they start within a fraction of the time of a new process."""

from __future__ import annotations

import importlib
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.context import ForkServerProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from types import TracebackType
from typing import Any, Self

#: What the forking process imports. No module of these needs the reactor when it is imported. The last one is the main
#: module of the processes of ``trial -j``, which a process that they fork imports.
_MODULES = [
    "durable_streams.server.tap",
    "durable_streams.server.cli",
    "durable_streams.server.transfer",
    "tests.support.killed_daemon",
    "twisted.trial._dist.workertrial",
]


def start_fork(target: Callable[..., None], *arguments: Any) -> ForkServerProcess:
    """Start a process that calls a function, and that ends at the latest with this one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_MODULES)
    process: ForkServerProcess = context.Process(target=target, args=arguments, daemon=True)
    process.start()
    return process


class _Descriptor:
    """A descriptor that a process gets when it is forked: the function that it calls gets its number there."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[Callable[[Any], int], tuple[Any]]:
        return _number, (DupFd(self._number),)


def _number(descriptor: Any) -> int:
    number: int = descriptor.detach()
    return number


def _move(number: int, to: int) -> None:
    os.dup2(number, to)
    os.close(number)


def install_reactor() -> None:
    """Install a reactor that does not share the descriptors of the process that this one was forked from."""
    sys.modules.pop("twisted.internet.reactor", None)
    from twisted.internet import epollreactor  # noqa: PLC0415 (its time is now)

    epollreactor.install()


def _run(module: str, arguments: list[str], output: int) -> None:
    _move(output, 1)
    install_reactor()
    importlib.import_module(module).main(*arguments)


def _interpret(
    arguments: Sequence[str], streams: Sequence[int], environment: Mapping[str, str], folder: str | None
) -> None:
    for number, descriptor in enumerate(streams):
        _move(descriptor, number)
    # As those of a new interpreter, and open until the end.
    sys.stdin, sys.stdout = open(0), open(1, "w")  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace")  # noqa: SIM115
    os.environ.clear()
    os.environ.update(environment)
    if folder is not None:
        os.chdir(folder)
    places = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:0] = [place for place in places if place and place not in sys.path]
    sys.modules.pop("twisted.internet.reactor", None)
    option, program, *rest = arguments
    sys.argv = [option, *rest]
    if option == "-m":
        runpy.run_module(program, run_name="__main__", alter_sys=True)
    else:
        exec(program, {"__name__": "__main__"})


class ForkedInterpreter:
    """
    A Python program in a process of its own, with the methods of :class:`subprocess.Popen`.

    :param arguments: those of the interpreter: ``-m MODULE`` or ``-c PROGRAM``, and those of the program.
    :param stdin: the descriptor that it has as its stdin, and so on.
    :param environment: all of its environment.
    :param folder: its current directory; None for that of this process.
    :ivar pid: the number of the process.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        stdin: int,
        stdout: int,
        stderr: int,
        environment: Mapping[str, str],
        folder: str | Path | None = None,
    ) -> None:
        assert arguments[0] in ("-m", "-c")
        streams = [_Descriptor(stdin), _Descriptor(stdout), _Descriptor(stderr)]
        self._process = start_fork(_interpret, arguments, streams, environment, None if folder is None else str(folder))
        pid = self._process.pid
        assert pid is not None
        self.pid = pid

    def poll(self) -> int | None:
        """Return its exit status, or minus the number of the signal that ended it; None if it runs."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """
        Wait for its end, and return its exit status, as :meth:`poll` does.

        :param timeout: in seconds; None for as long as it takes.
        :raises subprocess.TimeoutExpired: it runs on.
        """
        self._process.join(timeout)
        status = self._process.exitcode
        if status is None:
            assert timeout is not None
            raise subprocess.TimeoutExpired("a forked interpreter", timeout)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal if it runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it if it runs."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send it SIGTERM if it runs."""
        self.send_signal(signal.SIGTERM)


def run_forked(
    arguments: Sequence[str], stdin: bytes, environment: Mapping[str, str], folder: str | Path | None, seconds: float
) -> subprocess.CompletedProcess[bytes]:
    """
    Run a :class:`ForkedInterpreter` with pipes to its end.

    :param stdin: the bytes that it reads.
    :raises subprocess.TimeoutExpired: it runs on after so many seconds; it is killed.
    """
    (given, input_end), (output, output_end), (errors, errors_end) = os.pipe(), os.pipe(), os.pipe()
    process = ForkedInterpreter(arguments, given, output_end, errors_end, environment, folder)
    for end in (given, output_end, errors_end):
        os.close(end)
    with ThreadPoolExecutor(3) as pool:
        pool.submit(_write, input_end, stdin)
        printed = [pool.submit(_read, number) for number in (output, errors)]
        try:
            status = process.wait(seconds)
        finally:
            process.kill()
        return subprocess.CompletedProcess(arguments, status, *(each.result() for each in printed))


def _write(number: int, data: bytes) -> None:
    with suppress(BrokenPipeError), open(number, "wb") as file:
        file.write(data)


def _read(number: int) -> bytes:
    with open(number, "rb") as file:
        return file.read()


class ForkedProgram:
    """
    A program in a process of its own. As a context, it is killed at the end.

    :param module: a module whose function ``main`` takes the arguments of the command line.
    :ivar output: what it prints, as a file.
    """

    def __init__(self, module: str, *arguments: object) -> None:
        receiving, sending = os.pipe()
        self._process = start_fork(_run, module, [str(argument) for argument in arguments], _Descriptor(sending))
        os.close(sending)
        self.output = os.fdopen(receiving, "rb")

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
