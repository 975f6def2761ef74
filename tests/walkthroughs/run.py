"""
Follow the tutorial, the page about signed URLs, and the deployment.

``python -m tests.walkthroughs.run [tutorial|signed-urls|deployment]``. The first and the last install packages, from
npm and PyPI. The last line says ``N passed, M failed``; the exit status is 0 only if nothing failed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.conformance.processes import leave_on_sigterm
from tests.conformance.report import SuiteResult
from tests.walkthroughs.deployment import run_deployment
from tests.walkthroughs.signed_urls import run_signed_urls
from tests.walkthroughs.tutorial import run_tutorial

WALKTHROUGHS: Mapping[str, Callable[[Path], SuiteResult]] = {
    "tutorial": run_tutorial,
    "signed-urls": run_signed_urls,
    "deployment": run_deployment,
}

#: Program -> Debian package.
PROGRAMS: Mapping[str, Mapping[str, str]] = {
    "tutorial": {"chromium": "chromium", "node": "nodejs", "npm": "npm", "curl": "curl"},
    "signed-urls": {"chromium": "chromium", "curl": "curl"},
    "deployment": {"systemd-analyze": "systemd", "curl": "curl"},
}


def follow(name: str, place: Path) -> SuiteResult:
    """Follow one page. If a program is missing, skip it, unless REQUIRE_PROGRAMS is set."""
    place.mkdir()
    absent = [
        f"{program} (apt-get install {package})"
        for program, package in PROGRAMS[name].items()
        if not shutil.which(program)
    ]
    if absent:
        sentence = f"not installed: {', '.join(absent)}"
        print(f"{name}: skipped, {sentence}", flush=True)
        return SuiteResult(0, [sentence] if os.environ.get("REQUIRE_PROGRAMS") else [])
    try:
        return WALKTHROUGHS[name](place)
    except Exception:
        return SuiteResult(0, [f"FAILED {name}: {traceback.format_exc()}"])


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.walkthroughs.run", description="pages, followed")
    parser.add_argument("name", nargs="?", choices=tuple(WALKTHROUGHS), help="only this page")
    chosen = parser.parse_args()
    leave_on_sigterm()
    passed = failed = 0
    with tempfile.TemporaryDirectory(prefix="durable-streams-walkthrough-", ignore_cleanup_errors=True) as directory:
        for name in [chosen.name] if chosen.name else WALKTHROUGHS:
            result = follow(name, Path(directory, name))
            for problem in result.problems:
                print(problem)
            print(f"{name}: {result.passed} passed, {len(result.problems)} failed", flush=True)
            passed += result.passed
            failed += len(result.problems)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
