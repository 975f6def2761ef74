"""Tests of the names in client certificates, and of the principals that they become."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import crypto
from twisted.cred.checkers import ICredentialsChecker
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from durable_streams.server.errors import NotAuthenticated
from durable_streams.server.identity.certificates import CERTIFICATE_NAMES, CertificateChecker, PeerCertificate
from durable_streams.server.identity.credentials import CertificateCredentials, ClientCertificate
from durable_streams.server.identity.principal import Principal
from tests.support.authority import authority

ALICE = ClientCertificate("CN=alice,O=Example", common_name="alice", expires_at=2e9, serial="ab")


def name_of(*attributes: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(kind, value) for kind, value in attributes])


def presented(subject: x509.Name, places: Sequence[x509.GeneralName] = ()) -> PeerCertificate:
    """Issue a certificate as a connection's client presents it."""
    issued = authority().client(subject=subject, places=places)
    return PeerCertificate(crypto.X509.from_cryptography(issued.certificate))


def login(certificate: ClientCertificate, name: str = "subject") -> Principal:
    principal = CertificateChecker(name).requestAvatarId(CertificateCredentials(certificate))
    assert isinstance(principal, Principal)
    return principal


class NamesTests(SynchronousTestCase):
    def test_all_names_of_a_certificate_are_read(self) -> None:
        places = [
            x509.DNSName("Worker.Example"),
            x509.DNSName("worker.example"),
            x509.DNSName("other.example"),
            x509.UniformResourceIdentifier("spiffe://example/ns/worker"),
            x509.RFC822Name("worker@example.com"),
        ]
        subject = name_of((NameOID.ORGANIZATION_NAME, "Example, Inc"), (NameOID.COMMON_NAME, "worker"))
        certificate = presented(subject, places)
        self.assertEqual(certificate.subject, "CN=worker,O=Example\\, Inc")
        names = certificate.names
        self.assertEqual(names.subject, certificate.subject)
        self.assertEqual(names.common_name, "worker")
        self.assertEqual(names.dns, ("worker.example", "other.example"))
        self.assertEqual(names.uris, ("spiffe://example/ns/worker",))
        self.assertEqual(names.emails, ("worker@example.com",))
        self.assertTrue(names.serial)
        assert names.expires_at is not None
        self.assertGreater(names.expires_at, 1.7e9)

    def test_the_names_are_the_same_object_each_time(self) -> None:
        certificate = presented(name_of((NameOID.COMMON_NAME, "worker")))
        self.assertIs(certificate.names, certificate.names)

    def test_a_certificate_without_alternative_names_has_none(self) -> None:
        names = presented(name_of((NameOID.COMMON_NAME, "worker"))).names
        self.assertEqual((names.dns, names.uris, names.emails), ((), (), ()))

    def test_several_common_names_are_no_common_name(self) -> None:
        subject = name_of((NameOID.COMMON_NAME, "alice"), (NameOID.COMMON_NAME, "root"))
        self.assertEqual(presented(subject).names.common_name, "")

    def test_alternative_names_that_cannot_be_parsed_are_left_out(self) -> None:
        places = [x509.DNSName("worker.example"), x509.UniformResourceIdentifier("spiffe://example/worker")]
        issued = authority().client(places=places).certificate
        der = issued.public_bytes(Encoding.DER)
        # The tag of the URI becomes one that no kind of name has.
        broken = der.replace(b"\x86\x17spiffe", b"\x8e\x17spiffe")
        self.assertNotEqual(der, broken)
        names = PeerCertificate(crypto.load_certificate(crypto.FILETYPE_ASN1, broken)).names
        self.assertEqual((names.common_name, names.dns, names.uris), ("client", (), ()))

    def test_values_of_old_string_types_are_escaped(self) -> None:
        issued = authority().client("aXO_ro_t").certificate
        der = issued.public_bytes(Encoding.DER)
        # A T61String, which the library does not parse: OpenSSL decodes it as Latin-1.
        old = der.replace(b"\x0c\x08aXO_ro_t", b"\x14\x08a,O=ro\xf6t")
        self.assertNotEqual(der, old)
        certificate = PeerCertificate(crypto.load_certificate(crypto.FILETYPE_ASN1, old))
        self.assertEqual(certificate.subject, "CN=a\\,O\\=ro\\xf6t")
        self.assertEqual(certificate.names.common_name, "")

    @settings(max_examples=20, deadline=None)
    @given(
        st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=8), max_size=3)
    )
    def test_a_rendered_subject_has_as_many_parts_as_the_certificate(self, values: list[str]) -> None:
        unit = NameOID.ORGANIZATIONAL_UNIT_NAME
        subject = name_of(*((unit, value) for value in values))
        rendered = presented(subject).subject
        self.assertEqual(x509.Name.from_rfc4514_string(rendered) if rendered else name_of(), subject)


class CheckerTests(SynchronousTestCase):
    def test_it_is_a_checker_of_credentials(self) -> None:
        self.assertTrue(verifyObject(ICredentialsChecker, CertificateChecker()))

    def test_the_chosen_name_is_the_subject_of_the_principal(self) -> None:
        certificate = ClientCertificate(
            "CN=alice,O=Example", ("a.example",), ("spiffe://example/a",), ("a@example.com",), "alice", 2e9, "ab"
        )
        subjects = ["CN=alice,O=Example", "alice", "a.example", "spiffe://example/a", "a@example.com"]
        for name, subject in zip(CERTIFICATE_NAMES, subjects, strict=True):
            principal = login(certificate, name)
            self.assertEqual(principal.subject, subject)
            self.assertEqual((principal.kind, principal.credential, principal.expires_at), ("certificate", "ab", 2e9))
            self.assertEqual(principal.groups, frozenset())
            self.assertIsNone(principal.grants)

    def test_the_claims_have_all_names(self) -> None:
        certificate = ClientCertificate("CN=a", ("a.example", "b.example"), common_name="a")
        self.assertEqual(login(certificate).claims, {"subject": "CN=a", "cn": "a", "dns": ["a.example", "b.example"]})

    def test_a_certificate_without_the_name_is_refused(self) -> None:
        for name in CERTIFICATE_NAMES:
            with self.assertRaises(NotAuthenticated) as caught:
                login(ClientCertificate(""), name)
            self.assertIn(f'auth.certificate_name = "{name}"', str(caught.exception))

    def test_a_certificate_with_several_of_the_names_is_refused(self) -> None:
        two = ClientCertificate("CN=a", ("a", "b"), ("a:1", "b:1"), ("a@a", "b@b"), "a")
        for name in ("dns", "uri", "email"):
            with self.assertRaises(NotAuthenticated) as caught:
                login(two, name)
            self.assertIn("has 2 ", str(caught.exception))
