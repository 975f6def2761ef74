"""Where keys come from: what a verifier needs of them, and the source that is a file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from ...interfaces import NowOrLater
from ..reloaded_file import ReloadedFile
from .errors import KeysUnusable
from .key_files import load_keys
from .keys import KeySet


class KeySource(Protocol):
    """The keys of an issuer, which may change at any time."""

    @property
    def setting(self) -> str:
        """The name of the setting that has the file or the URL."""

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

    def on_change(self, call: Callable[[], None]) -> None:
        """Register a call for each change of the keys."""

    def reload(self) -> NowOrLater[object]:
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


class FileKeys(ReloadedFile[KeySet]):
    """
    The keys of a file.

    :param path: of a JWK set or PEM keys.
    :param accepted: the algorithms of the settings.
    :param reactor: in whose thread the keys are used.
    :ivar keys: the keys that were read last.
    :raises KeysUnusable: see :func:`.load_keys`.
    """

    setting = "auth.jwt.keys_file"
    content = "keys"
    errors = KeysUnusable

    def __init__(self, path: str, accepted: frozenset[str], reactor: Any) -> None:
        super().__init__(path, reactor)
        self._accepted = accepted
        self.keys = self._read()

    def lookup(self, key_id: str | None) -> KeySet:
        """Return the keys, whatever the key id is."""
        return self.keys

    def _read(self) -> KeySet:
        return load_keys(self.path, self._accepted)

    def _use(self, found: KeySet) -> bool:
        has_changed = not found.equals(self.keys)
        self.keys = found
        return has_changed

    def _count(self) -> int:
        return len(self.keys.keys)
