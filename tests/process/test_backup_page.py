"""docs/backup.rst, followed with a script in the place of systemctl; and the units that it installs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from tests.support.daemon import CHECKOUT, free_port
from tests.support.programs import program
from tests.support.shell import Shell, blocks_of

BACKUP, VERIFY, INSTALL, RESTORE, DRILL = blocks_of(CHECKOUT / "docs" / "backup.rst")
SERVICE: Final = CHECKOUT / "etc" / "durable-streams-backup.service"

_SYSTEMCTL: Final = """#!/bin/sh
set -eu
case "$1" in
start) twistd --pidfile="$PWD/pid" --logfile="$PWD/log" durable-streams ;;
stop)
    kill "$(cat pid)"
    while [ -e pid ]; do sleep 0.05; done ;;
esac
"""


class PageTests(SynchronousTestCase):
    def setUp(self) -> None:
        program("curl")
        folder = Path(self.mktemp()).absolute()
        port, private = free_port(), free_port()
        changes = {
            "/var/": f"{folder}/var/",
            "/etc/": f"{folder}/etc/",
            "/opt/durable-streams": str(folder),
            "127.0.0.1:4438": f"127.0.0.1:{private}",
            " --owner durable-streams --group durable-streams": "",
            " --profile prod": "",
            # The page's second command uses the command of the checkout, too.
            "sudo -u durable-streams ": "",
        }
        variables = {
            "DS_SERVER__BIND_ADDRESS": f"127.0.0.1:{port}",
            "DS_ADMIN__ENABLED": "true",
            "DS_ADMIN__BIND_ADDRESS": f"127.0.0.1:{private}",
            "DS_STORAGE__MODE": "file-durable",
            "DS_STORAGE__DATA_DIR": f"{folder}/var/lib/durable-streams",
        }
        self.shell = Shell(folder, changes, variables)
        self.shell.add_command("systemctl", _SYSTEMCTL)
        for path in ("var/lib", "var/backups", "etc/systemd/system", "etc/durable-streams"):
            (folder / path).mkdir(parents=True)
        (folder / "etc" / "durable-streams" / "environment").write_text("DS_LIMITS__MAX_STREAMS=100\n")
        self.stream = f"http://127.0.0.1:{port}/v1/stream/kept"

    def curl(self, arguments: str, path: str = "") -> str:
        retry = "--retry 50 --retry-delay 1 --retry-connrefused"
        return self.shell.run(f"curl -sS --fail {retry} {arguments} '{self.stream}{path}'")

    def stop(self) -> None:
        if (self.shell.folder / "pid").exists():
            self.shell.run("systemctl stop durable-streams")

    def test_a_restored_server_has_the_streams_and_their_offsets(self) -> None:
        self.shell.run("systemctl start durable-streams")
        self.addCleanup(self.stop)
        self.curl("-X PUT -H 'Content-Type: text/plain' -d 'before '")
        found = re.search(r"(?i)stream-next-offset: (\S+)", self.curl("-I"))
        assert found is not None
        self.curl("-X POST -H 'Content-Type: text/plain' -d 'after'")
        self.shell.run(BACKUP)
        self.assertIn("whole", self.shell.run(VERIFY))
        self.curl("-X POST -H 'Content-Type: text/plain' -d ' lost'")
        self.shell.run(RESTORE)
        self.assertEqual("before after", self.curl(""))
        self.assertEqual("after", self.curl("", f"?offset={found[1]}"))
        self.assertTrue((self.shell.folder / "var" / "lib" / "durable-streams.before" / "FORMAT").exists())
        self.assertIn("kept", self.shell.run(DRILL))

    def test_the_commands_of_the_service_write_an_archive_and_remove_old_ones(self) -> None:
        self.shell.run("systemctl start durable-streams")
        self.addCleanup(self.stop)
        self.curl("-X PUT -H 'Content-Type: text/plain' -d 'x'")
        self.shell.run(
            "mkdir -p /var/backups/durable-streams && touch -d '20 days ago' /var/backups/durable-streams/a.tar.zst"
        )
        text = SERVICE.read_text().replace("\\\n", "")
        [url], [start], [after] = (
            re.findall(rf"(?m)^{key}=(.*)$", text) for key in ("Environment=URL", "ExecStart", "ExecStartPost")
        )
        self.shell.environment["URL"] = self.shell.changed(url)
        self.shell.run(start.replace("%%", "%"))
        self.shell.run(after)
        [archive] = (self.shell.folder / "var" / "backups" / "durable-streams").iterdir()
        self.assertRegex(archive.name, r"^\d{4}-\d\d-\d\d\.tar\.zst$")
        self.shell.run(f"durable-streams-server verify var/backups/durable-streams/{archive.name}")


class UnitTests(SynchronousTestCase):
    def test_systemd_verifies_the_service_and_the_timer(self) -> None:
        analyze = program("systemd-analyze")
        folder = Path(self.mktemp()).absolute()
        folder.mkdir()
        for path in (SERVICE, SERVICE.with_suffix(".timer")):
            (folder / path.name).write_text(path.read_text())
        done = subprocess.run(
            [analyze, "verify", *map(str, folder.iterdir())], capture_output=True, text=True, timeout=60, check=False
        )
        self.assertEqual((0, ""), (done.returncode, done.stdout + done.stderr))

    def test_the_page_installs_both_units(self) -> None:
        self.assertIn("durable-streams-backup.*", INSTALL)
        self.assertIn("systemctl enable --now durable-streams-backup.timer", INSTALL)
