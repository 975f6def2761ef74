"""The file of ``append --state``: how far a run has come, so that a repeated run stores nothing twice.

The file has the epoch of the run and what was acknowledged. A run that finds an unfinished one continues it: with the
same epoch, from the first append that was not acknowledged, after checking that the acknowledged ones are the same. A
run that finds a finished one begins a new epoch.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from .errors import CommandError
from .files import load_file, replace_file

#: How often the file is written while appends are acknowledged, in seconds.
_INTERVAL: Final = 0.1


class SavedRun(Struct):
    """
    A run of ``append``.

    :ivar url: the stream.
    :ivar producer_id: the producer.
    :ivar epoch: its epoch.
    :ivar appends: how many appends were acknowledged.
    :ivar sha256: the digest of the acknowledged appends, each with its length before it.
    :ivar finished: whether the whole input was appended.
    """

    url: str
    producer_id: str
    epoch: int
    appends: int = 0
    sha256: str = ""
    finished: bool = False


def clock_epoch() -> int:
    """Return an epoch that is higher than those of earlier runs: the milliseconds since 1970."""
    return time.time_ns() // 1_000_000


class RunState:
    """
    The state file of this run, which holds its lock until the process ends.

    :raises CommandError: the file cannot be used, or another run has it.
    """

    def __init__(self, path: Path, url: str, producer_id: str) -> None:
        self._path = path
        self._lock = _locked(path.with_name(path.name + ".lock"))
        earlier = load_file(path, SavedRun, "--state", "saved run")
        if earlier is not None and (earlier.url, earlier.producer_id) != (url, producer_id):
            raise CommandError(
                f"{path} (--state) is of the producer {earlier.producer_id} of {earlier.url}. Name another file."
            )
        self._written_at = 0.0
        self._digest = hashlib.sha256()
        #: How many appends an unfinished run has had acknowledged, and their digest.
        self.known = 0
        self._known_digest = ""
        if earlier is not None and not earlier.finished:
            self._run = earlier
            self.known, self._known_digest = earlier.appends, earlier.sha256
        else:
            epoch = max(clock_epoch(), 0 if earlier is None else earlier.epoch + 1)
            self._run = SavedRun(url, producer_id, epoch)
            # Before the first append: a run that is repeated must find its epoch.
            self._write(sync=True)

    @property
    def epoch(self) -> int:
        """The epoch of the run."""
        return self._run.epoch

    def skip(self, number: int, data: bytes) -> bool:
        """
        Return whether an append was acknowledged in the earlier, unfinished run.

        :param number: its number, from 0.
        :raises CommandError: the input is not that of the earlier run.
        """
        if number >= self.known:
            return False
        self._add(data)
        if number + 1 == self.known and self._digest.hexdigest() != self._known_digest:
            self._refuse_input()
        return True

    def acknowledged(self, number: int, data: bytes) -> None:
        """Note that the server has stored an append."""
        self._add(data)
        self._run.appends = number + 1
        if time.monotonic() - self._written_at >= _INTERVAL:
            self._write()

    def save(self) -> None:
        """Write what was acknowledged, at the end of a run that failed."""
        if self._run.appends > self.known:
            self._write()

    def finish(self, count: int) -> None:
        """
        Note that the whole input was appended.

        :raises CommandError: there was less input than in the earlier run.
        """
        if count < self.known:
            self._refuse_input()
        self._run.finished = True
        self._write(sync=True)

    def _add(self, data: bytes) -> None:
        self._digest.update(b"%d:" % len(data))
        self._digest.update(data)

    def _write(self, sync: bool = False) -> None:
        self._run.sha256 = self._digest.hexdigest()
        replace_file(self._path, msgspec.json.encode(self._run) + b"\n", sync)
        self._written_at = time.monotonic()

    def _refuse_input(self) -> None:
        raise CommandError(
            f"{self._path} (--state) is of an unfinished run with other input; {self.known} appends of it are stored. "
            "Repeat that run with its input and options, or remove the file to begin a new one."
        )


def _locked(path: Path) -> int:
    """Lock a file; return its descriptor, which stays open until the process ends."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise CommandError(f"Cannot write {path}: {error.strerror}.") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise CommandError(f"Another append uses {path} (--state). Wait for its end, or name another file.") from None
    return descriptor
