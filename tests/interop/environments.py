"""Fresh virtual environments that hold the official Python client, this distribution, or both."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.conformance.fronts import CHECKOUT
from tests.conformance.processes import ProgramFailure, run_checked
from tests.conformance.report import SuiteResult

CLIENT = "durable-streams"
SERVER = "durable-streams-server"
PLUGIN = "durable-streams"
PROBE = Path(__file__).resolve().parent / "probe.py"
PIP_SECONDS = 300.0
NOT_COPIED = shutil.ignore_patterns(
    "_trial_temp*",
    ".git",
    ".venv*",
    ".lowest",
    "node_modules",
    "build",
    "dist",
    "*.egg-info",
    "__pycache__",
    ".*_cache",
)


@dataclass(frozen=True)
class Environment:
    """A virtual environment, and how it came about."""

    name: str
    place: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.place / "bin" / "python"

    def install(self, requirement: str) -> None:
        """Install one requirement; the client as the wheel that PyPI has."""
        self._pip("install", f"--only-binary={CLIENT}", requirement)

    def uninstall(self, distribution: str) -> None:
        """Uninstall one distribution."""
        self._pip("uninstall", "--yes", distribution)

    def version_of(self, distribution: str) -> str:
        """Tell the version of an installed distribution."""
        code = f"from importlib.metadata import version; print(version({distribution!r}))"
        return self.run(str(self.python), "-I", "-c", code).strip()

    def check(self, expectation: str) -> None:
        """Fail unless exactly what is expected (both, client, server) is here, whole and usable."""
        self.run(str(self.python), "-I", str(PROBE), expectation)
        self._pip("check")

    def check_plugin(self, *, listed: bool) -> None:
        """Fail unless twistd offers the service, or does not offer it."""
        twistd = self.place / "bin" / "twistd"
        commands = [line.split()[0] for line in self.run(str(twistd), "--help").splitlines() if line.split()]
        if (PLUGIN in commands) != listed:
            raise ProgramFailure(f"twistd --help {'does not list' if listed else 'still lists'} {PLUGIN}")

    def run(self, *command: str) -> str:
        """Run a command away from the checkout, and return its output."""
        return run_checked(command, seconds=PIP_SECONDS, cwd=self.place)

    def _pip(self, verb: str, *arguments: str) -> None:
        self.run(str(self.python), "-m", "pip", "--quiet", "--disable-pip-version-check", verb, *arguments)


def create(name: str, place: Path) -> Environment:
    """Create a virtual environment with nothing in it but pip."""
    place.mkdir(parents=True)
    run_checked((sys.executable, "-m", "venv", str(place)), seconds=PIP_SECONDS, cwd=place)
    return Environment(name, place)


def build_wheel(environment: Environment, place: Path) -> Path:
    """Build the wheel of this checkout, from a copy of it because building leaves things behind."""
    copy = place / "checkout"
    shutil.copytree(CHECKOUT, copy, ignore=NOT_COPIED)
    wheels = place / "wheels"
    environment.run(
        str(environment.python),
        "-m",
        "pip",
        "--quiet",
        "wheel",
        "--no-deps",
        "--wheel-dir",
        str(wheels),
        str(copy),
    )
    return next(wheels.glob("*.whl"))


def together_in_either_order(place: Path, wheel: Path | None) -> tuple[list[Environment], str]:
    """Create two environments with client and server, installed in opposite orders; return the wheel too."""
    client_first = create("client first", place / "client-first")
    server_first = create("server first", place / "server-first")
    server = str(wheel or build_wheel(client_first, place))
    for environment, requirements in ((client_first, (CLIENT, server)), (server_first, (server, CLIENT))):
        for requirement in requirements:
            environment.install(requirement)
    return [client_first, server_first], server


def check_coexistence(environment: Environment, wheel: str, result: SuiteResult) -> None:
    """Check that both work together, and that each goes on working when the other is uninstalled."""

    def attempt(what: str, expectation: str, *, listed: bool) -> None:
        try:
            environment.check(expectation)
            environment.check_plugin(listed=listed)
        except ProgramFailure as failure:
            result.problems.append(f"FAILED {environment.name}: {what}\n{failure}")
        else:
            result.passed += 1

    attempt("both are installed", "both", listed=True)
    environment.uninstall(CLIENT)
    attempt("the client is uninstalled", "server", listed=True)
    environment.install(CLIENT)
    attempt("the client is installed again", "both", listed=True)
    environment.uninstall(SERVER)
    attempt("the server is uninstalled", "client", listed=False)
    environment.install(wheel)
    attempt("the server is installed again", "both", listed=True)
