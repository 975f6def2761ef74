"""Several workers of one daemon: they serve, are replaced, reloaded, drained and stopped together."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import threading
import time
from collections import Counter
from pathlib import Path

from tests.support.daemon import PATIENCE, TWISTD, Daemon, free_port, read_to_end, read_until
from tests.support.process_case import ProcessTestCase, wait_for
from tests.support.skipping import skip_other_platform

#: A daemon whose workers have streams of their own.
SHARING: tuple[str, ...] = (sys.executable, "-m", "tests.support.sharing_daemon", "-n", "--pidfile=", "durable-streams")


def workers_of(process: int) -> dict[int, int]:
    """Return the processes of a supervisor's workers by their numbers."""
    found = {}
    for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
            if b"durable_streams.server.daemon.workers.launching" in words:
                found[int(words[words.index(b"durable_streams.server.daemon.workers.launching") + 1])] = int(child)
    return found


def is_alive(process: int) -> bool:
    """Return whether a process runs; one that has ended and is not reaped does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


class SharingDaemon(Daemon):
    """A daemon with workers whose storage is in memory, so that each has streams of its own."""

    program: tuple[str, ...] = SHARING

    def __init__(self, workers: int = 2, *options: str, **settings: object) -> None:
        self.count = workers
        self.command = (*self.program, *options)
        super().__init__(None, server__workers=workers, **settings)

    def workers(self) -> dict[int, int]:
        """Return the processes of the workers by their numbers."""
        return workers_of(self.process.pid)

    def metrics(self) -> str:
        """Return what one of the workers answers to a scrape."""
        status, _, body = self.request("GET", "/metrics")
        assert status == 200, body
        return body.decode()


class WorkersTestCase(ProcessTestCase):
    def serve(self, workers: int = 2, *options: str, **settings: object) -> SharingDaemon:
        """Start a daemon, and wait until all of its workers serve."""
        daemon = SharingDaemon(workers, *options, **settings)
        self.addCleanup(daemon.close)
        wait_for(lambda: f"All {workers} workers serve." in daemon.log() or not is_alive(daemon.process.pid), "service")
        self.assertTrue(is_alive(daemon.process.pid), daemon.log())
        return daemon


class ServingTests(WorkersTestCase):
    def test_connections_are_distributed_over_all_workers(self) -> None:
        daemon = self.serve(3)
        connections = [daemon.dial() for _ in range(60)]
        for connection in connections:
            self.addCleanup(connection.close)
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n")
            read_until(connection, b"ok")
        found = re.findall(r'durable_streams_connections\{worker="(\d)"\} (\d+)\.0', daemon.metrics())
        self.assertEqual([number for number, _ in found], ["1", "2", "3"])
        self.assertGreaterEqual(min(int(count) for _, count in found), 5, found)
        self.assertEqual(sum(int(count) for _, count in found), 61)

    def test_metrics_of_every_worker_are_those_of_all_workers(self) -> None:
        daemon = self.serve(2)
        for number in range(20):
            daemon.create(f"s{number}")
        time.sleep(1.1)
        text = daemon.metrics()
        created = re.findall(
            r'durable_streams_requests_total\{worker="\d",operation="create",status="201"\} (\d+)\.0', text
        )
        self.assertEqual(sum(map(int, created)), 20, text)
        self.assertEqual(len(re.findall(r"^# TYPE durable_streams_requests_total counter$", text, re.M)), 1)
        self.assertEqual(
            re.findall(r"^durable_streams_worker_up.*", text, re.M),
            [
                'durable_streams_worker_up{worker="1"} 1.0',
                'durable_streams_worker_up{worker="2"} 1.0',
            ],
        )

    def test_a_unix_socket_is_shared_and_removed_by_the_supervisor(self) -> None:
        path = self.folder / "socket"
        daemon = self.serve(2, "--listen", f"unix:{path}:mode=620")
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o620)
        for _ in range(10):
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(PATIENCE)
                connection.connect(str(path))
                connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
                self.assertIn(b" 200 ", read_to_end(connection))
        self.assertEqual(daemon.stop(), 0, daemon.log())
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_port_0_is_one_port_for_all_workers(self) -> None:
        daemon = self.serve(2, "--listen", "http:0:interface=127.0.0.1", "--listen", "tcp:0:interface=\\:\\:1")
        ports = re.findall(r"(\[::1\]|127\.0\.0\.1):(\d+)\)", daemon.log().split("Starting 2 workers")[0])
        self.assertEqual([host for host, _ in ports], ["127.0.0.1", "[::1]"])
        for host, port in ports:
            for _ in range(8):
                with socket.create_connection((host.strip("[]"), int(port)), PATIENCE) as connection:
                    connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
                    self.assertIn(b" 200 ", read_to_end(connection))

    def test_the_pages_of_operators_have_a_port_of_their_own(self) -> None:
        port = free_port()
        daemon = self.serve(2, admin__enabled="true", admin__bind_address=f"127.0.0.1:{port}")
        pages = Daemon.__new__(Daemon)
        pages.port = port
        for _ in range(8):
            self.assertEqual(pages.request("GET", "/admin/streams")[0], 200)
            self.assertEqual(pages.request("GET", "/readyz")[0], 200)
        self.assertEqual(daemon.request("GET", "/metrics")[0], 404)
        self.assertEqual(daemon.stop(), 0)


class FailureTests(WorkersTestCase):
    def test_a_storage_of_a_single_process_is_refused(self) -> None:
        ended = self.run_to_end(TWISTD, server__workers=2)
        self.assertEqual(ended.returncode, 1)
        self.assertEqual(
            ended.stderr,
            "[validate_config] server.workers must be 1, or storage.mode set to postgres, while storage.mode is "
            "'memory' by the default, since its streams belong to a single process; environment variable "
            "DS_SERVER__WORKERS sets it to 2.\n",
        )

    def test_an_error_of_the_workers_start_ends_the_daemon_with_its_line(self) -> None:
        tokens = self.folder / "tokens"
        ended = self.run_to_end(SHARING, server__workers=3, admin__enabled="true", admin__token_file=tokens)
        self.assertEqual(ended.returncode, 1)
        self.assertEqual(len(ended.stderr.splitlines()), 1, ended.stderr)
        self.assertTrue(ended.stderr.startswith("[validate_config] admin.token_file: "), ended.stderr)
        self.assertNotIn("Traceback", ended.stdout)

    def test_a_port_of_another_daemon_with_workers_is_refused(self) -> None:
        daemon = self.serve(2)
        ended = self.run_to_end(SHARING, port=daemon.port, server__workers=2)
        self.assertEqual(ended.returncode, 1)
        self.assertTrue(ended.stderr.startswith("[bind_listener] Cannot listen on 127.0.0.1:"), ended.stderr)
        self.assertEqual(daemon.request("GET", "/readyz")[0], 200)

    def test_a_log_of_twistd_is_refused(self) -> None:
        ended = self.run_to_end((*SHARING[:-1], "--syslog", SHARING[-1]), server__workers=2)
        self.assertEqual(ended.returncode, 1)
        self.assertIn("[validate_config] server.workers is 2, but the command line of twistd", ended.stderr)

    def test_check_names_the_number_of_workers(self) -> None:
        ended = self.run_to_end((*SHARING, "--check"), server__workers=2)
        self.assertEqual((ended.returncode, ended.stderr.count("\n")), (0, 1), ended.stderr)
        self.assertRegex(
            ended.stdout, r"\AConfiguration OK\. Would listen on http://127\.0\.0\.1:\d+ with 2 workers\.\n"
        )


class ReplacementTests(WorkersTestCase):
    def test_a_killed_worker_under_load_is_replaced_and_others_serve_on(self) -> None:
        daemon = self.serve(2)
        statuses: Counter[object] = Counter()
        done = threading.Event()

        def ask() -> None:
            while not done.is_set():
                try:
                    statuses[daemon.request("GET", "/healthz")[0]] += 1
                except OSError as error:
                    statuses[type(error)] += 1

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            time.sleep(0.3)
            before = daemon.workers()
            os.kill(before[2], signal.SIGKILL)
            wait_for(lambda: "Worker 2 serves again." in daemon.log(), "the replacement")
            time.sleep(0.3)
        finally:
            done.set()
            for thread in threads:
                thread.join()
        after = daemon.workers()
        self.assertEqual(before[1], after[1])
        self.assertNotEqual(before[2], after[2])
        # At most the requests that the killed process was answering have failed, and no connection was refused.
        self.assertNotIn(ConnectionRefusedError, statuses)
        self.assertLessEqual(sum(statuses.values()) - statuses[200], len(threads), statuses)
        self.assertGreater(statuses[200], 100)
        self.assertIn(f"Worker 2 (process {before[2]}) was killed by SIGKILL.", daemon.log())
        self.assertIn('durable_streams_worker_restarts_total{worker="2"} 1.0', daemon.metrics())
        self.assertEqual(daemon.stop(), 0, daemon.log())

    def test_new_connections_go_to_the_other_workers_while_one_cannot_be_replaced(self) -> None:
        if sys.platform != "linux":
            skip_other_platform("only Linux has a filter for sockets that share a port")
        tokens = self.folder / "tokens"
        tokens.write_text("a" * 40)
        tokens.chmod(0o600)
        daemon = self.serve(2, admin__enabled="true", admin__token_file=tokens)
        tokens.rename(self.folder / "others")
        os.kill(daemon.workers()[2], signal.SIGKILL)
        wait_for(lambda: "Worker 2 cannot start: [validate_config] admin.token_file" in daemon.log(), "an error")
        for _ in range(20):
            self.assertEqual(daemon.request("GET", "/readyz")[0], 200)
        self.assertIn('durable_streams_worker_up{worker="2"} 0.0', daemon.metrics())
        (self.folder / "others").rename(tokens)
        wait_for(lambda: "Worker 2 serves again." in daemon.log(), "the replacement")
        self.assertEqual(daemon.stop(), 0, daemon.log())

    def test_sigterm_drains_a_single_worker_and_it_is_replaced(self) -> None:
        daemon = self.serve(2)
        before = daemon.workers()
        os.kill(before[1], signal.SIGTERM)
        wait_for(lambda: "Worker 1 serves again." in daemon.log(), "the replacement")
        self.assertIn(f"Worker 1 (process {before[1]}) ended with status 0.", daemon.log())
        self.assertEqual(daemon.workers()[2], before[2])

    def test_workers_end_after_the_supervisor_was_killed(self) -> None:
        daemon = self.serve(2)
        workers = daemon.workers()
        daemon.process.kill()
        daemon.process.wait()
        wait_for(lambda: not any(map(is_alive, workers.values())), "the end of the workers")
        self.assertIn("The supervisor has ended.", daemon.log())
        with socket.socket() as probe:
            self.assertNotEqual(probe.connect_ex(("127.0.0.1", daemon.port)), 0)


class StopTests(WorkersTestCase):
    def test_sigterm_drains_all_workers(self) -> None:
        daemon = self.serve(2)
        workers = daemon.workers()
        polls = [self.poll(daemon) for _ in range(8)]
        self.assertEqual(daemon.stop(), 0, daemon.log())
        for connection in polls:
            # Waiting readers get their answer.
            self.assertTrue(read_to_end(connection).startswith(b"HTTP/1.1 20"))
        self.assertFalse(any(map(is_alive, workers.values())))
        self.assertEqual(daemon.log().count("The server has stopped."), 2)
        self.assertNotIn("Traceback", daemon.log())

    def poll(self, daemon: Daemon) -> socket.socket:
        """Create a stream and wait for data of it, on one connection, since each worker has its own streams."""
        connection = daemon.dial()
        self.addCleanup(connection.close)
        connection.sendall(b"PUT /v1/stream/a HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n")
        head = read_until(connection, b"\r\n\r\n")
        offset = re.search(rb"(?i)stream-next-offset: (\S+)", head)
        assert offset is not None, head
        target = b"/v1/stream/a?live=long-poll&offset=" + offset[1]
        connection.sendall(b"GET " + target + b" HTTP/1.1\r\nHost: test\r\n\r\n")
        return connection

    def test_a_second_signal_closes_all_connections_at_once(self) -> None:
        daemon = self.serve(2)
        # A request that is not complete is drained for a long time.
        connections = [daemon.dial() for _ in range(6)]
        for connection in connections:
            self.addCleanup(connection.close)
            connection.sendall(b"PUT /v1/stream/a HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345")
        time.sleep(0.3)
        daemon.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        self.assertIsNone(daemon.process.poll())
        self.assertEqual(daemon.stop(), 0, daemon.log())
        self.assertIn("Second signal: closing all connections.", daemon.log())

    def test_ctrl_c_stops_all_processes_of_the_terminal_once(self) -> None:
        daemon = self.serve(2)
        polls = [self.poll(daemon) for _ in range(4)]
        for process in (*daemon.workers().values(), daemon.process.pid):
            os.kill(process, signal.SIGINT)
        self.assertEqual(daemon.process.wait(PATIENCE), 0, daemon.log())
        for connection in polls:
            self.assertTrue(read_to_end(connection).startswith(b"HTTP/1.1 20"))
        self.assertNotIn("Second signal", daemon.log())

    def test_systemd_is_notified_when_all_workers_serve(self) -> None:
        address = str(self.folder / "notify")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.bind(address)
            manager.settimeout(PATIENCE)
            os.environ["NOTIFY_SOCKET"] = address
            self.addCleanup(os.environ.pop, "NOTIFY_SOCKET", None)
            daemon = self.serve(2)
            self.assertEqual(manager.recv(1000), b"READY=1")
            self.assertIn("All 2 workers serve.", daemon.log())
            daemon.process.send_signal(signal.SIGHUP)
            self.assertTrue(manager.recv(1000).startswith(b"RELOADING=1\n"))
            self.assertEqual(manager.recv(1000), b"READY=1")
            self.assertEqual(daemon.stop(), 0)
            self.assertEqual(manager.recv(1000), b"STOPPING=1")
            manager.setblocking(False)
            self.assertRaises(BlockingIOError, manager.recv, 1000)


class ReloadTests(WorkersTestCase):
    def write(self, level: str) -> None:
        text = f"observability = {{log_level = '{level}', log_file = '{self.folder}/log', access_log = 'all'}}\n"
        (self.folder / "settings.toml").write_text(text)

    def lines(self, text: str) -> list[str]:
        log = self.folder / "log"
        return [line for line in log.read_text().splitlines() if text in line] if log.exists() else []

    def daemon(self) -> SharingDaemon:
        self.write("info")
        daemon = SharingDaemon(2, "--config", str(self.folder / "settings.toml"))
        self.addCleanup(daemon.close)
        wait_for(lambda: bool(self.lines("All 2 workers serve.")), "service")
        return daemon

    def ask_until_both_log(self, daemon: Daemon, name: str) -> None:
        def both() -> bool:
            daemon.request("GET", f"/v1/stream/{name}")
            lines = self.lines(name)
            return all(any(f" worker {number} [" in line for line in lines) for number in (1, 2))

        wait_for(both, name)

    def test_all_workers_reopen_the_log_and_take_its_level(self) -> None:
        daemon = self.daemon()
        self.ask_until_both_log(daemon, "before")
        (self.folder / "log").rename(self.folder / "log.1")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: bool(self.lines("log level is info")), "the reload")
        self.ask_until_both_log(daemon, "after")
        self.assertNotIn("after", (self.folder / "log.1").read_text())
        self.write("error")
        daemon.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        for _ in range(20):
            daemon.request("GET", "/v1/stream/unsaid")
        self.assertEqual(self.lines("unsaid"), [])

    def test_a_replaced_worker_has_the_reloaded_level_and_the_first_settings(self) -> None:
        daemon = self.daemon()
        self.write("error")
        daemon.process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        before = daemon.workers()
        os.kill(before[1], signal.SIGKILL)
        wait_for(lambda: daemon.workers().get(1, before[1]) != before[1], "the replacement")
        time.sleep(1.5)
        for _ in range(20):
            self.assertEqual(daemon.request("GET", "/v1/stream/unsaid")[0], 404)
        self.assertEqual(self.lines("unsaid"), [])

    def test_settings_that_are_not_valid_are_refused_once_for_all(self) -> None:
        daemon = self.daemon()
        (self.folder / "settings.toml").write_text("observability = {log_level = 'shout'}\n")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: bool(self.lines("Reload: the settings are not valid")), "the refusal")
        self.ask_until_both_log(daemon, "said")
        self.assertEqual(len(self.lines("Reload: the settings are not valid")), 1)
