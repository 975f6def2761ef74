"""``serve``: the daemon in the foreground, as ``twistd -n durable-streams`` runs it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import click

from .options import SettingsFiles, settings_options


@click.command("serve")
@settings_options
@click.option(
    "--listen",
    metavar="ENDPOINT",
    multiple=True,
    help="Listen on this Twisted endpoint, such as tcp:4437, instead of the settings' addresses. May be repeated.",
)
@click.option("--check", is_flag=True, help="Check the configuration and exit.")
def command(files: SettingsFiles, listen: tuple[str, ...], check: bool) -> None:
    """
    Run the server in the foreground.

    It logs to the standard output or to observability.log_file. SIGTERM and Ctrl-C stop it after its connections are
    drained; SIGHUP makes it read certificates, log level and log file again. It writes no pid file. The exit status is
    0 after a signal, and 1 if the server cannot start: then a line on stderr says why.
    """
    _twistd(_arguments(files, listen, check))


def _arguments(files: SettingsFiles, listen: tuple[str, ...], check: bool) -> list[str]:
    """Return the arguments of twistd's command ``durable-streams``."""
    given = {"--profile": files.profile, "--config": files.config, "--config-dir": files.config_dir}
    return [
        *(f"{name}={value}" for name, value in given.items() if value is not None),
        *(f"--listen={endpoint}" for endpoint in listen),
        *(["--check"] if check else []),
    ]


def _twistd(arguments: list[str]) -> None:
    """Run twistd in this process, in the foreground and without a pid file."""
    from twisted.application.service import ServiceMaker  # noqa: PLC0415 (only the server needs it)
    from twisted.scripts.twistd import ServerOptions, runApp  # type: ignore[attr-defined]  # noqa: PLC0415 (as above)

    maker = ServiceMaker("Durable Streams", "durable_streams.server.tap", "", "durable-streams")

    class Options(ServerOptions):
        """The options of twistd with one command, so that other plugins are not imported."""

        @property
        def subCommands(self) -> Iterator[tuple[str, None, Any, str]]:  # noqa: N802 (twistd's name)
            self.loadedPlugins = {maker.tapname: maker}
            yield maker.tapname, None, maker.options, maker.description

    # Until the server takes its signals, SIGTERM ends the process as that of twistd.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    options = Options()
    options.parseOptions(["--nodaemon", "--pidfile=", maker.tapname, *arguments])
    runApp(options)
