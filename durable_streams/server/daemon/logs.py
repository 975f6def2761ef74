"""The server's log: lines for people, or JSON for programs, from a level on that may change while it runs.

Nothing that is logged can begin a line of its own: characters that are not printed are escaped, and what has several
lines, such as a traceback, is indented.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from time import time
from typing import Any, Final, Protocol

import msgspec
from twisted.logger import ILogObserver, LogEvent, Logger, LogLevel, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from ..config.sections import ObservabilitySettings
from ..startup import StartupError

#: The levels by name, with how much each weighs.
LEVELS: Final[Mapping[str, int]] = {"debug": 0, "info": 1, "warn": 2, "error": 3, "critical": 4}

#: Who may read a log file: its owner, and those who look after the machine.
FILE_MODE: Final = 0o640

#: What ``twisted.python.log`` adds to every event: it is said in other words.
_OLD_KEYS: Final = frozenset(
    {"message", "time", "system", "isError", "failure", "why", "format", "logLevel", "eventSource"}
)
_RESERVED: Final = frozenset({"time", "level", "logger", "message"})
_OF_FAILURES: Final = frozenset({"error.type", "error.stack"})

#: Opens a file only to look at what it is.
_LOOK: Final = os.O_PATH | os.O_CLOEXEC

#: How many links a path may have, as the kernel has it.
_MOST_LINKS: Final = 40

#: What a traceback may take, in characters.
_LONGEST: Final = 65_536

_log = Logger()


class Destination(Protocol):
    """Where lines go."""

    def write(self, data: bytes, /) -> object:
        """Take a line."""

    def flush(self) -> object:
        """Let go of it."""


class Logs:
    """
    Where the log goes, and what goes into it.

    :param settings: the level, the format and the file.
    :param destination: takes the lines when there is no file; None for the standard output.
    :ivar observer: to be told of every event, from any thread.
    :raises StartupError: the file can't be opened.
    """

    def __init__(self, settings: ObservabilitySettings, destination: Destination | None = None) -> None:
        self._path = settings.log_file
        # How many lines were lost since the last one that was written, and whether that one was, whole.
        self._lost = 0
        self._torn = False
        if destination is None:
            # There is none where it was closed before the start.
            destination = open(os.devnull, "wb") if sys.stdout is None else sys.stdout.buffer  # noqa: SIM115 (to stay)
        self._destination: Destination = destination
        if self._path is not None:
            try:
                self._destination = _open(self._path)
            except OSError as error:
                raise StartupError(
                    "validate_config",
                    f"observability.log_file is {self._path}, which can't be opened: {error.strerror}. Make its "
                    "directory, let the server write there, or choose another.",
                ) from None
        self._write_event: Callable[[LogEvent], str] = as_json if settings.log_format == "json" else as_text
        self._least = LEVELS[settings.log_level]
        self.observer: ILogObserver = _Observer(self._note)

    def set_level(self, level: str) -> None:
        """
        Log what is of a level or above it, from now on.

        :param level: ``debug``, ``info``, ``warn`` or ``error``.
        :raises KeyError: there is no such level.
        """
        self._least = LEVELS[level]

    def reopen(self) -> None:
        """Reopen the log file if it was rotated."""
        if self._path is None:
            return
        try:
            opened = _open(self._path)
        except OSError as error:
            _log.error(
                "Cannot reopen the log file {path}: {reason}. Logging goes on in the file that was open.",
                path=self._path,
                reason=error.strerror,
            )
            return
        old, self._destination = self._destination, opened
        _close(old)

    def close(self) -> None:
        """Let go of the file, if there is one; what is logged after that is lost."""
        if self._path is not None:
            _close(self._destination)

    def _note(self, event: LogEvent) -> None:
        # A log that raises takes the server down with it, or is silent from then on.
        try:
            if LEVELS[level_of(event)] < self._least:
                return
            try:
                line = self._write_event(event)
            except Exception:
                line = as_json(_stand_in(event)) if self._write_event is as_json else as_text(_stand_in(event))
            self._write(line.encode("utf-8", "backslashreplace") + b"\n")
        except Exception:
            # There is nobody to tell, until something can be written again.
            self._lost += 1

    def _write(self, line: bytes) -> None:
        if self._lost:
            lost = self._write_event(_loss(self._lost)).encode() + b"\n"
            line = (b"\n" if self._torn else b"") + lost + line
        written = self._destination.write(line)
        self._destination.flush()
        self._torn = isinstance(written, int) and 0 < written < len(line)
        if self._torn or written == 0:
            self._lost += 1
        else:
            self._lost = 0


@implementer(ILogObserver)
class _Observer:
    def __init__(self, note: Callable[[LogEvent], None]) -> None:
        self._note = note

    def __call__(self, event: LogEvent) -> None:
        self._note(event)


def _open(path: str) -> Any:
    # Not buffered: each line is one write, and whoever else appends writes whole lines as well.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    descriptor = _open_as_root(path, flags) if os.geteuid() == 0 else os.open(path, flags, FILE_MODE)
    return os.fdopen(descriptor, "wb", 0)


def _open_as_root(path: str, flags: int) -> int:
    """
    Open a file with root's rights, and follow only links that are root's own.

    With ``--uid`` the log is opened before the rights are dropped. Another user who may write to a directory of the
    path could have any file appended to, by a link.

    :raises OSError: it can't be opened, or there is such a link.
    """
    names = os.path.abspath(path).split("/")[1:]
    links = 0
    folder = os.open("/", _LOOK | os.O_DIRECTORY)
    try:
        while True:
            name = names.pop(0)
            try:
                found = os.open(name, _LOOK | os.O_NOFOLLOW, dir_fd=folder)
            except FileNotFoundError:
                if names:
                    raise
                return os.open(name, flags | os.O_NOFOLLOW, FILE_MODE, dir_fd=folder)
            folder, above = found, folder
            try:
                status = os.fstat(found)
                if not stat.S_ISLNK(status.st_mode):
                    if not names:
                        return os.open(name, flags | os.O_NOFOLLOW, FILE_MODE, dir_fd=above)
                    continue
                if status.st_uid != 0 or links >= _MOST_LINKS:
                    raise OSError(errno.ELOOP, "a symbolic link in its path is another user's, or there are too many")
                links += 1
                if not names and status.st_dev == os.stat("/proc").st_dev:
                    # /dev/stdout ends in one of these, which leads to an open file and not to a path.
                    return os.open(name, flags, dir_fd=above)
                target = os.readlink("", dir_fd=found)
                names = [part for part in target.split("/") if part] + names or ["."]
                folder = os.open("/" if target[0] == "/" else ".", _LOOK | os.O_DIRECTORY, dir_fd=above)
                os.close(found)
            finally:
                os.close(above)
    finally:
        os.close(folder)


def _close(file: Any) -> None:
    try:
        file.close()
    except OSError:
        # A network's file system may only now say that something was not written.
        _log.error("Closing the old log file failed.")


def level_of(event: LogEvent) -> str:
    """Say of which level an event is: what Twisted tells of itself, unless it is wrong, is for debugging."""
    name = getattr(event.get("log_level"), "name", "info")
    namespace = str(event.get("log_namespace", ""))
    if name == "info" and (namespace.startswith("twisted.") or namespace == "log_legacy"):
        return "debug"
    return name if name in LEVELS else "info"


def _loss(count: int) -> LogEvent:
    """Say how many lines there are not."""
    return {
        "log_level": LogLevel.error,
        "log_namespace": __name__,
        "log_time": time(),
        "log_format": "{count} lines of the log could not be written before this one.",
        "count": count,
    }


def _stand_in(event: LogEvent) -> LogEvent:
    """Say of an event that can't be written at least where it came from."""
    return {
        "log_level": LogLevel.error,
        "log_namespace": str(event.get("log_namespace", "-")),
        "log_time": event.get("log_time"),
        "log_format": "An event could not be logged.",
    }


