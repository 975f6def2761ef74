"""Several workers, however the daemon is started: with sockets of a service manager, in the background, over TLS."""

from __future__ import annotations

import os
import pwd
import signal
import socket
import ssl
import subprocess
import sys

from tests.process.test_activation import PASS
from tests.process.test_workers import SHARING, SharingDaemon, WorkersTestCase, is_alive, workers_of
from tests.support.authority import authority
from tests.support.daemon import PATIENCE, Daemon, environment, free_port, read_to_end
from tests.support.handshakes import client_context
from tests.support.process_case import wait_for
from tests.support.skipping import skip_not_permitted
from tests.support.tls_daemon import Certificates

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"


class ActivationTests(WorkersTestCase):
    def start(self, listening: socket.socket, endpoint: str) -> subprocess.Popen[bytes]:
        """Start a daemon as systemd does, with a socket as descriptor 3."""
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [*PASS, str(listening.fileno()), *SHARING, "--listen", endpoint],
                env=environment(free_port(), server__workers=2),
                cwd=self.folder,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                pass_fds=[listening.fileno()],
            )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    def ask(self, address: object, family: socket.AddressFamily) -> bytes:
        with socket.socket(family) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(address)  # type: ignore[arg-type]
            connection.sendall(HEALTH)
            return read_to_end(connection)

    def check(self, family: socket.AddressFamily, address: object, endpoint: str) -> None:
        with socket.socket(family) as listening:
            listening.bind(address)  # type: ignore[arg-type]
            listening.listen(1024)
            process = self.start(listening, endpoint)
            for _ in range(8):
                self.assertIn(b" 200 ", self.ask(listening.getsockname(), family))
            wait_for(lambda: "All 2 workers serve." in (self.folder / "log").read_text(), "service")
            killed = workers_of(process.pid)[1]
            os.kill(killed, signal.SIGKILL)
            wait_for(lambda: "Worker 1 serves again." in (self.folder / "log").read_text(), "the replacement")
            self.assertIn(b" 200 ", self.ask(listening.getsockname(), family))
            process.send_signal(signal.SIGTERM)
            self.assertEqual(process.wait(PATIENCE), 0, (self.folder / "log").read_text())
            # The socket is the service manager's: connections wait for the next start.
            again = self.start(listening, endpoint)
            self.assertIn(b" 200 ", self.ask(listening.getsockname(), family))
            again.send_signal(signal.SIGTERM)
            self.assertEqual(again.wait(PATIENCE), 0)

    def test_workers_share_a_tcp_socket_of_the_service_manager(self) -> None:
        self.check(socket.AF_INET, ("127.0.0.1", 0), "systemd:domain=INET:name=http")

    def test_workers_share_a_unix_socket_of_the_service_manager(self) -> None:
        path = self.folder / "socket"
        self.check(socket.AF_UNIX, str(path), "systemd:domain=UNIX:index=0")
        self.assertTrue(path.is_socket())


class BackgroundTests(WorkersTestCase):
    command = (*SHARING[:3],)

    def start(self, *options: str) -> tuple[int, Daemon]:
        """Start a daemon in the background; return its process id and a client."""
        client = Daemon.__new__(Daemon)
        client.port = free_port()
        subprocess.run(
            (*self.command, *options, "durable-streams"),
            env=environment(client.port, server__workers=2),
            cwd=self.folder,
            check=True,
            timeout=PATIENCE,
        )
        number = int((self.folder / "twistd.pid").read_text())
        self.addCleanup(self.kill, number)
        self.wait_for_log("All 2 workers serve.")
        return number, client

    def wait_for_log(self, text: str) -> None:
        log = self.folder / "twistd.log"
        wait_for(lambda: log.exists() and text in log.read_text(), text)

    def kill(self, number: int) -> None:
        if is_alive(number):
            os.kill(number, signal.SIGKILL)

    def end(self, number: int) -> None:
        workers = workers_of(number)
        os.kill(number, signal.SIGTERM)
        wait_for(lambda: not any(map(is_alive, (number, *workers.values()))), "the end")
        self.assertFalse((self.folder / "twistd.pid").exists())

    def test_workers_write_to_the_daemons_log(self) -> None:
        number, client = self.start()
        self.assertEqual(client.request("GET", "/readyz")[0], 200)
        for worker in (1, 2):
            self.wait_for_log(f" info worker {worker} [durable_streams.server.daemon.service] durable-streams-server")
        self.end(number)
        self.assertEqual((self.folder / "twistd.log").read_text().count("The server has stopped."), 2)

    def test_workers_run_as_the_user_to_whom_the_supervisor_changes(self) -> None:
        if os.getuid() != 0:
            skip_not_permitted("only root can drop its rights")
        nobody = pwd.getpwnam("nobody")
        try:
            subprocess.run((sys.executable, "-c", ""), user="nobody", check=True)
        except (OSError, subprocess.CalledProcessError):
            skip_not_permitted(f"the user nobody cannot run {sys.executable}")
        self.folder.chmod(0o755)
        number, client = self.start("--uid", "nobody", "--gid", str(nobody.pw_gid))
        workers = workers_of(number)
        for process in (number, *workers.values()):
            self.assertEqual(os.stat(f"/proc/{process}").st_uid, nobody.pw_uid)
        os.kill(workers[2], signal.SIGKILL)
        self.wait_for_log("Worker 2 serves again.")
        self.assertEqual(os.stat(f"/proc/{workers_of(number)[2]}").st_uid, nobody.pw_uid)
        self.assertEqual(client.request("GET", "/readyz")[0], 200)
        self.end(number)

    def test_an_error_of_the_workers_start_is_written_to_stderr_and_the_log(self) -> None:
        ended = self.run_to_end(
            (*self.command, "-n", "--pidfile=", "durable-streams"),
            server__workers=2,
            admin__enabled="true",
            admin__token_file="none",
            observability__log_file="log",
        )
        self.assertEqual(ended.returncode, 1)
        self.assertTrue(ended.stderr.startswith("[validate_config] admin.token_file: "), ended.stderr)
        self.assertIn(ended.stderr.strip(), (self.folder / "log").read_text())


class TLSTests(WorkersTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.certificates = Certificates()
        self.addCleanup(self.certificates.clean_up)

    def serials(self, daemon: SharingDaemon) -> set[int]:
        """Return the serial numbers of the certificates on many connections."""
        found = set()
        for _ in range(16):
            with socket.create_connection(("127.0.0.1", daemon.port), PATIENCE) as plain:
                context = client_context(authority())
                with context.wrap_socket(plain, server_hostname="localhost") as connection:
                    connection.sendall(HEALTH)
                    self.assertIn(b" 200 ", read_to_end(connection))
                    certificate = ssl.DER_cert_to_PEM_cert(connection.getpeercert(True) or b"")
                    found.add(hash(certificate))
        return found

    def test_all_workers_reload_the_certificate_and_refuse_one_that_is_not_valid(self) -> None:
        daemon = self.serve(
            2,
            transport__mode="tls",
            transport__tls__cert_path=self.certificates.certificate,
            transport__tls__key_path=self.certificates.key,
        )
        before = self.serials(daemon)
        self.assertEqual(len(before), 1)
        self.certificates.replace(authority().issue())
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "log level is info" in daemon.log(), "the reload")
        after = self.serials(daemon)
        self.assertEqual((len(after), after & before), (1, set()))
        self.certificates.certificate.write_text("nothing")
        daemon.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "Reloading the certificates failed" in daemon.log(), "the refusal")
        self.assertEqual(self.serials(daemon), after)
        self.assertEqual(daemon.stop(), 0)
