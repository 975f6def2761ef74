"""The daemon as the whole of a process: its signals, its exit status, and what it says when it can't start."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.settings import Settings
from ..listening.descriptors import budget_from, count_open, raise_descriptor_limit
from ..startup import StartupError
from . import systemd
from .logs import Logs
from .service import Daemon

_log = Logger()


class StartFailed(SystemExit, Exception):
    """
    The daemon can't start; whoever started it was told why.

    That it is an Exception too makes twistd take its pid file away.
    """

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.code = 1


class Complaints:
    """Where a start that fails says why: what stderr is before twistd makes it a part of the log, or closes it."""

    def __init__(self) -> None:
        self._descriptor = os.dup(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2)

    def say(self, line: str) -> None:
        """Say a line to whoever started the process."""
        os.write(self._descriptor, f"{line}\n".encode(errors="replace"))

    def close(self) -> None:
        """Let go of the terminal: the start has not failed."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Process(Service):
    """
    The daemon as twistd runs it. A signal ends it with status 0; a storage that can't be opened, or closed, with 1.

    :param logs: None where twistd logs by itself.
    :param read_again: reads the settings as they are by now.
    :raises StartupError: what can be known to be wrong before anything is done.
    """

    def __init__(self, settings: Settings, reactor: Any, logs: Logs | None, read_again: Callable[[], Settings]) -> None:
        self._reactor = reactor
        self._logs = logs
        self._read_again = read_again
        self._complaints = Complaints()
        self._ending = False
        limit = raise_descriptor_limit()
        self._daemon = Daemon(settings, reactor, budget_from(settings, limit, count_open()))

    def privilegedStartService(self) -> None:
        """
        Bind the ports, which may need more rights than the process keeps.

        :raises StartFailed: they can't be had.
        """
        # What comes before the reactor runs is done as soon as it does.
        self._take_signals()
        try:
            self._daemon.privilegedStartService()
        except StartupError as error:
            raise self._failure(error) from None

    def startService(self) -> None:
        """
        Start to serve. What takes longer than a moment goes on when the reactor runs.

        :raises StartFailed: it is known by now that it can't be done.
        """
        super().startService()
        failed: list[Failure] = []
        started = self._daemon.start()
        # The reactor has taken them for itself by then.
        self._reactor.callWhenRunning(self._take_signals)
        started.addCallbacks(self._serving, failed.append)
        if failed:
            raise self._failure(failed[0].value) from None
        started.addCallback(lambda _: self._failed_later(failed[0]) if failed else None)

    def stopService(self) -> Deferred[None]:
        """Stop the service and drain connections."""
        super().stopService()
        if _freeze_survivors in gc.callbacks:
            gc.callbacks.remove(_freeze_survivors)
        systemd.notify(systemd.STOPPING)
        return self._daemon.stopService().addErrback(self._not_stopped)

    def _serving(self, _: None) -> None:
        gc.freeze()
        gc.callbacks.append(_freeze_survivors)
        self._complaints.close()
        systemd.notify(systemd.READY)

    def _failure(self, error: object) -> StartFailed:
        _log.critical("{line}", line=str(error))
        self._complaints.say(str(error))
        return StartFailed(str(error))

    def _failed_later(self, failure: Failure) -> None:
        self._failure(failure.value)
        self._end(1)

    def _not_stopped(self, failure: Failure) -> None:
        _log.failure("Stopping the server failed.", failure=failure)
        _exit_with(1)

    # Signals

    def _take_signals(self) -> None:
        # The reactor's own handlers make twistd end itself by the signal once everything has stopped well.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._reactor.callFromThread(self._end, 0))
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._reload))

    def _end(self, status: int) -> None:
        if status:
            _exit_with(status)
        if self._ending:
            _log.info("Second signal: closing all connections.")
            self._daemon.abort_connections()
        else:
            self._ending = True
            self._reactor.stop()

    def _reload(self) -> None:
        """Certificates, the log's file and its level; all else stays as it was when the process was started."""
        systemd.notify(systemd.reloading())
        if self._logs is not None:
            self._logs.reopen()
        self._daemon.reload()
        try:
            level = self._read_again().observability.log_level
        except StartupError as error:
            _log.error("Reload: the settings are not valid and stay as they were: {reason}", reason=error)
        else:
            if self._logs is not None:
                self._logs.set_level(level)
            _log.info("Reloaded certificates and log file; log level is {log_level_name}.", log_level_name=level)
        systemd.notify(systemd.READY)


def _freeze_survivors(phase: str, info: dict[str, int]) -> None:
    """
    Exempt what survives a full garbage collection from those that follow.

    A full collection visits every object that was made since the start, and its pause grows with them: with 200,000
    streams it is over 100 ms. Survivors are streams, which last, and what is in use. When they are done with they are
    freed by reference counts: the server makes no reference cycles of what lasts.
    """
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()


def refusal(error: StartupError) -> StartFailed:
    """Say on stderr why nothing was begun."""
    sys.stderr.write(f"{error}\n")
    return StartFailed(str(error))


def _exit_with(status: int) -> None:
    """End the process with a status, once twistd has let go of everything: it has no other way to say one."""

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    atexit.register(leave)
