"""Tests of reloading: changed certificates are used, and errors in them are logged once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.protocol import Factory
from twisted.logger import LogLevel, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.listening.tls import (
    CHECK_INTERVAL,
    Certificates,
    NamedFile,
    TLSContextError,
    TLSFactory,
    TLSFiles,
    VersionRange,
)
from tests.support.authority import Authority, Issued, authority
from tests.support.handshakes import Client, Echo, Wire, client_context


class ReloadTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.wire = Wire()
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.old, self.new = authority().issue(), authority().issue()
        self.certificate, self.key = (Path(path) for path in self.old.write(self.folder, "server"))
        self.ca = self.folder / "ca.pem"
        self.ca.write_bytes(authority().certificate_pem)
        self.said: list[tuple[LogLevel, str]] = []
        observer: Any = lambda event: self.said.append((event["log_level"], formatEvent(event)))  # noqa: E731
        globalLogPublisher.addObserver(observer)
        self.addCleanup(globalLogPublisher.removeObserver, observer)
        self.serve()

    def serve(self, mutual: bool = False) -> None:
        files = TLSFiles(
            NamedFile("transport.tls.cert_path", str(self.certificate)),
            NamedFile("transport.tls.key_path", str(self.key)),
            NamedFile("transport.tls.client_ca_path", str(self.ca)) if mutual else None,
        )
        self.certificates = Certificates(files, VersionRange("1.2", "1.3"))
        self.served = TLSFactory(self.certificates, Factory.forProtocol(Echo), self.wire.clock)
        self.served.wrappedFactory.noisy = False
        self.served.doStart()
        self.addCleanup(self.served.doStop)

    def connect(self, shows: Issued | None = None) -> Client:
        client = Client(self.wire.network, self.served, client_context(authority(), self.folder, shows))
        self.addCleanup(client.leave)
        return client

    def assert_shown(self, issued: Issued, client: Client | None = None) -> None:
        client = client or self.connect()
        self.assertIsNone(client.error)
        self.assertEqual(client.shown, issued.certificate.public_bytes(Encoding.DER))
        self.assertEqual(client.exchange(b"hello"), b"hello")

    def replace(self, path: Path, data: bytes) -> None:
        """Put another file in the place of one, as careful programs do."""
        beside = path.with_suffix(".tmp")
        beside.write_bytes(data)
        os.replace(beside, path)

    def pass_time(self) -> None:
        self.wire.clock.advance(CHECK_INTERVAL)

    def complaints(self) -> list[str]:
        return [said for level, said in self.said if level >= LogLevel.warn]

    def test_a_new_certificate_is_used_and_open_connections_stay(self) -> None:
        before = self.connect()
        self.replace(self.certificate, self.new.certificate_pem)
        self.replace(self.key, self.new.key_pem())
        self.assert_shown(self.old)
        self.pass_time()
        self.assert_shown(self.new)
        self.assert_shown(self.old, before)
        self.assertEqual(self.complaints(), [])
        self.assertEqual([said for _, said in self.said if said.startswith("Loaded the certificate ")].__len__(), 1)

    def test_a_certificate_written_in_place_is_reloaded(self) -> None:
        self.certificate.write_bytes(self.new.certificate_pem)
        self.key.write_bytes(self.new.key_pem())
        self.pass_time()
        self.assert_shown(self.new)

    def test_links_are_followed(self) -> None:
        for name, issued in (("one", self.old), ("two", self.new)):
            folder = self.folder / name
            folder.mkdir()
            issued.write(folder, "server")
        current = self.folder / "current"
        current.symlink_to("one")
        self.certificate, self.key = current / "server.pem", current / "server.key"
        self.serve()
        self.assert_shown(self.old)
        (self.folder / "next").symlink_to("two")
        os.replace(self.folder / "next", current)
        self.pass_time()
        self.assert_shown(self.new)

    def test_a_certificate_without_its_key_changes_nothing_and_is_logged_once(self) -> None:
        self.replace(self.certificate, self.new.certificate_pem)
        for _ in range(5):
            self.pass_time()
            self.assert_shown(self.old)
        [complaint] = self.complaints()
        self.assertIn("they stay as they were. transport.tls.key_path '", complaint)
        self.assertIn("does not belong to", complaint)
        self.replace(self.key, self.new.key_pem())
        self.pass_time()
        self.assert_shown(self.new)
        self.assertEqual(len(self.complaints()), 1)

    def test_a_damaged_certificate_changes_nothing(self) -> None:
        for data, why in (
            (b"", "no certificate in the file"),
            (self.new.certificate_pem[:200], "damaged"),
            (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "damaged"),
        ):
            self.said.clear()
            self.replace(self.certificate, data)
            self.pass_time()
            self.pass_time()
            self.assert_shown(self.old)
            [complaint] = self.complaints()
            self.assertIn(why, complaint)
        self.replace(self.certificate, self.old.certificate_pem)
        self.pass_time()
        self.assert_shown(self.old)

    def test_an_incomplete_chain_changes_nothing(self) -> None:
        chain = self.new.certificate_pem + authority().certificate_pem
        self.replace(self.key, self.new.key_pem())
        for length in (len(chain) - 30, len(chain) - 200, len(self.new.certificate_pem) + 40):
            self.said.clear()
            self.replace(self.certificate, chain[:length])
            self.pass_time()
            self.assert_shown(self.old)
            [complaint] = self.complaints()
            self.assertIn("a certificate is damaged", complaint)
        with self.assertRaises(TLSContextError):
            self.serve()
        self.replace(self.certificate, chain)
        self.pass_time()
        self.assert_shown(self.new)

    def test_an_incomplete_bundle_of_authorities_changes_nothing(self) -> None:
        self.serve(mutual=True)
        other = Authority("Other")
        self.replace(self.ca, other.certificate_pem + authority().certificate_pem[:-40])
        self.pass_time()
        self.assert_shown(self.old, self.connect(authority().client()))
        self.assertIn("a certificate is damaged", self.complaints()[0])

    def test_relative_paths_are_independent_of_the_current_directory(self) -> None:
        self.certificate, self.key = self.certificate.absolute(), self.key.absolute()
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        certificate, key = self.certificate, self.key
        self.certificate, self.key = Path(certificate.name), Path(key.name)
        self.serve()
        os.chdir("/")
        self.replace(certificate, self.new.certificate_pem)
        self.replace(key, self.new.key_pem())
        self.pass_time()
        self.assertEqual(self.complaints(), [])
        self.assertEqual(self.certificates.identity.chain[0], self.new.certificate)

    def test_a_removed_key_is_logged_and_changes_nothing(self) -> None:
        self.key.unlink()
        self.pass_time()
        self.pass_time()
        self.assert_shown(self.old)
        [complaint] = self.complaints()
        self.assertIn("no such file", complaint)

    def test_reload_reads_the_files_at_once(self) -> None:
        self.replace(self.certificate, self.new.certificate_pem)
        self.replace(self.key, self.new.key_pem())
        self.certificates.reload()
        self.assert_shown(self.new)
        self.replace(self.key, b"")
        self.certificates.reload()
        self.assert_shown(self.new)
        self.assertEqual(len(self.complaints()), 1)

    def test_new_authorities_are_used(self) -> None:
        other = Authority("Other")
        self.serve(mutual=True)
        self.assertIsNotNone(self.connect(other.client()).error)
        self.assert_shown(self.old, self.connect(authority().client()))
        self.replace(self.ca, other.certificate_pem)
        self.pass_time()
        self.assert_shown(self.old, self.connect(other.client()))
        self.assertIsNotNone(self.connect(authority().client()).error)

    def test_a_resuming_client_gets_the_new_certificate(self) -> None:
        first = self.connect()
        self.assert_shown(self.old, first)
        self.replace(self.certificate, self.new.certificate_pem)
        self.replace(self.key, self.new.key_pem())
        self.pass_time()
        context = client_context(authority())
        again = Client(self.wire.network, self.served, context)
        self.addCleanup(again.leave)
        self.assert_shown(self.new, again)

    def test_the_files_are_checked_until_the_last_port_is_closed(self) -> None:
        self.served.doStart()
        self.served.doStop()
        self.assertEqual(len(self.wire.clock.getDelayedCalls()), 1)
        self.served.doStop()
        self.assertEqual(self.wire.clock.getDelayedCalls(), [])
        self.served.doStart()
