"""The authorities that the certificates of webhook receivers are verified with: the system's, and those of a file."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Final

from OpenSSL.crypto import X509
from twisted.logger import Logger

from ..pem_certificates import parse_certificates
from ..regular_files import file_errors_as, file_signature, open_regular_file

#: The interval between two checks whether the file has changed, in seconds.
CHECK_INTERVAL: Final = 5.0

#: The largest size of the file, in bytes: the bundle of a system has 250 KiB.
MAX_SIZE: Final = 1 << 20

_SETTING: Final = "subscriptions.webhook_ca_file"

_log = Logger()


class AuthoritiesFileError(Exception):
    """The file can't be used; the message has its setting and advice."""


class Authorities:
    """
    The authorities besides those of the system: the certificates in a PEM file, which is read again when it changes.

    :param path: of the file; None for the system's authorities alone.
    :raises AuthoritiesFileError: the file can't be used.
    :ivar certificates: the certificates.
    :ivar version: a number that changes with each reload.
    """

    def __init__(self, path: str | None = None) -> None:
        # twistd changes the current directory later.
        self._path = None if path is None else os.path.abspath(path)
        self._seen: tuple[int, ...] | None = None
        self._checked_at = 0.0
        self.version = 0
        self.certificates: tuple[X509, ...] = ()
        self._load()

    def check(self, now: float) -> None:
        """
        Read the file again if it has changed; there is a look every 5 seconds.

        :param now: the time, in seconds.
        """
        if self._path is None or abs(now - self._checked_at) < CHECK_INTERVAL:
            return
        self._checked_at = now
        if file_signature(self._path) != self._seen:
            self.reload()

    def reload(self) -> None:
        """Read the file and the system's authorities again. If the file can't be used, log that and keep what was."""
        try:
            self._load()
        except AuthoritiesFileError as error:
            _log.error("Reload: the authorities of webhook receivers stay as they were. {reason}", reason=error)
        else:
            if self._path is not None:
                _log.info(
                    "Loaded {setting} {path}; number of authorities: {count}.",
                    setting=_SETTING,
                    path=self._path,
                    count=len(self.certificates),
                )

    def _load(self) -> None:
        if self._path is not None:
            self._seen = file_signature(self._path)
            self.certificates = tuple(_certificates(self._path))
        self.version += 1


def _certificates(path: str) -> list[X509]:
    """
    Read the certificates of a file; there is at least one.

    :raises AuthoritiesFileError: it can't be read, or has no certificate, or a damaged one.
    """
    where = f"{_SETTING} {path!r}"
    pem = _read(path, where)
    try:
        certificates = parse_certificates(pem)
    except ValueError:
        raise AuthoritiesFileError(
            f"{where}: a certificate is damaged. The file must have PEM certificates, those of the receivers' "
            "authorities."
        ) from None
    if not certificates:
        raise AuthoritiesFileError(
            f"{where}: no certificate in the file. It must have PEM certificates, those of the receivers' authorities."
        )
    for certificate in certificates:
        if certificate.not_valid_after_utc <= datetime.now(UTC):
            _log.warn(
                "{where}: the certificate of {subject} expired at {expires}. Replace it.",
                where=where,
                subject=certificate.subject.rfc4514_string(),
                expires=certificate.not_valid_after_utc.isoformat(),
            )
    return [X509.from_cryptography(certificate) for certificate in certificates]


def _read(path: str, where: str) -> bytes:
    with file_errors_as(AuthoritiesFileError, where, "a PEM file"), open_regular_file(path) as file:
        pem = file.read(MAX_SIZE + 1)
    if len(pem) > MAX_SIZE:
        raise AuthoritiesFileError(
            f"{where}: larger than {MAX_SIZE} bytes. Leave the system's authorities out: they are trusted in any case."
        )
    return pem
