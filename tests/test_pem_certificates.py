"""Tests of the parsing of certificates in PEM form."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from durable_streams.server.pem_certificates import parse_certificates
from tests.support.authority import Authority

ONE = Authority("One").certificate_pem
OTHER = Authority("Other").certificate_pem


class ParseCertificatesTests(SynchronousTestCase):
    def names(self, pem: bytes) -> list[str]:
        return [certificate.subject.rfc4514_string() for certificate in parse_certificates(pem)]

    def test_all_certificates_are_parsed_in_order_whatever_is_between_them(self) -> None:
        names = self.names(ONE) + self.names(OTHER)
        self.assertEqual(2, len(set(names)))
        self.assertEqual(names, self.names(b"# internal\n" + ONE + b"\nother\n" + OTHER))

    def test_both_labels_of_certificates_are_accepted(self) -> None:
        self.assertEqual(self.names(ONE), self.names(ONE.replace(b" CERTIFICATE-", b" X509 CERTIFICATE-")))

    def test_other_data_has_no_certificates(self) -> None:
        for data in (b"", b"hello", b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"):
            self.assertEqual([], parse_certificates(data))

    def test_one_damaged_certificate_is_an_error_whatever_is_beside_it(self) -> None:
        for damaged in (ONE[:-40], ONE + OTHER[:-40], ONE[:-40] + OTHER, ONE.replace(b"M", b"A", 1)):
            self.assertRaises(ValueError, parse_certificates, damaged)
