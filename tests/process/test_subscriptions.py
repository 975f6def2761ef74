"""Subscriptions in real daemons: what survives a kill and a stop, and starts that fail."""

from __future__ import annotations

import contextlib
import json
import signal
import ssl
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from twisted.trial.unittest import SynchronousTestCase

from tests.support.authority import Authority, authority
from tests.support.daemon import PATIENCE, Daemon
from tests.support.webhook_receiver import WebhookReceiver

S = "/v1/stream/__ds/subscriptions/s"


class Receiver:
    """
    A receiver of webhooks.

    :param tls: the context of a receiver over TLS.
    :ivar bodies: what it was sent.
    :ivar answers: whether it answers; otherwise it holds the connection.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.answers = threading.Event()
        self._server = WebhookReceiver(self.receive, tls)
        self.url = self._server.url

    def receive(self, body: bytes) -> tuple[int, bytes]:
        self.bodies.append(json.loads(body))
        self.answers.wait(PATIENCE)
        return 200, b'{"done":true}'

    def close(self) -> None:
        self.answers.set()
        self._server.close()

    def wait(self, count: int) -> None:
        """Wait for a number of requests."""
        deadline = time.monotonic() + PATIENCE
        while len(self.bodies) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(self.bodies) >= count, self.bodies


class DaemonTests(SynchronousTestCase):
    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.data = str(Path(folder.name, "data"))
        self.receiver = Receiver()
        self.addCleanup(self.receiver.close)

    @contextlib.contextmanager
    def daemon(self, mode: str) -> Iterator[Daemon]:
        with Daemon(
            storage__mode=mode,
            storage__data_dir=self.data,
            http__allow_insecure_webhooks="true",
            subscriptions__enabled="true",
            subscriptions__request_timeout_ms=1000,
            transport__connection__drain_timeout_secs=1,
        ) as daemon:
            yield daemon

    def subscribe(self, daemon: Daemon) -> None:
        config = {"type": "webhook", "pattern": "jobs/*", "webhook": {"url": self.receiver.url}}
        self.assertEqual(201, daemon.request("PUT", S, json.dumps(config).encode())[0])

    def cursor(self, daemon: Daemon) -> str:
        """Return the cursor of the only link once it has moved."""
        deadline = time.monotonic() + PATIENCE
        while True:
            (stream,) = json.loads(daemon.request("GET", S)[2])["streams"]
            offset: str = stream["acked_offset"]
            if not offset.endswith("_0000000000000000") or time.monotonic() > deadline:
                return offset
            time.sleep(0.05)

    def test_a_delivery_that_a_kill_has_cut_is_repeated_by_the_next_process(self) -> None:
        for mode in ("file-durable", "acid"):
            self.receiver.bodies.clear()
            self.receiver.answers.clear()
            with self.daemon(mode) as daemon:
                self.subscribe(daemon)
                daemon.create("jobs/1", body=b"hello")
                self.receiver.wait(1)
                daemon.process.kill()
                daemon.process.wait()
            self.receiver.answers.set()
            with self.daemon(mode) as daemon:
                self.receiver.wait(2)
                offset = self.cursor(daemon)
                self.assertEqual(0, daemon.stop())
                self.assertNotIn("Traceback", daemon.log())
            first, second = self.receiver.bodies[:2]
            self.assertEqual(first, second)
            self.assertEqual(first["streams"][0]["tail_offset"], offset)
            self.data += "-next"

    def test_a_stop_ends_while_a_receiver_hangs(self) -> None:
        with self.daemon("file-durable") as daemon:
            self.subscribe(daemon)
            daemon.create("jobs/1", body=b"hello")
            self.receiver.wait(1)
            self.assertEqual(0, daemon.stop())
            self.assertNotIn("Traceback", daemon.log())

    def test_a_key_file_that_cannot_be_used_ends_the_start_with_a_sentence(self) -> None:
        key = Path(self.mktemp())
        key.write_text("no key")
        for mode, text in ((0o644, "Set its mode to 0600"), (0o600, "it has no private key")):
            key.chmod(mode)
            daemon = Daemon(subscriptions__enabled="true", subscriptions__signing_key_file=str(key.absolute()))
            self.addCleanup(daemon.close)
            self.assertEqual(1, daemon.process.wait(PATIENCE))
            self.assertIn("[start_server] Cannot load the subscriptions: ", daemon.log())
            self.assertIn(text, daemon.log())
            self.assertNotIn("Traceback", daemon.log())

    def test_a_replaced_key_file_signs_after_sighup(self) -> None:
        key = Path(self.mktemp()).absolute()

        def replace() -> None:
            key.touch(0o600)
            made = Ed25519PrivateKey.generate()
            key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

        def kids() -> list[str]:
            return [each["kid"] for each in json.loads(daemon.request("GET", "/v1/stream/__ds/jwks.json")[2])["keys"]]

        replace()
        with Daemon(subscriptions__signing_key_file=str(key)) as daemon:
            (old,) = kids()
            replace()
            daemon.process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + PATIENCE
            while kids() == [old] and time.monotonic() < deadline:
                time.sleep(0.05)
            self.assertEqual(2, len(kids()))
            self.assertEqual(old, kids()[1])
            self.assertNotIn("Traceback", daemon.log())


class CertificateTests(SynchronousTestCase):
    """subscriptions.webhook_ca_file."""

    def setUp(self) -> None:
        self.folder = Path(self.mktemp()).absolute()
        self.folder.mkdir()
        self.ca_file = self.folder / "ca.pem"

    def daemon(self) -> Daemon:
        daemon = Daemon(
            subscriptions__enabled="true",
            subscriptions__webhook_networks="127.0.0.0/8",
            subscriptions__webhook_ca_file=str(self.ca_file),
        )
        self.addCleanup(daemon.close)
        return daemon

    def wait_for_log(self, daemon: Daemon, text: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in daemon.log() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertIn(text, daemon.log())

    def test_a_file_that_cannot_be_used_ends_the_start_with_a_sentence(self) -> None:
        daemon = self.daemon()
        self.assertEqual(1, daemon.process.wait(PATIENCE))
        self.assertIn(
            f"[validate_config] subscriptions.webhook_ca_file '{self.ca_file}': no such file. Give the path of a PEM "
            "file.",
            daemon.log(),
        )
        self.assertNotIn("Traceback", daemon.log())

    def test_a_receiver_of_a_private_authority_gets_its_wake_after_a_reload(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*authority().issue().write(self.folder, "receiver"))
        receiver = Receiver(context)
        self.addCleanup(receiver.close)
        receiver.answers.set()
        self.ca_file.write_bytes(Authority("Other").certificate_pem)
        with self.daemon() as daemon:
            config = {"type": "webhook", "pattern": "jobs/*", "webhook": {"url": receiver.url}}
            self.assertEqual(201, daemon.request("PUT", S, json.dumps(config).encode())[0])
            daemon.create("jobs/1", body=b"hello")
            self.wait_for_log(daemon, "The certificate is not trusted")
            self.ca_file.write_bytes(b"half a file")
            daemon.process.send_signal(signal.SIGHUP)
            self.wait_for_log(daemon, "stay as they were. subscriptions.webhook_ca_file")
            self.ca_file.write_bytes(authority().certificate_pem)
            daemon.process.send_signal(signal.SIGHUP)
            receiver.wait(1)
            self.assertIn("Loaded subscriptions.webhook_ca_file", daemon.log())
            self.assertNotIn("Traceback", daemon.log())
