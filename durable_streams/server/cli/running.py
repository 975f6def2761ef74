"""Running a coroutine on the reactor until it ends or a signal arrives."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click

from .output import note
from .terminal import is_terminal

T = TypeVar("T")


def run(work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """
    Run a coroutine on the reactor, and return its result or raise its error.

    SIGINT (Ctrl-C) and SIGTERM cancel it, so that it can clean up; the exit status is 130 or 143 then, without a
    message. A second signal ends the process at once.

    :param work: called with the running reactor.
    """
    from twisted.internet import reactor  # noqa: PLC0415 (installs the reactor)
    from twisted.internet.defer import Deferred  # noqa: PLC0415 (most commands need no Twisted)
    from twisted.python.failure import Failure  # noqa: PLC0415 (as above)

    chosen: Any = reactor
    _log_warnings()
    outcome: list[Any] = []
    received: list[int] = []
    running: list[Deferred[T]] = []

    def start() -> None:
        running.append(Deferred.fromCoroutine(work(chosen)))
        running[0].addBoth(ended)

    def ended(result: Any) -> None:
        outcome.append(result)
        # Not before the reactor runs: a coroutine may end at once.
        chosen.callLater(0, chosen.stop)

    def interrupt(number: int, _: Any) -> None:
        if received:
            if is_terminal(sys.stderr):
                # A bar has hidden the cursor.
                os.write(2, b"\x1b[?25h")
            os._exit(128 + number)
        received.append(number)
        chosen.callFromThread(lambda: running[0].cancel() if running else chosen.stop())

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        chosen.callWhenRunning(start)
        chosen.run(installSignalHandlers=False)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if received:
        if is_terminal(sys.stderr):
            # The terminal has printed ^C.
            note("")
        raise click.exceptions.Exit(128 + received[0])
    if isinstance(outcome[0], Failure):
        # Without the frames of the reactor.
        outcome[0].raiseException()
    result: T = outcome[0]
    return result


def _log_warnings() -> None:
    """Print warnings and errors that are logged, such as a repaired data directory, on stderr."""
    from twisted.logger import (  # noqa: PLC0415 (most commands need no Twisted)
        ILogObserver,
        LogLevel,
        formatEvent,
        globalLogBeginner,
    )
    from zope.interface import implementer  # noqa: PLC0415 (as above)

    @implementer(ILogObserver)
    def observe(event: Any) -> None:
        if event.get("log_level", LogLevel.info) < LogLevel.warn:
            return
        text = formatEvent(event)
        failure = event.get("log_failure")
        if failure is not None and failure.getErrorMessage() not in text:
            text = f"{text} {failure.getErrorMessage()}"
        if text:
            note(f"Warning: {text}")

    globalLogBeginner.beginLoggingTo([observe], discardBuffer=True, redirectStandardIO=False)
