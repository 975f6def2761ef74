"""pgbouncer before the PostgreSQL server of tests."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from .postgres_server import ROLE, free_port, run_unprivileged
from .programs import program

#: The first version that knows prepared statements of clients that share a connection.
_FIRST_WITH_STATEMENTS: Final = (1, 21)

_PATIENCE: Final = 30.0


def _has_statements() -> bool:
    """Return whether the installed pgbouncer is new enough for ``pool_mode`` ``transaction``."""
    output = subprocess.run([program("pgbouncer"), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+)\.(\d+)", output)
    assert found is not None, output
    return tuple(map(int, found.groups())) >= _FIRST_WITH_STATEMENTS


def pool_mode() -> str:
    """Return the ``pool_mode`` that works and shares most."""
    return "transaction" if _has_statements() else "session"


class Pgbouncer:
    """
    pgbouncer and its configuration.

    :ivar dsn: leads through it.
    :ivar process: None while it does not run.

    :param dsn: of a database.
    :param mode: ``pool_mode``.
    :param settings: others of pgbouncer.ini.
    """

    def __init__(self, dsn: str, mode: str, **settings: Any) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._program = program("pgbouncer")
        server = conninfo_to_dict(dsn)
        port = free_port()
        self.dsn = make_conninfo(dsn, host="127.0.0.1", port=port)
        self._directory = Path(mkdtemp(prefix="ds-pgbouncer-"))
        self._directory.chmod(0o755)
        (self._directory / "users").write_text(f'"{ROLE}" ""\n')
        chosen = {
            "listen_addr": "127.0.0.1",
            "listen_port": port,
            "unix_socket_dir": "",
            "auth_type": "trust",
            "auth_file": self._directory / "users",
            "pool_mode": mode,
        }
        if _has_statements():
            chosen["max_prepared_statements"] = 200
        lines = ["[databases]", f"* = host={server['host']} port={server['port']}", "[pgbouncer]"]
        lines += [f"{name} = {value}" for name, value in (chosen | settings).items()]
        (self._directory / "pgbouncer.ini").write_text("\n".join([*lines, ""]))

    def start(self) -> None:
        """Start it, and wait until it connects to the database."""
        log = self._directory / "log"
        with log.open("ab") as output:
            command = [self._program, str(self._directory / "pgbouncer.ini")]
            self.process = run_unprivileged(command, stdout=output, stderr=subprocess.STDOUT)
        until = time.monotonic() + _PATIENCE
        while not _accepts(self.dsn):
            assert self.process.poll() is None, log.read_text(errors="replace")
            assert time.monotonic() < until, log.read_text(errors="replace")
            time.sleep(0.05)

    def stop(self) -> None:
        """Kill it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(_PATIENCE)
            self.process = None

    def remove(self) -> None:
        """Kill it, and remove its configuration."""
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)


def _accepts(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        return False
    return True
