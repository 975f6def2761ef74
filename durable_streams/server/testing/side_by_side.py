"""A storage and a model of it, on which operations are performed at the same time and whose results are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from ..errors import StreamsError
from ..interfaces import IStorage, NowOrLater
from ..model import (
    NOW,
    START,
    Append,
    Offset,
    StorageLimits,
    StreamConfig,
    StreamRecord,
    StreamRestoration,
    StreamStatus,
    Writer,
)
from ..protocol.names import RESERVED_PREFIX as STAGED
from .model import Body, Model, Twin
from .values import ALL, T0, T


class Settle(Protocol):
    """Returns a result, or the result of a Deferred; raises its error."""

    def __call__(self, outcome: NowOrLater[T]) -> T:
        """Return the result of ``outcome``."""


def settled_now(outcome: NowOrLater[T]) -> T:
    """Return the result of a storage whose Deferreds have fired."""
    assert not isinstance(outcome, Deferred), "The storage answers later: give storage_machine a run that can wait."
    return outcome


class SideBySide:
    """
    Performs each operation in a storage and in the model, and compares the results.

    :ivar now: the time; call :meth:`catch_up` after changing it.
    """

    def __init__(self, storage: IStorage, limits: StorageLimits, run: Settle) -> None:
        self.storage = storage
        self.model = Model(limits)
        self.now = T0
        self._run = run
        self._ids: set[int] = set()
        self._incarnations: dict[str, int] = {}
        self._earlier: dict[str, int] = {}
        self._unswept_bytes = self._unswept_streams = self._unswept_metadata = 0

    def catch_up(self) -> None:
        """
        Remove expired streams from the model.

        A storage may remove them later. Where that makes a difference, by forks, their sources or the limits, the
        storage is swept.
        """
        model = self.model
        expired = model.expired(self.now)
        self._unswept_bytes += sum(twin.own for twin in expired)
        self._unswept_streams += len(expired)
        self._unswept_metadata += sum(twin.metadata for twin in expired)
        full = model.size + self._unswept_bytes > model.limits.total_bytes // 2
        full = full or model.metadata + self._unswept_metadata > model.limits.metadata_bytes // 2
        crowded = len(model.twins) + self._unswept_streams >= model.limits.streams
        if full or crowded or any(twin.source is not None or model.forks(twin) for twin in expired):
            self.sweep(1000)
        model.expire(self.now)

    def sweep(self, most: int) -> None:
        """Remove all expired streams, at most ``most`` in one call."""
        while removed := self._run(self.storage.sweep(self.now, most)):
            assert removed <= most, f"{removed} were removed, and {most} asked for"
        self._unswept_bytes = self._unswept_streams = self._unswept_metadata = 0

    def both(self, here: Callable[[], NowOrLater[T]], there: Callable[[], Any]) -> tuple[T, Any] | None:
        """
        Perform an operation in the storage and in the model.

        :returns: both results; None if both failed with the same error.
        """
        found: T | StreamsError
        expected: Any
        try:
            found = self._run(here())
        except StreamsError as error:
            found = error
        try:
            expected = there()
        except StreamsError as error:
            expected = error
        if not isinstance(found, StreamsError) and not isinstance(expected, StreamsError):
            return found, expected
        assert type(found) is type(expected), f"{found!r} is not {expected!r}"
        fields = {name: value for name, value in vars(expected).items() if name != "difference"}
        assert {name: getattr(found, name) for name in fields} == fields, f"{found!r} is not {expected!r}"
        return None

    def name(self, number: int) -> str:
        """Choose an existing stream or, sometimes, a removed one or one that never existed."""
        names = sorted(self._incarnations if number % 16 == 7 else self.model.twins)
        return names[number // 16 % len(names)] if names else "nowhere"

    def offset(self, name: str, kind: str, number: int) -> Offset:
        """Return an offset of this kind for a stream, which need not exist."""
        twin = self.model.twins.get(name)
        facts = twin.facts if twin is not None else None
        if kind == "now":
            return NOW
        if kind == "start" or twin is None or facts is None:
            return START
        if kind == "foreign":
            return Offset(facts.incarnation + 1 + number, number)
        if kind == "stale" and 0 < self._earlier.get(name, 0) < facts.incarnation:
            return Offset(self._earlier[name], number)
        if kind == "past":
            return Offset(facts.incarnation, twin.tail + 1 + number)
        if kind == "edge":
            return Offset(facts.incarnation, twin.edges[number % len(twin.edges)])
        return Offset(facts.incarnation, number % (twin.tail + 1))

    def create(self, name: str, config: StreamConfig, body: Body) -> None:
        said = self.both(
            lambda: self.storage.create(name, config, body.text, self.now),
            lambda: self.model.create(name, config, body, self.now),
        )
        if said is None:
            return
        found, expected = said
        assert (found.tail, found.closed, found.new) == expected, f"{found} is not {expected}"
        facts = found.facts
        twin = self.model.twins[name]
        if not found.new:
            assert facts == twin.facts, f"{facts} is not {twin.facts}"
            return
        assert (facts.name, facts.media_type) == (name, twin.media), f"{facts} is not {name}, {twin.media}"
        assert facts.json == (twin.media == "application/json"), f"{facts} is or is not JSON"
        assert facts.id not in self._ids, f"the id {facts.id} is used twice"
        if twin.source is not None and twin.source.facts is not None:
            assert facts.incarnation == twin.source.facts.incarnation, (
                f"{facts} has another incarnation than its source"
            )
        else:
            assert facts.incarnation > self._incarnations.get(name, 0), f"{facts} has no new incarnation"
        self._ids.add(facts.id)
        self._earlier[name] = self._incarnations.get(name, 0)
        self._incarnations[name] = max(facts.incarnation, self._incarnations.get(name, 0))
        twin.facts = facts

    def append(
        self,
        name: str,
        body: Body,
        close: str,
        sequence: bytes | None = None,
        media: str | None = None,
        writer: Writer | None = None,
        expected: Offset | None = None,
    ) -> None:
        twin = self.model.twins.get(name)
        own = "text/plain" if twin is None else twin.media
        data = b"" if close == "only close" else body.wire(own)
        append = Append((media or own) if data else None, data, close != "open", sequence, writer, expected)
        said = self.both(
            lambda: self.storage.append(name, append, self.now),
            lambda: self.model.append(name, append, body, self.now),
        )
        if said is not None:
            found, expected = said
            state = found.writer and (found.writer.epoch, found.writer.seq)
            assert (found.tail, found.closed, state, found.duplicate) == expected, f"{found} is not {expected}"
            assert found.facts == self.model.twins[name].facts, f"{found.facts} is of another stream"

    def read(self, name: str, offset: Offset, limit: int, whole: bool, renew: bool) -> None:
        said = self.both(
            lambda: self.storage.read(name, offset, limit, self.now, whole, renew),
            lambda: self.model.place(name, offset, self.now if renew else None),
        )
        if said is None:
            return
        found, (twin, start) = said
        end = found.start + len(found.data)
        place = (found.facts, found.start, found.tail, found.closed)
        assert place == (twin.facts, start, twin.tail, twin.closed), f"{found} does not begin at {start}"
        assert found.data == twin.wire[start:end], f"{found} is not a part of {twin.wire!r}"
        if end < twin.tail:
            assert end > start, f"{found} is nothing, though there is more"
            assert twin.tail - start > limit, f"{found} is not all, though it fits {limit}"
        first = next((edge for edge in twin.edges if edge > start), start)
        assert end - start <= limit, f"{found} is longer than {limit}"
        assert found.more == (max(0, first - start - limit) if whole else 0), f"{found} leaves another number of bytes"
        assert not whole or end + found.more in twin.edges, f"{found} does not end with an append: {twin.edges}"
        middle = (start + twin.tail) // 2
        rest = self._run(self.storage.read_range(found.facts, middle, twin.tail))
        assert rest == twin.wire[middle:], f"{rest!r} is not the end of {twin.wire!r}"

    def install(self, staged: str, name: str, restoration: StreamRestoration, replace: bool) -> None:
        said = self.both(
            lambda: self.storage.install(staged, name, restoration, replace, self.now),
            lambda: self.model.install(staged, name, restoration, replace, self.now),
        )
        if said is not None:
            found, twin = said
            self.compare(found, twin)
            incarnations = [self._incarnations.get(name, 0), found.facts.incarnation]
            self._earlier[name], self._incarnations[name] = min(incarnations), max(incarnations)

    def write_values(self, puts: dict[str, bytes | None], expected: dict[str, bytes | None]) -> None:
        self.both(
            lambda: self.storage.write_values(puts, expected),
            lambda: self.model.write_values(puts, expected),
        )

    def delete(self, name: str) -> None:
        self.both(
            lambda: self.storage.delete(name, self.now),
            lambda: self.model.remove(self.model.find(name)),
        )

    def renew(self, name: str) -> None:
        self.storage.renew(name, self.now)
        twin = self.model.twins.get(name)
        if twin is not None and not twin.hidden:
            twin.used = self.now

    def status(self, name: str) -> None:
        said = self.both(
            lambda: self.storage.status(name, self.now),
            lambda: self.model.find(name),
        )
        if said is not None:
            self.compare(*said)

    def compare(self, found: StreamStatus, twin: Twin) -> None:
        expected = (twin.facts, twin.tail, twin.closed, twin.lifetime, twin.made, twin.updated)
        said = (found.facts, found.tail, found.closed, found.lifetime, found.created_at, found.updated_at)
        assert said == expected, f"{said} is not {expected}"

    def everything(self) -> None:
        """Compare all state that can be read without renewing a TTL."""
        present = {name: twin for name, twin in sorted(self.model.twins.items()) if not twin.hidden}
        visible = [name for name in present if not name.startswith(STAGED)]
        found = self._run(self.storage.statuses(self.now))
        assert [status.facts.name for status in found] == visible, f"{found} is not {visible}"
        found += [self._run(self.storage.status(name, self.now)) for name in present if name.startswith(STAGED)]
        for status in found:
            twin = present[status.facts.name]
            self.compare(status, twin)
            self.compare_record(self._run(self.storage.record(twin.name, self.now)), twin)
            ends = self._run(self.storage.append_ends(status.facts, 0, 1000))
            assert list(ends) == twin.edges[1:], f"{ends} is not {twin.edges[1:]}"
            chunk = self._run(self.storage.read(status.facts.name, START, ALL, self.now, True, False))
            assert chunk.data == twin.wire, f"{chunk} is not {twin.wire!r}"
        self.compare_values("", "", 1000)

    def compare_values(self, prefix: str, after: str, max_count: int) -> None:
        """Compare a page of values."""
        page = self._run(self.storage.values(prefix, after, max_count))
        present = sorted(self.model.values.items())
        expected = [(key, value) for key, value in present if key.startswith(prefix) and key > after][:max_count]
        assert page == expected, f"{page} is not {expected}"

    def compare_record(self, record: StreamRecord, twin: Twin) -> None:
        writers = [(key, state.epoch, state.seq, state.seen) for key, state in record.writers.items()]
        said = (record.config, record.sequence, writers, record.base, record.source, record.forks)
        expected = (
            twin.asked,
            twin.sequence,
            [(key, *state) for key, state in sorted(twin.writers.items(), key=lambda item: item[1][2])],
            twin.inherited if twin.source is not None else 0,
            None if twin.source is None else twin.source.name,
            len(self.model.forks(twin)),
        )
        assert said == expected, f"{said} is not {expected}"

    def writer(self, name: str, writer_id: str, kind: str) -> Writer:
        """Return a writer whose append is the next one, a repeated one, out of order, or of a new epoch."""
        twin = self.model.twins.get(name)
        epoch, seq, _ = twin.writers.get(writer_id, (0, -1, 0)) if twin is not None else (0, -1, 0)
        return {
            "next": Writer(writer_id, epoch, seq + 1),
            "retry": Writer(writer_id, epoch, max(seq, 0)),
            "first": Writer(writer_id, epoch, 0),
            "gap": Writer(writer_id, epoch, seq + 2),
            "fenced": Writer(writer_id, max(epoch - 1, 0), 0),
            "new epoch": Writer(writer_id, epoch + 1, 0),
            "bad epoch": Writer(writer_id, epoch + 1, 1),
        }[kind]
