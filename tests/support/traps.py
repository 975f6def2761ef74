"""A real disk with traps: after so many passages of a named point, the process is killed or a call fails.

A point is ``before``, ``after`` or ``amid`` (half of a write is done), and what is done: ``before journal/write``.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct

from durable_streams.server.storage.disk import RealDisk, RealFile

#: The effect of a trap: the process is killed, or the call raises an OSError with this number.
KILL = 0


class Snare(Struct, frozen=True):
    """
    The point and the effect of a trap.

    :ivar passage: at which passage of the point, from 1 on. It goes off once.
    :ivar action: :data:`KILL`, or a number of an error of the operating system's.
    :ivar mark: a file that is to say that it went off.
    """

    point: str
    passage: int
    mark: str
    action: int = KILL


class Trap:
    """
    A trap, which counts passages of its point.

    :ivar passed: how often each point was passed.
    """

    def __init__(self, snare: Snare | None) -> None:
        self._snare = snare
        self._lock = threading.Lock()
        self.passed: dict[str, int] = {}

    def goes_off(self, point: str) -> bool:
        """Count a passage, and return whether the trap is triggered; :meth:`strike` has its effect."""
        with self._lock:
            count = self.passed[point] = self.passed.get(point, 0) + 1
        snare = self._snare
        return snare is not None and snare.point == point and snare.passage == count

    def strike(self) -> None:
        """
        Report the trap, then kill the process or raise the error.

        :raises OSError: that is what it is for.
        """
        snare = self._snare
        assert snare is not None
        Path(snare.mark).write_text(f"{snare.point} {snare.passage}")
        if snare.action == KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        raise OSError(snare.action, os.strerror(snare.action))

    def pass_by(self, point: str) -> None:
        """Pass a point."""
        if self.goes_off(point):
            self.strike()

    def around(self, what: str, work: Callable[[], Any]) -> Any:
        """Call a function, with a point before and after it."""
        self.pass_by(f"before {what}")
        outcome = work()
        self.pass_by(f"after {what}")
        return outcome

    def wrap(self, owner: Any, method: str, what: str) -> None:
        """Wrap a method with a point before and after each call."""
        inner = getattr(owner, method)

        def wrapped(*arguments: Any, **options: Any) -> Any:
            return self.around(what, lambda: inner(*arguments, **options))

        setattr(owner, method, wrapped)


def place(path: str) -> str:
    """Return the kind of file or folder of a path."""
    folder, _, name = path.partition("/")
    if folder == "streams" and "." in name:
        return name.rpartition(".")[2]
    return folder or "top"


class TrappedFile(RealFile):
    """A file with traps around all calls that change it."""

    __slots__ = ("_place", "_trap")

    def __init__(self, descriptor: int, kind: str, trap: Trap) -> None:
        super().__init__(descriptor)
        self._place = kind
        self._trap = trap

    def write(self, parts: Sequence[bytes], position: int, durable: bool = False) -> None:
        write = super().write
        what = "journal/opening" if self._place == "journal" and not position else f"{self._place}/write"
        if self._trap.goes_off(f"amid {what}"):
            data = b"".join(parts)
            write([data[: len(data) // 2]], position)
            self._trap.strike()
        self._trap.around(what, lambda: write(parts, position, durable))

    def sync(self) -> None:
        self._trap.around(f"{self._place}/sync", super().sync)

    def reserve(self, size: int) -> None:
        reserve = super().reserve
        self._trap.around(f"{self._place}/reserve", lambda: reserve(size))

    def cut(self, size: int) -> None:
        cut = super().cut
        self._trap.around(f"{self._place}/cut", lambda: cut(size))


class TrappedDisk(RealDisk):
    """A disk with traps around all calls that change it or its files."""

    def __init__(self, root: str | Path, trap: Trap) -> None:
        super().__init__(root)
        self._trap = trap

    def open(self, path: str, new: bool = False) -> RealFile:
        flags = os.O_RDWR | (os.O_CREAT | os.O_EXCL if new else 0)

        def work() -> RealFile:
            return TrappedFile(self.descriptor(path, flags), place(path), self._trap)

        file = self._trap.around(f"{place(path)}/make", work) if new else work()
        assert isinstance(file, RealFile)
        return file

    def rename(self, path: str, new_path: str) -> None:
        rename = super().rename
        self._trap.around(f"{place(new_path)}/rename", lambda: rename(path, new_path))

    def remove(self, path: str) -> None:
        remove = super().remove
        self._trap.around(f"{place(path)}/remove", lambda: remove(path))

    def sync_folder(self, path: str) -> None:
        sync_folder = super().sync_folder
        self._trap.around(f"{place(path)}/folder", lambda: sync_folder(path))


#: The error of a disk that has one.
BROKEN = errno.EIO
