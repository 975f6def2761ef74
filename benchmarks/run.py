"""
Runs the benchmarks: ``python -m benchmarks.run [BENCHMARK|all] ...`` in the checkout.

The server has one core, the generator another. Each measurement of each round has a fresh server; the peers
take turns within a round, and the first of one round is the last of the next. Speed is never asserted: the
exit status is 1 only when a subject lost, doubled, reordered, damaged or refused something, or died.
"""

import argparse
import dataclasses
import json
import os
import resource
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.figures import Outcome, table
from benchmarks.generator import Generator, GeneratorFailed, build
from benchmarks.options import arguments
from benchmarks.peers import PEERS, Peer, install
from benchmarks.plan import BENCHMARKS, Benchmark, Measurement
from benchmarks.servers import ServerFailed, start


def chosen_peers(benchmark: Benchmark, options: argparse.Namespace) -> list[Peer]:
    """
    Return the peers of a benchmark.

    :param benchmark: the benchmark.
    :param options: the command line's.
    :returns: those that were asked for, or else the benchmark's own, in order.
    :raises KeyError: there is none of that name.
    """
    known = {**PEERS, **{peer.name: peer for peer in options.peer}}
    wanted = options.peers.split(",") if options.peers else benchmark.peers
    return [known[name] for name in dict.fromkeys([*wanted, *(peer.name for peer in options.peer)])]


def attempt(
    peer: Peer, benchmark: Benchmark, measurement: Measurement, generator: Generator, options: argparse.Namespace
) -> Outcome:
    """
    Run one measurement of one peer.

    :param peer: the peer.
    :param benchmark: the benchmark that it belongs to.
    :param measurement: the thing.
    :param generator: the generator.
    :param options: the command line's.
    :returns: what it yields; a failure is a fault.
    """
    try:
        with start(
            peer, options.server_core, options.cache_folder, benchmark.open_files, options.database_core
        ) as server:
            try:
                return measurement(server, generator)
            except GeneratorFailed as failure:
                return Outcome(faults=[f"the generator gave up: {failure}; the server is {server.state}"])
    except ServerFailed as failure:
        return Outcome(faults=[str(failure)])


def measure(
    name: str, peers: Sequence[Peer], generator: Generator, options: argparse.Namespace
) -> dict[str, list[Outcome]]:
    """
    Run all rounds of a benchmark.

    :param name: its name.
    :param peers: who is measured.
    :param generator: the generator.
    :param options: the command line's.
    :returns: what each peer yielded.
    """
    benchmark = BENCHMARKS[name]
    rounds: dict[str, list[Outcome]] = {peer.name: [] for peer in peers}
    for number in range(options.rounds):
        outcomes = {peer.name: Outcome() for peer in peers}
        for measurement in benchmark.measurements(options):
            for peer in peers[:: 1 if number % 2 == 0 else -1]:
                outcomes[peer.name].add(attempt(peer, benchmark, measurement, generator, options))
        for peer_name, outcome in outcomes.items():
            rounds[peer_name].append(outcome)
        print(f"{name}: round {number + 1} of {options.rounds}", file=sys.stderr)
    return rounds


def report(benchmark: str, rounds: dict[str, list[Outcome]], options: argparse.Namespace) -> None:
    """
    Print a benchmark's table, remarks and faults.

    :param benchmark: its name.
    :param rounds: what each peer yielded.
    :param options: the command line's.
    """
    figures = table(rounds, options.subject.split(","), options.reference.split(","))
    print(f"\n{benchmark}\n{figures}")
    for name, outcomes in rounds.items():
        for number, outcome in enumerate(outcomes, 1):
            for remark in outcome.remarks:
                print(f"  {name}, round {number}: {remark}")
            for fault in outcome.faults:
                print(f"  FAULT: {name}, round {number}: {fault}")
    sys.stdout.flush()


def main(words: Sequence[str] | None = None) -> int:
    """
    Run the benchmarks of the command line.

    :param words: the command line, or None for the program's own.
    :returns: the exit status: 1 when a subject was at fault, 2 when nothing could be run. The faults of its
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
        peers = {name: chosen_peers(BENCHMARKS[name], options) for name in chosen}
    except KeyError as missing:
        parser.error(f"no such peer: {missing}")
    _, hard_limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard_limit, hard_limit))
    options.cache_folder = options.cache_folder.resolve()
    try:
        generator = Generator(build(options.cache_folder), options.load_core)
        for peer in {peer.name: peer for group in peers.values() for peer in group}.values():
            install(peer, options.cache_folder)
            with start(peer, options.server_core, options.cache_folder, database_core=options.database_core):
                pass  # check that it starts, once instead of in every round
    except (OSError, subprocess.CalledProcessError, ServerFailed) as failure:
        print(failure, file=sys.stderr)
        return 2
    if not {options.server_core, options.load_core} <= os.sched_getaffinity(0):
        print("Two cores are needed: with fewer, server and generator slow each other down.", file=sys.stderr)
    results: dict[str, dict[str, list[Outcome]]] = {}
    for name in chosen:
        results[name] = measure(name, peers[name], generator, options)
        report(name, results[name], options)
    if options.json:
        plain = {
            name: {peer: list(map(dataclasses.asdict, outcomes)) for peer, outcomes in rounds.items()}
            for name, rounds in results.items()
        }
        options.json.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    subjects = options.subject.split(",")
    mine = [outcome for rounds in results.values() for peer in subjects for outcome in rounds.get(peer, ())]
    return int(any(outcome.faults for outcome in mine))


if __name__ == "__main__":
    sys.exit(main())
