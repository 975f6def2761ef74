"""``rotate-signing-key``: sign webhooks with a new key."""

from __future__ import annotations

from typing import Any, Final

import click
from msgspec import Struct

from .admin import URL_HELP, connected
from .options import Connection, connection_options, json_option
from .output import print_json, print_line
from .running import run

_LABEL: Final = "the key was not rotated"


class RotatedKey(Struct):
    """The answer of the server; times are RFC 3339."""

    kid: str
    previous_kid: str
    previous_until: str


@click.command("rotate-signing-key")
@connection_options(URL_HELP, None)
@json_option
def command(connection: Connection, as_json: bool) -> None:
    """
    Sign the webhooks of a running server with a new key.

    The previous key stays in the server's key set for 10 minutes, so that receivers can verify what it has signed.
    Servers with the same storage take over the new key within a second.
    """
    if connection.url is None:
        raise click.UsageError(
            "Give --url: a running server rotates its key, for instance --url http://127.0.0.1:4437."
        )
    rotated = run(lambda reactor: _rotate(connection, reactor))
    if as_json:
        print_json(rotated)
    else:
        print_line(f"Webhooks are signed by {rotated.kid}.")
        print_line(f"The key set has {rotated.previous_kid}, too, until {rotated.previous_until}.")


async def _rotate(connection: Connection, reactor: Any) -> RotatedKey:
    async with connected(reactor, connection, _LABEL) as pages:
        return await pages.order("rotate-signing-key", RotatedKey)
