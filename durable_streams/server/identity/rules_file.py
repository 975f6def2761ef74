"""The file of rules (``auth.rules_file``), which is read again when it changes."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from ..blocking_calls import BlockingCalls
from ..clocks import clock_of
from ..regular_files import NotAFileError, open_regular_file
from .policy import Policy, parse_rules
from .rules import RuleError

#: The largest file, in bytes.
MAX_SIZE: Final = 4_194_304

#: How long after its last change a file that does not end with a line break may be incomplete, in seconds.
SETTLED: Final = 2.0

_log = Logger()


class RulesFileError(Exception):
    """
    The file cannot be used; the message says why and what to do.

    :ivar is_final: whether it cannot be used until it is changed.
    """

    def __init__(self, message: str, is_final: bool = True) -> None:
        super().__init__(message)
        self.is_final = is_final


class IncompleteFile(Exception):
    """
    The file has just changed, and is empty or ends within a line.

    A program may be writing it: half of a line can be a wider rule, and without a rule everything is denied.
    """


def load_rules(path: str, now: float | None = None) -> Policy:
    """
    Read a file with a rule on each line. Empty lines and comments (``#``) are ignored.

    :param now: the wall clock's time; None to accept a file that has just changed as it is.
    :raises RulesFileError: the file cannot be read, or a line is no rule.
    :raises IncompleteFile: the file has just changed, and does not end with a line break.
    """
    try:
        with open_regular_file(path) as file:
            found = os.fstat(file.fileno())
            if found.st_mode & stat.S_IWOTH:
                raise RulesFileError(f"Every user of this machine may write {path}. Run: chmod o-w {path}")
            data = file.read(MAX_SIZE + 1)
        if now is not None and not data.endswith(b"\n") and abs(now - found.st_mtime) < SETTLED:
            raise IncompleteFile
        if len(data) > MAX_SIZE:
            raise RulesFileError(f"{path} is larger than {MAX_SIZE} bytes. Join rules, by patterns or groups.")
        # Not splitlines: a line separator of Unicode in a comment would begin a rule that editors do not show as one.
        return parse_rules(data.decode().split("\n"), path)
    except OSError as error:
        raise RulesFileError(
            f"Cannot read {path}: {error.strerror}. Create it, so that the server's user can read it.", is_final=False
        ) from None
    except NotAFileError:
        raise RulesFileError(f"{path} is not a file. Name a file with a rule on each line.") from None
    except UnicodeDecodeError:
        raise RulesFileError(f"{path} is not text in UTF-8. Save it as UTF-8.") from None
    except RuleError as error:
        raise RulesFileError(f"{error.source}, line {error.line}: {error.sentence}") from None


class RulesFile:
    """
    A source of rules, for :class:`.AccessControl`.

    :param path: the path of the file.
    :ivar policy: the rules that were read last.
    :ivar files: the absolute path of the file.
    :raises RulesFileError: the file cannot be used.
    """

    setting = "auth.rules_file"

    def __init__(self, path: str, reactor: Any) -> None:
        # twistd changes the current directory later.
        self._path = os.path.abspath(path)
        self.files = (self._path,)
        self.policy = load_rules(self._path)
        self._failure = ""
        self._calls = BlockingCalls(reactor)
        self._wall = clock_of(reactor).wall
        self._listeners: list[Callable[[], None]] = []

    @property
    def stale(self) -> bool:
        """Whether the file could not be used when it was read last, so that the rules are older."""
        return bool(self._failure)

    def on_change(self, call: Callable[[], None]) -> None:
        """Register a call for each change of :attr:`policy`."""
        self._listeners.append(call)

    def start(self) -> None:
        """Do nothing: the file is read."""

    def stop(self) -> None:
        """End the thread that reads the file."""
        self._calls.close()

    def reload(self) -> Deferred[bool]:
        """
        Read and compile the file again, in a thread. If it cannot be used, log that and keep the rules.

        :returns: whether the file need not be read again before it changes.
        """
        return self._calls.do(lambda: load_rules(self._path, self._wall())).addCallbacks(self._use, self._keep)

    def _use(self, policy: Policy) -> bool:
        has_changed = [rule.text for rule in policy.rules] != [rule.text for rule in self.policy.rules]
        self.policy = policy
        self._failure = ""
        _log.info("Loaded auth.rules_file {path}; number of rules: {count}.", path=self._path, count=len(policy.rules))
        for warning in policy.warnings:
            _log.warn("{reason}", reason=warning)
        if has_changed:
            for call in self._listeners:
                call()
        return True

    def _keep(self, failure: Failure) -> bool:
        error = failure.value
        if isinstance(error, IncompleteFile):
            return False
        assert isinstance(error, RulesFileError), failure
        if str(error) != self._failure:
            self._failure = str(error)
            _log.error("auth.rules_file was not read again, its rules stay as they were. {reason}", reason=error)
        return error.is_final
