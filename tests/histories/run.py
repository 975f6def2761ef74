"""Run rounds of histories: ``python -m tests.histories.run [--fault NAME] [--rounds N] [--seed N] [--nodes N]
[--bug NAME]``.

The last line says ``N passed, M failed``; the exit status is 0 only if nothing failed.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.support.daemon import TWISTD
from tests.support.postgres_server import started_server

from .cluster import Cluster
from .faults import FAULTS
from .planted import BUGS, planted
from .round import Round


def run_fault(name: str, rounds: int, seed: int, nodes: int, program: tuple[str, ...] = TWISTD) -> list[str]:
    """
    Run rounds with a fault on a new cluster, and return what was wrong.

    :param program: starts a node.
    """
    server = started_server()
    cluster = Cluster(server, nodes, program=program)
    problems: list[str] = []
    try:
        for number in range(seed, seed + rounds):
            began_at = time.monotonic()
            one = Round(cluster, number)
            found = one.run(FAULTS[name])
            done, unknown = one.counts
            seconds = time.monotonic() - began_at
            print(f"{name}, seed {number}: {done} acknowledged, {unknown} unknown, {seconds:.1f} s", flush=True)
            for problem in found:
                print(f"  {problem}", flush=True)
            problems += found
    finally:
        cluster.close()
        server.remove()
    return problems


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.histories.run", description="histories of several nodes")
    parser.add_argument("--fault", choices=tuple(FAULTS), action="append", help="all of them, unless given")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--bug", choices=tuple(BUGS), help="plant a bug in the nodes")
    chosen = parser.parse_args()
    program = planted(chosen.bug) if chosen.bug else TWISTD
    passed = failed = 0
    for name in chosen.fault or FAULTS:
        problems = run_fault(name, chosen.rounds, chosen.seed, chosen.nodes, program)
        passed += not problems
        failed += bool(problems)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
