"""``twistd durable-streams``: its options, and the service that it runs."""

from __future__ import annotations

import gc
import os
import signal
from typing import Any, ClassVar

from twisted.application.service import IService, Service
from twisted.internet.error import CannotListenError
from twisted.python import usage

from .config.layers import PROFILES, load
from .config.settings import Settings
from .config.validation import ConfigError
from .service import Daemon
from .storage.ownership import StorageError


class Options(usage.Options):
    """The command line."""

    synopsis = "[options]"
    longdesc = (
        "Serve Durable Streams: append-only streams over HTTP, to be replayed from any offset and followed live. "
        "Every setting can be given by the environment: server.bind_address as DS_SERVER__BIND_ADDRESS."
    )
    optParameters: ClassVar = [
        ["profile", None, None, f"The built-in settings to begin with: {', '.join(PROFILES)}."],
        ["config", None, None, "A TOML file of settings; the environment still wins over it."],
    ]

    def postOptions(self) -> None:
        """
        :raises UsageError: the settings are wrong; the message says which, and what would be right.
        """
        try:
            self["settings"] = load(self["profile"], self["config"], os.environ)
        except ConfigError as error:
            raise usage.UsageError(str(error)) from None


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
