"""Running a coroutine on the reactor until it ends or a signal arrives."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import click

from .output import note
from .signals import handled_by
from .terminal import is_terminal

T = TypeVar("T")


def run(work: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """
    Run a coroutine on the reactor, and return its result or raise its error.

    SIGINT (Ctrl-C) and SIGTERM cancel it, so that it can clean up; the exit status is 130 or 143 then, without a
    message. A second signal ends the process at once.

    :param work: called with the running reactor.
    """
    outcome: list[Any] = []
    received: list[int] = []
    cancel: list[Callable[[], object]] = []

    def interrupt(number: int, _: Any) -> None:
        if received:
            if is_terminal(sys.stderr):
                # A bar has hidden the cursor.
                os.write(2, b"\x1b[?25h")
            os._exit(128 + number)
        received.append(number)
        for call in cancel:
            call()

    # From the first import on: an exception of a signal handler would go through modules that are half initialized.
    with handled_by(interrupt):
        _run(work, outcome, received, cancel)
    if received:
        if is_terminal(sys.stderr):
            # The terminal has printed ^C.
            note("")
        raise click.exceptions.Exit(128 + received[0])
    from twisted.python.failure import Failure  # noqa: PLC0415 (as below)

    if isinstance(outcome[0], Failure):
        # Without the frames of the reactor.
        outcome[0].raiseException()
    result: T = outcome[0]
    return result


def _run(
    work: Callable[[Any], Coroutine[Any, Any, T]],
    outcome: list[Any],
    received: list[int],
    cancel: list[Callable[[], object]],
) -> None:
    """
    Run a coroutine on the reactor unless a signal was received before.

    :param outcome: gets its result or Failure.
    :param received: the signals received so far.
    :param cancel: gets what cancels the coroutine.
    """
    from twisted.internet import reactor  # noqa: PLC0415 (installs the reactor)
    from twisted.internet.defer import Deferred  # noqa: PLC0415 (most commands need no Twisted)

    chosen: Any = reactor
    _log_warnings()
    running: list[Deferred[T]] = []

    def start() -> None:
        running.append(Deferred.fromCoroutine(work(chosen)))
        running[0].addBoth(ended)

    def ended(result: Any) -> None:
        outcome.append(result)
        # Not before the reactor runs: a coroutine may end at once.
        chosen.callLater(0, chosen.stop)

    cancel.append(lambda: chosen.callFromThread(lambda: running[0].cancel() if running else chosen.stop()))
    if not received:
        chosen.callWhenRunning(start)
        chosen.run(installSignalHandlers=False)


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
