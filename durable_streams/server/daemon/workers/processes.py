"""The processes of workers, as the supervisor starts and watches them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...listening.inheritance import FIRST_PASSED, BoundPorts
from .messages import Assignment, Channel, FromWorker, Message

_PROGRAM: Final = f"{__name__.rpartition('.')[0]}.launching"

#: Variables that are about the supervisor's own process.
_OWN: Final = frozenset({"NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"})

#: The standard streams, and the pipe through which a worker receives messages in place of its standard input.
_INPUT, _OUTPUT, _ERRORS = 0, 1, 2

_log = Logger()


class WorkerProcess(ProcessProtocol):
    """
    The process of a worker.

    :param receive: is called with each message of the worker.
    :param ended: is called with the reason when the process has ended and its pipes are read to their ends.
    :ivar id: the id of the process, from its start on.
    """

    def __init__(self, receive: Callable[[Message], object], ended: Callable[[Failure], object]) -> None:
        self._ended = ended
        self._channel = Channel(FromWorker, receive, lambda: None)
        self._channel.makeConnection(_Pipe(self))
        self._process: Any = None
        self.id = 0

    def start(self, reactor: Any, number: int, sockets: Sequence[BoundPorts], output: int) -> list[int]:
        """
        Start the process.

        :param number: the worker's number, from 1.
        :param output: the descriptor of the log, which becomes the standard output.
        :returns: the descriptors of its listening sockets in the process.
        :raises OSError: it cannot be started.
        """
        passed = [each.passed_as for each in sockets if each.passed_as is not None]
        free = max([_ERRORS, *passed]) + 1
        pipe, *inherited = range(free, free + 1 + len(sockets))
        numbers = [
            new if each.passed_as is None else each.passed_as for each, new in zip(sockets, inherited, strict=True)
        ]
        descriptors: dict[int, Any] = {_INPUT: "w", _OUTPUT: output, _ERRORS: _errors_or(output), pipe: "r"}
        descriptors |= {new: each.descriptor_of(number - 1) for each, new in zip(sockets, numbers, strict=True)}
        kind = reactor.__class__.__module__
        arguments = [sys.executable, "-P", "-m", _PROGRAM, str(number), str(pipe), kind]
        environment = _environment(passed)
        self._process = reactor.spawnProcess(self, sys.executable, arguments, environment, childFDs=descriptors)
        self.id = self._process.pid
        return numbers

    def send(self, message: Message | Assignment) -> None:
        """Send a message; one that the process does not read any more is lost."""
        self._channel.send(message)

    def write(self, data: bytes) -> None:
        """Write into the worker's pipe."""
        if _INPUT in getattr(self._process, "pipes", ()):
            self._process.writeToChild(_INPUT, data)

    def kill(self) -> None:
        """Kill the process."""
        with suppress(ProcessExitedAlready):
            self._process.signalProcess("KILL")

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        try:
            self._channel.dataReceived(data)
        except msgspec.DecodeError:
            _log.failure("Process {process} has sent a message that is not valid. It is killed.", process=self.id)
            self.kill()

    def processEnded(self, reason: Failure) -> None:
        self._ended(reason)


class _Pipe:
    """The transport of the supervisor's end of the pipes."""

    def __init__(self, process: WorkerProcess) -> None:
        self._process = process

    def write(self, data: bytes) -> None:
        """Write into the worker's pipe."""
        self._process.write(data)

    def loseConnection(self) -> None:
        """Kill the process, whose message is too long."""
        self._process.kill()


def _errors_or(output: int) -> int:
    """Return the standard error output, or another descriptor if it was closed before the start."""
    try:
        os.fstat(_ERRORS)
    except OSError:
        return output
    return _ERRORS


def _environment(passed: Sequence[int]) -> dict[str, str]:
    """
    Return the environment of a worker.

    :param passed: the numbers of the sockets that a service manager has passed.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _OWN}
    # twistd, or whoever runs it, may have changed the path of modules.
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
    if passed:
        count = max(passed) - FIRST_PASSED + 1
        environment["LISTEN_FDS"] = str(count)
        environment["LISTEN_FDNAMES"] = ":".join(os.environ.get("LISTEN_FDNAMES", "").split(":")[:count])
    return environment


def describe_end(reason: Failure) -> str:
    """Return how a process has ended, to complete "it"."""
    error: Any = reason.value
    number = getattr(error, "signal", None)
    if number is not None:
        return f"was killed by {signal.Signals(number).name}"
    return f"ended with status {getattr(error, 'exitCode', None) or 0}"
