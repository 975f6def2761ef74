"""The supervisor of several workers: it binds the sockets, and starts, replaces, reloads and stops the workers.

It serves no request itself, and has no storage. A worker that ends is replaced, at first after a tenth of a second. If
a worker cannot start before all of them have served once, the daemon ends with the worker's error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from random import random
from typing import Any, Final

from msgspec.structs import replace
from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from ...clocks import clock_of
from ...config.settings import Settings
from ...config.validation import ConfigError
from ...listening.descriptors import raise_descriptor_limit
from ...listening.inheritance import BindingReactor
from ...listening.listeners import Listeners
from ...startup import StartupError
from ...web.site.admin.tokens import TokenFile, TokenFileError
from .. import systemd
from ..access import check_access_files
from ..logs import Logs
from ..process import MainProcess, exit_with
from .collecting import MetricsCollector
from .messages import (
    Abort,
    Assignment,
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
)
from .processes import WorkerProcess, describe_end

#: How often a worker may end without an error of its own before it has served for the first time.
MAX_EARLY_ENDS: Final = 3

#: After so many seconds of service, the end of a worker counts as its first.
STEADY_SECONDS: Final = 10.0

#: How long workers have to end after a second signal until they are killed, in seconds.
ABORT_TIMEOUT: Final = 5.0

#: The time between two messages that each worker has to answer, in seconds, and how many of them may be unanswered.
PING_INTERVAL: Final = 5.0
MAX_UNANSWERED: Final = 6

#: How long a reload waits for the workers, in seconds.
RELOAD_TIMEOUT: Final = 10.0

#: Number of failures -> delay of the next start, in seconds.
_delay: Final[Callable[[int], float]] = backoffPolicy(0.1, 30.0, 2.0, lambda: random() * 0.1)

_log = Logger()


class WorkerSlot:
    """
    One of the workers: its present process, or the delay until the next one.

    :param number: its number, from 1.
    :ivar process: its process; None between two of them.
    :ivar serves: whether its process serves streams.
    :ivar unanswered: how many pings have followed its last answer.
    :ivar restarts: how many processes have followed the first one.
    :ivar failures: how many of its processes have ended without a time of steady service between them.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.process: WorkerProcess | None = None
        self.serves = False
        self.served_at: float | None = None
        self.restarts = 0
        self.failures = 0
        self.unanswered = 0
        self.delay: IDelayedCall | None = None
        self.reloading: Deferred[None] | None = None

    def send(self, message: Message) -> None:
        """Send a message to its process, if there is one."""
        if self.process is not None:
            self.process.send(message)

    def finish_reload(self) -> None:
        """End the wait for its reload."""
        reloading, self.reloading = self.reloading, None
        if reloading is not None:
            reloading.callback(None)


