"""The command ``durable-streams-server`` itself, and the table of its subcommands."""

from __future__ import annotations

import io
import signal
import sys
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Final, NamedTuple

import click

from ..release import DISTRIBUTION, version_of_server
from .options import add_settings_options
from .output import note
from .signals import handled_by
from .terminal import is_terminal, silence

_PACKAGE: Final = __name__.rpartition(".")[0]


class Entry(NamedTuple):
    """
    A subcommand in the help.

    :ivar module: the module of this package whose ``command`` it is.
    :ivar help: the first sentence of its help, so that the list of commands imports none of them.
    """

    module: str
    help: str


#: Section of the help -> name of a subcommand -> its entry.
COMMANDS: Final[dict[str, dict[str, Entry]]] = {
    "Server": {
        "serve": Entry("serve", "Run the server in the foreground."),
        "config": Entry("show_config", "Print the effective settings as a configuration file, each with its source."),
        "migrate": Entry("migrate", "Create or upgrade the tables of the PostgreSQL storage."),
        "rotate-signing-key": Entry("rotate_signing_key", "Sign the webhooks of a running server with a new key."),
    },
    "Access": {
        "token": Entry("token", "Create, list and revoke static bearer tokens."),
        "sign-url": Entry(
            "sign_url",
            "Print the URL of a stream as a signed URL, with which anybody may read it, or do what --operation says.",
        ),
        "signing-key": Entry("signing_key", "Add, list and remove the keys that sign URLs."),
        "authorize": Entry(
            "authorize", "Explain whether somebody may do OPERATION on the stream NAME, and which rule decides."
        ),
    },
    "Data": {
        "check": Entry("check", "Verify all data in a data directory or database and report damage."),
        "list": Entry("list_streams", "List all streams with their metadata."),
        "export": Entry("export", "Export streams as a JSON document."),
        "import": Entry("import_document", "Import the streams of a JSON document."),
        "backup": Entry("backup", "Back up streams into an archive."),
        "restore": Entry("restore", "Restore the streams of an archive."),
        "verify": Entry("verify", "Check an archive of backup from its first byte to its last."),
    },
    "Streams": {
        "create": Entry("create", "Create a stream, with DATA as its first data."),
        "append": Entry(
            "append",
            "Append data to a stream: each argument by itself, then files, or the standard input if there are neither.",
        ),
        "read": Entry("read", "Print the data of a stream up to its tail."),
        "tail": Entry("tail", "Print the data of a stream, and what is appended, until it is closed."),
        "head": Entry(
            "head", "Print the metadata of a stream: its type, its tail, whether it is closed, and when it expires."
        ),
        "close": Entry("close", "Close streams: nothing can be appended any more, and tails end."),
        "delete": Entry("delete", "Delete streams and all of their data."),
        "fork": Entry("fork", "Create STREAM with the data of SOURCE, without copying it."),
    },
    "Tools": {
        "bench": Entry("bench", "Put a short load on a server of yours, and print its rates and latencies."),
        "completions": Entry("completions", "Print the completion script for a shell."),
    },
}


class Program(click.Group):
    """A group that imports the module of a subcommand when it is used."""

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run the command; it has one name however it was started."""
        options["prog_name"] = DISTRIBUTION
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                # A name that the terminal's encoding does not have is escaped.
                stream.reconfigure(errors="backslashreplace")
        return super().main(*arguments, **options)

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        """Parse the arguments; ``--help`` and ``--version`` print."""
        try:
            return super().make_context(*arguments, **options)
        except BrokenPipeError:
            raise _without_reader() from None

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all subcommands."""
        return [name for entries in COMMANDS.values() for name in entries]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a subcommand."""
        for entries in COMMANDS.values():
            if cmd_name in entries:
                found: click.Command = import_module(f"{_PACKAGE}.{entries[cmd_name].module}").command
                return found
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand; name the nearest one if there is none of this name."""
        if args[0] not in self.list_commands(ctx) and not args[0].startswith("-"):
            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f" Did you mean {near[0]}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the lists of subcommands without importing them."""
        for section, entries in COMMANDS.items():
            with formatter.section(section):
                formatter.write_dl([(name, entry.help) for name, entry in entries.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand; Ctrl-C, SIGTERM and a closed pipe end it without a message, after its clean-up."""
        received: list[int] = []

        def end(number: int, _: Any) -> None:
            received.append(number)
            # No KeyboardInterrupt: if that is raised inside of an exec, as libraries have it, the interpreter ends by
            # the signal, and not with the exit status, though the exception was caught.
            raise SystemExit(128 + number)

        with handled_by(end):
            try:
                return super().invoke(ctx)
            except BaseException as error:
                if received:
                    # It may have become another exception on the way, inside of an import for instance.
                    if received[0] == signal.SIGINT and is_terminal(sys.stderr):
                        # The terminal has printed ^C.
                        note("")
                    raise click.exceptions.Exit(128 + received[0]) from None
                if isinstance(error, BrokenPipeError):
                    raise _without_reader() from None
                raise


def _without_reader() -> click.exceptions.Exit:
    """Return what ends a command whose output nobody reads any more, as with ``| head``: that is no failure."""
    silence(sys.stdout)
    return click.exceptions.Exit(0)


def _print_version(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted and not ctx.resilient_parsing:
        click.echo(f"{DISTRIBUTION}, version {version_of_server()}")
        ctx.exit()


@click.group(
    cls=Program,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    options_metavar="[OPTIONS]",
    subcommand_metavar="[COMMAND] [ARGS]...",
)
@add_settings_options
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_print_version,
    help="Show the version and exit.",
)
@click.pass_context
def main(context: click.Context, /, **_: str | None) -> None:
    """
    Run a Durable Streams server, and look after its streams. Without a command: serve.

    The exit status is 0, 1 after a failure, and 2 if the command line is wrong. Each command that prints results has
    --json. All settings can be set in the environment: server.bind_address as DS_SERVER__BIND_ADDRESS.
    """
    if context.invoked_subcommand is None:
        serve = context.command.get_command(context, "serve")  # type: ignore[attr-defined]
        context.invoke(serve)
