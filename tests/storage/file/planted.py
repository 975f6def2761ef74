"""Planted bugs of a file storage, which the random walks must find."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch
from zlib import crc32

from msgspec.structs import replace as with_other
from twisted.internet.defer import succeed

from durable_streams.server.storage import changes
from durable_streams.server.storage.file import (
    checkpoint,
    checkpointer,
    content,
    journal,
    log,
    opening,
    rebuilding,
    recovery,
    snapshots,
    storage,
)
from durable_streams.server.storage.file.frames import BLOCK, OPENING, Header, frame
from durable_streams.server.storage.file.journal import Journal
from durable_streams.server.storage.file.places import AppendRun
from durable_streams.server.storage.logged import commit_queue
from durable_streams.server.storage.logged import storage as logged
from durable_streams.server.storage.logged.stream import LoggedStream

from ...support.simulated_disk import SimulatedDisk, SimulatedFile


class Bug(NamedTuple):
    """
    A bug.

    :ivar plant: a context in which the storage has it.
    :ivar seeds: within how many it is found.
    :ivar disk: the disk on which it has it.
    :ivar often: what has to come more often than it would for this one.
    """

    plant: Callable[[], Any]
    seeds: int
    disk: type[SimulatedDisk] = SimulatedDisk
    often: str = ""


def _patched(place: Any, name: str, make: Callable[[Any], Any]) -> Callable[[], Any]:
    """Plant a bug in the place of a function, made from the function that is there."""
    return lambda: patch.object(place, name, make(getattr(place, name)))


@contextmanager
def _nothing() -> Iterator[None]:
    yield


class _Files(SimulatedDisk):
    """A disk that opens files of a faulty class."""

    file: type[SimulatedFile]

    def open(self, path: str, new: bool = False) -> SimulatedFile:
        file = super().open(path, new)
        return self.file(self, file.node, path)


def _disk(file_type: type[SimulatedFile]) -> type[SimulatedDisk]:
    return type("WrongDisk", (_Files,), {"file": file_type})


def _not_synced(what: Callable[[str], bool]) -> type[SimulatedDisk]:
    """Make a disk that never syncs some files."""

    class File(SimulatedFile):
        def sync(self) -> None:
            if not what(self.path):
                super().sync()

    return _disk(File)


def _folders_not_synced(what: Callable[[str], bool]) -> type[SimulatedDisk]:
    class Disk(SimulatedDisk):
        def sync_folder(self, path: str) -> None:
            if not what(path):
                super().sync_folder(path)

    return Disk


class _NeverDurable(SimulatedFile):
    def write(self, parts: Sequence[bytes], position: int, durable: bool = False) -> None:
        super().write(parts, position, durable and not position)


class _TriesAgain(SimulatedFile):
    def write(self, parts: Sequence[bytes], position: int, durable: bool = False) -> None:
        super().write(parts, position)
        if durable:
            try:
                self.sync()
            except OSError:
                self.sync()


class _LeftWithTheSystem(SimulatedDisk):
    """A disk on which a storage does not sync what an earlier process has written."""

    def __init__(self, seed: int | str) -> None:
        super().__init__(seed)
        self.own: set[str] = set()

    def open(self, path: str, new: bool = False) -> SimulatedFile:
        if new:
            self.own.add(path)
        file = super().open(path, new)
        return file if path in self.own or not path.startswith("journal") else _Unsynced(self, file.node, path)


class _FailsInTheJournal(_Files):
    """A disk on which errors come where they matter."""

    file = SimulatedFile

    def begin(self, call: str, what: str) -> None:
        if call in ("write", "sync") and what.startswith("journal"):
            super().begin(call, what)
            return
        later, self._fail_left = self._fail_left, -1
        try:
            super().begin(call, what)
        finally:
            self._fail_left = later


class _FailsAndTriesAgain(_FailsInTheJournal):
    file = _TriesAgain


class _Unsynced(SimulatedFile):
    def sync(self) -> None:
        pass


class _Remembered(SimulatedFile):
    def forget(self) -> None:
        pass


def _old_rotation(_: Any) -> Any:
    """Release the old segment before the new one is begun."""

    def rotate(self: Any) -> Any:
        if self._spare is None:
            self._spare = self._make_segment(0)
        if self._segment is not None:
            self._segment.file.cut(self._segment.position)
            self._segment.file.sync()
            self._segment.file.close()
        segment, self._spare = self._spare, None
        segment.first = self._lsn + 1
        segment.file.write(frame(Header(OPENING, 0, segment.mark, self._lsn + 1, self._lsn, self._lsn), b""), 0, True)
        segment.position = BLOCK
        self._segment = segment
        return segment

    return rotate


def _cuts_first(complete: Any) -> Any:
    def cut_and_complete(self: Any, segment: int, *rest: Any) -> None:
        for number in recovery.segment_numbers(self._disk):
            if number < segment:
                self._disk.remove(journal.path_of(number))
        complete(self, segment, *rest)

    return cut_and_complete


def _answers_first(log_change: Any) -> Any:
    def log(self: Any, change: Any, stream: Any, outcome: Any, room: int) -> Any:
        log_change(self, change, stream, outcome, room).addErrback(lambda _: None)
        return succeed(outcome)

    return log


def _answers_values_first(add_values: Any) -> Any:
    def add(self: Any, change: Any, size: int) -> Any:
        add_values(self, change, size).addErrback(lambda _: None)
        return succeed(None)

    return add


def _pages_first(_: Any) -> Any:
    return lambda self, *rest: self._catalogue.values.page(*rest)


def _keeps_removed(_: Any) -> Any:
    def write(self: Any, written: Any) -> None:
        self.values.update({key: value for key, value in written.puts.items() if value is not None})

    return write


def _leaves_out_known(apply: Any) -> Any:
    """Leave out changes of values that the checkpoint may have."""

    def apply_later(self: Any, change: Any, lsn: int, where: str) -> None:
        if not isinstance(change, changes.ValuesWritten) or lsn > self.known:
            apply(self, change, lsn, where)

    return apply_later


def _one_slice(_: Any) -> Any:
    """Write no more than one slice of the values."""

    async def write_values(self: Any, file: Any) -> int:
        values = self._subject.catalogue.values
        file.add_values(dict(values.page("", "", self.settings.slice_streams, self.settings.slice_bytes)))
        return int(values.lsn)

    return write_values


def _shows_first(log_change: Any) -> Any:
    def log(self: Any, change: Any, stream: Any, *rest: Any) -> Any:
        stream.show()
        return log_change(self, change, stream, *rest)

    return log


def _unlinks_first(remove: Any) -> Any:
    def removed(self: Any, stream: Any, gone: Any) -> None:
        remove(self, stream, gone)
        filed = [each for each in gone if each.filed]
        if filed:
            self._stored.remove_files(filed)

    return removed


def _twice(write: Any) -> Any:
    def write_again(self: Any, stream: Any, wrote: Any, lsn: int, where: str) -> None:
        stream.lsn = 0
        write(self, stream, wrote, lsn, where)

    return write_again


def _forgets_close(write: Any) -> Any:
    return lambda self, stream, wrote, *rest: write(self, stream, with_other(wrote, close=False), *rest)


def _keeps_replaced(install: Any) -> Any:
    return lambda self, stream, installed, lsn: install(self, stream, with_other(installed, replaced=None), lsn)


def _splits(commit: Any) -> Any:
    def commit_each(self: Any, changes: Sequence[Any], lsn: int, max_bytes: int) -> Any:
        if len(changes) == 1:
            return commit(self, changes, lsn, max_bytes)
        first = commit_each(self, changes[:-1], lsn - 1, max_bytes)
        return first.addCallback(lambda _: commit(self, changes[-1:], lsn, max_bytes))

    return commit_each


def _forgets_incarnation(install: Any) -> Any:
    def install_and_forget(self: Any, *rest: Any) -> None:
        last_id = self.last_id
        install(self, *rest)
        self.last_id = last_id

    return install_and_forget


def _same_segment(load: Any) -> Any:
    def load_and_go_on(*rest: Any) -> Any:
        opened = load(*rest)
        opened.next_segment = max(opened.next_segment - 1, 1)
        return opened

    return load_and_go_on


def _without_hidden(held: Any) -> Any:
    return lambda stream, writers: with_other(held(stream, writers), deleted=False)


def _at_once(_: Any) -> Any:
    def not_now(self: Any, trouble: Exception, step: Any, name: str, *rest: Any) -> Any:
        if isinstance(trouble, commit_queue.NotYet):
            return trouble.ready.addCallback(self._attempt_again, step, name, *rest)
        raise trouble

    return not_now


def _earlier_mark(complete: Any) -> Any:
    return lambda self, segment, lsn, last_id, *rest: complete(self, segment, lsn, 0, *rest)


def _unverified(begin: Any) -> Any:
    def begin_unverified(self: Any, *rest: Any) -> None:
        begin(self, *rest)
        self._verify = False

    return begin_unverified


def _with_new_checksums(content: AppendRun, end: int) -> AppendRun:
    return AppendRun(content.start, content.data, array("Q", [end]), array("I", [crc32(content.data)]))


#: The bugs, by what each is.
BUGS: dict[str, Bug] = {
    "a batch is written, and not on the disk when it is told": Bug(_nothing, 40, _disk(_NeverDurable)),
    "what is read is not verified": Bug(_patched(content.FileContent, "__init__", _unverified), 100, often="rot"),
    "a checkpoint makes damaged bytes whole": Bug(
        _patched(checkpointer, "with_damage_kept", lambda _: _with_new_checksums), 1000, often="rot"
    ),
    "a failed sync is tried again, and believed": Bug(_nothing, 400, _FailsAndTriesAgain, often="errors"),
    "checksums are not looked at": Bug(_patched(recovery, "is_whole", lambda _: lambda *_: True), 200),
    "files are removed before the removal is on the disk": Bug(
        _patched(storage.FileStorage, "_removed", _unlinks_first), 400
    ),
    "a checkpoint is renamed before it is on the disk": Bug(
        _nothing, 60, _not_synced(lambda path: path.startswith("checkpoint"))
    ),
    "a pack is not on the disk": Bug(_nothing, 100, _not_synced(lambda path: path.startswith("packs"))),
    "a stream's own file is not on the disk": Bug(_nothing, 100, _not_synced(lambda path: path.endswith(".data"))),
    "a stream's index is not on the disk": Bug(_nothing, 100, _not_synced(lambda path: path.endswith(".index"))),
    "a new segment's name is not on the disk": Bug(_nothing, 60, _folders_not_synced(lambda path: path == "journal")),
    "a new checkpoint's name is not on the disk": Bug(
        _nothing, 60, _folders_not_synced(lambda path: path == "checkpoint")
    ),
    "a new pack's name is not on the disk": Bug(_nothing, 60, _folders_not_synced(lambda path: path == "packs")),
    "a stream's file's name is not on the disk": Bug(
        _nothing, 100, _folders_not_synced(lambda path: path.startswith("streams/"))
    ),
    "folders' names are not on the disk": Bug(_nothing, 60, _folders_not_synced(lambda path: path in ("", "streams"))),
    "what a killed process has left is not synced": Bug(_nothing, 400, _LeftWithTheSystem, often="kills"),
    "what could not be written is still remembered": Bug(_nothing, 1200, _disk(_Remembered), often="lost writes"),
    "the journal is cut before the checkpoint is complete": Bug(
        _patched(checkpoint.CheckpointFile, "complete", _cuts_first), 400
    ),
    "writers are not in the journal": Bug(
        _patched(logged, "DataAppended", lambda _: lambda *fields: changes.DataAppended(*fields[:7])), 40
    ),
    "the journal does not say which writers were forgotten": Bug(
        _patched(logged, "DataAppended", lambda _: lambda *fields: changes.DataAppended(*fields[:10])), 60
    ),
    "a closure in the journal is forgotten": Bug(_patched(rebuilding.StreamBuilder, "_append", _forgets_close), 60),
    "changes that a checkpoint has are made again": Bug(_patched(rebuilding.StreamBuilder, "_append", _twice), 200),
    "an answer does not wait for the disk": Bug(_patched(commit_queue.CommitQueue, "add", _answers_first), 60),
    "an answer about values does not wait for the disk": Bug(
        _patched(commit_queue.CommitQueue, "add_values", _answers_values_first), 60
    ),
    "readers see values that are not on the disk": Bug(_patched(logged.LoggedStorage, "values", _pages_first), 300),
    "removed values come back": Bug(_patched(rebuilding.StreamBuilder, "_write_values", _keeps_removed), 60),
    "a checkpoint has one slice of the values": Bug(
        _patched(checkpointer.Checkpointer, "_write_values", _one_slice), 60
    ),
    "changes of values that a checkpoint may have are left out": Bug(
        _patched(rebuilding.StreamBuilder, "apply", _leaves_out_known), 400
    ),
    "readers see what is not on the disk": Bug(_patched(commit_queue.CommitQueue, "add", _shows_first), 300),
    "a refusal does not wait for what it rests on": Bug(_patched(logged.LoggedStorage, "_not_now", _at_once), 300),
    "a checkpoint has only the writers that fit the entry": Bug(
        _patched(checkpoint.CheckpointFile, "add_writers", lambda _: lambda *_: None), 100
    ),
    "an installation keeps the stream that it replaces": Bug(
        _patched(rebuilding.StreamBuilder, "_install", _keeps_replaced), 100
    ),
    "the changes of a batch are written one by one": Bug(_patched(log.FileLog, "commit", _splits), 400),
    "ids are not greater than an installed incarnation": Bug(
        _patched(rebuilding.StreamBuilder, "_install", _forgets_incarnation), 400
    ),
    "an installation is visible before it is on the disk": Bug(
        _patched(LoggedStream, "conceal", lambda _: lambda _: None), 300
    ),
    "a checkpoint leaves out the bytes of a stream that is being installed": Bug(
        _patched(LoggedStream, "committed", lambda _: property(lambda stream: stream.shown)), 400
    ),
    "a checkpoint forgets that a stream is deleted": Bug(_patched(snapshots, "held", _without_hidden), 200),
    "ids are given again": Bug(_patched(checkpoint.CheckpointFile, "complete", _earlier_mark), 400, often="clocks"),
    "the last segment is used again": Bug(_patched(opening, "load", _same_segment), 100),
    "a segment is let go of before there is another": Bug(
        _patched(Journal, "_rotate", _old_rotation), 400, often="errors"
    ),
    "the journal is written to after it has failed": Bug(
        _patched(Journal, "_check_sound", lambda _: lambda _: None), 1500, _FailsInTheJournal, "errors"
    ),
}
