"""The command ``durable-streams-server``: one module for each subcommand.

- :mod:`.program` is the command itself with the table of its subcommands, whose modules it imports when they are used.
- :mod:`.options` has the options that several subcommands share: the files of settings, the connection to a server.
- :mod:`.output` prints tables, JSON and notes, and knows whether anybody looks; :mod:`.progress` shows a bar.
- :mod:`.errors` has the error that ends a command with a sentence; :mod:`.running` runs a coroutine on the reactor.
"""

from .program import main

__all__ = ["main"]
