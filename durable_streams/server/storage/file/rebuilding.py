"""Rebuilds the streams from a checkpoint and the changes after it, when a data directory is opened or checked."""

from __future__ import annotations

from ...model import WriterState
from ..changes import Change, DataAppended, StreamCreated, StreamInstalled, ValuesWritten
from ..checksums import crc32
from ..entry import facts_of
from ..logged.stream import RecentAppends
from . import journal
from .checkpoint import CheckpointEntry, MoreWriters
from .report import Report, some
from .stream import FileStream

_CATALOGUE = "the catalogue"


class StreamBuilder:
    """
    Applies checkpoint entries, then changes. Inconsistencies are reported; the report decides whether to continue.

    :param opened_at: the time, by the clock that TTLs use.
    :param wall_offset: how many seconds the wall clock, which stored times are of, is ahead of that.
    :ivar values: the values by key.
    :ivar complete: whether all entries of the checkpoint could be read.
    :ivar purged: the ids of removed streams.
    :ivar last_id: the greatest id of a stream.
    :ivar known: the LSN of the last change that the checkpoint has.
    """

    def __init__(self, report: Report, opened_at: float = 0.0, wall_offset: float = 0.0) -> None:
        self._report = report
        self._opened_at = opened_at
        self._wall_offset = wall_offset
        self._streams: dict[int, FileStream] = {}
        self._sources: dict[int, int] = {}
        self._unknown: set[int] = set()
        self.values: dict[str, bytes] = {}
        self.complete = True
        self.purged: set[int] = set()
        self.last_id = 0
        self.known = 0

    def name_of(self, stream_id: int) -> str:
        """Return a stream's name for a message."""
        stream = self._streams.get(stream_id)
        return f"a stream of the id {stream_id}" if stream is None else f"the stream {stream.facts.name}"

    def add_entry(self, held: CheckpointEntry) -> None:
        """Add a stream as a checkpoint has it."""
        facts = facts_of(held.name, held.id, held.incarnation, held.content_type)
        stream = FileStream(facts, held.config, held.lifetime, held.base, held.created_at)
        used_at = self._used_at(held.used_at)
        stream.restore(held.tail, held.closed, held.deleted, held.sequence, held.updated_at, used_at)
        stream.writers = held.writers
        stream.lsn = held.lsn
        self.known = max(self.known, held.lsn)
        stream.filed = held.filed
        stream.filed_appends = held.filed_appends
        stream.pieces = held.pieces
        self._add(stream, held.source)

    def add_writers(self, more: MoreWriters, where: str) -> None:
        """Add writers to a stream that a checkpoint has."""
        stream = self._streams.get(more.stream)
        if stream is not None and stream.writers is not None:
            stream.writers.update(more.writers)
        elif not self._report.damaged:
            # Otherwise the previous entry is damaged, which was already reported.
            self._report.damage(
                where, f"The checkpoint has producers of a stream, {more.stream}, that it does not have."
            )

    def _used_at(self, at: float) -> float:
        # A renewal by a read is not stored, so opening counts as use.
        return max(at - self._wall_offset, self._opened_at)

    def _add(self, stream: FileStream, source: int | None) -> None:
        self._streams[stream.facts.id] = stream
        if source is not None:
            self._sources[stream.facts.id] = source
        self.last_id = max(self.last_id, stream.facts.id, stream.facts.incarnation)

    def apply(self, change: Change, lsn: int, where: str) -> None:
        """Apply the part of a change that the checkpoint does not include."""
        stream = self._streams.get(change.id)
        if isinstance(change, StreamCreated):
            if self._report.thorough:
                self._verify(lsn, change.base, change.data, change.checksum, f"the stream {change.name}", where)
            self._create(stream, change, lsn, where)
        elif isinstance(change, DataAppended):
            if self._report.thorough:
                self._verify(lsn, change.start, change.data, change.checksum, self.name_of(change.id), where)
            if stream is None:
                # It was gone when the checkpoint came to it, so its removal must follow.
                self._unknown.add(change.id)
            else:
                self._append(stream, change, lsn, where)
        elif isinstance(change, StreamInstalled):
            self._install(stream, change, lsn)
        elif isinstance(change, ValuesWritten):
            self._write_values(change)
        else:
            self._remove(change.id, lsn)

    def _write_values(self, written: ValuesWritten) -> None:
        # The checkpoint may have some of these values, or later ones, which follow. So each change is repeated.
        values = self.values
        for key, value in written.puts.items():
            if value is None:
                values.pop(key, None)
            else:
                values[key] = value

    def _remove(self, stream_id: int, lsn: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            self._unknown.discard(stream_id)
            self.purged.add(stream_id)
        else:
            stream.hide()
            stream.lsn = max(stream.lsn, lsn)

    def _install(self, stream: FileStream | None, installed: StreamInstalled, lsn: int) -> None:
        if stream is None:
            # As with an append: its removal must follow.
            self._unknown.add(installed.id)
        elif lsn > stream.lsn:
            stream.install(installed.name, installed.state, self._used_at(installed.state.used_at or 0))
            stream.lsn = lsn
        self.last_id = max(self.last_id, installed.state.incarnation or 0)
        if installed.replaced is not None:
            self._remove(installed.replaced, lsn)

    def _verify(self, lsn: int, start: int, data: bytes, checksum: int, name: str, where: str) -> None:
        if crc32(data) != checksum:
            self._report.damage(
                where, f"Change {lsn}: bytes {start} to {start + len(data)} of {name} do not have their checksum."
            )

    def _create(self, stream: FileStream | None, created: StreamCreated, lsn: int, where: str) -> None:
        if stream is None:
            stream = FileStream(created.facts, created.config, created.lifetime, created.base, created.at)
            stream.tail += len(created.data)
            stream.lsn = lsn
            stream.use(self._used_at(created.at))
            self._add(stream, created.source)
        if created.data:
            self._put(stream, created.base, created.data, created.checksum, lsn, where)

    def _append(self, stream: FileStream, appended: DataAppended, lsn: int, where: str) -> None:
        if lsn > stream.lsn:
            if appended.start != stream.tail:
                self._tell_gap(stream, stream.tail, appended.start, lsn, where)
                stream.tail = appended.start
                stream.recent = RecentAppends(appended.start)
            stream.lsn = lsn
            if appended.writer is not None:
                state = WriterState(appended.epoch, appended.seq, appended.at)
                stream.record_writer(appended.writer, state, appended.forgotten)
            stream.extend(len(appended.data), appended.close, appended.sequence, appended.at)
            stream.use(self._used_at(appended.at))
        if appended.data:
            self._put(stream, appended.start, appended.data, appended.checksum, lsn, where)

    def _put(self, stream: FileStream, start: int, data: bytes, checksum: int, lsn: int, where: str) -> None:
        """Keep the bytes of an append that the checkpoint has not moved."""
        if start < stream.settled:
            return
        recent = stream.recent
        if recent is None:
            recent = stream.recent = RecentAppends(stream.settled)
        end = recent.start + len(recent.data)
        if start != end:
            self._tell_gap(stream, end, start, lsn, where)
            recent = stream.recent = RecentAppends(start)
        recent.add(data, start + len(data), checksum)

    def _tell_gap(self, stream: FileStream, end: int, start: int, lsn: int, where: str) -> None:
        self._report.damage(
            where,
            f"Change {lsn} appends to the stream {stream.facts.name} at {start}, and what there is of it before ends "
            f"at {end}" + (f": bytes {end} to {start} are missing." if start > end else "."),
        )

    def finish(self) -> list[FileStream]:
        """Connect forks and sources, leave out removed streams, and report missing streams and bytes."""
        if self._unknown:
            self._report.damage(
                journal.FOLDER,
                f"The journal has changes of {len(self._unknown)} streams that neither it nor the checkpoint knows: "
                f"ids {some(sorted(self._unknown))}.",
            )
        for stream_id, source_id in self._sources.items():
            source = self._streams.get(source_id)
            if source is not None:
                self._streams[stream_id].fork_from(source)
        for stream in list(self._streams.values()):
            if stream.facts.id in self._streams:
                for gone in stream.purge():
                    del self._streams[gone.facts.id]
                    self.purged.add(gone.facts.id)
        streams = list(self._streams.values())
        names: set[str] = set()
        for stream in streams:
            name = stream.facts.name
            if name in names:
                self._report.damage(_CATALOGUE, f"There are two streams of the name {name}.")
            names.add(name)
            self._check_source(stream)
            self._check_extent(stream)
            stream.order_writers()
        return streams

    def _check_source(self, stream: FileStream) -> None:
        source_id = self._sources.get(stream.facts.id)
        if source_id is not None and (stream.source is None or stream.source.tail < stream.base):
            self._report.damage(
                _CATALOGUE,
                f"The stream {stream.facts.name} was forked at {stream.base} from a stream of the id {source_id}, "
                "which is not there, or ends before: the fork's bytes before that are missing.",
            )

    def _check_extent(self, stream: FileStream) -> None:
        """Check that a stream's places follow on each other up to its tail."""
        end = stream.base + stream.filed
        missing = []
        for piece in stream.pieces:
            if piece.start != end:
                missing.append((end, piece.start))
            end = piece.end
        if stream.recent is not None and stream.recent.ends:
            end = stream.recent.ends[-1]
        if end != stream.tail:
            missing.append((end, stream.tail))
        for first, last in missing:
            what = f"bytes {first} to {last} of it are in no place" if first < last else f"its bytes go on to {first}"
            self._report.damage(
                _CATALOGUE, f"The stream {stream.facts.name} ends at {stream.tail}, but {what} that is known of."
            )
