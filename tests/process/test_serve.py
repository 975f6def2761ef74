"""The command ``serve``: the daemon in the foreground, started without twistd's command line."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.support.commands import COMMAND, run_command
from tests.support.daemon import Daemon, environment, free_port


class ServingDaemon(Daemon):
    """A daemon that ``durable-streams-server serve`` runs."""

    command = (*COMMAND, "serve")


class DefaultDaemon(Daemon):
    """A daemon that ``durable-streams-server`` runs without a command."""

    command = (*COMMAND, "--profile", "dev")


class ServeTests(SynchronousTestCase):
    def test_serve_runs_the_server_until_a_signal_with_status_0(self) -> None:
        for kind in (ServingDaemon, DefaultDaemon):
            for number in (signal.SIGTERM, signal.SIGINT):
                with kind(http__allow_wildcard_cors="true") as daemon:
                    daemon.create("a", body=b"hello")
                    self.assertEqual(b"hello", daemon.request("GET", "/v1/stream/a")[2])
                    self.assertEqual(0, daemon.stop(number))
                    log = daemon.log()
                    self.assertIn("is ready (process", log)
                    self.assertIn("The server has stopped.", log)
                    self.assertNotIn("Traceback", log)

    def test_serve_writes_no_pid_file_so_that_two_servers_can_run_in_one_directory(self) -> None:
        with ServingDaemon() as daemon:
            self.assertEqual(["log"], [path.name for path in Path(daemon._folder.name).iterdir()])

    def test_streams_survive_a_restart(self) -> None:
        directory = Path(self.mktemp()).absolute()
        for expected in (b"1", b"12"):
            with ServingDaemon(storage__mode="file-durable", storage__data_dir=directory) as daemon:
                if expected == b"1":
                    daemon.create("kept", body=b"1")
                else:
                    daemon.append("kept", b"2")
                self.assertEqual(expected, daemon.request("GET", "/v1/stream/kept")[2])
                self.assertEqual(0, daemon.stop())

    def test_the_log_goes_to_the_settings_file(self) -> None:
        path = Path(self.mktemp()).absolute()
        with ServingDaemon(observability__log_file=str(path), observability__log_format="json") as daemon:
            self.assertEqual(0, daemon.stop())
            self.assertEqual("", daemon.log())
        self.assertIn("is ready", path.read_text())

    def refused(self, *arguments: str, **settings: object) -> tuple[int, str]:
        ended = run_command("serve", *arguments, **settings)
        self.assertNotIn(b"Traceback", ended.stderr + ended.stdout)
        return ended.returncode, ended.stderr.decode()

    def test_start_up_errors_are_on_stderr_with_their_phase_and_status_1(self) -> None:
        for arguments, settings, line in (
            (("--config", "/nowhere"), {}, "[load_config] Cannot read the configuration file /nowhere: "),
            ((), {"limits__max_streams": "0"}, "[validate_config] limits.max_streams must be 1 or more; "),
            (("--listen", "tcp:x"), {}, "tcp:x"),
            ((), {"transport__mode": "tls"}, "[validate_config] transport.tls.cert_path "),
            (
                (),
                {"storage__mode": "acid", "storage__data_dir": "/dev/null", "server__bind_address": "127.0.0.1:0"},
                "[open_storage] Cannot open the storage (storage.mode acid, storage.data_dir /dev/null): ",
            ),
        ):
            status, errors = self.refused(*arguments, **settings)
            self.assertEqual(1, status, errors)
            self.assertIn(line, errors)

    def test_an_address_in_use_is_a_failure(self) -> None:
        with ServingDaemon() as daemon:
            status, errors = self.refused(server__bind_address=f"127.0.0.1:{daemon.port}")
        self.assertEqual(1, status)
        self.assertRegex(errors, r"\[bind_listener\] Cannot listen on .*Address already in use\.")

    def test_check_exits_without_serving(self) -> None:
        ended = run_command("serve", "--check", "--listen", "tcp:7:interface=127.0.0.1")
        self.assertEqual(0, ended.returncode, ended.stderr)
        self.assertEqual(b"Configuration OK. Would listen on tcp:7:interface=127.0.0.1.\n", ended.stdout)

    def test_a_wrong_command_line_is_status_2(self) -> None:
        self.assertEqual(2, self.refused("--nonsense")[0])
        self.assertEqual(2, self.refused("surplus")[0])


class SignalTests(SynchronousTestCase):
    def test_sighup_reloads_and_does_not_stop(self) -> None:
        with ServingDaemon() as daemon:
            daemon.process.send_signal(signal.SIGHUP)
            daemon.create("still")
            self.assertEqual(200, daemon.request("GET", "/readyz")[0])
            self.assertEqual(0, daemon.stop())
            self.assertIn("Reloaded certificates", daemon.log())

    def test_ctrl_c_during_a_slow_start_ends_with_status_0(self) -> None:
        port = free_port()
        process = subprocess.Popen(
            ServingDaemon.command, env=environment(port), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self.addCleanup(process.kill)
        assert process.stdout is not None
        for line in process.stdout:
            if b"Listening on" in line:
                break
        process.send_signal(signal.SIGINT)
        out = process.stdout.read()
        process.stdout.close()
        self.assertEqual(0, process.wait(20), out)
        self.assertNotIn(b"Traceback", out)
