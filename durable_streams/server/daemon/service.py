"""The daemon: everything that serves streams on ports of its own."""

from __future__ import annotations

import errno
import os
from typing import Any, Final

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from ..config.settings import Settings
from ..listening.descriptors import DescriptorBudget
from ..listening.listeners import Listeners
from ..release import DISTRIBUTION, version_of_server
from ..startup import StartupError
from ..storage.ownership import StorageError
from ..streams import Streams
from .assembly import storage_from
from .fronts import Fronts

#: How long, in seconds, a start waits for the storage before it serves what can be served without it.
PATIENCE: Final = 1.0

_log = Logger()


class Daemon(Service):
    """
    The whole server on all of its ports.

    :ivar streams: the streams that it serves.
    :ivar tree: everything that it serves, as one resource for a twisted.web Site.
    :param budget: how many descriptors each part may use; None, if that is the embedding program's business.
    :raises StartupError: the settings do not lead to something to listen on.
    """

    name = "durable-streams"

    def __init__(self, settings: Settings, reactor: Any, budget: DescriptorBudget | None = None) -> None:
        self._settings = settings
        self._reactor = reactor
        self._stopping = False
        self._budget = budget
        self.listeners = Listeners(settings, reactor)
        self.streams = Streams(storage_from(settings, reactor, budget), reactor)
        self._fronts = Fronts(self.streams, settings, reactor, self.obstacle, budget)
        self.tree: IResource = self._fronts.tree

    @property
    def address(self) -> IAddress:
        """Where it listens first; there is no such thing before the ports are bound."""
        return self.listeners.addresses[0]

    def obstacle(self) -> str | None:
        """Say what keeps the server from taking requests; None when nothing does."""
        if self._stopping:
            return "The server is stopping."
        return self.streams.obstacle()

    def privilegedStartService(self) -> None:
        """
        Bind the ports.

        :raises StartupError: one of them can't be had; then none is.
        """
        self.listeners.bind(self._fronts.factory, self._fronts.admin)

    def start(self) -> Deferred[None]:
        """
        Bind the ports if that was not done, then load the storage, in a thread if it takes long.

        Requests are answered meanwhile: with 503, and ``/readyz`` says why.

        :returns: fires when everything is served; fails with :exc:`StartupError`.
        """
        if not self.listeners.addresses:
            self.privilegedStartService()
        Service.startService(self)
        _log.info("Listening on {places}.", places=self.listeners.describe())
        self._log_budget()
        return self.streams.load(PATIENCE, self._reactor).addCallbacks(self._serving, self._not_opened)

    def _log_budget(self) -> None:
        budget, wanted = self._budget, self._settings.limits.max_connections
        if budget is None:
            return
        if budget.connections < wanted:
            _log.warn(
                "The process may open {limit} files, so at most {connections} connections are served, and not the "
                "{wanted} of limits.max_connections. Raise the limit (ulimit -n, or LimitNOFILE= of a systemd unit).",
                limit=budget.limit,
                connections=budget.connections,
                wanted=wanted,
            )
        else:
            _log.info(
                "The process may open {limit} files; at most {connections} connections are served.",
                limit=budget.limit,
                connections=budget.connections,
            )

    def startService(self) -> None:
        self.start().addErrback(self._not_served)

    def start_without_port(self) -> None:
        """
        Start to serve :attr:`tree`, for a Site that has a port of its own.

        :raises StorageError: the storage can't be opened.
        """
        self.streams.startService()
        super().startService()

    def hang_up(self) -> None:
        """Wait for nobody any longer who is still served while the server stops."""
        self._fronts.factory.abort()

    def reload(self) -> None:
        """Take up certificates that have changed."""
        self.listeners.reload()

    def _serving(self, _: None) -> None:
        storage = self._settings.storage
        _log.info(
            "{distribution} {version} is ready (process {pid}). Streams: {base_path}/NAME. Storage: {mode}{place}.",
            distribution=DISTRIBUTION,
            version=version_of_server(),
            pid=os.getpid(),
            base_path=self._settings.http.stream_base_path.rstrip("/"),
            mode=storage.mode,
            place="" if storage.mode == "memory" else f" in {os.path.abspath(storage.data_dir)}",
        )

    def _not_opened(self, failure: Failure) -> None:
        """
        :raises StartupError: always.
        """
        storage = self._settings.storage
        where = "" if storage.mode == "memory" else f" and storage.data_dir {storage.data_dir}"
        if not failure.check(StorageError, OSError):
            _log.failure("Opening the storage failed.", failure=failure)
        if not self._reactor.running:
            # Whoever is told of it ends, and nobody stops the service.
            self.listeners.give_up()
        raise StartupError(
            "open_storage",
            f"storage.mode is {storage.mode}{where}, which can't be opened: {failure.getErrorMessage()}"
            f"{_advice(failure.value)}",
        )

    def _not_served(self, failure: Failure) -> None:
        _log.critical("{reason}", reason=failure.value)

    async def _stop(self) -> None:
        await self.listeners.stop()
        await self._fronts.drain()
        await self.streams.stopService()
        await self._fronts.close()
        _log.info("The server has stopped.")

    def stopService(self) -> Deferred[None]:
        """Take no more connections, let the ones that are there end, then close the storage."""
        self._stopping = True
        super().stopService()
        return Deferred.fromCoroutine(self._stop())


def _advice(error: object) -> str:
    """Say what to change where the system only says what is wrong."""
    if isinstance(error, PermissionError):
        return ". Give it to the user that the server runs as."
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return ". The server follows no symbolic link there: put the file itself in its place, or remove the link."
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return ". Set storage.data_dir to a directory."
    return ""
