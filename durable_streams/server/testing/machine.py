"""Random operations on a storage and on a model of it, whose results are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred

from ..errors import (
    StreamsError,
)
from ..interfaces import IStorage, NowOrLater
from ..model import (
    FOREVER,
    NOW,
    START,
    Append,
    Fork,
    Lifetime,
    Offset,
    StorageLimits,
    StreamConfig,
    StreamRecord,
    StreamRestoration,
    StreamStatus,
    Writer,
    WriterState,
)
from ..protocol.names import RESERVED_PREFIX as STAGED
from .model import Body, Model, Twin
from .values import ALL, JSON, T0, TEXT, WEEK, T

if TYPE_CHECKING:
    from hypothesis.stateful import RuleBasedStateMachine


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


#: Limits that are low enough to be reached.
MACHINE_LIMITS = StorageLimits(total_bytes=160, stream_bytes=60, streams=5, writers=2, metadata_bytes=1000)


def storage_machine(  # noqa: C901 (the rules of one machine)
    make_storage: Callable[[StorageLimits], NowOrLater[IStorage]],
    run: Settle = settled_now,
    reopen: Callable[[IStorage], NowOrLater[IStorage]] | None = None,
) -> type[RuleBasedStateMachine]:
    """
    Create a hypothesis state machine that performs random operations on a storage and a model, and compares them.

    Run it by ``hypothesis.stateful.run_state_machine_as_test``, or by its ``TestCase``.

    :param make_storage: creates a new, empty storage.
    :param run: returns the result of a call. By default, Deferreds must have fired.
    :param reopen: closes a durable storage and opens it again; None for a storage that is not durable.
    """
    from hypothesis import strategies as some  # noqa: PLC0415 (an optional dependency)
    from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule  # noqa: PLC0415

    names = some.sampled_from("abcdef")
    which = some.integers(0, 255)
    medias = some.sampled_from(["text/plain", "application/json"])
    staged_names = some.sampled_from([f"{STAGED}1", f"{STAGED}2"])
    values = some.lists(some.sampled_from([1, "x,]", [2, 3], {"k": "\u2603"}]), min_size=1, max_size=4)
    bodies = some.one_of(values, values, values, some.just([]), some.none()).map(Body)
    lifetimes = some.sampled_from(
        [FOREVER] * 4 + [Lifetime(ttl=0), Lifetime(ttl=60), Lifetime(ttl=600), Lifetime(expires_at=T0 + 300)]
    )
    rarely = some.sampled_from([False] * 7 + [True])
    closes = some.sampled_from(["open"] * 12 + ["close", "only close"])
    numbers = some.integers(0, 60)
    sequences = some.sampled_from([None, None, b"1", b"10", b"2", b"\xff"])
    times = some.sampled_from([None, None, T0 - 30, T0 + 20])
    # Each has a time of its own, so that it is clear which are kept.
    known = some.sets(some.sampled_from("uvw")).map(
        lambda ids: {writer_id: WriterState(1, 2, T0 - ord(writer_id)) for writer_id in ids}
    )
    restorations = some.builds(
        StreamRestoration,
        lifetimes.map(lambda lifetime: StreamConfig(None, lifetime)),
        lifetimes,
        rarely,
        sequences,
        known,
        times,
        times,
        times,
        some.sampled_from([None, None, None, 5, 6, 7 * 10**14]),
    )
    writes = some.sampled_from(["next", "next", "retry", "first", "gap", "fenced", "new epoch", "bad epoch"])
    places = some.sampled_from(["edge", "edge", "edge", "inside", "start", "now", "past", "stale", "foreign"])

    keys = some.sampled_from(["a", "a/1", "a/2", "a0", "b/1", "b/\u2603"])
    contents = some.sampled_from([b"", b"1", b"2", b"\0" * 90])
    expectations = some.sampled_from(["nothing"] * 5 + ["tail", "tail", "start", "past", "stale"])

    class StorageMachine(RuleBasedStateMachine):
        """Creates, forks, appends, closes, reads, deletes and waits; compares everything after each step."""

        def __init__(self) -> None:
            super().__init__()
            self.pair = SideBySide(run(make_storage(MACHINE_LIMITS)), MACHINE_LIMITS, run)

        def teardown(self) -> None:
            run(self.pair.storage.close())

        @initialize(body=values.map(Body))
        def begin(self, body: Body) -> None:
            self.pair.create("a", TEXT, body)
            self.pair.create("b", JSON, body)

        @rule(name=names, media=some.one_of(some.none(), medias), lifetime=lifetimes, closed=rarely, body=bodies)
        def create(self, name: str, media: str | None, lifetime: Lifetime, closed: bool, body: Body) -> None:
            self.pair.create(name, StreamConfig(media, lifetime, closed), body)

        @rule(
            name=names,
            source=which,
            place=some.one_of(some.none(), places),
            number=numbers,
            sub_offset=some.sampled_from([0, 0, 0, 1, 2, 9]),
            lifetime=lifetimes,
            body=bodies,
        )
        def fork(
            self,
            name: str,
            source: int,
            place: str | None,
            number: int,
            sub_offset: int,
            lifetime: Lifetime,
            body: Body,
        ) -> None:
            stream = self.pair.name(source)
            offset = None if place is None else self.pair.offset(stream, place, number)
            self.pair.create(name, StreamConfig(None, lifetime, fork=Fork(stream, offset, sub_offset)), body)

        @rule(name=names, source=which, media=medias, closed=rarely)
        def fork_all(self, name: str, source: int, media: str, closed: bool) -> None:
            self.pair.create(name, StreamConfig(media, closed=closed, fork=Fork(self.pair.name(source))), Body([]))

        @rule(stream=which, body=values.map(Body), close=closes, sequence=sequences, wrong=rarely, expects=expectations)
        def append(
            self, stream: int, body: Body, close: str, sequence: bytes | None, wrong: bool, expects: str
        ) -> None:
            name = self.pair.name(stream)
            kind = "edge" if expects == "tail" else expects
            # The last edge is the tail.
            expected = None if expects == "nothing" else self.pair.offset(name, kind, -1 if expects == "tail" else 0)
            self.pair.append(name, body, close, sequence, "image/png" if wrong else None, expected=expected)

        @rule(stream=which, writer=some.sampled_from("vvwu"), write=writes, body=values.map(Body), close=closes)
        def write(self, stream: int, writer: str, write: str, body: Body, close: str) -> None:
            name = self.pair.name(stream)
            # No two are accepted at the same time, so that it is clear which is forgotten first.
            self.pair.now += 2**-10
            self.pair.catch_up()
            self.pair.append(name, body, close, writer=self.pair.writer(name, writer, write))

        @rule(
            stream=which, place=places, number=numbers, limit=some.integers(1, 40), whole=some.booleans(), renew=rarely
        )
        def read(self, stream: int, place: str, number: int, limit: int, whole: bool, renew: bool) -> None:
            name = self.pair.name(stream)
            self.pair.read(name, self.pair.offset(name, place, number), limit, whole, renew)

        @rule(name=staged_names, media=medias, body=bodies)
        def stage_anew(self, name: str, media: str, body: Body) -> None:
            self.stage(name, media, body)

        def stage(self, name: str, media: str, body: Body) -> None:
            self.pair.create(name, StreamConfig(media, Lifetime(ttl=600)), body)

        @rule(name=staged_names, source=which, body=bodies)
        def stage_fork(self, name: str, source: int, body: Body) -> None:
            fork = Fork(self.pair.name(source))
            self.pair.create(name, StreamConfig(None, Lifetime(ttl=600), fork=fork), body)

        @rule(staged=staged_names, name=names, replace=some.booleans(), restoration=restorations, body=bodies)
        def install(self, staged: str, name: str, replace: bool, restoration: StreamRestoration, body: Body) -> None:
            if staged not in self.pair.model.twins and restoration.used_at is None:
                self.stage(staged, "text/plain", body)
            self.pair.install(staged, name, restoration, replace)

        @rule(
            puts=some.dictionaries(keys, some.one_of(some.none(), contents, contents), max_size=4),
            right=some.booleans(),
        )
        def write_values(self, puts: dict[str, bytes | None], right: bool) -> None:
            found = {key: self.pair.model.values.get(key) for key in [*puts, "a/1"]}
            self.pair.write_values(puts, found if right else {"a/1": b"1"})

        @rule(prefix=some.sampled_from(["", "a", "a/", "b/"]), after=some.one_of(some.just(""), keys), most=numbers)
        def list_values(self, prefix: str, after: str, most: int) -> None:
            self.pair.compare_values(prefix, after, 1 + most % 4)

        @rule(stream=which)
        def status(self, stream: int) -> None:
            self.pair.status(self.pair.name(stream))

        @precondition(lambda self: len(self.pair.model.twins) > 2)
        @rule(stream=which)
        def delete(self, stream: int) -> None:
            self.pair.delete(self.pair.name(stream))

        @rule(stream=which)
        def renew(self, stream: int) -> None:
            self.pair.renew(self.pair.name(stream))

        @rule(seconds=some.sampled_from([0.25, 1, 1, 30, 30, 59, 60, 600, WEEK]))
        def wait(self, seconds: float) -> None:
            self.pair.now += seconds

        @rule(most=some.sampled_from([1, 2, 1000]))
        def sweep(self, most: int) -> None:
            self.pair.sweep(most)

        @precondition(lambda self: reopen is not None)
        @rule()
        def close_and_open(self) -> None:
            assert reopen is not None
            self.pair.storage = run(reopen(self.pair.storage))

        @invariant()
        def all_is_as_expected(self) -> None:
            # After each step, so that the storage has room for what one step adds, wherever the model has.
            self.pair.catch_up()
            self.pair.everything()

    return StorageMachine
