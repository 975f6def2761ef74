"""The daemon: a server with the storage and the ports of its settings."""

from __future__ import annotations

import errno
import os
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..config.auth_rules import has_access_control
from ..config.choices import has_directory
from ..config.settings import Settings
from ..config.validation import ConfigError
from ..listening.descriptors import DescriptorBudget
from ..listening.listeners import Listeners
from ..release import DISTRIBUTION, version_of_server
from ..startup import StartupError
from ..storage.ownership import StorageError
from ..streams import Streams
from ..web.site.admin.access import AdminAuthorization, allow_certificates
from .server import Server
from .storages import storage_from

#: The time that a start waits for the storage, in seconds; then loading continues in a thread.
PATIENCE: Final = 1.0

_log = Logger()


class Daemon(Server):
    """
    A server with the storage and the ports of its settings.

    :param budget: the number of descriptors of each part; None for no division.
    :param ports_from: the reactor with which the ports are created; None for the same one.
    :ivar streams: the streams that are served.
    :raises StartupError: a listener or a file of certificates is invalid.
    """

    name = "durable-streams"

    def __init__(
        self, settings: Settings, reactor: Any, budget: DescriptorBudget | None = None, ports_from: Any = None
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        self._budget = budget
        self.listeners = Listeners(settings, reactor if ports_from is None else ports_from)
        try:
            self.streams = Streams(storage_from(settings, reactor, budget), reactor)
            super().__init__(
                self.streams, settings, reactor, self.listeners, budget, authorize_admin=_admin_access(settings)
            )
        except ConfigError as error:
            raise StartupError(error.phase, str(error)) from None
        self.streams.setServiceParent(self)

    @property
    def address(self) -> IAddress:
        """The first address; only after the ports are bound."""
        return self.addresses[0]

    def startService(self) -> None:
        self.start().addErrback(lambda failure: _log.critical("{reason}", reason=failure.value))

    def _open(self) -> Deferred[None]:
        """
        Open the storage, in a thread if that takes longer than :data:`PATIENCE`.

        :returns: fails with :exc:`StartupError`.
        """
        _log.info("Listening on {places}.", places=self.listeners.describe())
        self._log_budget()
        return self.streams.load(PATIENCE, self._reactor).addCallbacks(self._log_ready, self._raise_not_opened)

    def _log_budget(self) -> None:
        budget, wanted = self._budget, self._settings.limits.max_connections
        if budget is None:
            return
        if budget.connections < wanted:
            _log.warn(
                "The process may open {limit} files, so at most {connections} connections are served instead of the "
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

    def reload(self) -> Deferred[None]:
        """Read the certificates, and the files of ``auth``, ``admin.token_file`` and of subscriptions, again."""
        self.listeners.reload()
        return super().reload()

    def _log_ready(self, _: None) -> None:
        storage = self._settings.storage
        _log.info(
            "{distribution} {version} is ready (process {pid}). Streams: {base_path}/NAME. Storage: {mode}{place}.",
            distribution=DISTRIBUTION,
            version=version_of_server(),
            pid=os.getpid(),
            base_path=self._settings.http.stream_base_path.rstrip("/"),
            mode=storage.mode,
            place=f" in {os.path.abspath(storage.data_dir)}" if has_directory(storage.mode) else "",
        )

    def _raise_not_opened(self, failure: Failure) -> None:
        """
        Raise the error of a storage that cannot be opened.

        :raises StartupError: always.
        """
        storage = self._settings.storage
        where = f", storage.data_dir {storage.data_dir}" if has_directory(storage.mode) else ""
        if not failure.check(StorageError, OSError):
            _log.failure("Opening the storage failed.", failure=failure)
        if not self._reactor.running:
            # The process exits on this error, and nothing stops the service.
            self.listeners.give_up()
        raise StartupError(
            "open_storage",
            f"Cannot open the storage (storage.mode {storage.mode}{where}): {failure.getErrorMessage()}"
            f"{_advice(failure.value)}",
        )


def _admin_access(settings: Settings) -> AdminAuthorization | None:
    """
    Return the check of clients' certificates.

    It is None if the rules decide about certificates, too, or if there is ``admin.token_file``.
    """
    if has_access_control(settings) or settings.admin.token_file is not None:
        return None
    # A client has a certificate only where its listener has required and verified one.
    return allow_certificates


def _advice(error: object) -> str:
    """Return the advice for an error of the system, whose message has only the cause."""
    if isinstance(error, PermissionError):
        return ". Make the server's user its owner."
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return ". It is a symbolic link, which the server does not follow. Replace it by the file, or remove it."
    if isinstance(error, (FileExistsError, NotADirectoryError)):
        return ". Set storage.data_dir to a directory."
    return ""
