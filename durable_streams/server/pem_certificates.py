"""Parsing of files with certificates in PEM form, in which no certificate may be skipped."""

from __future__ import annotations

import re
from typing import Final

from cryptography.x509 import Certificate, load_pem_x509_certificates

_BEGIN: Final = re.compile(rb"-----BEGIN (?:X509 )?CERTIFICATE-----")


def parse_certificates(pem: bytes) -> list[Certificate]:
    """
    Parse all certificates in PEM form; there may be none. What is between them is ignored.

    :raises ValueError: one of them is damaged.
    """
    begun = len(_BEGIN.findall(pem))
    certificates = load_pem_x509_certificates(pem) if begun else []
    # The parser skips a certificate without an end, as in a file that is half written, if there is another one.
    if len(certificates) != begun:
        raise ValueError("a certificate is damaged")
    return certificates
