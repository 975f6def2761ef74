"""Certificates made for tests: authorities, servers, clients, and invalid ones."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SERVER_AUTH = ExtendedKeyUsageOID.SERVER_AUTH
CLIENT_AUTH = ExtendedKeyUsageOID.CLIENT_AUTH

DAY = timedelta(days=1)

#: The subject alternative names of a server on the loopback interface.
LOOPBACK = (x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1")))


class Issued:
    """A certificate and its key."""

    def __init__(self, certificate: x509.Certificate, key: Any) -> None:
        self.certificate = certificate
        self.key = key

    @property
    def certificate_pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    def key_pem(self, form: PrivateFormat = PrivateFormat.PKCS8, encryption: Any = None) -> bytes:
        """Return the key as PEM, in PKCS 8 or in the traditional form (SEC 1 and PKCS 1)."""
        written: bytes = self.key.private_bytes(Encoding.PEM, form, encryption or NoEncryption())
        return written

    def write(self, folder: Path, name: str) -> tuple[str, str]:
        """Write both into a folder and return the paths of the certificate and the key, which has mode 0600."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        certificate.write_bytes(self.certificate_pem)
        key.touch(0o600)
        key.write_bytes(self.key_pem())
        return str(certificate), str(key)


class Authority(Issued):
    """A certificate authority."""

    def __init__(self, name: str = "Authority") -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        super().__init__(_certificate(name, key, None, None, is_authority=True), key)

    def issue(
        self,
        name: str = "server.example",
        purposes: tuple[x509.ObjectIdentifier, ...] = (SERVER_AUTH,),
        begins: timedelta = -DAY,
        ends: timedelta = DAY,
        key: Any = None,
        places: Sequence[x509.GeneralName] = LOOPBACK,
        subject: x509.Name | None = None,
    ) -> Issued:
        """
        Issue a certificate, by default for a server on the loopback interface.

        :param places: the subject alternative names; none for a certificate without this extension.
        :param subject: instead of one that only has the common name ``name``.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        return Issued(_certificate(name, key, self, purposes, False, begins, ends, places, subject), key)

    def intermediate(self, name: str = "Intermediate") -> Authority:
        """Issue the certificate of an intermediate authority."""
        made = Authority.__new__(Authority)
        made.key = ec.generate_private_key(ec.SECP256R1())
        made.certificate = _certificate(name, made.key, self, None, is_authority=True)
        return made

    def client(self, name: str = "client", **how: Any) -> Issued:
        """Issue a client certificate."""
        return self.issue(name, (CLIENT_AUTH,), **how)


def self_signed(name: str = "nobody", purposes: tuple[x509.ObjectIdentifier, ...] = (CLIENT_AUTH,)) -> Issued:
    """Create a self-signed certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    return Issued(_certificate(name, key, None, purposes), key)


def _certificate(
    name: str,
    key: Any,
    issuer: Issued | None,
    purposes: tuple[x509.ObjectIdentifier, ...] | None,
    is_authority: bool = False,
    begins: timedelta = -DAY,
    ends: timedelta = DAY,
    places: Sequence[x509.GeneralName] = LOOPBACK,
    subject: x509.Name | None = None,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]) if subject is None else subject
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
    if is_authority:
        builder = builder.add_extension(
            x509.KeyUsage(False, False, False, False, False, True, True, False, False), critical=True
        )
    elif places:
        builder = builder.add_extension(x509.SubjectAlternativeName(places), critical=False)
    if issuer is not None:
        identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key())
        builder = builder.add_extension(identifier, critical=False)
    if purposes:
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
    return builder.sign(key if issuer is None else issuer.key, hashes.SHA256())


@cache
def authority() -> Authority:
    """Return the authority that all tests share."""
    return Authority()
