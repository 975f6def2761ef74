"""The budget of file descriptors: how many the process may open, and how many of them each part may use."""

from __future__ import annotations

import os
import resource
from collections.abc import Callable
from typing import Any, Final

from msgspec import Struct
from twisted.internet.interfaces import IDelayedCall, IListeningPort
from twisted.internet.tcp import Port
from twisted.logger import LogEvent, Logger

from ..clocks import clock_of
from ..config.settings import Settings
from ..config.validation import STORAGE_MODES
from ..startup import StartupError

#: How many files a storage has open besides those that stay open for readers: its lock, folders, segments, what the
#: readers' threads and a checkpoint open; of SQLite three for each of four connections.
_STORAGE_FILES: Final = {"memory": 0, "file-durable": 24, "file-fast": 24, "acid": 24}

#: What is left for all else: name look-ups, exports of traces, log files that are rotated, a thread's short needs.
_SPARE: Final = 24

#: A port has a socket, and two descriptors to wait for its connections.
_OF_A_PORT: Final = 3

#: How many connections a port accepts in one turn of the reactor.
ACCEPTS: Final = 16

#: How long, in seconds, a port that can't accept for want of descriptors or memory waits before it tries again.
_PAUSE: Final = 0.1

#: How often, in seconds, that is logged at the most.
_LOG_INTERVAL: Final = 60.0

_log = Logger()


class DescriptorBudget(Struct, frozen=True, gc=False):
    """
    How many descriptors each part may use.

    :ivar limit: how many the process may have open (RLIMIT_NOFILE).
    :ivar open_files: files that stay open for reading.
    :ivar connections: connections that are served.
    :ivar admin_connections: connections of ``admin.bind_address``.
    :ivar refusals: connections over these limits that are being told so.
    """

    limit: int
    open_files: int
    connections: int
    admin_connections: int
    refusals: int


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one; return the limit that holds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            _log.warn(
                "Cannot raise the limit of open files from {soft} to {hard}: {reason}",
                soft=soft,
                hard=hard,
                reason=error,
            )
        else:
            soft = hard
    return 1 << 30 if soft == resource.RLIM_INFINITY else soft


def count_open() -> int:
    """Return how many descriptors the process has open."""
    # The listing has one itself.
    return len(os.listdir("/dev/fd")) - 1


def budget_from(settings: Settings, limit: int, in_use: int) -> DescriptorBudget:
    """
    Divide the descriptors that a process may open.

    :param limit: how many it may have open.
    :param in_use: how many it has open, before its ports are bound.
    :raises StartupError: there are too few for a single connection.
    """
    mode = STORAGE_MODES[settings.storage.mode]
    apart = settings.admin.bind_address is not None
    ports = (len(settings.server.listen) or 1) + apart
    # Where there are few, no part takes more than some share of them.
    open_files = min(128, limit // 8) if mode.startswith("file") else 0
    refusals = min(100, limit // 16)
    admin_connections = min(16, limit // 32) if apart else 0
    taken = in_use + open_files + _STORAGE_FILES[mode] + _SPARE
    # Those that are hung up on, over TLS, keep their descriptors until the turn after the next.
    taken += ports * (_OF_A_PORT + 2 * ACCEPTS) + refusals + admin_connections
    connections = min(settings.limits.max_connections, limit - taken)
    if connections < 1:
        raise StartupError(
            "resolve_transport",
            f"The process may open {limit} files, and needs {taken} besides connections. Raise the limit: ulimit -n, "
            "or LimitNOFILE= of a systemd unit.",
        )
    return DescriptorBudget(limit, open_files, connections, admin_connections, refusals)


class PatientPort:
    """
    Has a port wait for a moment when it can't accept a connection for want of descriptors or memory.

    Twisted's ports stay readable then: the reactor would come back to them at once, for ever. And they accept more and
    more connections in one turn as more come; here they accept :data:`ACCEPTS`, since some of those that are refused
    keep their descriptors until the next turn.

    :param port: a port that listens. What is no socket's own is left as it is.
    """

    def __init__(self, port: IListeningPort, reactor: Any) -> None:
        self._clock = clock_of(reactor)
        self._port: Any = port
        self._resuming: IDelayedCall | None = None
        self._logged_at = -_LOG_INTERVAL
        if isinstance(port, Port):
            patient: Any = port
            self._accept: Callable[[], object] = patient.doRead
            patient.numberAccepts = ACCEPTS
            patient.doRead = self._do_read
            # Twisted tells this logger of what it could not accept, and nothing else.
            observer: Any = self._not_accepted
            patient._logger = Logger(namespace=Port._logger.namespace, observer=observer)

    def _do_read(self) -> None:
        self._accept()
        self._port.numberAccepts = min(self._port.numberAccepts, ACCEPTS)

    def _not_accepted(self, event: LogEvent) -> None:
        if self._resuming is not None:
            return
        now = self._clock.seconds()
        if not self._logged_at <= now < self._logged_at + _LOG_INTERVAL:
            self._logged_at = now
            _log.warn(
                "Cannot accept a connection ({reason}). The port tries again every {pause} s.",
                reason=event.get("acceptError", "EMFILE"),
                pause=_PAUSE,
            )
        self._port.stopReading()
        self._resuming = self._clock.callLater(_PAUSE, self._resume)

    def _resume(self) -> None:
        self._resuming = None
        self._port.startReading()

    def stop(self) -> None:
        """Do not try again: the port is about to be closed."""
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None
