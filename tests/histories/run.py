"""Run rounds of histories: ``python -m tests.histories.run [--fault NAME] [--rounds N] [--seed N] [--nodes N]
[--bug NAME]``.

The last line says ``N passed, M failed``; the exit status is 0 only if nothing failed.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from random import Random
from typing import Any

from tests.support.daemon import TWISTD
from tests.support.postgres_server import PostgresServer, TestCase, started_server

from .cluster import Cluster
from .clusters import CLUSTERS
from .faults import FAULTS
from .planted import BUGS, planted
from .round import Round
from .standby import STANDBY_FAULTS, replicated_cluster


class Cleanups:
    """Functions that are called in reverse order at the end."""

    def __init__(self) -> None:
        self._stack = ExitStack()

    def addCleanup(self, function: Callable[..., Any], /, *arguments: Any) -> None:
        self._stack.callback(function, *arguments)

    def __enter__(self) -> Cleanups:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


def run_round(cluster: Cluster, name: str, seed: int, fault: Callable[[Cluster, Random], None]) -> list[str]:
    """Run a round, print its counts, and return what was wrong."""
    began_at = time.monotonic()
    one = Round(cluster, seed)
    problems = one.run(fault)
    done, unknown = one.counts
    seconds = time.monotonic() - began_at
    print(f"{name}, seed {seed}: {done} acknowledged, {unknown} unknown, {seconds:.1f} s", flush=True)
    for problem in problems:
        print(f"  {problem}", flush=True)
    return problems


def run_fault(name: str, rounds: int, seed: int, nodes: int, program: tuple[str, ...] = TWISTD) -> list[str]:
    """
    Run rounds with a fault, and return what was wrong.

    :param program: starts a node.
    """
    problems: list[str] = []
    seeds = range(seed, seed + rounds)
    if name not in STANDBY_FAULTS:
        with Cleanups() as cleanups:
            start, fault = CLUSTERS[name] if name in CLUSTERS else (_start, FAULTS[name])
            cluster = start(cleanups, nodes, program)
            for number in seeds:
                problems += run_round(cluster, name, number, fault)
        return problems
    for number in seeds:
        with Cleanups() as cleanups:
            cluster, standby = replicated_cluster(cleanups, nodes, program)
            problems += run_round(cluster, name, number, partial(_with_standby, name, standby))
    return problems


def _start(case: TestCase, count: int, program: tuple[str, ...]) -> Cluster:
    cluster = Cluster(started_server(case), count, program=program)
    case.addCleanup(cluster.close)
    return cluster


def _with_standby(name: str, standby: PostgresServer, cluster: Cluster, random: Random) -> None:
    STANDBY_FAULTS[name](cluster, standby, random)


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.histories.run", description="histories of several nodes")
    faults = (*FAULTS, *CLUSTERS, *STANDBY_FAULTS)
    parser.add_argument("--fault", choices=faults, action="append", help="all of them, unless given")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--bug", choices=tuple(BUGS), help="plant a bug in the nodes")
    chosen = parser.parse_args()
    program = planted(chosen.bug) if chosen.bug else TWISTD
    passed = failed = 0
    for name in chosen.fault or faults:
        problems = run_fault(name, chosen.rounds, chosen.seed, chosen.nodes, program)
        passed += not problems
        failed += bool(problems)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
