"""The command line of the benchmarks."""

import argparse
import os
from pathlib import Path

from benchmarks.peers import PEERS, from_text
from benchmarks.plan import BENCHMARKS

#: The default folder for the generator and the other servers.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "durable-streams-benchmarks"


def _peer_arguments(parser: argparse.ArgumentParser) -> None:
    peers = parser.add_argument_group("peers")
    usual = "; unless given, each benchmark has its own"
    peers.add_argument("--peers", help=f"who is measured, of {', '.join(PEERS)}{usual}")
    command = "one more server, with {port} where its port on 127.0.0.1 goes"
    peers.add_argument("--peer", action="append", type=from_text, default=[], metavar="NAME=COMMAND", help=command)
    ours = "ours,file-durable,file-fast,acid,memory,postgres,observed,tls"
    peers.add_argument("--subject", default=ours, help="whose ratios are shown, and whose faults count")
    peers.add_argument(
        "--reference",
        default="node,ported,electric,ported-memory,ported-tls,electric-memory,silent,plain,file-durable",
        help="to whose figures",
    )


def _load_arguments(parser: argparse.ArgumentParser) -> None:
    load = parser.add_argument_group("load")
    load.add_argument("--connections", type=int, default=32, help="of appends and reads")
    load.add_argument("--streams", type=int, default=64, help="that appends and reads are spread over")
    load.add_argument("--bytes", type=int, default=100, help="of a body or event")
    load.add_argument("--content-type", default="application/json", help="of appends and reads")
    load.add_argument("--tails", type=int, default=200, help="of tails")
    load.add_argument("--fanout-tails", type=int, default=100, help="of fanout")
    load.add_argument("--rate", type=float, default=50, help="events per second of tails")
    load.add_argument("--idle-tails", type=int, default=2000, help="of memory")
    load.add_argument("--empty-streams", type=int, default=20000, help="of memory")
    load.add_argument("--stalled-tails", type=int, default=50, help="of memory")
    load.add_argument("--stalled-mib", type=int, default=100, help="appended beside the stalled tails")


def _storage_arguments(parser: argparse.ArgumentParser) -> None:
    storage = parser.add_argument_group("storage")
    storage.add_argument("--storage-connections", type=int, default=64, help="of durable, scale, sweep, overload")
    storage.add_argument("--storage-streams", type=int, default=64, help="of durable, the steady ones of others")
    storage.add_argument("--storage-bytes", type=int, default=256, help="of a body of the same")
    storage.add_argument("--replay-mib", type=int, default=64, help="length of the stream of replay")
    storage.add_argument("--replay-connections", type=int, default=4, help="of replay, besides one")
    data = "what is replayed: just written, kept over a restart, or both"
    storage.add_argument("--data", choices=("written", "kept", "both"), default="both", help=data)
    storage.add_argument("--scale-to", type=int, default=100_000, help="streams, in steps of ten times from a hundred")
    storage.add_argument("--sweep-streams", type=int, default=50_000, help="that expire")
    storage.add_argument("--sweep-ttl", type=int, default=5, help="seconds after which they do")
    storage.add_argument("--sweep-seconds", type=float, default=30, help="in which they are removed")


def _overload_arguments(parser: argparse.ArgumentParser) -> None:
    overload = parser.add_argument_group("overload")
    overload.add_argument("--idle-connections", type=int, default=1000, help="that asked for something once")
    overload.add_argument("--waiting-connections", type=int, default=736, help="tails and long-polls without news")
    overload.add_argument("--flood-readers", type=int, default=200, help="that read as fast as they can")


def arguments() -> argparse.ArgumentParser:
    """
    Return the parser of the command line.

    :returns: the parser, with the defaults of all options.
    """
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Compares this server with its peers; see benchmarks/README.rst.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK", help=f"{', '.join(BENCHMARKS)}, or all")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--seconds", type=float, default=5, help="length of a run")
    parser.add_argument("--warmup", type=float, default=1, help="seconds of load before it that do not count")
    _peer_arguments(parser)
    _load_arguments(parser)
    _storage_arguments(parser)
    _overload_arguments(parser)
    machine = parser.add_argument_group("machine")
    machine.add_argument("--server-core", type=int, default=0)
    machine.add_argument("--load-core", type=int, default=1)
    machine.add_argument("--database-core", type=int, help="of PostgreSQL; any core unless given")
    machine.add_argument("--cache-folder", type=Path, default=CACHE, help="for the generator and the other servers")
    machine.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    return parser
