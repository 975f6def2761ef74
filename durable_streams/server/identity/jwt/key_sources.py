"""Where keys come from: what a verifier needs of them, and the source that is a file."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from twisted.logger import Logger

from ...interfaces import NowOrLater
from .errors import KeysUnusable
from .key_files import load_keys
from .keys import KeySet

_log = Logger()


class KeySource(Protocol):
    """
    The keys of an issuer, which may change at any time.

    :ivar setting: the name of the setting that has the file or the URL.
    :ivar changed: to be called after each change of the keys.
    """

    setting: str
    changed: Callable[[], None]

    @property
    def keys(self) -> KeySet:
        """The keys that are in use now."""

    @property
    def files(self) -> tuple[str, ...]:
        """The files whose change asks for :meth:`reload`."""

    @property
    def stale(self) -> bool:
        """Whether the file or the URL could not be used the last time."""

    def start(self) -> None:
        """Begin to fetch keys."""

    def stop(self) -> None:
        """Stop fetching keys."""

    def reload(self) -> object:
        """
        Load the keys again. If that fails, keep those that were there and log the reason.

        :returns: False if it failed, and may succeed without a change of the files.
        """

    def lookup(self, key_id: str | None) -> NowOrLater[KeySet]:
        """
        Return the keys, at once if they have the key id.

        :param key_id: ``kid`` of a token; None for one without.
        :raises KeysUnavailable: there are none now.
        """


class FileKeys:
    """
    The keys of a file.

    :param path: of a JWK set or PEM keys.
    :param accepted: the algorithms of the settings.
    :raises KeysUnusable: see :func:`.load_keys`.
    """

    setting = "auth.jwt.keys_file"

    def __init__(self, path: str, accepted: frozenset[str]) -> None:
        # twistd changes the current directory later.
        self._path = os.path.abspath(path)
        self._accepted = accepted
        self.keys = load_keys(self._path, accepted)
        self.changed: Callable[[], None] = lambda: None
        self._failure = ""

    @property
    def stale(self) -> bool:
        """Whether the file could not be used when it was read last, so that the keys are older."""
        return bool(self._failure)

    @property
    def files(self) -> tuple[str, ...]:
        """The file."""
        return (self._path,)

    def start(self) -> None:
        """Do nothing: the keys are loaded."""

    def stop(self) -> None:
        """Do nothing: nothing runs."""

    def reload(self) -> bool:
        """Load the file again. If it cannot be used, log that, keep the keys that were there, and return False."""
        try:
            found = load_keys(self._path, self._accepted)
        except KeysUnusable as error:
            # The file is read again each second until it can be used.
            if str(error) != self._failure:
                self._failure = str(error)
                _log.error(
                    "The keys of JWTs were not read again, they stay as they were. {reason}", reason=self._failure
                )
            return False
        failure, self._failure = self._failure, ""
        has_changed = not found.equals(self.keys)
        self.keys = found
        if has_changed or failure:
            _log.info(
                "Reloaded auth.jwt.keys_file {path}; number of keys: {count}.", path=self._path, count=len(found.keys)
            )
        if has_changed:
            self.changed()
        return True

    def lookup(self, key_id: str | None) -> KeySet:
        """Return the keys, whatever the key id is."""
        return self.keys
