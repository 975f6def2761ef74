"""The files of credentials' checkers as sources of :class:`.AccessControl`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..blocking_calls import BlockingCalls
from .signed_url_checker import SignedUrlChecker
from .signed_urls import SigningKey
from .signing_keys import SigningKeysError, load_signing_keys

_log = Logger()


class SigningKeysSource:
    """
    The file of the keys that sign URLs.

    :param checker: verifies URLs by the keys.
    :param path: the absolute path of its file.
    :param reactor: in whose thread the keys are used.
    :ivar checker: the same checker.
    """

    setting = "auth.signing_keys_file"
    content = "keys"

    def __init__(self, checker: SignedUrlChecker, path: str, reactor: Any) -> None:
        self.files: Sequence[str] = (path,)
        self.checker = checker
        self._calls = BlockingCalls(reactor)
        self._failure = ""
        self._listeners: list[Callable[[], None]] = []

    @property
    def listed(self) -> Mapping[str, str]:
        """The id of each key -> a text that differs for each secret."""
        return self.checker.fingerprints

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
        """End the thread that reads the file."""
        self._calls.close()

    def reload(self) -> Deferred[bool]:
        """
        Read the keys again, in a thread. If the file cannot be used, log that, once, and keep the keys.

        :returns: whether it could be used.
        """
        return self._calls.do(lambda: load_signing_keys(self.files[0])).addCallbacks(self._use, self._keep)

    def _keep(self, failure: Failure) -> bool:
        failure.trap(SigningKeysError)
        reason = str(failure.value)
        if reason != self._failure:
            self._failure = reason
            _log.error("auth.signing_keys_file was not read again, its keys stay as they were. {reason}", reason=reason)
        return False

    def _use(self, keys: tuple[SigningKey, ...]) -> bool:
        self._failure = ""
        self.checker.set_keys(keys)
        _log.info(
            "Loaded auth.signing_keys_file {path}; number of keys: {count}.",
            path=self.files[0],
            count=self.checker.count,
        )
        for call in self._listeners:
            call()
        return True
