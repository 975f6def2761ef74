"""
Runs the benchmarks: ``python -m benchmarks.run [appends|reads|tails|fanout|memory|all] ...`` in the checkout.

The server has one core, the generator another. Each measurement of each round has a fresh server; the peers
take turns within a round, and the first of one round is the last of the next. Speed is never asserted: the
exit status is 1 only when the subject lost, doubled, reordered, damaged or refused something, or died.
"""

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from benchmarks import memory, speed
from benchmarks.figures import Outcome, table
from benchmarks.generator import Generator, GeneratorFailed, build
from benchmarks.peers import MEBIBYTE, PEERS, Peer, Server, ServerFailed, from_text, install, start

SPEED = ("appends", "reads", "tails", "fanout")
BENCHMARKS = (*SPEED, "memory")

Measurement = Callable[[Server, Generator], Outcome]


def arguments() -> argparse.ArgumentParser:
    """
    The command line.

    :returns: its parser.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "durable-streams-benchmarks"
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description="Compares this server with its peers; see benchmarks/README.rst.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("benchmarks", nargs="*", metavar="BENCHMARK", help=f"{', '.join(BENCHMARKS)}, or all")
    parser.add_argument("--rounds", type=int, default=3, help="how often each is measured")
    parser.add_argument("--seconds", type=float, default=5, help="length of a run")
    parser.add_argument("--warmup", type=float, default=1, help="seconds of load before it that do not count")
    parser.add_argument("--peers", default="ours,node", help=f"who is measured, of {', '.join(PEERS)}")
    command = "one more server, with {port} where its port on 127.0.0.1 goes"
    parser.add_argument("--peer", action="append", type=from_text, default=[], metavar="NAME=COMMAND", help=command)
    parser.add_argument("--subject", default="ours", help="whose ratios are shown, and whose faults count")
    parser.add_argument("--reference", default="node", help="to whose figures")
    load = parser.add_argument_group("load")
    load.add_argument("--connections", type=int, default=32, help="of appends and reads")
    load.add_argument("--streams", type=int, default=64, help="that appends and reads are spread over")
    load.add_argument("--bytes", type=int, default=100, help="of a body or event")
    load.add_argument("--content-type", default="application/json", help="of appends and reads")
    load.add_argument("--tails", type=int, default=200, help="of tails")
    load.add_argument("--fanout-tails", type=int, default=100, help="of fanout")
    load.add_argument("--rate", type=float, default=50, help="events per second of tails")
    load.add_argument("--idle-tails", type=int, default=2000)
    load.add_argument("--empty-streams", type=int, default=20000)
    load.add_argument("--stalled-tails", type=int, default=50)
    load.add_argument("--stalled-mib", type=int, default=100, help="appended beside the stalled tails")
    machine = parser.add_argument_group("machine")
    machine.add_argument("--server-core", type=int, default=0)
    machine.add_argument("--load-core", type=int, default=1)
    machine.add_argument("--cache-folder", type=Path, default=cache, help="for the generator and npm's packages")
    machine.add_argument("--json", type=Path, metavar="FILE", help="where to write all figures")
    return parser


def chosen_peers(options: argparse.Namespace) -> list[Peer]:
    """
    The peers that were asked for.

    :param options: the command line's.
    :returns: the peers, in order.
    :raises KeyError: there is none of that name.
    """
    known = {**PEERS, **{peer.name: peer for peer in options.peer}}
    names = list(dict.fromkeys([*options.peers.split(","), *(peer.name for peer in options.peer)]))
    return [known[name] for name in names]


def measurements(benchmark: str, load: speed.Load, crowd: memory.Crowd) -> list[Measurement]:
    """
    What a benchmark measures; each with a fresh server.

    :param benchmark: its name.
    :param load: how much load is made.
    :param crowd: how many tails and streams there are.
    :returns: the measurements.
    """
    if benchmark in SPEED:
        return [partial(getattr(speed, benchmark), load=load)]
    stalled = partial(memory.stalled_tails, load=load, crowd=crowd)
    return [
        partial(memory.idle_tails, load=load, crowd=crowd),
        partial(memory.empty_streams, load=load, crowd=crowd),
        *(partial(stalled, figure=figure) for figure in memory.STALL_SIZES),
    ]


def attempt(peer: Peer, measurement: Measurement, generator: Generator, options: argparse.Namespace) -> Outcome:
    """
    Measures one thing of one peer.

    :param peer: the peer.
    :param measurement: the thing.
    :param generator: the generator.
    :param options: the command line's.
    :returns: what it yields; a failure is a fault.
    """
    try:
        with start(peer, options.server_core, options.cache_folder) as server:
            try:
                return measurement(server, generator)
            except GeneratorFailed as failure:
                end = "" if server.alive else f"; the server died:\n{server.complaint()}"
                return Outcome(faults=[f"the generator gave up: {failure}{end}"])
    except ServerFailed as failure:
        return Outcome(faults=[str(failure)])


def report(benchmark: str, rounds: dict[str, list[Outcome]], options: argparse.Namespace) -> None:
    """
    Prints a benchmark's table, its remarks and its faults.

    :param benchmark: its name.
    :param rounds: what each peer yielded.
    :param options: the command line's.
    """
    print(f"\n{benchmark}\n{table(rounds, options.subject, options.reference)}")
    for name, outcomes in rounds.items():
        for number, outcome in enumerate(outcomes, 1):
            for remark in outcome.remarks:
                print(f"  {name}, round {number}: {remark}")
            for fault in outcome.faults:
                print(f"  FAULT: {name}, round {number}: {fault}")
    sys.stdout.flush()


def main(words: Sequence[str] | None = None) -> int:
    """
    Runs what the command line asks for.

    :param words: the command line, or None for the program's own.
    :returns: the exit status: 1 when the subject was at fault, 2 when nothing could be run. The faults of its
        peers are printed, and no more.
    """
    parser = arguments()
    options = parser.parse_args(words)
    chosen = list(dict.fromkeys(options.benchmarks or ["all"]))
    if "all" in chosen:
        chosen = list(BENCHMARKS)
    if unknown := set(chosen) - set(BENCHMARKS):
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    try:
        peers = chosen_peers(options)
    except KeyError as missing:
        parser.error(f"no such peer: {missing}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    options.cache_folder = options.cache_folder.resolve()
    try:
        generator = Generator(build(options.cache_folder), options.load_core)
        for peer in peers:
            install(peer, options.cache_folder)
            with start(peer, options.server_core, options.cache_folder):
                pass  # it does start: said now rather than in every round
    except (OSError, subprocess.CalledProcessError, ServerFailed) as failure:
        print(failure, file=sys.stderr)
        return 2
    if not {options.server_core, options.load_core} <= os.sched_getaffinity(0):
        print("Two cores are needed: with fewer, server and generator slow each other down.", file=sys.stderr)
    load = speed.Load(
        seconds=options.seconds,
        warmup=options.warmup,
        connections=options.connections,
        streams=options.streams,
        size=options.bytes,
        content_type=options.content_type,
        tails=options.tails,
        fanout_tails=options.fanout_tails,
        rate=options.rate,
    )
    crowd = memory.Crowd(
        idle_tails=options.idle_tails,
        empty_streams=options.empty_streams,
        stalled_tails=options.stalled_tails,
        stalled_data=options.stalled_mib * MEBIBYTE,
    )
    results: dict[str, dict[str, list[Outcome]]] = {}
    for benchmark in chosen:
        rounds = results[benchmark] = {peer.name: [] for peer in peers}
        for number in range(options.rounds):
            outcomes = {peer.name: Outcome() for peer in peers}
            for measurement in measurements(benchmark, load, crowd):
                for peer in peers[:: 1 if number % 2 == 0 else -1]:
                    outcomes[peer.name].add(attempt(peer, measurement, generator, options))
            for name, outcome in outcomes.items():
                rounds[name].append(outcome)
            print(f"{benchmark}: round {number + 1} of {options.rounds}", file=sys.stderr)
        report(benchmark, rounds, options)
    if options.json:
        plain = {
            benchmark: {name: list(map(dataclasses.asdict, outcomes)) for name, outcomes in rounds.items()}
            for benchmark, rounds in results.items()
        }
        options.json.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    subjects = [outcome for rounds in results.values() for outcome in rounds.get(options.subject, ())]
    return int(any(outcome.faults for outcome in subjects))


if __name__ == "__main__":
    sys.exit(main())
