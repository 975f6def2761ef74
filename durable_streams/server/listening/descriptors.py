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

#: The number of files that a storage has open besides those for readers: its lock, folders, segments, and those of
#: reading threads and of a checkpoint; with SQLite, three for each of four connections; with PostgreSQL, its
#: connections except those for reading.
_STORAGE_FILES: Final = {"memory": 0, "file-durable": 24, "file-fast": 24, "acid": 24, "postgres": 16}

#: The reserve for everything else: name look-ups, exports of traces, rotated log files, short needs of threads.
_SPARE: Final = 24

#: A port has a socket and two epolls.
_PER_PORT: Final = 3

#: The number of connections that a port accepts in one turn of the reactor.
ACCEPTS: Final = 16

#: How long a port waits before it accepts again, in seconds, if descriptors or memory were exhausted.
_PAUSE: Final = 0.1

#: The shortest time between two log lines about that, in seconds.
_LOG_INTERVAL: Final = 60.0

_log = Logger()


class DescriptorBudget(Struct, frozen=True, gc=False):
    """
    The maximum number of descriptors of each part.

    :ivar limit: of the whole process (RLIMIT_NOFILE).
    :ivar open_files: files that stay open for reading.
    :ivar connections: connections that are served.
    :ivar admin_connections: connections of ``admin.bind_address``.
    :ivar refusals: connections over these limits, which are answered with 503.
    """

    limit: int
    open_files: int
    connections: int
    admin_connections: int
    refusals: int


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one, and return the limit."""
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
    """Return the number of open descriptors of the process."""
    # Listing the directory opens one.
    return len(os.listdir("/dev/fd")) - 1


def budget_from(settings: Settings, limit: int, in_use: int) -> DescriptorBudget:
    """
    Divide the descriptors that a process may open.

    :param limit: the maximum number of open descriptors.
    :param in_use: the number of open descriptors before the ports are bound.
    :raises StartupError: not a single connection is left.
    """
    mode = STORAGE_MODES[settings.storage.mode]
    apart = settings.admin.bind_address is not None
    ports = (len(settings.server.listen) or 1) + apart
    # If the limit is low, no part gets more than its share.
    open_files = min(128, limit // 8) if mode.startswith("file") else 0
    refusals = min(100, limit // 16)
    admin_connections = min(16, limit // 32) if apart else 0
    taken = in_use + open_files + _STORAGE_FILES[mode] + _SPARE
    taken += settings.storage.postgres.connections if mode == "postgres" else 0
    # Aborted TLS connections keep their descriptors until the turn after the next.
    taken += ports * (_PER_PORT + 2 * ACCEPTS) + refusals + admin_connections
    connections = min(settings.limits.max_connections, limit - taken)
    if connections < 1:
        raise StartupError(
            "resolve_transport",
            f"The process may open {limit} files, and needs {taken} besides connections. Raise the limit: ulimit -n, "
            "or LimitNOFILE= of a systemd unit.",
        )
    return DescriptorBudget(limit, open_files, connections, admin_connections, refusals)


class AcceptLimiter:
    """
    Limits how many connections a port accepts in one turn, and pauses it if descriptors or memory are exhausted.

    Without the pause, the port would stay readable and the reactor would call it without end. Twisted raises the number
    of accepts in one turn with the load; here it is at most :data:`ACCEPTS`, because refused connections keep their
    descriptors until the next turn.

    :param port: a port that listens. Ports other than those of sockets are left unchanged.
    """

    def __init__(self, port: IListeningPort, reactor: Any) -> None:
        self._clock = clock_of(reactor)
        self._port: Any = port
        self._resuming: IDelayedCall | None = None
        self._logged_at = -_LOG_INTERVAL
        if isinstance(port, Port):
            limited: Any = port
            self._accept: Callable[[], object] = limited.doRead
            limited.numberAccepts = ACCEPTS
            limited.doRead = self._do_read
            # Twisted uses this logger only to report that it could not accept.
            observer: Any = self._not_accepted
            limited._logger = Logger(namespace=Port._logger.namespace, observer=observer)

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
        """Cancel the pause: the port is about to be closed."""
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None
