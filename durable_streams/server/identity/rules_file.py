"""The file of rules (``auth.rules_file``), which is read again when it changes."""

from __future__ import annotations

import os
import stat
from typing import Any, Final

from twisted.logger import Logger

from ..clocks import clock_of
from ..regular_files import NotAFileError, open_regular_file
from .policy import Policy, parse_rules
from .reloaded_file import IncompleteFile, ReloadedFile
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


class RulesFile(ReloadedFile[Policy]):
    """
    A source of rules, for :class:`.AccessControl`.

    :param path: the path of the file.
    :param reactor: in whose thread the rules are used.
    :ivar policy: the rules that were read last.
    :raises RulesFileError: the file cannot be used.
    """

    setting = "auth.rules_file"
    content = "rules"
    errors = RulesFileError

    def __init__(self, path: str, reactor: Any) -> None:
        super().__init__(path, reactor)
        self._wall = clock_of(reactor).wall
        self.policy = load_rules(self.path)

    def _read(self) -> Policy:
        return load_rules(self.path, self._wall())

    def _use(self, found: Policy) -> bool:
        before, self.policy = self.policy, found
        for warning in found.warnings:
            _log.warn("{reason}", reason=warning)
        return _named(before) != _named(found)

    def _count(self) -> int:
        return len(self.policy.rules)

    def _is_final(self, error: Exception) -> bool:
        return isinstance(error, RulesFileError) and error.is_final


def _named(policy: Policy) -> list[tuple[str, str]]:
    """Return the rules as the audit log names them: a rule on another line is another one."""
    return [(rule.where, rule.text) for rule in policy.rules]
