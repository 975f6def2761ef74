"""The log: text lines or JSON, with a level that can change at run time.

A logged value cannot forge a line: unprintable characters are escaped, and further lines of an event are indented.
"""

from __future__ import annotations

import os
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
from ..log_files import open_log_file
from ..startup import StartupError

#: Level -> severity.
LEVELS: Final[Mapping[str, int]] = {"debug": 0, "info": 1, "warn": 2, "error": 3, "critical": 4}

#: The mode of a new log file: readable by its owner and its group.
FILE_MODE: Final = 0o640

#: The keys that ``twisted.python.log`` adds to every event; their content is logged under other names.
_OLD_KEYS: Final = frozenset(
    {"message", "time", "system", "isError", "failure", "why", "format", "logLevel", "eventSource"}
)
_RESERVED: Final = frozenset({"time", "level", "logger", "message"})
_OF_FAILURES: Final = frozenset({"error.type", "error.stack"})

#: The field of a line with the number of the process that has written it, if it is one of several workers.
WORKER: Final = "ds.worker"

#: The maximum length of a traceback, in characters.
_MAX_TRACEBACK: Final = 65_536

_log = Logger()


class Destination(Protocol):
    """A file-like object that lines are written to."""

    def write(self, data: bytes, /) -> object:
        """Write a line."""

    def flush(self) -> object:
        """Flush buffered lines."""


class Logs:
    """
    The log of the process.

    :param settings: the level, the format and the file.
    :param destination: where lines are written if no file is set; None for the standard output.
    :param worker: the number of this process among several workers, which each line has; None if there is only one.
    :param is_open: whether ``destination`` is the file of the settings, opened by another process.
    :ivar observer: the log observer; may be called in any thread.
    :raises StartupError: the file cannot be opened.
    """

    def __init__(
        self,
        settings: ObservabilitySettings,
        destination: Destination | None = None,
        worker: int | None = None,
        is_open: bool = False,
    ) -> None:
        self._path = settings.log_file
        self._worker = worker
        # The number of lines lost since the last successful write, and whether the last write was incomplete.
        self._lost = 0
        self._torn = False
        if destination is None:
            # The standard output may have been closed before the start.
            destination = open(os.devnull, "wb") if sys.stdout is None else sys.stdout.buffer  # noqa: SIM115 (stays open)
        self._destination: Destination = destination
        if self._path is not None and not is_open:
            try:
                self._destination = _open(self._path)
            except OSError as error:
                raise StartupError(
                    "validate_config",
                    f"Cannot open the log file {self._path} (observability.log_file): {error.strerror}. Create its "
                    "directory, allow the server to write there, or choose another file.",
                ) from None
        self._write_event: Callable[[LogEvent], str] = as_json if settings.log_format == "json" else as_text
        self._min_severity = LEVELS[settings.log_level]
        self.observer: ILogObserver = _Observer(self._observe)

    @property
    def path(self) -> str | None:
        """The path of the file; None for the standard output."""
        return self._path

    @property
    def descriptor(self) -> int:
        """The descriptor of the file or the standard output, for processes that write to the same log."""
        destination: Any = self._destination
        number: int = destination.fileno()
        return number

    def set_level(self, level: str) -> None:
        """
        Set the lowest level that is logged.

        :param level: ``debug``, ``info``, ``warn`` or ``error``.
        :raises KeyError: the level is unknown.
        """
        self._min_severity = LEVELS[level]

    def reopen(self) -> None:
        """Reopen the log file if it was rotated."""
        if self._path is None:
            return
        try:
            opened = _open(self._path)
        except OSError as error:
            _log.error(
                "Cannot reopen the log file {path}: {reason}. Logging continues in the file that is open.",
                path=self._path,
                reason=error.strerror,
            )
            return
        old, self._destination = self._destination, opened
        _close(old)

    def close(self) -> None:
        """Close the file, if there is one; later events are lost."""
        if self._path is not None:
            _close(self._destination)

    def _observe(self, event: LogEvent) -> None:
        # An observer that raises would be removed, or would stop the server.
        try:
            if LEVELS[level_of(event)] < self._min_severity:
                return
            if self._worker is not None:
                event = {**event, WORKER: self._worker}
            try:
                line = self._write_event(event)
            except Exception:
                line = as_json(_stand_in(event)) if self._write_event is as_json else as_text(_stand_in(event))
            self._write(line.encode("utf-8", "backslashreplace") + b"\n")
        except Exception:
            # The number of lost lines is logged with the next line that can be written.
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
    def __init__(self, observe: Callable[[LogEvent], None]) -> None:
        self._observe = observe

    def __call__(self, event: LogEvent) -> None:
        self._observe(event)


