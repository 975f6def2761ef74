"""A worker: the daemon in one of several processes, which serves on inherited sockets."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from time import perf_counter
from typing import Any, Final

from msgspec.structs import replace
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ReactorNotRunning
from twisted.internet.stdio import StandardIO
from twisted.logger import Logger, globalLogBeginner
from twisted.python.failure import Failure

from ...clocks import clock_of, make_steady
from ...config.validation import ConfigError
from ...errors import Unavailable
from ...listening.descriptors import budget_from, count_open, raise_descriptor_limit
from ...listening.inheritance import InheritingReactor
from ...startup import StartupError
from ...telemetry.metrics import MAX_AGE
from ..logs import Logs
from ..process import begin_freezing, end_freezing
from ..service import Daemon
from .messages import (
    Abort,
    Assignment,
    Channel,
    Failed,
    Leaving,
    Message,
    MetricsAnswer,
    MetricsRequest,
    Ping,
    Pong,
    Reload,
    Reloaded,
    Serving,
    Stop,
    ToWorker,
    read_assignment,
)

#: How long a scrape waits for the metrics of all workers, in seconds.
COLLECT_TIMEOUT: Final = 3.0

_log = Logger()


def run(pipe: int) -> int:
    """
    Read the assignment, serve until the supervisor or a signal ends it, and return the exit status.

    :param pipe: the descriptor of the pipe to the supervisor.
    """
    from twisted.internet import reactor  # noqa: PLC0415 (the caller has installed it)

    with open(0, "rb", 0, closefd=False) as source:
        assignment = read_assignment(source)
    if assignment is None:
        return 1
    with suppress(OSError):
        # The user may have no right to enter it any more. Then relative paths are errors of the start.
        os.chdir(assignment.folder)
    observability = replace(assignment.settings.observability, log_level=assignment.log_level)
    log = open(1, "wb", 0, closefd=False)  # noqa: SIM115 (stays open)
    logs = Logs(observability, log, assignment.worker, is_open=True)
    globalLogBeginner.beginLoggingTo([logs.observer])
    make_steady(reactor)
    return Worker(assignment, reactor, logs, pipe).run()


class Worker:
    """
    The daemon in one of several processes.

    :param pipe: the descriptor of the pipe to the supervisor.
    """

    def __init__(self, assignment: Assignment, reactor: Any, logs: Logs, pipe: int) -> None:
        self._assignment = assignment
        self._reactor = reactor
        self._logs = logs
        self._pipe = pipe
        self._status = 0
        self._ending = False
        self._daemon: Daemon | None = None
        self._channel = Channel(ToWorker, self._received, self._supervisor_lost)
        self._scrapes = _Scrapes(self._channel, clock_of(reactor))

    def run(self) -> int:
        """Serve until the end, and return the exit status."""
        self._reactor.callWhenRunning(self._start)
        self._reactor.addSystemEventTrigger("before", "shutdown", self._stop)
        self._reactor.run()
        return self._status

    def _start(self) -> None:
        signal.signal(signal.SIGTERM, lambda *_: self._reactor.callFromThread(self._leave))
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        StandardIO(self._channel, 0, self._pipe)  # type: ignore[call-arg]  # (mypy sees that of Windows)
        try:
            self._open().addCallbacks(self._serving, self._not_started)
        except Exception:
            self._not_started(Failure())

    def _open(self) -> Deferred[None]:
        settings, sockets = self._assignment.settings, self._assignment.sockets
        limit = raise_descriptor_limit()
        budget = budget_from(settings, limit, count_open())
        self._daemon = Daemon(settings, self._reactor, budget, InheritingReactor(self._reactor, sockets))
        if self._daemon.metrics is not None:
            self._daemon.metrics.collect_all = self._scrapes.scrape
        self._daemon.privilegedStartService()
        return self._daemon.start()

    def _serving(self, _: None) -> None:
        begin_freezing()
        self._channel.send(Serving())

    def _not_started(self, failure: Failure) -> None:
        error = failure.value
        if isinstance(error, (StartupError, ConfigError)):
            cause = error.cause if isinstance(error, StartupError) else str(error)
            message = Failed(error.phase, cause)
        else:
            _log.failure("Starting the worker failed.", failure=failure)
            message = Failed("start_server", f"{type(error).__name__}: {failure.getErrorMessage()}")
        self._status = 1
        self._channel.send(message)
        # The channel is lost, and the worker ends, when this was written.
        self._channel.close()

    def _supervisor_lost(self) -> None:
        if not self._ending and not self._status:
            _log.error("The supervisor has ended. This worker drains its connections and ends.")
        self._end()

    def _leave(self) -> None:
        """End by a signal to this process alone, so that the supervisor does not expect it."""
        if not self._ending:
            self._channel.send(Leaving())
        self._end()

    def _end(self) -> None:
        if not self._ending:
            self._ending = True
            with suppress(ReactorNotRunning):
                self._reactor.stop()

    def _stop(self) -> Deferred[None] | None:
        end_freezing()
        if self._daemon is None or not self._daemon.running:
            return None
        return self._daemon.stopService().addErrback(self._not_stopped)

    def _not_stopped(self, failure: Failure) -> None:
        _log.failure("Stopping the worker failed.", failure=failure)
        self._status = 1

    def _received(self, message: Message) -> None:
        match message:
            case Stop():
                self._end()
            case Abort():
                self._end()
                if self._daemon is not None:
                    self._daemon.abort_connections()
            case Ping():
                self._channel.send(Pong())
            case Reload():
                self._reload(message)
            case MetricsRequest():
                metrics = None if self._daemon is None else self._daemon.metrics
                text = b"" if metrics is None else metrics.scrape()
                self._channel.send(MetricsAnswer(message.number, text.decode()))
            case MetricsAnswer():
                self._scrapes.answered(message)

    def _reload(self, message: Reload) -> None:
        self._logs.reopen()
        reloading: Deferred[None] = succeed(None)
        if self._daemon is not None:
            if message.files:
                reloading = self._daemon.reload()
            else:
                self._daemon.reopen_audit_log()
        if message.log_level is not None:
            self._logs.set_level(message.log_level)
        reloading.addCallback(lambda _: self._channel.send(Reloaded()))


class _Scrapes:
    """
    The requests of the metrics of all workers: one at a time, and at most one in :data:`.metrics.MAX_AGE` seconds.

    :param clock: the time.
    """

    def __init__(self, channel: Channel, clock: Any, seconds: Callable[[], float] = perf_counter) -> None:
        self._channel = channel
        self._clock = clock
        self._seconds = seconds
        self._number = 0
        self._waiting: list[Deferred[bytes]] = []
        self._answer = b""
        self._answered_at = -MAX_AGE

    def scrape(self) -> Deferred[bytes]:
        """
        Return the metrics of all workers.

        :returns: fails with :exc:`.Unavailable` if the supervisor does not answer.
        """
        waiting: Deferred[bytes] = Deferred(self._waiting.remove)
        if self._seconds() - self._answered_at < MAX_AGE:
            waiting.callback(self._answer)
            return waiting
        if not self._waiting:
            self._number += 1
            self._channel.send(MetricsRequest(self._number))
        self._waiting.append(waiting)
        return waiting.addTimeout(COLLECT_TIMEOUT, self._clock, _raise_late)

    def answered(self, answer: MetricsAnswer) -> None:
        """Answer all that wait."""
        self._answer, self._answered_at = answer.text.encode(), self._seconds()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(self._answer)


def _raise_late(_: object, seconds: float) -> bytes:
    raise Unavailable(f"The metrics of the workers were not collected in {seconds:g} s. Try again.")
