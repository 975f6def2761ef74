"""Files of tokens, keys and rules that are read again when they change."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..blocking_calls import BlockingCalls

_Content = TypeVar("_Content")

_log = Logger()


class IncompleteFile(Exception):
    """
    The file has just changed, and is empty or ends within a line.

    A program may still be writing it: half of a line can be a wider rule, and a file without rules denies everything.
    """


class ReloadedFile(Generic[_Content]):
    """
    A source of :class:`.AccessControl` that is a file. Subclasses supply how it is read and used.

    If the file cannot be used when it is read again, what was read before stays in force.

    :param path: the path of the file.
    :param reactor: in whose thread the content is used.
    :cvar setting: the name of the setting that has the path.
    :cvar content: what the file has: ``tokens``, ``keys`` or ``rules``.
    :cvar errors: what :meth:`_read` raises if the file cannot be used.
    :ivar path: the absolute path.
    :ivar files: the same, for :class:`.AccessControl`.
    """

    setting: ClassVar[str]
    content: ClassVar[str]
    errors: ClassVar[type[Exception]]

    def __init__(self, path: str, reactor: Any) -> None:
        # twistd changes the current directory later.
        self.path = os.path.abspath(path)
        self.files = (self.path,)
        self._calls = BlockingCalls(reactor)
        self._failure = ""
        self._listeners: list[Callable[[], None]] = []

    @property
    def stale(self) -> bool:
        """Whether the file could not be used when it was read last, so that what is in force is older."""
        return bool(self._failure)

    def on_change(self, call: Callable[[], None]) -> None:
        """Register a call for each time that the file was read and its content had changed."""
        self._listeners.append(call)

    def start(self) -> None:
        """Do nothing: the file is read."""

    def stop(self) -> None:
        """End the thread that reads the file."""
        self._calls.close()

    def reload(self) -> Deferred[bool]:
        """
        Read the file again, in a thread. Log a change; if the file cannot be used, log the reason, once.

        :returns: fires with False if it cannot be used, but may be without a change.
        """
        return self._calls.do(self._read).addCallbacks(self._accept, self._keep)

    def _accept(self, found: _Content) -> bool:
        failure, self._failure = self._failure, ""
        has_changed = self._use(found)
        if has_changed or failure:
            _log.info(
                "Reloaded {setting} {path}; number of {content}: {count}.",
                setting=self.setting,
                path=self.path,
                content=self.content,
                count=self._count(),
            )
        if has_changed:
            for call in self._listeners:
                call()
        return True

    def _keep(self, failure: Failure) -> bool:
        error = failure.value
        if isinstance(error, IncompleteFile):
            return False
        if not isinstance(error, self.errors):
            failure.raiseException()
        reason = str(error)
        if reason != self._failure:
            self._failure = reason
            _log.error(
                "{setting} was not read again, its {content} stay as they were. {reason}",
                setting=self.setting,
                content=self.content,
                reason=reason,
            )
        return self._is_final(error)

    # What subclasses supply

    def _read(self) -> _Content:
        """
        Read the file. Called in the thread.

        :raises IncompleteFile: it is read again in a second.
        :raises Exception: one of :attr:`errors`; the message says why it cannot be used and what to do.
        """
        raise NotImplementedError

    def _use(self, found: _Content) -> bool:
        """Use what was read; return whether it has changed."""
        raise NotImplementedError

    def _count(self) -> int:
        """Return the number of tokens, keys or rules."""
        raise NotImplementedError

    def _is_final(self, error: Exception) -> bool:
        """Return whether a file that cannot be used stays so until it changes."""
        return False
