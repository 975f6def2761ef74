"""
Benchmarks of the PostgreSQL storage by itself: ``python -m benchmarks.database COMMAND``.

``rows``: a database with very many streams. ``catch-up``: a replay of small appends, before and after they are merged.
``busy``: commits beside a reactor that has other work. ``soak``: a mixed load, with a node killed every minute.
"""

import argparse
import sys
from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.task import react

from benchmarks import busy, catch_up, rows, soak
from benchmarks.databases import NoDatabase
from benchmarks.options import CACHE
from benchmarks.servers import ServerFailed


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.database",
        description=__doc__,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--server-core", type=int, default=0, help="of the node")
    parser.add_argument("--load-core", type=int, default=1, help="of the generator")
    parser.add_argument("--database-core", type=int, help="of PostgreSQL; any core unless given")
    parser.add_argument("--cache-folder", type=Path, default=CACHE, help="for the generator")
    commands = parser.add_subparsers(dest="command", required=True)
    many = commands.add_parser("rows", help="10,000 streams, then --streams")
    many.add_argument("--streams", type=int, default=1_000_000, help="about 450 bytes of disk each")
    replay = commands.add_parser("catch-up", help="replay of small appends")
    replay.add_argument("--mib", type=int, default=64)
    replay.add_argument("--bytes", type=int, default=256, help="of an append")
    loaded = commands.add_parser("busy", help="commits beside other work of the reactor")
    loaded.add_argument("--seconds", type=float, default=5)
    mixed = commands.add_parser("soak", help="mixed load, with a node killed every minute")
    mixed.add_argument("--minutes", type=float, default=60)
    mixed.add_argument("--kill-every", type=float, default=60, help="seconds")
    return parser


def main() -> int:
    """Run the command line's benchmark; return the exit status: 1 if data was lost, 2 if nothing could be run."""
    options = _arguments().parse_args()
    try:
        if options.command == "catch-up":
            return catch_up.measure(options)
        if options.command == "soak":
            return soak.run(options)
    except (NoDatabase, ServerFailed) as failure:
        print(failure, file=sys.stderr)
        return 2
    if options.command == "rows":
        counts = dict.fromkeys((10_000, options.streams))
        react(
            lambda reactor: Deferred.fromCoroutine(
                rows.measure(reactor, counts, options.database_core, options.server_core)
            )
        )
    react(lambda reactor: Deferred.fromCoroutine(busy.measure(reactor, options.seconds, options.database_core)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
