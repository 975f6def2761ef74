"""Tests of the daemon as a process: slow and failed starts, reloads, signals, and dropped privileges."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from tests.support.daemon import PATIENCE, TWISTD, Daemon, environment, free_port
from tests.support.process_case import ProcessTestCase, wait_for
from tests.support.skipping import skip_not_permitted

TWISTD_AS_DAEMON = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()")


class SlowDaemon(Daemon):
    """A daemon that cannot read its disk before :meth:`permit`."""

    def __init__(self, folder: str, **settings: object) -> None:
        self.permission = Path(folder, "permission")
        self.command = (
            *(sys.executable, "-m", "tests.support.slow_daemon", str(self.permission)),
            *("-n", "--pidfile=", "durable-streams"),
        )
        super().__init__(None, storage__mode="file-durable", storage__data_dir=f"{folder}/data", **settings)

    def permit(self) -> None:
        """Permit reading."""
        self.permission.touch()

    def answers(self) -> bool:
        """Return whether it answers requests."""
        try:
            return self.request("GET", "/healthz")[0] == 200
        except OSError:
            return False


class SlowStartTests(ProcessTestCase):
    def slow(self) -> SlowDaemon:
        daemon = SlowDaemon(str(self.folder))
        self.addCleanup(daemon.close)
        wait_for(daemon.answers, "an answer")
        return daemon

    def test_requests_get_503_while_the_storage_is_loaded(self) -> None:
        daemon = self.slow()
        for method, path in (("GET", "/v1/stream/a"), ("PUT", "/v1/stream/a"), ("GET", "/readyz")):
            status, headers, body = daemon.request(method, path)
            self.assertEqual((status, headers["retry-after"]), (503, "1"), path)
            self.assertIn(b"not open yet", body)
        self.assertEqual(daemon.request("GET", "/healthz")[2], b"ok")
        daemon.permit()
        wait_for(lambda: daemon.request("GET", "/readyz")[0] == 200, "readiness")
        daemon.create("a", body=b"hello")
        self.assertEqual(daemon.request("GET", "/v1/stream/a")[2], b"hello")
        self.assertEqual(daemon.stop(), 0)

    def test_the_daemon_can_be_stopped_while_the_storage_is_loaded(self) -> None:
        daemon = self.slow()
        self.assertEqual(daemon.stop(), 0)
        self.assertNotIn("Traceback", daemon.log())

    def test_a_late_loading_error_ends_the_daemon_with_a_line_and_status_1(self) -> None:
        daemon = self.slow()
        (self.folder / "data").write_text("no directory")
        daemon.permit()
        self.assertEqual(daemon.process.wait(PATIENCE), 1)
        log = daemon.log()
        self.assertIn(
            f"[open_storage] Cannot open the storage (storage.mode file-durable, storage.data_dir {self.folder}/data",
            log,
        )
        self.assertNotIn("Traceback", log)


class EarlySignalTests(ProcessTestCase):
    """Signals between the binding of the ports and the start of the reactor."""

    def bound(self) -> SlowDaemon:
        daemon = SlowDaemon(str(self.folder))
        self.addCleanup(daemon.close)
        wait_for(lambda: _is_bound(daemon.port), "a port")
        return daemon

    def test_a_signal_before_the_reactor_runs_stops_the_daemon(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            daemon = self.bound()
            self.assertEqual(daemon.stop(number), 0)
            self.assertNotIn("Traceback", daemon.log())

    def test_sighup_before_the_reactor_runs_does_not_end_the_daemon(self) -> None:
        daemon = self.bound()
        daemon.process.send_signal(signal.SIGHUP)
        daemon.permit()
        wait_for(lambda: daemon.answers() and daemon.request("GET", "/readyz")[0] == 200, "readiness")
        self.assertEqual(daemon.stop(), 0)

    def test_the_starting_command_ends_if_the_daemon_is_stopped_early(self) -> None:
        port = free_port()
        launcher = subprocess.Popen(
            (sys.executable, "-m", "tests.support.slow_daemon", str(self.folder / "permission"), "durable-streams"),
            env=environment(port, storage__mode="file-durable", storage__data_dir=str(self.folder / "data")),
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.addCleanup(launcher.wait)
        self.addCleanup(launcher.kill)
        wait_for(lambda: _is_bound(port), "a port")
        os.kill(int((self.folder / "twistd.pid").read_text()), signal.SIGTERM)
        self.assertEqual(launcher.wait(PATIENCE), 0)
        wait_for(lambda: not (self.folder / "twistd.pid").exists(), "the end of the pid file")


class FailureTests(ProcessTestCase):
    """Failed starts: what they report and which files they leave."""

    def test_a_port_in_use_is_reported_on_stderr_and_no_file_is_left(self) -> None:
        with Daemon() as other:
            ended = self.run_to_end(
                TWISTD, port=other.port, storage__mode="file-durable", storage__data_dir=str(self.folder / "data")
            )
        self.assertEqual(ended.returncode, 1)
        self.assertEqual(len(ended.stderr.splitlines()), 1, ended.stderr)
        self.assertTrue(ended.stderr.startswith("[bind_listener] Cannot listen on 127.0.0.1:"), ended.stderr)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_a_data_directory_in_use_is_reported_on_stderr(self) -> None:
        data = str(self.folder / "data")
        with Daemon(storage__mode="file-durable", storage__data_dir=data) as first:
            ended = self.run_to_end(TWISTD, storage__mode="file-durable", storage__data_dir=data)
            self.assertEqual(ended.returncode, 1)
            self.assertTrue(
                ended.stderr.startswith("[open_storage] Cannot open the storage (storage.mode file-durable"),
                ended.stderr,
            )
            self.assertIn(str(first.process.pid), ended.stderr)
            self.assertEqual(first.request("GET", "/readyz")[0], 200)

    def test_no_unix_socket_is_left_if_the_storage_cannot_be_opened(self) -> None:
        data = self.folder / "data"
        data.write_text("no directory")
        ended = self.run_to_end(
            (*TWISTD, "--listen", f"unix:{self.folder}/socket"),
            storage__mode="file-durable",
            storage__data_dir=str(data),
        )
        self.assertEqual(ended.returncode, 1)
        self.assertTrue(ended.stderr.startswith("[open_storage]"), ended.stderr)
        self.assertEqual(list(self.folder.iterdir()), [data])

    def test_a_failed_start_in_the_background_is_reported_on_stderr(self) -> None:
        data = self.folder / "data"
        data.write_text("no directory")
        ended = self.run_to_end(
            (*TWISTD_AS_DAEMON, "durable-streams"), storage__mode="file-durable", storage__data_dir=str(data)
        )
        self.assertEqual(ended.returncode, 1)
        self.assertIn(
            "[open_storage] Cannot open the storage (storage.mode file-durable, storage.data_dir", ended.stderr
        )
        self.assertFalse((self.folder / "twistd.pid").exists())
        self.assertIn("[open_storage]", (self.folder / "twistd.log").read_text())

    def test_logfile_dash_in_the_background_is_refused(self) -> None:
        ended = self.run_to_end((*TWISTD_AS_DAEMON, "--logfile", "-", "durable-streams"))
        self.assertEqual(ended.returncode, 1)
        self.assertTrue(ended.stderr.startswith("[validate_config] --logfile is -, but a daemon has no"), ended.stderr)

    def test_check_reports_a_log_file_that_cannot_be_written(self) -> None:
        log = str(self.folder / "none" / "log")
        ended = self.run_to_end((*TWISTD, "--check"), observability__log_file=log)
        self.assertEqual(ended.returncode, 1)
        self.assertIn(f"[validate_config] Cannot write the log file {log} (observability.log_file).", ended.stderr)

    def test_the_daemon_serves_with_closed_standard_output(self) -> None:
        class Mute(Daemon):
            command = ("sh", "-c", 'exec "$@" >&-', "sh", *TWISTD)

        with Mute() as daemon:
            self.assertEqual(daemon.stop(), 0)


class DaemonTests(ProcessTestCase):
    """twistd without ``-n``."""

    def start(self, *options: str, **settings: object) -> tuple[int, int]:
        """Start a daemon; return its process id and port."""
        port = free_port()
        subprocess.run(
            (*TWISTD_AS_DAEMON, *options, "durable-streams"),
            env=environment(port, **settings),
            cwd=self.folder,
            check=True,
            timeout=PATIENCE,
        )
        number = int((self.folder / "twistd.pid").read_text())
        self.addCleanup(_kill, number)
        return number, port

    def probe(self, port: int) -> Daemon:
        """Return a client of the daemon."""
        daemon = Daemon.__new__(Daemon)
        daemon.port = port
        wait_for(lambda: daemon.request("GET", "/readyz")[0] == 200, "readiness")
        return daemon

    def end(self, number: int) -> None:
        os.kill(number, signal.SIGTERM)
        wait_for(lambda: not _alive(number), "the end")

    def test_a_background_daemon_serves_from_files_and_removes_its_pid_file(self) -> None:
        data = self.folder / "data"
        number, port = self.start(storage__mode="file-durable", storage__data_dir=str(data))
        daemon = self.probe(port)
        daemon.create("a", body=b"hello")
        self.assertEqual(daemon.request("GET", "/v1/stream/a")[2], b"hello")
        self.end(number)
        self.assertFalse((self.folder / "twistd.pid").exists())
        self.assertIn("The server has stopped.", (self.folder / "twistd.log").read_text())

    def test_a_background_daemon_serves_from_sqlite(self) -> None:
        number, port = self.start(storage__mode="acid", storage__data_dir=str(self.folder / "data"))
        self.probe(port).create("a", body=b"hello")
        self.end(number)

    def test_privileges_are_dropped_after_the_ports_are_bound(self) -> None:
        if os.getuid() != 0:
            skip_not_permitted("only root can drop its rights")
        nobody = pwd.getpwnam("nobody")
        data = self.folder / "data"
        data.mkdir()
        os.chown(data, nobody.pw_uid, nobody.pw_gid)
        self.folder.chmod(0o755)
        number, port = self.start(
            *("--uid", "nobody", "--gid", str(nobody.pw_gid)),
            storage__mode="file-durable",
            storage__data_dir=str(data),
        )
        self.probe(port).create("a", body=b"hello")
        self.assertEqual(Path(f"/proc/{number}").stat().st_uid, nobody.pw_uid)
        self.assertEqual({path.stat().st_uid for path in data.rglob("*")}, {nobody.pw_uid})
        self.end(number)


class ReloadTests(ProcessTestCase):
    """SIGHUP."""

    def write(self, level: str) -> None:
        text = f"observability = {{log_level = '{level}', log_file = '{self.folder}/log', log_format = 'json'}}\n"
        (self.folder / "settings.toml").write_text(text)

    def daemon(self) -> Daemon:
        self.write("info")
        config = str(self.folder / "settings.toml")

        class Configured(Daemon):
            command = (*TWISTD, "--config", config)

        return Configured()

    def events(self) -> list[dict[str, object]]:
        lines = (self.folder / "log").read_text().splitlines()
        return [msgspec.json.decode(line) for line in lines]

    def said(self, text: str) -> bool:
        return any(text in str(event["message"]) for event in self.events())

    def hang_up(self, daemon: Daemon, expected: str) -> None:
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: (self.folder / "log").exists() and self.said(expected), expected)

    def test_sighup_reopens_a_rotated_log_file(self) -> None:
        with self.daemon() as daemon:
            daemon.request("GET", "/v1/stream/before")
            wait_for(lambda: self.said("before"), "the first line")
            (self.folder / "log").rename(self.folder / "log.1")
            self.hang_up(daemon, "log level is info")
            daemon.request("GET", "/v1/stream/after")
            wait_for(lambda: self.said("after"), "the next line")
            self.assertFalse(self.said("before"))
            self.assertNotIn("after", (self.folder / "log.1").read_text())

    def test_sighup_reads_the_log_level_again(self) -> None:
        with self.daemon() as daemon:
            self.write("error")
            daemon.process.send_signal(signal.SIGHUP)
            time.sleep(0.5)
            daemon.request("GET", "/v1/stream/unsaid")
            self.write("info")
            self.hang_up(daemon, "log level is info")
            daemon.request("GET", "/v1/stream/said")
            wait_for(lambda: self.said("/v1/stream/said"), "the line")
            self.assertFalse(self.said("unsaid"))

    def test_sighup_with_invalid_settings_changes_nothing(self) -> None:
        with self.daemon() as daemon:
            (self.folder / "settings.toml").write_text("observability = {log_level = 'shout'}\n")
            self.hang_up(daemon, "[load_config] observability.log_level")
            self.assertEqual(daemon.request("GET", "/readyz")[0], 200)
            self.assertEqual(daemon.stop(), 0)


class ServiceManagerTests(ProcessTestCase):
    """Notifications of systemd."""

    def test_systemd_is_notified_of_readiness_reload_and_stop(self) -> None:
        address = str(self.folder / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(address)
            manager.settimeout(PATIENCE)
            os.environ["NOTIFY_SOCKET"] = address
            self.addCleanup(os.environ.pop, "NOTIFY_SOCKET", None)
            daemon = SlowDaemon(str(self.folder))
            self.addCleanup(daemon.close)
            wait_for(daemon.answers, "an answer")
            manager.setblocking(False)
            self.assertRaises(BlockingIOError, manager.recv, 1000)
            manager.settimeout(PATIENCE)
            daemon.permit()
            self.assertEqual(manager.recv(1000), b"READY=1")
            daemon.process.send_signal(signal.SIGHUP)
            self.assertRegex(manager.recv(1000), rb"\ARELOADING=1\nMONOTONIC_USEC=[0-9]+\Z")
            self.assertEqual(manager.recv(1000), b"READY=1")
            self.assertEqual(daemon.request("GET", "/readyz")[0], 200)
            self.assertEqual(daemon.stop(), 0)
            self.assertEqual(manager.recv(1000), b"STOPPING=1")

    def test_a_missing_service_manager_is_logged_and_ignored(self) -> None:
        os.environ["NOTIFY_SOCKET"] = str(self.folder / "nobody")
        self.addCleanup(os.environ.pop, "NOTIFY_SOCKET", None)
        with Daemon() as daemon:
            self.assertEqual(daemon.stop(), 0)
            self.assertIn("Cannot notify the service manager", daemon.log())


def _is_bound(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    return True


def _kill(number: int) -> None:
    try:
        os.kill(number, signal.SIGKILL)
    except ProcessLookupError:
        return
