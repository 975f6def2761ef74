"""The daemon as a process: signals, exit status, and error messages of a failed start."""

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


class StartupExit(SystemExit, Exception):
    """
    The exit of a process whose start has failed; the reason was written to stderr.

    It is an Exception too because twistd removes its pid file only for those.
    """

    def __init__(self, line: str) -> None:
        super().__init__(line)
        self.code = 1


class StartupStderr:
    """A copy of stderr for the errors of the start, since twistd redirects stderr to the log or closes it."""

    def __init__(self) -> None:
        self._descriptor = os.dup(sys.__stderr__.fileno() if sys.__stderr__ is not None else 2)

    def write_line(self, line: str) -> None:
        """Write a line."""
        os.write(self._descriptor, f"{line}\n".encode(errors="replace"))

    def close(self) -> None:
        """Close the copy, which may be a terminal, after a successful start."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class MainProcess(Service):
    """
    The process that twistd runs: its signals, its errors, and its notifications of a service manager.

    :param logs: the log; None if twistd's command line configures it.
    :param load_settings: loads the settings again, for SIGHUP.
    """

    def __init__(self, reactor: Any, logs: Logs | None, load_settings: Callable[[], Settings]) -> None:
        self._reactor = reactor
        self._logs = logs
        self._load_settings = load_settings
        self._stderr = StartupStderr()
        self._ending = False

    def _serving(self) -> None:
        """Report that the start has succeeded."""
        self._stderr.close()
        systemd.notify(systemd.READY)

    def _failure(self, error: object) -> StartupExit:
        _log.critical("{line}", line=str(error))
        self._stderr.write_line(str(error))
        return StartupExit(str(error))

    def _failed_later(self, error: object) -> None:
        """Report the error of a start, and end the process, while the reactor runs."""
        self._failure(error)
        self._end(1)

    def _not_stopped(self, failure: Failure) -> None:
        _log.failure("Stopping the server failed.", failure=failure)
        exit_with(1)

    # Signals

    def _take_signals(self) -> None:
        # With the reactor's own handlers, twistd would kill itself by the same signal after a clean stop.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._reactor.callFromThread(self._end, 0))
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._reload))

    def _end(self, status: int) -> None:
        if status:
            exit_with(status)
        if self._ending:
            _log.info("Second signal: closing all connections.")
            self._abort_connections()
        else:
            self._ending = True
            self._reactor.stop()

    def _abort_connections(self) -> None:
        """Close all connections at once."""
        raise NotImplementedError

    def _reload(self) -> None:
        """Reload certificates, tokens, keys, rules, log file and log level. Other settings need a restart."""
        systemd.notify(systemd.reloading())
        if self._logs is not None:
            self._logs.reopen()
        level = None
        try:
            level = self._load_settings().observability.log_level
        except StartupError as error:
            _log.error("Reload: the settings are not valid and stay as they were: {reason}", reason=error)
        self._reload_parts(level).addCallback(self._reloaded, level)

    def _reload_parts(self, level: str | None) -> Deferred[Any]:
        """
        Reload everything but this process's log.

        :param level: the new log level; None if the settings are not valid.
        :returns: fires when all is reloaded.
        """
        raise NotImplementedError

    def _reloaded(self, _: object, level: str | None) -> None:
        if level is not None:
            if self._logs is not None:
                self._logs.set_level(level)
            _log.info("Reloaded certificates and log file; log level is {log_level_name}.", log_level_name=level)
        systemd.notify(systemd.READY)


class Process(MainProcess):
    """
    The daemon as twistd runs it. The exit status is 0 after a signal, 1 if the storage cannot be opened or closed.

    :raises StartupError: the settings or the files of certificates are invalid.
    """

    def __init__(
        self, settings: Settings, reactor: Any, logs: Logs | None, load_settings: Callable[[], Settings]
    ) -> None:
        super().__init__(reactor, logs, load_settings)
        limit = raise_descriptor_limit()
        self._daemon = Daemon(settings, reactor, budget_from(settings, limit, count_open()))

    def privilegedStartService(self) -> None:
        """
        Bind the ports, before twistd drops privileges.

        :raises StartupExit: a port cannot be bound.
        """
        # A signal before the reactor runs is handled as soon as it does.
        self._take_signals()
        try:
            self._daemon.privilegedStartService()
        except StartupError as error:
            raise self._failure(error) from None

    def startService(self) -> None:
        """
        Start the server. Loading the storage may continue when the reactor runs.

        :raises StartupExit: the storage cannot be opened.
        """
        super().startService()
        failed: list[Failure] = []
        started = self._daemon.start()
        # The reactor installs its own signal handlers when it starts.
        self._reactor.callWhenRunning(self._take_signals)
        started.addCallbacks(self._started, failed.append)
        if failed:
            raise self._failure(failed[0].value) from None
        started.addCallback(lambda _: self._failed_later(failed[0].value) if failed else None)

    def _started(self, _: None) -> None:
        begin_freezing()
        self._serving()

    def stopService(self) -> Deferred[None]:
        """Stop the service and drain connections."""
        super().stopService()
        end_freezing()
        systemd.notify(systemd.STOPPING)
        return self._daemon.stopService().addErrback(self._not_stopped)

    def _abort_connections(self) -> None:
        self._daemon.abort_connections()

    def _reload_parts(self, level: str | None) -> Deferred[Any]:
        return self._daemon.reload()


def begin_freezing() -> None:
    """Exempt what was created by the start, and later survivors, from garbage collections."""
    gc.freeze()
    gc.callbacks.append(_freeze_survivors)


def end_freezing() -> None:
    """Undo :func:`begin_freezing` for later objects."""
    if _freeze_survivors in gc.callbacks:
        gc.callbacks.remove(_freeze_survivors)


def _freeze_survivors(phase: str, info: dict[str, int]) -> None:
    """
    Exempt the survivors of a full garbage collection from later collections.

    A full collection visits all objects that were created since the start: with 200,000 streams it takes over 100 ms.
    The survivors are mostly streams. They are freed by reference counting, since the server creates no reference cycles
    of long-lived objects.
    """
    if phase == "stop" and info["generation"] == 2:
        gc.freeze()


def refusal(error: StartupError) -> StartupExit:
    """Write the error to stderr, and return the exception that ends the process."""
    sys.stderr.write(f"{error}\n")
    return StartupExit(str(error))


def exit_with(status: int) -> None:
    """Exit with this status after twistd's clean-up. twistd offers no other way to set one."""

    def leave() -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)

    atexit.register(leave)
