"""The file of receivers' authorities: what it must have, and when it is read again."""

from __future__ import annotations

import os
from pathlib import Path

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.subscriptions.authorities import (
    CHECK_INTERVAL,
    MAX_SIZE,
    Authorities,
    AuthoritiesFileError,
)
from tests.support.authority import DAY, Authority, authority, self_signed

ONE, OTHER = authority().certificate_pem, self_signed().certificate_pem


class AuthoritiesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()).absolute()

    def replace(self, content: bytes) -> None:
        """Replace the file as an operator does: a new one is renamed to its path."""
        new = self.path.with_name("new")
        new.write_bytes(content)
        new.rename(self.path)

    def refusal(self, path: object = None) -> str:
        return str(self.assertRaises(AuthoritiesFileError, Authorities, str(path or self.path)))

    def test_all_certificates_of_the_file_are_loaded(self) -> None:
        self.replace(b"# internal\n" + ONE + b"\n" + OTHER)
        loaded = Authorities(str(self.path)).certificates
        self.assertEqual(2, len(loaded))
        self.assertEqual("Authority", loaded[0].get_subject().CN)

    def test_without_a_file_there_are_only_the_systems(self) -> None:
        self.assertEqual((), Authorities().certificates)

    def test_a_file_that_cannot_be_used_is_refused_with_setting_path_and_advice(self) -> None:
        where = f"subscriptions.webhook_ca_file {str(self.path)!r}"
        self.assertEqual(f"{where}: no such file. Give the path of a PEM file.", self.refusal())
        must_have = "The file must have PEM certificates, those of the receivers' authorities."
        self.replace(b"hello")
        self.assertEqual(f"{where}: no certificate in the file. {must_have.replace('The file', 'It')}", self.refusal())
        for content in (ONE[:-40], ONE + OTHER[:-40], ONE.replace(b"M", b"A", 1)):
            self.replace(content)
            self.assertEqual(f"{where}: a certificate is damaged. {must_have}", self.refusal())
        self.replace(ONE + b"\n" * MAX_SIZE)
        self.assertIn("larger than 1048576 bytes. Leave the system's authorities out", self.refusal())
        self.path.unlink()
        self.path.mkdir()
        self.assertIn("not a regular file", self.refusal())
        self.path.rmdir()
        os.mkfifo(self.path)
        self.assertIn("not a regular file", self.refusal())

    def test_a_file_without_permission_is_refused(self) -> None:
        self.replace(ONE)
        self.path.chmod(0)
        if not os.access(self.path, os.R_OK):
            self.assertIn("cannot be read: Permission denied. Give the server's user", self.refusal())
        else:
            self.assertEqual(1, len(Authorities(str(self.path)).certificates))

    def test_a_changed_file_is_read_again_within_the_interval(self) -> None:
        self.replace(ONE)
        authorities = Authorities(str(self.path))
        authorities.check(1000.0)
        version = authorities.version
        self.replace(ONE + OTHER)
        authorities.check(1000.0 + CHECK_INTERVAL - 1)
        self.assertEqual((1, version), (len(authorities.certificates), authorities.version))
        authorities.check(1000.0 + CHECK_INTERVAL)
        self.assertEqual(2, len(authorities.certificates))
        self.assertNotEqual(version, authorities.version)
        version = authorities.version
        authorities.check(1000.0 + 3 * CHECK_INTERVAL)
        self.assertEqual(version, authorities.version)

    def test_a_bad_file_is_logged_once_and_the_authorities_stay_as_they_were(self) -> None:
        self.replace(ONE)
        authorities = Authorities(str(self.path))
        self.replace(b"half")
        with capturedLogs() as logs:
            for number in range(1, 4):
                authorities.check(1000.0 * number)
            authorities.reload()
        self.assertEqual(1, len(authorities.certificates))
        texts = [str(formatEvent(event)) for event in logs]
        self.assertEqual(2, len(texts))
        for text in texts:
            self.assertIn("stay as they were. subscriptions.webhook_ca_file", text)

    def test_an_expired_authority_is_logged(self) -> None:
        self.replace(Authority("Fine").certificate_pem + authority().issue(ends=-DAY / 2).certificate_pem)
        with capturedLogs() as logs:
            Authorities(str(self.path))
        (text,) = [str(formatEvent(event)) for event in logs]
        self.assertIn("the certificate of CN=server.example expired at ", text)
