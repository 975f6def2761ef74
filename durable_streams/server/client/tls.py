"""TLS of a client: trusted authorities, and the client's own certificate."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from OpenSSL import SSL, crypto
from twisted.internet.interfaces import IOpenSSLClientConnectionCreator
from twisted.internet.ssl import Certificate, optionsForClientTLS, platformTrust, trustRootFromCertificates
from twisted.web.iweb import IPolicyForHTTPS
from zope.interface import implementer

from .errors import InvalidUse
from .options import ClientOptions

#: The number of hosts whose TLS contexts are kept: making one takes about 4 ms, for it has all authorities.
_KEPT_CONTEXTS: Final = 16

_CERTIFICATE: Final = re.compile(b"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@implementer(IPolicyForHTTPS)
class TlsPolicy:
    """
    Creates TLS connections that verify the server's certificate and its host name.

    :raises InvalidUse: a file of the options cannot be read, or has no certificate or key.
    """

    def __init__(self, options: ClientOptions) -> None:
        trusted = platformTrust() if options.ca is None else _authorities(options.ca)
        own = _own_certificate(options)

        # The agent asks for the endpoint of each request, also if it has a connection that it can use again.
        @lru_cache(_KEPT_CONTEXTS)
        def creator(host: str) -> IOpenSSLClientConnectionCreator:
            return optionsForClientTLS(host, trustRoot=trusted, extraCertificateOptions=dict(own))

        self._creator: Callable[[str], IOpenSSLClientConnectionCreator] = creator

    def creatorForNetloc(self, hostname: bytes, port: int) -> IOpenSSLClientConnectionCreator:  # noqa: N802
        """
        Return the creator of connections to a host.

        :param hostname: a host name in ASCII (IDNA), or an IP address.
        """
        return self._creator(hostname.decode("ascii"))


def _authorities(path: str) -> Any:
    certificates = [Certificate(certificate) for certificate in _certificates(path, "ca")]
    return trustRootFromCertificates(certificates)


def _own_certificate(options: ClientOptions) -> dict[str, Any]:
    """Return the arguments of CertificateOptions for the client's certificate."""
    if options.cert is None:
        if options.key is not None:
            raise InvalidUse("key is set without cert. Set cert to the file of the client's certificate.")
        return {}
    first, *others = _certificates(options.cert, "cert")
    path = options.cert if options.key is None else options.key
    try:
        key = crypto.load_privatekey(crypto.FILETYPE_PEM, _read(path, "key"), b"")
    except (crypto.Error, ValueError, TypeError):
        raise InvalidUse(f"{path} (key) has no private key in PEM form without a passphrase.") from None
    context = SSL.Context(SSL.TLS_METHOD)
    context.use_certificate(first)
    try:
        context.use_privatekey(key)
        context.check_privatekey()
    except SSL.Error:
        raise InvalidUse(f"The private key in {path} does not belong to the certificate in {options.cert}.") from None
    return {"privateKey": key, "certificate": first, "extraCertChain": others}


def _certificates(path: str, option: str) -> list[crypto.X509]:
    """Load all certificates of a PEM file; there is at least one."""
    blocks = _CERTIFICATE.findall(_read(path, option))
    if not blocks:
        raise InvalidUse(f"{path} ({option}) has no certificate in PEM form.")
    try:
        return [crypto.load_certificate(crypto.FILETYPE_PEM, block) for block in blocks]
    except (crypto.Error, ValueError):
        raise InvalidUse(f"{path} ({option}) has a certificate that cannot be read.") from None


def _read(path: str, option: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise InvalidUse(f"Cannot read {path} ({option}): {error.strerror}.") from None
