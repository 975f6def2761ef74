"""A real PostgreSQL server for tests: a cluster in a temporary directory, with a database for each test."""

from __future__ import annotations

import atexit
import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from itertools import count
from pathlib import Path
from tempfile import gettempdir, mkdtemp
from typing import Any, Final, Protocol

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from .authority import Authority
from .programs import postgres_programs

#: The role of the server's tests, which owns the databases and is no superuser; and the superuser.
ROLE: Final = "streams"
SUPERUSER: Final = "postgres"

#: The directories of clusters: this, the id of the process that uses it, and random letters.
_PREFIX: Final = "ds-pg-"

#: The settings that differ from PostgreSQL's own: a server for tests is small. fsync is on, as in production.
_SETTINGS: Final = {
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "max_connections": "60",
    "huge_pages": "off",
    "autovacuum_naptime": "5min",
}

_PORT_TAKEN: Final = b"Address already in use"

#: How long starting or stopping a server may take, in seconds.
_PATIENCE: Final = 60.0


class TestCase(Protocol):
    """A test that runs functions when it is over."""

    def addCleanup(self, function: Callable[..., Any], /, *arguments: Any) -> Any: ...


def _account() -> pwd.struct_passwd | None:
    """Return the user that runs the server, since PostgreSQL refuses root; None for the present one."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise AssertionError("PostgreSQL refuses root, and there is no user postgres or nobody")


def _end_with_parent() -> None:
    """Have the kernel shut this process down when the test process ends, killed or not. Linux only."""
    ctypes.CDLL(None).prctl(1, int(signal.SIGQUIT))  # PR_SET_PDEATHSIG


def run_unprivileged(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Start a program of PostgreSQL as an unprivileged user."""
    account = _account()
    if account is not None:
        options |= {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    if sys.platform == "linux":
        options["preexec_fn"] = _end_with_parent
    # Messages in English, and none of the PG* variables of whoever runs the tests.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return subprocess.Popen(command, env=environment, cwd="/", stdin=subprocess.DEVNULL, **options)


def _finish(command: Sequence[str]) -> None:
    """Run a program of PostgreSQL to its end."""
    process = run_unprivileged(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 0, output.decode(errors="replace")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _children(parent: int) -> list[int]:
    """Return the processes that a process has started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == parent:
                found.append(int(path.parent.name))
    return found


def _is_running(pid: int) -> bool:
    return Path("/proc", str(pid)).exists()


def _remove_left_behind() -> None:
    """Remove the clusters of test processes that were killed."""
    for path in Path(gettempdir()).glob(f"{_PREFIX}*"):
        owner = path.name.removeprefix(_PREFIX).partition("-")[0]
        if owner.isdecimal() and not Path("/proc", owner).exists() and Path("/proc/self").exists():
            shutil.rmtree(path, ignore_errors=True)


class PostgresServer:
    """
    A cluster and its server.

    :ivar directory: the cluster, the log and the UNIX socket, until :meth:`remove`.
    :ivar port: at 127.0.0.1; also part of the socket's name.

    :param settings: of postgresql.conf, in addition to ours.
    :param disk: where the cluster is; None for ``directory``.
    """

    def __init__(self, settings: Mapping[str, str] = {}, disk: Path | None = None) -> None:
        self._programs = postgres_programs()
        _remove_left_behind()
        self.directory = Path(mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
        self.data = (disk or self.directory) / "data"
        self.log = self.directory / "log"
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None
        self._numbers = count(1)
        self._frozen: list[int] = []
        self._extra = dict(settings)
        self._settings = _SETTINGS | self._extra
        account = _account()
        if account is not None:
            for folder in (self.directory, self.data.parent):
                os.chown(folder, account.pw_uid, account.pw_gid)

    def create(self) -> None:
        """Make the cluster. The role :data:`ROLE` and local connections need no password."""
        command = [str(self._programs / "initdb"), "--no-sync", "--auth=trust", "--encoding=UTF8"]
        command += ["--locale=C", f"--username={SUPERUSER}", f"--pgdata={self.data}"]
        _finish(command)

    def start(self) -> None:
        """
        Start the server, and wait until it accepts connections.

        :raises AssertionError: it ended; the message has the end of its log.
        """
        settings = {"port": str(self.port), "listen_addresses": "127.0.0.1"} | self._settings
        command = [str(self._programs / "postgres"), "-D", str(self.data), "-k", str(self.directory)]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        self._wait(lambda: self._launch(command), "find its port free")
        self._wait(self._is_ready, "accept connections")

    def _launch(self, command: Sequence[str]) -> bool:
        """Start the process, and return whether it has its port, which a connection of another program may have had."""
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        with self.log.open("ab") as log:
            begin = log.tell()
            self.process = run_unprivileged(command, stdout=log, stderr=subprocess.STDOUT)
        while self.process.poll() is None:
            if b"listening on Unix socket" in self.log.read_bytes()[begin:]:
                return True
            time.sleep(0.01)
        written = self.log.read_bytes()[begin:]
        assert _PORT_TAKEN in written, f"PostgreSQL ended:\n{written[-2000:].decode(errors='replace')}"
        time.sleep(1)
        return False

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"PostgreSQL ended:\n{self.log_text()[-2000:]}"
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return False
        return len(lines) > 7 and lines[7].strip() == "ready"

    def _wait(self, condition: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + _PATIENCE
        while not condition():
            assert time.monotonic() < until, f"PostgreSQL did not {what} in time:\n{self.log_text()[-2000:]}"
            time.sleep(0.01)

    def stop(self, with_signal: signal.Signals = signal.SIGINT) -> None:
        """
        Stop the server and wait until its process has ended.

        :param with_signal: SIGINT writes a checkpoint and closes connections with a message; SIGQUIT ends all
            processes at once, so that the next start recovers.
        """
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.send_signal(with_signal)
        self.process.wait(_PATIENCE)
        self.process = None

    def kill(self) -> None:
        """Kill all processes of the server at once, as a crash of the machine ends them, but with the disk's cache."""
        if self.process is None:
            return
        children = _children(self.process.pid)
        self.process.kill()
        for pid in children:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(_PATIENCE)
        self.process = None
        # The next start needs the shared memory.
        self._wait(lambda: not any(map(_is_running, children)), "end")

    def freeze(self) -> None:
        """Stop all processes of the server, without ending them."""
        assert self.process is not None
        self._frozen = [self.process.pid, *_children(self.process.pid)]
        for pid in self._frozen:
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Continue the processes that were frozen."""
        frozen, self._frozen = self._frozen, []
        for pid in frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def set(self, **settings: str) -> None:
        """Change settings of the running server."""
        for name, value in settings.items():
            self.run(sql.SQL("alter system set {} = {}").format(sql.Identifier(name), sql.Literal(value)))
        self.run("select pg_reload_conf()")

    def start_standby(self, case: TestCase, name: str) -> PostgresServer:
        """
        Start a standby that follows this server, and is removed after the test.

        :param name: for synchronous_standby_names.
        """
        standby = PostgresServer(self._extra)
        case.addCleanup(standby.remove)
        source = self.dsn("", user=SUPERUSER, application_name=name)
        quoted = "'" + source.replace("\\", "\\\\").replace("'", "\\'") + "'"
        self._copy(standby.data)
        with (standby.data / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = {quoted}\n")
        (standby.data / "standby.signal").touch()
        standby.start()
        follows = "select 1 from pg_stat_replication where application_name = %s and state = 'streaming'"
        self._wait(lambda: self.run(follows, [name]) == [(1,)], "stream to the standby")
        return standby

    def _copy(self, target: Path) -> None:
        """Copy the files of the running server."""
        if (self._programs / "pg_basebackup").exists():
            source = self.dsn("", user=SUPERUSER)
            command = [str(self._programs / "pg_basebackup"), "--checkpoint=fast", "--no-sync"]
            _finish([*command, f"--pgdata={target}", f"--dbname={source}"])
            return
        with psycopg.connect(self.dsn("postgres", user=SUPERUSER), autocommit=True) as connection:
            is_old = connection.info.server_version < 150_000
            start = "pg_start_backup('copy', true, false)" if is_old else "pg_backup_start('copy', true)"
            connection.execute(f"select {start}")
            _finish(["cp", "--archive", str(self.data), str(target)])
            stop = "pg_stop_backup(false, false)" if is_old else "pg_backup_stop(false)"
            row = connection.execute(f"select labelfile from {stop}").fetchone()
        assert row is not None
        # The copy of this file has the right owner, and is not read.
        label = (target / "postmaster.pid").rename(target / "backup_label")
        label.write_text(row[0])

    def promote(self) -> None:
        """Have a standby become a primary, and wait until it is one."""
        assert self.run("select pg_promote()") == [(True,)]

    def remove(self) -> None:
        """Stop the server and remove the cluster."""
        self.thaw()
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.directory, ignore_errors=True)

    def log_text(self) -> str:
        """Return the server's log."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def dsn(self, database: str, *, over_tcp: bool = False, **parameters: str | int) -> str:
        """
        Return a connection string for the role :data:`ROLE`.

        :param over_tcp: connect to 127.0.0.1 instead of the UNIX socket.
        :param parameters: of libpq, which replace these.
        """
        host = "127.0.0.1" if over_tcp else str(self.directory)
        chosen: dict[str, str | int] = {"host": host, "port": self.port, "user": ROLE, "dbname": database}
        return make_conninfo("", **(chosen | parameters))

    def run(
        self, statement: str | sql.Composed, parameters: Iterable[Any] | None = None, database: str = "postgres"
    ) -> list[tuple[Any, ...]]:
        """Run a statement as the superuser in its own transaction, or several ones; return the rows of the last."""
        with psycopg.connect(self.dsn(database, user=SUPERUSER), autocommit=True) as connection:
            cursor = connection.execute(statement, None if parameters is None else list(parameters))
            return cursor.fetchall() if cursor.description else []

    def use_tls(self) -> str:
        """Have the server, which no other test uses, offer TLS; return a connection string that requires it."""
        certificate, key = Authority().issue().write(self.data, "server")
        account = _account()
        if account is not None:
            os.chown(key, account.pw_uid, account.pw_gid)
        self.set(ssl_cert_file=certificate, ssl_key_file=key, ssl="on")
        dsn = self.dsn("postgres", over_tcp=True, sslmode="require")
        self._wait(lambda: _can_connect(dsn), "offer TLS")
        return dsn

    def require_password(self, case: TestCase, role: str, password: str) -> None:
        """Create a role that needs a password over TCP, until the end of the test."""
        rules = self.data / "pg_hba.conf"
        before = rules.read_text()
        rules.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n{before}")
        self.run(sql.SQL("create role {} login password {}").format(sql.Identifier(role), sql.Literal(password)))
        self.run("select pg_reload_conf()")
        case.addCleanup(self.run, sql.SQL("drop role {}").format(sql.Identifier(role)))
        case.addCleanup(rules.write_text, before)

    def create_database(self, template: str = "template0", durable: bool = True) -> str:
        """
        Create a database, and return its name.

        :param template: a database that nobody is connected to, whose tables and rows are copied.
        :param durable: False turns synchronous_commit off in it, for tests in which nothing is killed.
        """
        name = f"{ROLE}_{next(self._numbers)}"
        with psycopg.connect(self.dsn("postgres", user=SUPERUSER), autocommit=True) as connection:
            connection.execute(
                sql.SQL("create database {} template {} owner {}").format(*map(sql.Identifier, (name, template, ROLE)))
            )
            if not durable:
                connection.execute(
                    sql.SQL("alter database {} set synchronous_commit = off").format(sql.Identifier(name))
                )
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database and end the connections to it. The server may have been stopped."""
        if self.process is not None:
            self.run(f'drop database if exists "{name}" with (force)')

    def database(self, case: TestCase, template: str = "template0", durable: bool = True) -> str:
        """
        Return the connection string of a new database, which is dropped after the test.

        :param template: see :meth:`create_database`.
        :param durable: see :meth:`create_database`.
        """
        name = self.create_database(template, durable)
        case.addCleanup(self.drop_database, name)
        return self.dsn(name)


def _can_connect(dsn: str) -> bool:
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        return False
    return True


def started_server(
    case: TestCase | None = None, settings: Mapping[str, str] = {}, disk: Path | None = None
) -> PostgresServer:
    """
    Create a cluster and start its server; skip or fail the test if PostgreSQL is not installed.

    :param case: the test after which it is removed; None for the end of the process.
    :param settings: of postgresql.conf.
    :param disk: where the cluster is; None for a temporary directory.
    """
    server = PostgresServer(settings, disk)
    if case is not None:
        case.addCleanup(server.remove)
    else:
        owner = os.getpid()
        atexit.register(lambda: server.remove() if os.getpid() == owner else None)
    server.create()
    server.start()
    server.run(f"create role {ROLE} login")
    return server


@cache
def shared_server() -> PostgresServer:
    """Return the server that all tests of this process share, which is started for the first of them."""
    return started_server()


def database(case: TestCase, template: str = "template0", durable: bool = True) -> str:
    """
    Return the connection string of a new database of the shared server, which is dropped after the test.

    The test is skipped if PostgreSQL is not installed; it fails instead if ``REQUIRE_PROGRAMS`` is set.

    :param template: see :meth:`PostgresServer.create_database`.
    :param durable: see :meth:`PostgresServer.create_database`.
    """
    return shared_server().database(case, template, durable)
