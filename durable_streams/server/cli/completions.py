"""``completions``: the script with which a shell completes the command."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from ..release import DISTRIBUTION
from .output import write_text


@click.command("completions")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """
    Print the completion script for a shell.

    For bash, add to ~/.bashrc: eval "$(durable-streams-server completions bash)". For zsh, the same in ~/.zshrc with
    zsh. For fish: durable-streams-server completions fish > ~/.config/fish/completions/durable-streams-server.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    variable = f"_{DISTRIBUTION}_COMPLETE".replace("-", "_").upper()
    write_text(kind(context.find_root().command, {}, DISTRIBUTION, variable).source())
