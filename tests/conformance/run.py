"""Run the official conformance suite against real processes of this server.

``python -m tests.conformance.run [--front daemon|web|pair|all|secure] [--storage NAME] [--url URL] [--expect N]``

The suite is the npm package @durable-streams/server-conformance-tests, at its newest version.  The last
line says ``N passed, M failed``; the exit status is 0 only if nothing failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from tests.conformance.fronts import (
    FRONTS,
    LONG_POLL_SECONDS,
    PAIR,
    POOLED,
    SECURE_FRONTS,
    SHARED_STORAGES,
    STORAGES,
    FrontProcess,
    chosen_fronts,
)
from tests.conformance.npm import install_newest
from tests.conformance.pair import PairProcess
from tests.conformance.processes import ProgramFailure, leave_on_sigterm, run_bounded
from tests.conformance.report import SuiteResult, read_report
from tests.conformance.served import against

HERE = Path(__file__).resolve().parent
SUITE = "@durable-streams/server-conformance-tests"
EXPECTED_TESTS = 338
SUITE_SECONDS = 900.0

LONG_POLL_SLACK_SECONDS = 8
"""Added to what the suite is told about long-polls: it only bounds its own tests by that, plus one second."""


def run_suite(base_url: str, authority: Path | None = None) -> SuiteResult:
    """Run the installed suite once against the server at `base_url`, whose certificate is of `authority`."""
    trusting = {} if authority is None else {"NODE_EXTRA_CA_CERTS": str(authority)}
    with tempfile.TemporaryDirectory(prefix="durable-streams-suite-") as place:
        report = Path(place) / "report.json"
        ended = run_bounded(
            ("node", "node_modules/vitest/vitest.mjs", "run", "--reporter=json", f"--outputFile={report}"),
            seconds=SUITE_SECONDS,
            cwd=HERE,
            environment={
                "CONFORMANCE_BASE_URL": base_url,
                "CONFORMANCE_LONG_POLL_MS": str((LONG_POLL_SECONDS + LONG_POLL_SLACK_SECONDS) * 1000),
                "CI": "1",
                **trusting,
            },
        )
        if ended.status is None:
            return SuiteResult(0, [f"the suite was ended after {SUITE_SECONDS:.0f} s\n{ended.tail()}"])
        try:
            result = read_report(report)
        except (OSError, json.JSONDecodeError):
            return SuiteResult(0, [f"vitest ended with status {ended.status} and no report\n{ended.tail()}"])
    if ended.status != 0 and not result.problems:
        result.problems.append(f"vitest ended with status {ended.status}, no test failed\n{ended.tail()}")
    return result


def tell(name: str, result: SuiteResult, expected: int) -> None:
    """Print what happened; a suite that shrank counts as a failure, because it would hide regressions."""
    if result.passed < expected:
        result.problems.append(f"only {result.passed} tests passed where at least {expected} are expected")
    for problem in result.problems:
        print(f"{name}: {problem}")
    print(f"{name}: {result.passed} passed, {len(result.problems)} failed", flush=True)


def run_all(storages: Iterable[str], fronts: Iterable[str], at_once: int) -> Iterator[tuple[str, SuiteResult]]:
    """Run the suite against each storage behind each front, some at a time, and say how each went, in order."""
    pairs = [
        (storage, front) for storage in storages for front in fronts if front != PAIR or storage in SHARED_STORAGES
    ]
    with ThreadPoolExecutor(at_once) as pool:
        running = []
        for storage, front in pairs:
            process = PairProcess(storage) if front == PAIR else FrontProcess(front, storage=storage)
            running.append(pool.submit(against, process, partial(run_suite, authority=process.authority)))
        for (storage, front), result in zip(pairs, running, strict=True):
            yield f"{storage}, {front}", result.result()


_USUAL = f"each of them but {POOLED}, unless given"


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.run", description="official suite")
    parser.add_argument("--front", choices=(*FRONTS, *SECURE_FRONTS, PAIR, "all", "secure"), default="all")
    parser.add_argument("--storage", choices=(*STORAGES, POOLED), action="append", help=_USUAL)
    parser.add_argument("--at-once", type=int, default=2, help="how many servers are tested at a time")
    parser.add_argument("--url", help="test the server that already listens there, and start none")
    parser.add_argument("--expect", type=int, default=EXPECTED_TESTS, help="fewest tests that must pass")
    return parser.parse_args()


def main() -> int:
    chosen = options()
    leave_on_sigterm()
    try:
        version = install_newest(HERE, SUITE)
    except ProgramFailure as failure:
        print(f"the suite could not be installed: {failure}\n0 passed, 1 failed")
        return 1
    print(f"{SUITE} {version}", flush=True)
    results: list[SuiteResult] = []
    if chosen.url:
        results.append(run_suite(chosen.url.rstrip("/")))
        tell(chosen.url, results[-1], chosen.expect)
    else:
        for name, result in run_all(chosen.storage or list(STORAGES), chosen_fronts(chosen.front), chosen.at_once):
            results.append(result)
            tell(name, result, chosen.expect)
    failed = sum(len(result.problems) for result in results)
    print(f"{sum(result.passed for result in results)} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
