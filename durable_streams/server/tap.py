"""The twistd plugin ``twistd durable-streams``: its options and its service."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, ClassVar

from msgspec.structs import replace
from twisted.application.service import IService
from twisted.logger import ILogObserver, Logger
from twisted.python import usage

from .clocks import make_steady
from .config.credentials import check_credentials
from .config.layers import CONFIG_DIR, PROFILES, load
from .config.sections import ObservabilitySettings
from .config.settings import Settings
from .config.showing import concealed
from .config.validation import ConfigError
from .daemon.logs import Logs
from .daemon.process import Process, refusal
from .startup import StartupError

if TYPE_CHECKING:
    from .daemon.workers.supervisor import Supervisor

_log = Logger()


#: The open log of this process: none or one.
_opened: list[Logs] = []


def log_observer() -> ILogObserver:
    """Return the log observer of this process. twistd calls this by name when it starts logging."""
    return _opened[-1].observer


class Options(usage.Options):
    """The command-line options."""

    synopsis = "[options]"
    longdesc = (
        "Serve Durable Streams: append-only streams over HTTP that can be replayed from any offset and followed live. "
        "Every setting can be set in the environment: server.bind_address as DS_SERVER__BIND_ADDRESS."
    )
    optParameters: ClassVar = [
        ["profile", None, None, f"The profile: {', '.join(PROFILES)}, or NAME for a file NAME.toml in the folder."],
        ["config", None, None, "A TOML file of settings. The environment overrides it."],
        ["config-dir", None, None, f"The folder of default.toml, NAME.toml and local.toml. Default: {CONFIG_DIR}."],
    ]
    optFlags: ClassVar = [["check", None, "Check the configuration and exit."]]

    def __init__(self) -> None:
        super().__init__()
        self["listen"] = []

    _logs_by_itself = False

    def opt_listen(self, endpoint: str) -> None:
        """Listen on this Twisted endpoint, such as tcp:4437, instead of the settings' addresses. May be repeated."""
        self["listen"].append(endpoint)

    def postOptions(self) -> None:
        """
        Load the settings; with ``--check``, check them and exit.

        :raises StartupExit: the settings are invalid; a line on stderr names the setting and the fix.
        """
        try:
            self["settings"] = self.load()
        except StartupError as error:
            raise refusal(error) from None
        for name in ("config", "config-dir"):
            if self[name] is not None:
                # They are read again after twistd has changed its directory, as a daemon or with --rundir.
                self[name] = os.path.abspath(self[name])
        if self["check"]:
            self._check()
        twistd = self._twistd
        if twistd is not None and not twistd["logger"] and not twistd.get("syslog"):
            # The observer's dotted name, as for twistd's own option --logger.
            twistd["logger"] = f"{__name__}.{log_observer.__name__}"
            self._logs_by_itself = True

    @property
    def _twistd(self) -> usage.Options | None:
        """The options of twistd; None if the plugin runs under ``twist``, which has other options for its log."""
        return self.parent if self.parent is not None and "logger" in self.parent else None

    def load(self) -> Settings:
        """
        Load the settings from their files and the environment.

        :raises StartupError: the settings are invalid.
        """
        try:
            loaded = load(self["profile"], self["config"], os.environ, self["config-dir"], self["listen"])
            check_credentials(loaded.settings)
        except ConfigError as error:
            raise StartupError(error.phase, str(error)) from None
        for warning in loaded.warnings:
            if self["check"]:
                # --check opens no log.
                sys.stderr.write(f"Warning: {warning}\n")
            else:
                _log.warn("{text}", text=warning)
        return Settings.of(loaded.settings)

    def _check(self) -> None:
        """
        Check the settings, files and addresses without binding a port, and exit.

        :raises SystemExit: with status 0 if the configuration is valid.
        :raises StartupExit: the configuration is invalid.
        """
        from twisted.internet import reactor  # noqa: PLC0415 (a reactor may be chosen until here)

        from .daemon.service import Daemon  # noqa: PLC0415 (as above)

        try:
            self._check_logs()
            daemon = Daemon(self["settings"], reactor)
            places = concealed(daemon.listeners.describe())
        except StartupError as error:
            raise refusal(error) from None
        for warning in daemon.access.policy.warnings if daemon.access is not None else ():
            sys.stderr.write(f"Warning: {warning}\n")
        workers = self["settings"].server.workers
        served = "" if workers == 1 else f" with {workers} workers"
        sys.stdout.write(f"Configuration OK. Would listen on {places}{served}.\n")
        raise SystemExit(0)

    def open_logs(self) -> Logs | None:
        """
        Open the log by the settings; return None if twistd's command line configures the log.

        :raises StartupError: the log file cannot be opened.
        """
        wanted: ObservabilitySettings = self["settings"].observability
        if not self._logs_by_itself:
            if wanted.log_file is not None or wanted.log_format != "text":
                _log.warn(
                    "observability.log_file and observability.log_format have no effect: the command line of twistd or "
                    "twist configures the log."
                )
            return None
        logs = Logs(replace(wanted, log_file=self._log_path()))
        _opened.append(logs)
        return logs

    def _log_path(self) -> str | None:
        """
        Return the absolute path of the log file; None for the standard output.

        :raises StartupError: the log is the standard output, which a daemon does not have.
        """
        twistd = self._twistd
        path = self["settings"].observability.log_file
        if path is None and twistd is not None:
            path = twistd["logfile"] or (None if twistd["nodaemon"] else "twistd.log")
            if path == "-" and not twistd["nodaemon"]:
                raise StartupError(
                    "validate_config",
                    "--logfile is -, but a daemon has no standard output. Name a file, or use -n.",
                )
        # twistd changes its directory when it daemonizes.
        return None if path is None or path == "-" else os.path.abspath(path)

    def _check_logs(self) -> None:
        """
        Check that the log file and the audit log can be written.

        :raises StartupError: one cannot be written.
        """
        audit = self["settings"].audit.file
        for what, setting, path in (
            ("log file", "observability.log_file", self._log_path()),
            ("audit log", "audit.file", None if audit is None else os.path.abspath(audit)),
        ):
            if path is not None and not os.access(path if os.path.exists(path) else os.path.dirname(path), os.W_OK):
                raise StartupError(
                    "validate_config",
                    f"Cannot write the {what} {path} ({setting}). Create its directory, allow the server to write "
                    "there, or choose another file.",
                )


def makeService(options: Options) -> IService:
    """
    Create the service that twistd runs.

    :raises StartupExit: the service cannot be created; a line on stderr says why.
    """
    from twisted.internet import reactor  # noqa: PLC0415 (a reactor may be chosen until here)

    # The process is the server's own, so its reactor may be changed to use the monotonic clock.
    make_steady(reactor)
    settings: Settings = options["settings"]
    try:
        return _process_for(settings)(settings, reactor, options.open_logs(), options.load)
    except StartupError as error:
        raise refusal(error) from None


def _process_for(settings: Settings) -> type[Process | Supervisor]:
    """Return the service of a process that serves itself, or supervises several workers."""
    if settings.server.workers == 1:
        return Process
    from .daemon.workers.supervisor import Supervisor  # noqa: PLC0415 (13 ms, and one process is the default)

    return Supervisor