def _time_of(event: LogEvent) -> str:
    try:
        moment = datetime.fromtimestamp(event["log_time"], UTC)
    except (KeyError, TypeError, ValueError, OverflowError, OSError):
        moment = datetime.now(UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message_of(event: LogEvent) -> str:
    old = "log_failure" not in event and _failure_of(event)
    if old:
        # Its text has the traceback as well.
        return str(event.get("why") or old.getErrorMessage())
    return formatEvent(event)


def _failure_of(event: LogEvent) -> Failure | None:
    """Find what failed, by either of Twisted's two ways to log it."""
    failure = event.get("log_failure", event.get("failure") if _is_old(event) else None)
    return failure if isinstance(failure, Failure) else None


def _is_old(event: LogEvent) -> bool:
    """Tell what has come through ``twisted.python.log``, which has keys of its own."""
    return isinstance(event.get("message"), tuple)


def _traceback_of(event: LogEvent) -> str | None:
    failure = _failure_of(event)
    return None if failure is None else failure.getTraceback()[:_LONGEST].rstrip("\n")


def _printed(text: str) -> str:
    """Escape in a line whatever is not printed; a tab is left as it is."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each == "\t" else ascii(each)[1:-1] for each in text)


def as_text(event: LogEvent) -> str:
    """Write an event for people: a line, and indented lines of what there is more."""
    message = _message_of(event)
    request = event.get("request.id")
    head = f"{_time_of(event)} {level_of(event)} [{_printed(str(event.get('log_namespace', '-')))}]"
    lines = message.split("\n")
    if request is not None:
        lines[0] += f" (request {request})"
    traceback = _traceback_of(event)
    if traceback is not None:
        lines += traceback.split("\n")
    return head + " " + "\n\t".join(map(_printed, lines))


def as_json(event: LogEvent) -> str:
    """Write an event for programs: an object on a line."""
    said: dict[str, Any] = {
        "time": _time_of(event),
        "level": level_of(event),
        "logger": _plain(event.get("log_namespace", "-")),
        "message": _sound(_message_of(event)),
    }
    old = _is_old(event)
    traceback = _traceback_of(event)
    reserved = _RESERVED if traceback is None else _RESERVED | _OF_FAILURES
    for key, value in event.items():
        if key.startswith("log_") or (old and key in _OLD_KEYS):
            continue
        said[f"event.{key}" if key in reserved else _sound(key)] = _plain(value)
    if traceback is not None:
        failure = _failure_of(event)
        said["error.type"] = _sound(getattr(failure.type if failure else None, "__name__", "unknown"))
        said["error.stack"] = _sound(traceback)
    return msgspec.json.encode(said).decode()


def _sound(text: str) -> str:
    """Escape what is no character: half of a surrogate pair."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _plain(value: object) -> object:
    """Say a value as JSON can: numbers, truth and text as they are, everything else as text."""
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        return int(value) if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, Failure):
        return _sound(value.getErrorMessage())
    if isinstance(value, str):
        return _sound(str(value))
    try:
        return _sound(str(value))
    except Exception:
        return f"a {type(value).__name__} that can't be written"