def _open(path: str) -> Any:
    # Unbuffered: each line is one write, so lines of several writers do not mix.
    return os.fdopen(open_log_file(path, FILE_MODE), "wb", 0)


def _close(file: Any) -> None:
    try:
        file.close()
    except OSError:
        # A network file system may report a failed write only now.
        _log.error("Closing the old log file failed.")


def level_of(event: LogEvent) -> str:
    """Return the level of an event. Twisted's own events of level info are logged at debug."""
    name = getattr(event.get("log_level"), "name", "info")
    namespace = str(event.get("log_namespace", ""))
    if name == "info" and (namespace.startswith("twisted.") or namespace == "log_legacy"):
        return "debug"
    return name if name in LEVELS else "info"


def _loss(count: int) -> LogEvent:
    """Return the event that reports lost lines."""
    return {
        "log_level": LogLevel.error,
        "log_namespace": __name__,
        "log_time": time(),
        "log_format": "{count} log lines before this one could not be written.",
        "count": count,
    }


def _stand_in(event: LogEvent) -> LogEvent:
    """Return an event in place of one that cannot be formatted, with its logger and time."""
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
        # The formatted text would include the traceback.
        return str(event.get("why") or old.getErrorMessage())
    return formatEvent(event)


def _failure_of(event: LogEvent) -> Failure | None:
    """Return the failure of an event of either of Twisted's logging systems."""
    failure = event.get("log_failure", event.get("failure") if _is_old(event) else None)
    return failure if isinstance(failure, Failure) else None


def _is_old(event: LogEvent) -> bool:
    """Return whether an event comes from ``twisted.python.log``, which adds its own keys."""
    return isinstance(event.get("message"), tuple)


def _traceback_of(event: LogEvent) -> str | None:
    failure = _failure_of(event)
    return None if failure is None else failure.getTraceback()[:_MAX_TRACEBACK].rstrip("\n")


def _printed(text: str) -> str:
    """Escape unprintable characters, except tabs."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each == "\t" else ascii(each)[1:-1] for each in text)


def as_text(event: LogEvent) -> str:
    """Format an event as a line, with further lines indented by a tab."""
    message = _message_of(event)
    request = event.get("request.id")
    worker = f" worker {event[WORKER]}" if WORKER in event else ""
    head = f"{_time_of(event)} {level_of(event)}{worker} [{_printed(str(event.get('log_namespace', '-')))}]"
    lines = message.split("\n")
    if request is not None:
        lines[0] += f" (request {request})"
    traceback = _traceback_of(event)
    if traceback is not None:
        lines += traceback.split("\n")
    return head + " " + "\n\t".join(map(_printed, lines))


def as_json(event: LogEvent) -> str:
    """Format an event as a JSON object on one line."""
    fields: dict[str, Any] = {
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
        fields[f"event.{key}" if key in reserved else _sound(key)] = _plain(value)
    if traceback is not None:
        failure = _failure_of(event)
        fields["error.type"] = _sound(getattr(failure.type if failure else None, "__name__", "unknown"))
        fields["error.stack"] = _sound(traceback)
    return msgspec.json.encode(fields).decode()


def _sound(text: str) -> str:
    """Escape lone surrogates."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _plain(value: object) -> object:
    """Convert a value for JSON: numbers, booleans, None and text stay, everything else becomes text."""
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
        return f"({type(value).__name__}: cannot be converted to text)"
