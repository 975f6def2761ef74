"""``twistd durable-streams``: its options, and the service that it runs."""

from __future__ import annotations

import os
import sys
from typing import ClassVar

from msgspec.structs import replace
from twisted.application.service import IService
from twisted.logger import ILogObserver, Logger
from twisted.python import usage

from .clocks import make_steady
from .config.layers import CONFIG_DIR, PROFILES, load
from .config.sections import ObservabilitySettings
from .config.settings import Settings
from .config.showing import concealed
from .config.validation import ConfigError
from .daemon.logs import Logs
from .daemon.process import Process, refusal
from .startup import StartupError

_log = Logger()


#: The log of this process, when it is open.
_opened: list[Logs] = []


def log_observer() -> ILogObserver:
    """Say who observes the log of this process: twistd wants to know when it begins to log."""
    return _opened[-1].observer


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

    _logs_by_itself = False

    def opt_listen(self, endpoint: str) -> None:
        """Listen at this endpoint of Twisted's, such as tcp:4437, and not where the settings say; once for each."""
        self["listen"].append(endpoint)

    def postOptions(self) -> None:
        """
        :raises StartFailed: the settings are wrong; a line on stderr says which, and what would be right.
        """
        try:
            self["settings"] = self.load()
        except StartupError as error:
            raise refusal(error) from None
        for name in ("config", "config-dir"):
            if self[name] is not None:
                # They are read again when twistd has gone elsewhere, as a daemon or with --rundir.
                self[name] = os.path.abspath(self[name])
        if self["check"]:
            self._check()
        twistd = self._twistd
        if twistd is not None and not twistd["logger"] and not twistd.get("syslog"):
            # By its name, as twistd has it from its own command line.
            twistd["logger"] = f"{__name__}.{log_observer.__name__}"
            self._logs_by_itself = True

    @property
    def _twistd(self) -> usage.Options | None:
        """The options of twistd; None if ``twist`` or something else runs the plugin: these have other logs."""
        return self.parent if self.parent is not None and "logger" in self.parent else None

    def load(self) -> Settings:
        """
        Read the settings, now.

        :raises StartupError: they are wrong.
        """
        try:
            loaded = load(self["profile"], self["config"], os.environ, self["config-dir"], self["listen"])
        except ConfigError as error:
            raise StartupError(error.phase, str(error)) from None
        for warning in loaded.warnings:
            if self["check"]:
                # There will be no log.
                sys.stderr.write(f"Warning: {warning}\n")
            else:
                _log.warn("{text}", text=warning)
        return Settings.of(loaded.settings)

    def _check(self) -> None:
        """
        :raises SystemExit: always: with status 0 if the server could be started.
        """
        from twisted.internet import reactor  # noqa: PLC0415 (only here it is known that nobody chooses another)

        from .daemon.service import Daemon  # noqa: PLC0415 (as above)

        try:
            self._check_log()
            places = concealed(Daemon(self["settings"], reactor).listeners.describe())
        except StartupError as error:
            raise refusal(error) from None
        sys.stdout.write(f"Configuration OK. Would listen on {places}.\n")
        raise SystemExit(0)

    def open_logs(self) -> Logs | None:
        """
        Begin to log as the settings say; not, where twistd was told of another way.

        :raises StartupError: the file can't be opened.
        """
        wanted: ObservabilitySettings = self["settings"].observability
        if not self._logs_by_itself:
            if wanted.log_file is not None or wanted.log_format != "text":
                _log.warn(
                    "observability.log_file and log_format have no effect: logging was set up on the command line of "
                    "twistd, or is that of twist."
                )
            return None
        logs = Logs(replace(wanted, log_file=self._log_path()))
        _opened.append(logs)
        return logs

    def _log_path(self) -> str | None:
        """
        Say where the log goes; None for the standard output.

        :raises StartupError: a daemon has none.
        """
        twistd = self._twistd
        path = self["settings"].observability.log_file
        if path is None and twistd is not None:
            path = twistd["logfile"] or (None if twistd["nodaemon"] else "twistd.log")
            if path == "-" and not twistd["nodaemon"]:
                raise StartupError(
                    "validate_config",
                    "--logfile is -, and a daemon has no standard output. Name a file, or stay in front with -n.",
                )
        # twistd goes elsewhere when it becomes a daemon.
        return None if path is None or path == "-" else os.path.abspath(path)

    def _check_log(self) -> None:
        """
        :raises StartupError: the log can't be written.
        """
        path = self._log_path()
        if path is not None and not os.access(path if os.path.exists(path) else os.path.dirname(path), os.W_OK):
            raise StartupError(
                "validate_config",
                f"observability.log_file is {path}, which can't be written. Make its directory, let the server write "
                "there, or choose another.",
            )


def makeService(options: Options) -> IService:
    """
    Make what twistd runs.

    :raises StartFailed: it can't be made; whoever started it was told why.
    """
    from twisted.internet import reactor  # noqa: PLC0415 (whoever runs twistd may choose another until now)

    # The process is ours: everything in it is timed by the monotonic clock.
    make_steady(reactor)
    try:
        return Process(options["settings"], reactor, options.open_logs(), options.load)
    except StartupError as error:
        raise refusal(error) from None
