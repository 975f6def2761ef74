"""The files of credentials' checkers as sources of :class:`.AccessControl`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.logger import Logger

from .signed_url_checker import SignedUrlChecker
from .signing_keys import SigningKeysError

_log = Logger()


class SigningKeysSource:
    """
    The file of the keys that sign URLs.

    :param checker: verifies URLs by the keys.
    :param path: the absolute path of its file.
    :ivar checker: the same checker.
    """

    setting = "auth.signing_keys_file"

    def __init__(self, checker: SignedUrlChecker, path: str) -> None:
        self.files: Sequence[str] = (path,)
        self.checker = checker
        self._failure = ""
        self._listeners: list[Callable[[], None]] = []

    @property
    def stale(self) -> bool:
        """Whether the file could not be used when it was read last, so that the keys are older."""
        return bool(self._failure)

    def on_change(self, call: Callable[[], None]) -> None:
        """Register a call for each time that the keys were read."""
        self._listeners.append(call)

    def start(self) -> None:
        """Do nothing: the keys are read."""

    def stop(self) -> None:
        """Do nothing: nothing runs."""

    def reload(self) -> bool:
        """Read the keys again. If the file cannot be used, log that, keep the keys, and return False."""
        try:
            self.checker.reload()
        except SigningKeysError as error:
            if str(error) != self._failure:
                self._failure = str(error)
                _log.error(
                    "auth.signing_keys_file was not read again, its keys stay as they were. {reason}", reason=error
                )
            return False
        self._failure = ""
        _log.info(
            "Loaded auth.signing_keys_file {path}; number of keys: {count}.",
            path=self.files[0],
            count=self.checker.count,
        )
        for call in self._listeners:
            call()
        return True
