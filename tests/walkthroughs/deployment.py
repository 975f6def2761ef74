"""``docs/deploy.rst``, followed to the letter, in folders of its own and without systemd."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from tests.conformance.fronts import CHECKOUT, free_port
from tests.conformance.report import SuiteResult
from tests.interop.environments import NOT_COPIED
from tests.support.shell import Shell, blocks_of

PAGE = CHECKOUT / "docs" / "deploy.rst"
SYSTEMCTL = Path(__file__).resolve().parent / "systemctl.py"
#: The version after the one of the checkout.
NEXT_VERSION = "0.99.0"


class Deployment:
    """
    A machine's folders below `place`, and a checkout beside them.

    :ivar shell: runs the commands of the page in it.
    """

    def __init__(self, place: Path) -> None:
        self.root = place / "root"
        self._ports = {"4437": str(free_port()), "4438": str(free_port())}
        paths = {path: f"{self.root}{path}" for path in ("/opt/", "/etc/", "/var/lib/")}
        # The server looks for its settings in /etc/durable-streams, unless it is told another folder.
        config = f"--profile prod --config-dir {self.root}/etc/durable-streams"
        self._changes = {
            **paths,
            **self._ports,
            "--profile prod": config,
            "--profile ${PROFILE}": config,
            " --owner durable-streams --group durable-streams": "",
        }
        self.shell = Shell(
            place / "checkout", self._changes, {"ROOT": str(self.root), "PYTHONPATH": "", "NO_COLOR": "1"}
        )
        for path in ("opt", "etc/systemd/system", "var/lib"):
            (self.root / path).mkdir(parents=True)
        shutil.copytree(CHECKOUT, self.shell.folder, ignore=NOT_COPIED, dirs_exist_ok=True)
        self.shell.add_command("useradd", '#!/bin/sh\necho "$*" > "$ROOT/user"\n')
        self.shell.add_command("systemctl", f'#!/bin/sh\nexec {sys.executable} {SYSTEMCTL} "$@"\n')

    def adapt(self) -> None:
        """Change the paths and ports in the copied unit and settings."""
        for path in (*(self.root / "etc/durable-streams").iterdir(), *(self.root / "etc/systemd/system").iterdir()):
            path.write_text(self.shell.changed(path.read_text()))

    def version(self) -> str:
        """Return the version of the server that runs."""
        metrics = self.shell.run("curl -sS --fail http://127.0.0.1:4438/metrics")
        found = re.search(r'durable_streams_build_info\{.*version="([^"]+)"', metrics)
        assert found is not None, metrics
        return found[1]

    def raise_version(self) -> None:
        """Give the checkout the next version."""
        path = self.shell.folder / "setup.cfg"
        path.write_text(re.sub(r"(?m)^version = .*$", f"version = {NEXT_VERSION}", path.read_text()))


def check(condition: bool, failure: str) -> None:
    """Fail unless a condition holds."""
    if not condition:
        raise AssertionError(failure)


def check_refusal(shell: Shell, command: str, message: str) -> None:
    """Fail unless a command ends with status 1 and the message of the page."""
    ended = shell.attempt(command)
    wanted = " ".join(shell.changed(message).split())
    check(ended.returncode == 1 and ended.stderr.strip() == wanted, f"{ended.stderr}\nis not\n{wanted}")


def run_deployment(place: Path) -> SuiteResult:
    """Follow the page in an empty folder."""
    deployment = Deployment(place)
    shell = deployment.shell
    build, install, copy, settings, checking, refusal, *access, verify, start, look, upgrade, back = blocks_of(PAGE)
    rules, tokens, local, ask, use, refused = access
    try:
        shell.run(build)
        shell.run(install)
        shell.run(copy)
        shell.run(settings)
        deployment.adapt()
        check_refusal(shell, checking, refusal)
        for block in (rules, tokens, local):
            shell.run(block)
        decided = shell.run(ask)
        check("allow subject:dashboard read reports/**" in decided, decided)
        check("--system" in (deployment.root / "user").read_text(), "no user was made")
        checked = shell.run(verify)
        check("Would listen on" in checked, checked)
        shell.run(start)
        check(shell.run(look).strip() == "ready", "the server is not ready")
        first = deployment.version()
        check(shell.run(use).endswith("all is well"), "the dashboard cannot read")
        denied = shell.run(refused)
        check('"status":403' in denied and "401 Unauthorized" in denied and "nothing" not in denied, denied)
        url = 'http://127.0.0.1:4437/v1/stream/kept -H "Authorization: Bearer $(cat importer.token)"'
        shell.run(f"curl -sS --fail -X PUT {url} -H 'Content-Type: text/plain' -d 'kept'")
        shutil.move(shell.folder / "dist", place / "earlier")
        deployment.raise_version()
        shell.run(build)
        shell.run(upgrade)
        check((first, deployment.version()) == (first, NEXT_VERSION), f"{deployment.version()} runs after the upgrade")
        check(shell.run(f"curl -sS --fail {url}") == "kept", "the stream was lost by the upgrade")
        shutil.rmtree(shell.folder / "dist")
        shutil.move(place / "earlier", shell.folder / "dist")
        shell.run(back)
        check(deployment.version() == first, f"{deployment.version()} runs after going back")
        check(shell.run(f"curl -sS --fail {url}") == "kept", "the stream was lost by going back")
    finally:
        shell.attempt("systemctl stop durable-streams")
    return SuiteResult(1)
