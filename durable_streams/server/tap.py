"""``twistd durable-streams``: its options, and the service that it runs."""

from __future__ import annotations

import gc
import os
import signal
from typing import Any, ClassVar

from twisted.application.service import IService, Service
from twisted.internet.error import CannotListenError
from twisted.logger import Logger
from twisted.python import usage

from .config.layers import CONFIG_DIR, PROFILES, load
from .config.settings import Settings
from .config.validation import ConfigError
from .service import Daemon
from .storage.ownership import StorageError

_log = Logger()


class Options(usage.Options):
    """The command line."""

    synopsis = "[options]"
    longdesc = (
        "Serve Durable Streams: append-only streams over HTTP, to be replayed from any offset and followed live. "
        "Every setting can be given by the environment: server.bind_address as DS_SERVER__BIND_ADDRESS."
    )
    optParameters: ClassVar = [
        ["profile", None, None, f"The settings to begin with: {', '.join(PROFILES)}, or a file NAME.toml of yours."],
        ["config", None, None, "A TOML file of settings; the environment still wins over it."],
        ["config-dir", None, None, f"The folder of default.toml, NAME.toml and local.toml instead of {CONFIG_DIR}."],
    ]
    optFlags: ClassVar = [["check", None, "Say whether the server could start with these settings, and end."]]

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []

    def opt_listen(self, endpoint: str) -> None:
        """Listen at this endpoint of Twisted's, such as tcp:4437, and not where the settings say; once for each."""
        self["listen"].append(endpoint)

    def postOptions(self) -> None:
        """
        :raises UsageError: the settings are wrong; the message says which, and what would be right.
        """
        try:
            loaded = load(self["profile"], self["config"], os.environ, self["config-dir"], self["listen"])
        except ConfigError as error:
            raise usage.UsageError(f"[{error.phase}] {error}") from None
        self["settings"] = loaded.settings
        self["warnings"] = loaded.warnings
        # What is logged before the log is there is kept for it.
        for warning in loaded.warnings:
            _log.warn("{text}", text=warning)


class StartFailed(SystemExit, Exception):
    """The daemon can't start: a line for the user. That it is an Exception too makes twistd take its pid file away."""


class _Process(Service):
    """The daemon as the whole of a process: it ends it, by signal, with status 0."""

    def __init__(self, settings: Settings, reactor: Any) -> None:
        self._settings = settings
        self._reactor = reactor
        self._daemon = Daemon(settings, reactor)

    def privilegedStartService(self) -> None:
        try:
            self._daemon.privilegedStartService()
        except CannotListenError as error:
            raise StartFailed(
                f"[bind_listener] server.bind_address is {self._settings.server.bind_address}, which can't be had: "
                f"{error.socketError}. Free it, or choose another."
            ) from None

    def startService(self) -> None:
        super().startService()
        try:
            self._daemon.startService()
        except (StorageError, OSError) as error:
            storage = self._settings.storage
            raise StartFailed(
                f"[start_server] storage.mode is {storage.mode} and storage.data_dir {storage.data_dir}, which can't "
                f"be opened: {error}"
            ) from None
        # What is there by now lives as long as the process. To look through it again and again is what a pause of the
        # garbage collector mostly is.
        gc.freeze()
        self._reactor.callWhenRunning(self._take_signals)

    def stopService(self) -> Any:
        super().stopService()
        return self._daemon.stopService()

    def _take_signals(self) -> None:
        # The reactor's own handlers make twistd end itself by the signal once everything has stopped well.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: self._reactor.callFromThread(self._stop))

    def _stop(self) -> None:
        if self._reactor.running:
            self._reactor.stop()


def makeService(options: Options) -> IService:
    """Make what twistd runs."""
    from twisted.internet import reactor  # noqa: PLC0415 (whoever runs twistd may choose another until now)

    return _Process(options["settings"], reactor)
