"""Running the scenarios of a client in a process of their own, and counting what they report."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.conformance.fronts import CHECKOUT
from tests.conformance.npm import install_newest
from tests.conformance.processes import run_bounded
from tests.conformance.report import SuiteResult

HERE = Path(__file__).resolve().parent
TYPESCRIPT_CLIENT = "@durable-streams/client"
ALL_SECONDS = 420.0

# The client, and the server if it is installed, must come from the environment and not from the checkout,
# which is therefore the last place that modules are looked for in.
PYTHON_PROGRAM = f"""
import runpy, sys
sys.path.append({str(CHECKOUT)!r})
runpy.run_module("tests.interop.python_client", run_name="__main__", alter_sys=True)
"""


def server_program(name: str) -> str:
    """Return the program of a server of the scenarios."""
    return PYTHON_PROGRAM.replace("python_client", name)


def run_python(python: Path, base_url: str, place: Path, *control: str) -> SuiteResult:
    """Run the scenarios of the Python client that is installed beside `python`."""
    return run_scenarios((str(python), "-P", "-c", PYTHON_PROGRAM, base_url, *control), place)


def install_typescript() -> str:
    """Install the newest TypeScript client, and return its version."""
    return install_newest(HERE, TYPESCRIPT_CLIENT)


def run_typescript(base_url: str, *control: str) -> SuiteResult:
    """Run the scenarios of the TypeScript client."""
    return run_scenarios(("node", "typescript_client/main.mjs", base_url, *control), HERE)


def run_against_own(name: str, python: Path, place: Path, run: Callable[[str, str, str], SuiteResult]) -> SuiteResult:
    """Run a set of scenarios with a server of its own, installed beside `python`.

    :param name: the set: ``restored``, with a server that is replaced by a restored one when they ask, or ``guarded``,
        with one that takes only tokens, which expire.
    :param run: runs them, given the server's URL, its control, and the name.
    """
    command = str(python), "-P", "-c", server_program(f"{name}_server")
    with subprocess.Popen(command, cwd=place, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        first = server.stdout.readline()
        if not first:
            return SuiteResult(0, [f"the {name} server did not start"])
        urls = json.loads(first)
        try:
            return run(urls["url"], urls["control"], name)
        finally:
            server.kill()


def run_scenarios(command: Sequence[str], cwd: Path) -> SuiteResult:
    """Count the scenarios a program tells of, one JSON line each, the last of which says that it finished."""
    result = SuiteResult()
    ended = run_bounded(command, seconds=ALL_SECONDS, cwd=cwd)
    finished = False
    for line in ended.stdout.splitlines():
        told = json.loads(line)
        if told.get("finished"):
            finished = True
        elif told["why"] is None:
            result.passed += 1
        else:
            result.problems.append(f"FAILED {told['scenario']}: {told['why']}")
    if not finished or ended.status != 0:
        how = f"after {ALL_SECONDS:.0f} s" if ended.status is None else f"with status {ended.status}"
        result.problems.append(f"the scenarios ended early, {how}\n{ended.tail()}")
    return result
