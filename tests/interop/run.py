"""Drive real processes of this server with the official clients of the protocol.

``python -m tests.interop.run [--front daemon|web|both] [--client python|typescript]
[--wheel FILE] [--url URL]``

The Python client shares its import package with this distribution, so both are installed together, in
either order, into fresh virtual environments, and the server runs from there.  The last line says
``N passed, M failed``; the exit status is 0 only if nothing failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tests.conformance.fronts import FrontProcess, chosen_fronts
from tests.conformance.processes import ProgramFailure, leave_on_sigterm
from tests.conformance.report import SuiteResult
from tests.conformance.served import against
from tests.interop import environments, scenarios
from tests.interop.environments import Environment

#: The sets of scenarios with a server of their own.
OWN_SERVERS = {"restored": "after a restore", "guarded": "with tokens that expire"}


class Counts:
    """All results so far."""

    def __init__(self) -> None:
        self.passed = 0
        self.failed = 0

    def add(self, name: str, result: SuiteResult) -> None:
        """Print one result, and count it."""
        for problem in result.problems:
            print(f"{name}: {problem}")
        print(f"{name}: {result.passed} passed, {len(result.problems)} failed", flush=True)
        self.passed += result.passed
        self.failed += len(result.problems)


def against_url(url: str, clients: set[str], place: Path, counts: Counts) -> None:
    """Run the scenarios against a server that already listens."""
    if "python" in clients:
        alone = environments.create("client alone", place / "client-alone")
        alone.install(environments.CLIENT)
        print(f"{environments.CLIENT} {alone.version_of(environments.CLIENT)}", flush=True)
        counts.add("python client", scenarios.run_python(alone.python, url, place))
    if "typescript" in clients:
        print(f"{scenarios.TYPESCRIPT_CLIENT} {scenarios.install_typescript()}", flush=True)
        counts.add("typescript client", scenarios.run_typescript(url))


def against_this_server(
    fronts: tuple[str, ...], clients: set[str], wheel: Path | None, place: Path, counts: Counts
) -> None:
    """Run the scenarios against processes of ours, each environment being the home of one client's server."""
    installed, used_wheel = environments.together_in_either_order(place, wheel)
    first, second = installed
    if "python" in clients:
        print(f"{environments.CLIENT} {first.version_of(environments.CLIENT)}", flush=True)
        for front in fronts:
            counts.add(f"python client, {front}", python_against(front, first, place))
        for name, what in OWN_SERVERS.items():
            result = scenarios.run_against_own(
                name,
                first.python,
                place,
                lambda url, control, name: scenarios.run_python(first.python, url, place, control, name),
            )
            counts.add(f"python client, {what}", result)
    if "typescript" in clients:
        print(f"{scenarios.TYPESCRIPT_CLIENT} {scenarios.install_typescript()}", flush=True)
        for front in fronts:
            counts.add(
                f"typescript client, {front}", against(FrontProcess(front, second.python), scenarios.run_typescript)
            )
        for name, what in OWN_SERVERS.items():
            result = scenarios.run_against_own(name, second.python, place, scenarios.run_typescript)
            counts.add(f"typescript client, {what}", result)
    if "python" in clients:
        result = SuiteResult()
        for environment in installed:
            environments.check_coexistence(environment, used_wheel, result)
        counts.add("installed together", result)


def python_against(front: str, environment: Environment, place: Path) -> SuiteResult:
    """Run the Python client's scenarios, client and server being in the same environment."""
    process = FrontProcess(front, environment.python)
    return against(process, lambda url: scenarios.run_python(environment.python, url, place))


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.interop.run", description="official clients")
    parser.add_argument("--front", choices=("daemon", "web", "both"), default="daemon")
    parser.add_argument("--client", choices=("python", "typescript"), help="only this client")
    parser.add_argument("--wheel", type=Path, help="install this wheel of ours instead of building one")
    parser.add_argument("--url", help="use the server that already listens there, and start none")
    return parser.parse_args()


def main() -> int:
    chosen = options()
    leave_on_sigterm()
    counts = Counts()
    clients = {chosen.client} if chosen.client else {"python", "typescript"}
    with tempfile.TemporaryDirectory(prefix="durable-streams-interop-") as directory:
        place = Path(directory)
        try:
            if chosen.url:
                against_url(chosen.url.rstrip("/"), clients, place, counts)
            else:
                wheel = chosen.wheel.resolve() if chosen.wheel else None
                against_this_server(chosen_fronts(chosen.front), clients, wheel, place, counts)
        except ProgramFailure as failure:
            counts.add("preparation", SuiteResult(0, [str(failure)]))
    print(f"{counts.passed} passed, {counts.failed} failed")
    return 1 if counts.failed else 0


if __name__ == "__main__":
    sys.exit(main())
