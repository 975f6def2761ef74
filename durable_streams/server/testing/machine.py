"""A hypothesis state machine of random operations on a storage and on a model of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ..interfaces import IStorage, NowOrLater
from ..model import (
    FOREVER,
    Fork,
    Lifetime,
    StorageLimits,
    StreamConfig,
    StreamRestoration,
    WriterState,
)
from ..protocol.names import RESERVED_PREFIX as STAGED
from .model import Body
from .side_by_side import Settle, SideBySide, settled_now
from .values import JSON, T0, TEXT, WEEK

if TYPE_CHECKING:
    from hypothesis.stateful import RuleBasedStateMachine


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
        rarely,
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
