"""Client certificates: the names in them, and the checker that makes principals of them."""

from __future__ import annotations

import re
from typing import Any, Final

from cryptography import x509
from cryptography.x509.oid import NameOID
from twisted.cred.checkers import ICredentialsChecker
from zope.interface import implementer

from ..errors import NotAuthenticated
from .credentials import CertificateCredentials, ClientCertificate, IClientCertificate
from .principal import Principal

#: ``auth.certificate_name``: the name of a certificate that becomes the subject of its principal.
SUBJECT, COMMON_NAME, DNS, URI, EMAIL = CERTIFICATE_NAMES = ("subject", "cn", "dns", "uri", "email")

#: What these names are called in messages.
_WORDS: Final = {
    SUBJECT: "subject",
    COMMON_NAME: "single common name",
    DNS: "DNS names",
    URI: "URIs",
    EMAIL: "e-mail addresses",
}

#: Characters that have a meaning in a distinguished name (RFC 4514 section 2.4).
_SPECIAL: Final = re.compile(rb'(["+,;<>\\=])')


class PeerCertificate:
    """
    The certificate that a connection's client has presented.

    Names other than the subject are read when they are first needed.

    :param certificate: as pyOpenSSL's ``get_peer_certificate`` returns it.
    :ivar subject: the distinguished name of the subject (RFC 4514).
    """

    __slots__ = ("_certificate", "_names", "subject")

    def __init__(self, certificate: Any) -> None:
        self.subject = _subject_in(certificate)
        self._certificate = certificate
        self._names: ClientCertificate | None = None

    @property
    def names(self) -> ClientCertificate:
        """All names: the same object each time."""
        if self._names is None:
            self._names = names_in(self._certificate, self.subject)
            self._certificate = None
        return self._names


@implementer(ICredentialsChecker)
class CertificateChecker:
    """
    Makes principals of client certificates that the TLS handshake has verified.

    The claims of a principal have all names of the certificate, so that a rule can ask for one of them
    (``claim:dns=worker.example``): ``subject`` and ``cn`` are texts, ``dns``, ``uri`` and ``email`` lists.

    :param name: which name is the principal's subject, one of :data:`CERTIFICATE_NAMES`.
    """

    credentialInterfaces = (IClientCertificate,)

    def __init__(self, name: str = SUBJECT) -> None:
        self._name = name

    def requestAvatarId(self, credentials: CertificateCredentials) -> Any:
        """
        Return the :class:`.Principal` of a certificate.

        :raises NotAuthenticated: it has no such name, or several.
        """
        certificate = credentials.certificate
        found = _names_of_kind(certificate, self._name)
        if len(found) != 1:
            raise NotAuthenticated(_refusal(self._name, len(found)))
        names: dict[str, str | tuple[str, ...]] = {
            SUBJECT: certificate.subject,
            COMMON_NAME: certificate.common_name,
            DNS: certificate.dns,
            URI: certificate.uris,
            EMAIL: certificate.emails,
        }
        # Claims are JSON values.
        claims = {kind: value if isinstance(value, str) else list(value) for kind, value in names.items() if value}
        return Principal(
            found[0],
            "certificate",
            claims=claims,
            expires_at=certificate.expires_at,
            credential=certificate.serial,
        )


def _names_of_kind(certificate: ClientCertificate, kind: str) -> tuple[str, ...]:
    match kind:
        case "dns":
            found = certificate.dns
        case "uri":
            found = certificate.uris
        case "email":
            found = certificate.emails
        case "cn":
            found = (certificate.common_name,)
        case _:
            found = (certificate.subject,)
    return tuple(filter(None, found))


def _refusal(kind: str, count: int) -> str:
    has = f"has {count} {_WORDS[kind]}" if count else f"has no {_WORDS[kind]} that can be used"
    return (
        f'The client certificate {has}. The server identifies clients by it (auth.certificate_name = "{kind}"): use a '
        "certificate that has exactly one."
    )


def names_in(certificate: Any, subject: str) -> ClientCertificate:
    """
    Return the names in a certificate.

    Alternative names that cannot be parsed are left out: the certificate is verified, but proves no such name.

    :param certificate: a pyOpenSSL certificate.
    :param subject: its subject.
    """
    try:
        parsed: x509.Certificate = certificate.to_cryptography()
    except ValueError:
        return ClientCertificate(subject)
    dns, uris, emails = _alternative_names(parsed)
    return ClientCertificate(
        subject,
        dns,
        uris,
        emails,
        _common_name(parsed),
        expires_at=parsed.not_valid_after_utc.timestamp(),
        serial=f"{parsed.serial_number:x}",
    )


def _alternative_names(certificate: x509.Certificate) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension, x509.UnsupportedGeneralNameType):
        return (), (), ()
    kinds = (x509.DNSName, x509.UniformResourceIdentifier, x509.RFC822Name)
    dns, uris, emails = (tuple(dict.fromkeys(names.get_values_for_type(kind))) for kind in kinds)
    return tuple(dict.fromkeys(name.lower() for name in dns)), uris, emails


def _common_name(certificate: x509.Certificate) -> str:
    """Return the common name; empty if there is none, or several."""
    try:
        found = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except ValueError:
        # The library refuses some old string types that OpenSSL has accepted.
        return ""
    value = found[0].value if len(found) == 1 else ""
    return value if isinstance(value, str) else ""


def _subject_in(certificate: Any) -> str:
    """Return the subject of a certificate as a distinguished name (RFC 4514)."""
    try:
        subject: str = certificate.to_cryptography().subject.rfc4514_string()
    except ValueError:
        # The library refuses some old string types that OpenSSL has accepted.
        parts: list[tuple[bytes, bytes]] = certificate.get_subject().get_components()
        subject = ",".join(f"{name.decode()}={_escaped(value)}" for name, value in parts)
    return subject


def _escaped(value: bytes) -> str:
    """Return a value of a distinguished name, escaped so that no other value, nor several, look the same."""
    return _SPECIAL.sub(rb"\\\1", value).decode("utf-8", "backslashreplace")
