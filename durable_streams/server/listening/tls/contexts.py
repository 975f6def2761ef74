"""OpenSSL contexts for servers, from PEM: strong ciphers only; client certificates are verified on every connection."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from msgspec import Struct
from OpenSSL import SSL, crypto

from ...pem_certificates import parse_certificates
from .files import Contents, NamedFile, TLSFiles

#: The supported versions of TLS, with OpenSSL's numbers.
TLS_VERSIONS: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}

#: The ciphers of TLS 1.2: only authenticated encryption with forward secrecy. All ciphers of TLS 1.3 have both.
_CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20"

_KEY: Final = re.compile(rb"-----BEGIN ((?:[A-Z0-9]+ )*PRIVATE KEY)-----\s.*?-----END \1-----", re.DOTALL)

#: Chooses one of the protocols that a client offers (RFC 7301). Empty: no protocol; None: refuse the handshake.
ProtocolChoice = Callable[[SSL.Connection, Sequence[bytes]], bytes | None]


class TLSContextError(ValueError):
    """A file is not usable for TLS; the message has its setting and advice."""


class NoCommonProtocol(SSL.Error):
    """The client's ALPN list has no protocol of the server; the handshake fails."""

    def __init__(self) -> None:
        super().__init__([("SSL routines", "", "no application protocol in common")])


class VersionRange(Struct, frozen=True):
    """The minimum and maximum version of TLS; see :data:`TLS_VERSIONS`."""

    minimum: str = "1.3"
    maximum: str = "1.3"


class Identity(Struct, frozen=True):
    """
    A server's certificate and key, and the authorities that it trusts.

    :ivar chain: the server's certificate first.
    :ivar authorities: of client certificates; None if clients need none.
    """

    chain: tuple[x509.Certificate, ...]
    key: Any
    authorities: tuple[x509.Certificate, ...] | None

    @property
    def expires(self) -> datetime:
        """The time at which the server's certificate expires."""
        return self.chain[0].not_valid_after_utc

    def has_expired(self) -> bool:
        """Return whether the server's certificate has expired."""
        return self.expires <= datetime.now(UTC)


def read_identity(files: TLSFiles, contents: Contents) -> Identity:
    """
    Parse the contents of the files.

    :raises TLSContextError: a file does not have what is needed, or the key does not match the certificate.
    """
    chain = _certificates(files.certificate, contents.certificate, "the server's own certificate first")
    key = _private_key(files.key, contents.key)
    if _public_bytes(key.public_key()) != _public_bytes(chain[0].public_key()):
        raise TLSContextError(
            f"{files.key}: the key does not belong to the first certificate of {files.certificate.path!r} "
            f"({files.certificate.setting}). Give the certificate's own key."
        )
    authorities = None
    if files.client_ca is not None:
        assert contents.client_ca is not None
        authorities = _certificates(files.client_ca, contents.client_ca, "those of the clients' authorities")
    return Identity(chain, key, authorities)


def _certificates(file: NamedFile, pem: bytes, which: str) -> tuple[x509.Certificate, ...]:
    try:
        certificates = tuple(parse_certificates(pem))
    except ValueError:
        raise TLSContextError(
            f"{file}: a certificate is damaged. The file must have PEM certificates, {which}."
        ) from None
    if not certificates:
        raise TLSContextError(f"{file}: no certificate in the file. It must have PEM certificates, {which}.")
    return certificates


def _private_key(file: NamedFile, pem: bytes) -> Any:
    block = _KEY.search(pem)
    if block is None:
        raise TLSContextError(f"{file}: no private key in the file. It must have one in PEM: PKCS 8, PKCS 1 or SEC 1.")
    if block[1].startswith(b"ENCRYPTED") or b"Proc-Type: 4,ENCRYPTED" in block[0]:
        raise TLSContextError(
            f"{file}: the private key is encrypted, which a server without a terminal cannot use. Store it "
            "unencrypted in a file that only the server may read."
        )
    try:
        key = load_pem_private_key(block[0], None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise TLSContextError(
            f"{file}: the private key is damaged. The file must have one in PEM: PKCS 8, PKCS 1 or SEC 1."
        ) from None
    if not isinstance(
        key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | ed448.Ed448PrivateKey
    ):
        raise TLSContextError(f"{file}: TLS cannot use this type of private key. Create an RSA or an EC key.")
    return key


def _public_bytes(key: Any) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


def build_context(files: TLSFiles, identity: Identity, versions: VersionRange, choose: ProtocolChoice) -> SSL.Context:
    """
    Create the context of new connections.

    If clients need certificates, sessions are not resumed: each connection is verified in full against the current
    authorities.

    :raises TLSContextError: OpenSSL refuses the certificate or the key.
    """
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(TLS_VERSIONS[versions.minimum])
    context.set_max_proto_version(TLS_VERSIONS[versions.maximum])
    context.set_cipher_list(_CIPHERS)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | SSL.OP_NO_RENEGOTIATION)
    # Idle connections have no buffers.
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    try:
        context.use_certificate(identity.chain[0])
        for certificate in identity.chain[1:]:
            context.add_extra_chain_cert(certificate)
        context.use_privatekey(identity.key)
        context.check_privatekey()
    except SSL.Error as error:
        raise TLSContextError(
            f"{files.certificate}: OpenSSL refuses the certificate or its key: {_reason(error)}."
        ) from None
    # A session can only be resumed with the same certificates.
    context.set_session_id(sha256(b"".join(map(_der, identity.chain))).digest())
    if identity.authorities is not None:
        context.set_options(SSL.OP_NO_TICKET)
        _ask_for_certificates(context, identity.authorities)
    context.set_alpn_select_callback(_refusing(choose))
    return context


def _ask_for_certificates(context: SSL.Context, authorities: Sequence[x509.Certificate]) -> None:
    store = context.get_cert_store()
    assert store is not None
    for authority in authorities:
        store.add_cert(crypto.X509.from_cryptography(authority))
        context.add_client_ca(authority)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _as_openssl_says)


def _as_openssl_says(_: SSL.Connection, __: crypto.X509, error: int, depth: int, ok: int) -> bool:
    return bool(ok)


def _refusing(choose: ProtocolChoice) -> Callable[[SSL.Connection, list[bytes]], Any]:
    def select(connection: SSL.Connection, offered: list[bytes]) -> Any:
        chosen = choose(connection, offered)
        if chosen is None:
            raise NoCommonProtocol
        return chosen or SSL.NO_OVERLAPPING_PROTOCOLS

    return select


def _der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def _reason(error: SSL.Error) -> str:
    try:
        return str(error.args[0][-1][-1])
    except (IndexError, TypeError):
        return "no reason given"
