"""The file of signing keys (``auth.signing_keys_file``) as a source of :class:`.AccessControl`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..clocks import clock_of
from .reloaded_file import ReloadedFile
from .signed_url_checker import SignedUrlChecker
from .signed_urls import SigningKey
from .signing_keys import SigningKeysError, load_signing_keys


class SigningKeysSource(ReloadedFile[tuple[SigningKey, ...]]):
    """
    The file of the keys that sign URLs.

    :param path: the path of the file.
    :param reactor: the time, and the thread in which the keys are used.
    :ivar checker: verifies URLs by the keys that were read last.
    :raises SigningKeysError: the file cannot be used.
    """

    setting = "auth.signing_keys_file"
    content = "keys"
    errors = SigningKeysError

    def __init__(self, path: str, reactor: Any) -> None:
        super().__init__(path, reactor)
        self.checker = SignedUrlChecker(clock_of(reactor).wall, self._read())

    @property
    def listed(self) -> Mapping[str, str]:
        """The id of each key -> a text that differs for each secret."""
        return self.checker.fingerprints

    def _read(self) -> tuple[SigningKey, ...]:
        return load_signing_keys(self.path)

    def _use(self, found: tuple[SigningKey, ...]) -> bool:
        before = self.checker.fingerprints
        self.checker.set_keys(found)
        return before != self.checker.fingerprints

    def _count(self) -> int:
        return len(self.checker.fingerprints)
