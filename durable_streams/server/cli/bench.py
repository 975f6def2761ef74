"""``bench``: a short load on a server, with a table of rates and latencies."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING, Any, Final

import click
from msgspec import Struct

from ..release import DISTRIBUTION, version_of_server
from .errors import CommandError
from .options import URL_VARIABLE, Connection, connection_options, json_option
from .output import note, print_json, print_line, print_table
from .progress import progress_bar
from .running import run
from .stream_requests import base_url, connected, sentence

if TYPE_CHECKING:
    from .measuring import Load, Phase

#: A client that is busy for this share of the time is the limit.
_BUSY: Final = 0.85

_COLUMNS: Final = (
    ("Phase", False),
    ("Each second", True),
    ("MB/s", True),
    ("p50 ms", True),
    ("p99 ms", True),
    ("max ms", True),
    ("Errors", True),
    ("Client busy", True),
)


class Report(Struct, frozen=True):
    """
    The JSON object that ``bench --json`` prints.

    :ivar client: what sent the requests.
    :ivar limited_by_client: the phases in which this command had no time left: the server may do more.
    """

    url: str
    client: str
    load: Load
    phases: list[Phase]
    limited_by_client: list[str]


@click.command("bench")
@connection_options("The server: http://HOST:PORT, with /v1/stream by default, or unix:PATH. Also read from DS_URL.")
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=5.0, show_default=True, help="Duration of a phase.")
@click.option("--clients", type=click.IntRange(1, 1000), default=32, show_default=True, help="Requests at a time.")
@click.option("--streams", type=click.IntRange(1, 1000), default=8, show_default=True, help="Streams to append to.")
@click.option("--size", type=click.IntRange(1, 1_000_000), default=100, show_default=True, help="Bytes of an append.")
@click.option("--tails", type=click.IntRange(1, 1000), default=20, show_default=True, help="Readers of a stream.")
@json_option
def command(connection: Connection, as_json: bool, **numbers: Any) -> None:
    """
    Put a short load on a server of yours, and print its rates and latencies.

    It creates streams of its own below bench-XXXXXXXXXXXX/, and deletes them at the end. The client is Python on one
    core, and sends some hundred to some thousand requests a second: where the column "Client busy" is near 100 %, it is
    the limit and not the server. The latencies are those that the client sees, and include its own work.
    """
    if connection.url is None:
        raise click.UsageError(f"No server: give its URL by --url or {URL_VARIABLE}, such as http://localhost:4437.")
    report = run(lambda reactor: _bench(reactor, connection, numbers))
    if as_json:
        print_json(report)
        return
    print_line(f"{report.url}, {report.load.seconds:g} s a phase, by {report.client}")
    print_line()
    print_table(_COLUMNS, [_row(phase) for phase in report.phases])
    for phase in report.phases:
        if phase.failure is not None:
            note(f"{phase.name}: {phase.failures} failed, the first with: {phase.failure}")
    if report.limited_by_client:
        print_line()
        print_line(
            "The client was the limit in: " + "; ".join(report.limited_by_client) + ". The server can do more than the "
            "table says."
        )


async def _bench(reactor: Any, connection: Connection, numbers: dict[str, Any]) -> Report:
    from ..client import ClientError  # noqa: PLC0415 (imports Twisted, which --help does not need)
    from .measuring import Bench, Load  # noqa: PLC0415 (as above)

    load = Load(**numbers)
    base = base_url(connection.url or "")
    phases = []
    try:
        async with connected(reactor, connection, load.clients + load.tails + 1) as client:
            with progress_bar("", counted="s") as bar:
                async for phase in Bench(reactor, client, base, load, bar).run():
                    phases.append(phase)
    except ClientError as error:
        raise CommandError(sentence(error, connection)) from None
    limited = [phase.name for phase in phases if phase.client_busy >= _BUSY]
    name = f"{DISTRIBUTION} {version_of_server()}, {platform.python_implementation()} {platform.python_version()}"
    return Report(base, f"a client in Python ({name})", load, phases, limited)


def _row(phase: Phase) -> list[str]:
    def milliseconds(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    return [
        phase.name,
        f"{phase.per_second:,.0f}",
        f"{phase.bytes_per_second / 1e6:,.1f}",
        milliseconds(phase.p50_ms),
        milliseconds(phase.p99_ms),
        milliseconds(phase.max_ms),
        str(phase.failures),
        f"{phase.client_busy:.0%}",
    ]