class Supervisor(MainProcess):
    """
    The daemon with several workers, as twistd runs it.

    :raises StartupError: a listener or a file of certificates is invalid, or workers cannot share the log.
    """

    def __init__(
        self, settings: Settings, reactor: Any, logs: Logs | None, load_settings: Callable[[], Settings]
    ) -> None:
        super().__init__(reactor, logs, load_settings)
        if logs is None:
            raise StartupError(
                "validate_config",
                f"server.workers is {settings.server.workers}, but the command line of twistd or twist configures the "
                "log, in which workers cannot write. Use observability.log_file instead, or set server.workers to 1.",
            )
        self._log_of_workers = logs
        observability = replace(settings.observability, log_file=logs.path)
        self._settings = replace(settings, observability=observability)
        self._level = observability.log_level
        self._clock = clock_of(reactor)
        self._folder = os.getcwd()
        self._sockets = BindingReactor(reactor, settings.server.workers)
        self._listeners = Listeners(settings, self._sockets)
        self._workers = [WorkerSlot(number) for number in range(1, settings.server.workers + 1)]
        self._collector = MetricsCollector(self._clock)
        self._served = False
        self._pinging: IDelayedCall | None = None
        self._stopped: Deferred[None] | None = None

    def privilegedStartService(self) -> None:
        """
        Bind the ports, before twistd drops privileges.

        :raises StartupExit: a port cannot be bound.
        """
        self._take_signals()
        # Workers inherit the limit.
        raise_descriptor_limit()
        admin = self._settings.admin.bind_address is not None
        try:
            self._listeners.bind(None, None if not admin else _NO_FACTORY)  # type: ignore[arg-type]
            self._check_bound(len(self._settings.server.listen or (1,)) + admin)
        except StartupError as error:
            raise self._failure(error) from None

    def _check_bound(self, count: int) -> None:
        """
        Check that workers can inherit the socket of each listener.

        :raises StartupError: an endpoint has created its port by itself.
        """
        if len(self._sockets.bound) != count:
            self._listeners.give_up()
            raise StartupError(
                "bind_listener",
                "An endpoint of server.listen binds its port by itself, so that workers cannot share it. Use an "
                "endpoint such as tcp:4437, or set server.workers to 1.",
            )

    def startService(self) -> None:
        super().startService()
        # The reactor installs its own signal handlers when it starts, among them that for the end of processes.
        self._reactor.callWhenRunning(self._start)

    def _start(self) -> None:
        self._take_signals()
        _log.info(
            "Listening on {places}. Starting {count} workers.",
            places=self._listeners.describe(),
            count=len(self._workers),
        )
        for worker in self._workers:
            self._start_worker(worker)

    # Workers

    def _start_worker(self, worker: WorkerSlot) -> None:
        worker.delay = None
        process = WorkerProcess(partial(self._received, worker), partial(self._ended, worker))
        try:
            sockets = process.start(self._reactor, worker.number, self._sockets.bound, self._log_of_workers.descriptor)
        except OSError as error:
            self._not_started(worker, error)
            return
        worker.process = process
        worker.send(Assignment(worker.number, self._settings, sockets, self._folder, self._level))

    def _not_started(self, worker: WorkerSlot, error: OSError) -> None:
        if self._served:
            self._replace(worker, f"could not be started: {error.strerror}")
        elif not self._ending:
            self._failed_later(
                StartupError(
                    "start_server",
                    f"Cannot start a worker (server.workers) with {sys.executable}: {error.strerror}. The user of the "
                    "server, which may be that of twistd --uid, must be able to run it.",
                )
            )

    def _received(self, worker: WorkerSlot, message: Message) -> None:
        match message:
            case Serving():
                worker.serves, worker.served_at, worker.unanswered = True, self._clock.seconds(), 0
                self._steer()
                self._worker_serves(worker)
            case Leaving():
                worker.serves = False
                self._steer()
            case Failed():
                self._worker_failed(worker, StartupError(message.phase, message.cause))
            case Pong():
                worker.unanswered = 0
            case Reloaded():
                worker.finish_reload()
            case MetricsRequest():
                collected = self._collector.collect(self._workers)
                collected.addCallback(lambda text: worker.send(MetricsAnswer(message.number, text)))
            case MetricsAnswer():
                self._collector.answered(worker.number, message)

    def _worker_serves(self, worker: WorkerSlot) -> None:
        if self._served:
            _log.info("Worker {number} serves again.", number=worker.number)
        elif all(each.serves for each in self._workers):
            self._served = True
            self._pinging = self._clock.callLater(PING_INTERVAL, self._ping)
            _log.info("All {count} workers serve.", count=len(self._workers))
            self._serving()

    def _ping(self) -> None:
        """Kill the workers that do not answer, and ping all others."""
        self._pinging = self._clock.callLater(PING_INTERVAL, self._ping)
        for worker in self._workers:
            if not worker.serves or worker.process is None:
                continue
            if worker.unanswered < MAX_UNANSWERED:
                worker.unanswered += 1
                worker.send(Ping())
            else:
                _log.error(
                    "Worker {number} (process {process}) has not answered for {seconds:g} s. It is killed.",
                    number=worker.number,
                    process=worker.process.id,
                    seconds=MAX_UNANSWERED * PING_INTERVAL,
                )
                worker.process.kill()

    def _steer(self) -> None:
        """Give new connections to the workers that serve; to all if there are none, which then are started."""
        serving = [each.number - 1 for each in self._workers if each.serves] or list(range(len(self._workers)))
        for sockets in self._sockets.bound:
            sockets.steer(serving)

    def _worker_failed(self, worker: WorkerSlot, error: StartupError) -> None:
        if self._served or self._ending:
            _log.error("Worker {number} cannot start: {reason}", number=worker.number, reason=error)
        else:
            self._failed_later(error)

    def _ended(self, worker: WorkerSlot, reason: Failure) -> None:
        how = describe_end(reason)
        process = worker.process
        worker.process, worker.serves = None, False
        worker.finish_reload()
        self._collector.lost(worker.number)
        if self._ending:
            # A service manager may send SIGTERM to all processes, before a new one has its handler.
            if how not in ("ended with status 0", "was killed by SIGTERM"):
                _log.error("Worker {number} {how} during the stop.", number=worker.number, how=how)
                exit_with(1)
            self._check_stopped()
        else:
            self._steer()
            self._replace(worker, f"(process {0 if process is None else process.id}) {how}")

    def _replace(self, worker: WorkerSlot, how: str) -> None:
        """
        Start a process in place of one that has ended, after a delay.

        :param how: what happened, to complete "Worker 1".
        """
        now = self._clock.seconds()
        if worker.served_at is not None and now - worker.served_at >= STEADY_SECONDS:
            worker.failures = 0
        worker.served_at = None
        worker.failures += 1
        if not self._served and worker.failures >= MAX_EARLY_ENDS:
            self._failed_later(
                StartupError(
                    "start_server",
                    f"Worker {worker.number} has ended {worker.failures} times before all workers served, last: {how}. "
                    "See the log.",
                )
            )
            return
        delay = _delay(worker.failures - 1)
        _log.error(
            "Worker {number} {how}. A new process is started in {delay:.1f} s.",
            number=worker.number,
            how=how,
            delay=delay,
        )
        worker.restarts += 1
        worker.delay = self._clock.callLater(delay, self._start_worker, worker)

    # Reload and stop

    def _reload_parts(self, level: str | None) -> Deferred[Any]:
        # A file that is not valid here is not valid for any worker.
        files = all([self._listeners.reload(), self._check_tokens(), self._check_access()])
        if level is not None:
            self._level = level
        reloading = []
        for worker in self._workers:
            worker.finish_reload()
            if worker.process is not None:
                worker.reloading = Deferred()
                reloading.append(worker.reloading)
                worker.send(Reload(level, files))
        waiting: Deferred[Any] = DeferredList(reloading, consumeErrors=True)
        return waiting.addTimeout(RELOAD_TIMEOUT, self._clock).addErrback(self._log_late_reload)

    def _check_tokens(self) -> bool:
        path = self._settings.admin.token_file
        if path is not None:
            try:
                TokenFile(os.path.join(self._folder, path))
            except TokenFileError as error:
                _log.error(
                    "Reload: admin.token_file is not valid, its tokens stay as they were. {reason}", reason=error
                )
                return False
        return True

    def _check_access(self) -> bool:
        try:
            check_access_files(self._settings, self._reactor, self._folder)
        except ConfigError as error:
            _log.error("Reload: a file of auth is not valid, all stay as they were. {reason}", reason=error)
            return False
        return True

    def _log_late_reload(self, failure: Failure) -> None:
        late = [str(worker.number) for worker in self._workers if worker.reloading is not None]
        _log.error("Workers {late} have not reloaded in {seconds:g} s.", late=", ".join(late), seconds=RELOAD_TIMEOUT)

    def stopService(self) -> Deferred[None]:
        """Close the sockets, and wait until all workers have drained their connections and ended."""
        super().stopService()
        self._ending = True
        if self._pinging is not None:
            self._pinging.cancel()
        systemd.notify(systemd.STOPPING)
        stopped: Deferred[None] = Deferred()
        self._stopped = stopped
        for worker in self._workers:
            if worker.delay is not None:
                worker.delay.cancel()
                worker.delay = None
            worker.send(Stop())
        # Workers accept until they have received the message; connections that come later are refused.
        self._listeners.stop().addBoth(lambda _: self._check_stopped())
        return stopped.addErrback(self._not_stopped)

    def _check_stopped(self) -> None:
        stopped = self._stopped
        if stopped is not None and not self._listeners.bound and all(each.process is None for each in self._workers):
            self._stopped = None
            _log.info("All workers have ended.")
            stopped.callback(None)

    def _abort_connections(self) -> None:
        for worker in self._workers:
            worker.send(Abort())
        self._clock.callLater(ABORT_TIMEOUT, self._kill)

    def _kill(self) -> None:
        for worker in self._workers:
            if worker.process is not None:
                worker.process.kill()


#: Stands for the factory of a port that does not accept.
_NO_FACTORY: Final = object()
