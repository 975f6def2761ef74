"""Contract: the installation of staged streams."""

from __future__ import annotations

from typing import Any

from ...errors import (
    ContentTypeMismatch,
    InsufficientStorage,
    InvalidRequest,
    OffsetGone,
    PathBlocked,
    ReplacementHasForks,
    SequenceConflict,
    StorageFull,
    StreamClosed,
    StreamExists,
    StreamGone,
    StreamNotFound,
    StreamsError,
    WriterFenced,
    WriterGap,
)
from ...model import (
    FOREVER,
    MAX_INCARNATION,
    Append,
    Created,
    Fork,
    Lifetime,
    Offset,
    StreamConfig,
    StreamRecord,
    StreamRestoration,
    StreamStatus,
    Writer,
    WriterState,
)
from ..values import JSON, T0, TEXT, settled
from .base import Contract

#: The name of a staged stream, and its lifetime.
STAGED = "__ds/test/1"
HOUR = Lifetime(ttl=3600)


class InstallContract(Contract):
    """Tests of ``install``."""

    async def stage(self, *appends: bytes, staged: str = STAGED, config: StreamConfig | None = None) -> Created:
        created = await self.create(staged, config or StreamConfig("text/plain", HOUR))
        for data in appends:
            await self.append(staged, data)
        return created

    async def install(
        self,
        name: str = "a",
        replace: bool = False,
        staged: str = STAGED,
        config: StreamConfig = TEXT,
        lifetime: Lifetime = FOREVER,
        **more: Any,
    ) -> StreamStatus:
        restoration = StreamRestoration(config, lifetime, **more)
        status = await settled(self.storage.install(staged, name, restoration, replace, self.now))
        self._incarnations[name] = status.facts.incarnation
        return status

    async def recorded(self, name: str = "a") -> StreamRecord:
        return await settled(self.storage.record(name, self.now))

    async def test_an_installed_stream_has_the_staged_data_and_the_restored_state(self) -> None:
        staged = await self.stage(b"hello", b" ", b"world")
        self.later(10)
        config = StreamConfig("Text/Plain; x=y", Lifetime(expires_at=T0 + 100), closed=True)
        writers = {"w": WriterState(3, 5, T0 - 20), "v": WriterState(0, 0, T0 - 30)}
        status = await self.install(
            config=config,
            lifetime=Lifetime(ttl=60),
            closed=True,
            sequence=b"17",
            writers=writers,
            created_at=T0 - 1000,
            updated_at=T0 - 20,
            used_at=T0 - 5,
            incarnation=4711,
        )
        facts = status.facts
        self.assertEqual((facts.name, facts.id, facts.incarnation), ("a", staged.facts.id, 4711))
        self.assertEqual(status, StreamStatus(facts, 11, True, Lifetime(ttl=60), T0 - 1000, T0 - 20))
        self.assertEqual(await self.status(), status)
        expected = StreamRecord(
            facts, config, Lifetime(ttl=60), 11, True, False, b"17", writers, T0 - 1000, T0 - 20, T0 - 5, 0, None,
            None, 0,
        )  # fmt: skip
        record = await self.recorded()
        self.assertEqual((record, list(record.writers)), (expected, ["v", "w"]))
        await self.assert_reads("a", [b"hello", b" ", b"world"])
        await self.assert_absent(STAGED)
        self.assertEqual(await self.names(), ["a"])

    async def test_what_is_not_restored_is_that_of_the_staged_stream(self) -> None:
        staged = (await self.stage()).facts
        self.later(1)
        await self.append(STAGED, b"x", writer=Writer("w", 0, 0), sequence=b"1", close=True)
        self.later(1)
        status = await self.install(lifetime=Lifetime(ttl=60))
        self.assertEqual((status.facts.id, status.facts.incarnation), (staged.id, staged.incarnation))
        self.assertEqual((status.created_at, status.updated_at, status.closed), (T0, T0 + 1, False))
        record = await self.recorded()
        self.assertEqual((record.writers, record.sequence, record.used_at), ({}, None, T0 + 2))
        self.assertEqual((await self.append(data=b"y", writer=Writer("w", 0, 0), sequence=b"1")).tail, 2)

    async def test_writers_and_stream_seq_continue(self) -> None:
        await self.stage(b"x")
        await self.install(sequence=b"5", writers={"w": WriterState(3, 5, T0)})
        self.assertTrue((await self.append(data=b"x", writer=Writer("w", 3, 5))).duplicate)
        await self.refused(WriterGap, self.append(data=b"x", writer=Writer("w", 3, 7)))
        await self.refused(WriterFenced, self.append(data=b"x", writer=Writer("w", 2, 0)))
        await self.refused(SequenceConflict, self.append(data=b"x", sequence=b"5"))
        self.assertEqual((await self.append(data=b"x", writer=Writer("w", 3, 6), sequence=b"6")).tail, 2)

    async def test_a_closed_stream_is_installed_closed(self) -> None:
        await self.stage(b"x")
        await self.install(closed=True)
        await self.refused(StreamClosed, self.append(data=b"y"))
        self.assertTrue((await self.read()).closed)

    async def test_creating_an_installed_stream_again_returns_it(self) -> None:
        await self.stage(b"x")
        config = StreamConfig("text/plain", Lifetime(ttl=60))
        await self.install(config=config, lifetime=Lifetime(ttl=60))
        created = await self.create("a", config)
        self.assertEqual((created.new, created.tail), (False, 1))
        await self.refused(StreamExists, self.create("a", TEXT))

    async def test_clients_resume_at_offsets_of_a_restored_incarnation(self) -> None:
        await self.stage(b"hello", b" world")
        await self.install(incarnation=1_000_000)
        self.assertEqual((await self.read(offset=Offset(1_000_000, 5))).data, b" world")
        self.assertEqual((await self.append(data=b"!")).next_offset, str(Offset(1_000_000, 12)))

    async def test_ids_and_incarnations_are_greater_than_every_installed_incarnation(self) -> None:
        created = (await self.stage(b"x")).facts
        later = created.incarnation + 10**12
        await self.install(incarnation=later)
        await self.stage(b"y")
        await self.install("b", incarnation=5)
        for name in ("c", "d"):
            facts = (await self.create(name)).facts
            self.assertGreater(facts.id, later)
            self.assertGreater(facts.incarnation, later)
        await self.delete("a")
        self.assertGreater((await self.create("a")).facts.incarnation, later)

    async def test_an_incarnation_out_of_range_is_rejected(self) -> None:
        await self.stage(b"x")
        for incarnation in (-1, 0, MAX_INCARNATION + 1, 10**16):
            await self.refused(InvalidRequest, self.install(incarnation=incarnation))
        await self.install(incarnation=MAX_INCARNATION)
        self.assertLess((await self.create("b")).facts.id, 10**16)

    async def test_an_existing_stream_is_not_replaced_unless_asked(self) -> None:
        await self.create(body=b"old")
        await self.stage(b"new")
        error = await self.refused(StreamExists, self.install())
        self.assertEqual(error.name, "a")
        self.assertEqual((await self.content("a"), await self.content(STAGED)), (b"old", b"new"))

    async def test_a_replaced_stream_is_gone_with_its_offsets(self) -> None:
        old = (await self.create(body=b"old")).facts
        await self.append(data=b" data", writer=Writer("w", 0, 0))
        self.later(1)
        await self.stage(b"new")
        status = await self.install(replace=True)
        self.assertNotEqual(status.facts.id, old.id)
        self.assertEqual((await self.content(), await self.names()), (b"new", ["a"]))
        await self.refused(OffsetGone, self.read(offset=Offset(old.incarnation, 3)))
        await self.refused(StreamNotFound, self.range(old, 0, 3))
        self.assertFalse((await self.append(data=b"x", writer=Writer("w", 0, 0))).duplicate)

    async def test_a_stream_can_be_replaced_again_and_again(self) -> None:
        for number in range(5):
            await self.stage(b"%d" % number * 3)
            await self.install(replace=True)
            self.assertEqual((await self.content(), await self.names()), (b"%d" % number * 3, ["a"]))
        figures = self.storage.figures()
        self.assertEqual((figures.streams, figures.bytes), (1, 3))

    async def test_a_stream_that_has_forks_is_not_replaced(self) -> None:
        await self.create("a", body=b"hello")
        await self.fork("b", "a", body=b"!")
        await self.stage(b"new")
        error = await self.refused(ReplacementHasForks, self.install("a", replace=True))
        self.assertEqual(error.name, "a")
        for name in ("a", "b"):
            await self.refused(StreamExists, self.install(name))
        await self.delete("a")
        for replace in (False, True):
            await self.refused(PathBlocked, self.install("a", replace))
        await self.delete("b")
        await self.install("a")
        self.assertEqual(await self.content(), b"new")

    async def test_a_fork_is_replaced_and_its_source_has_one_fork_less(self) -> None:
        await self.create("a", body=b"hello")
        await self.fork("b", "a", body=b"!")
        await self.stage(b"new")
        await self.install("b", replace=True)
        self.assertEqual((await self.content("b"), await self.names()), (b"new", ["a", "b"]))
        self.assertEqual((await self.recorded("a")).forks, 0)
        self.assertIsNone((await self.recorded("b")).source)
        await self.stage(b"newer")
        await self.install("a", replace=True)
        self.assertEqual(await self.content(), b"newer")

    async def test_a_deleted_source_goes_with_its_last_fork_that_is_replaced(self) -> None:
        await self.create("a", body=b"hello")
        await self.fork("b", "a", body=b"!")
        await self.delete("a")
        await self.stage(b"new")
        await self.install("b", replace=True)
        self.assertEqual(self.storage.figures().bytes, 3)
        await self.create("a", body=b"free")
        self.assertEqual((await self.content(), await self.content("b")), (b"free", b"new"))

    async def test_the_name_of_an_expired_stream_is_free(self) -> None:
        await self.create("a", StreamConfig("text/plain", Lifetime(ttl=1)), b"old")
        await self.stage(b"new")
        self.later(1)
        await self.install()
        self.assertEqual(await self.content(), b"new")

    async def test_only_reserved_names_are_staged_and_only_others_are_installed(self) -> None:
        await self.create("b", body=b"x")
        await self.refused(InvalidRequest, self.install(staged="b"))
        await self.stage(b"x")
        await self.refused(InvalidRequest, self.install("__ds/other"))
        await self.refused(InvalidRequest, self.install(STAGED, replace=True))
        self.assertEqual((await self.content("b"), await self.content(STAGED)), (b"x", b"x"))

    async def test_a_missing_or_expired_staged_stream_is_not_found(self) -> None:
        error = await self.refused(StreamNotFound, self.install())
        self.assertEqual(error.name, STAGED)
        await self.stage(b"x")
        self.later(3600)
        await self.refused(StreamNotFound, self.install())
        left = self.storage.figures().streams
        self.assertIn(left, (0, 1))
        self.assertEqual(await self.sweep(), left)
        self.assertEqual(self.storage.figures().streams, 0)

    async def test_an_abandoned_staged_stream_expires(self) -> None:
        await self.create("a", body=b"a")
        await self.stage(b"x" * 1000)
        self.later(3600)
        self.assertEqual(await self.sweep(), 1)
        figures = self.storage.figures()
        self.assertEqual((figures.streams, figures.bytes), (1, 1))

    async def test_another_content_type_is_rejected(self) -> None:
        await self.stage(b"x")
        await self.refused(ContentTypeMismatch, self.install(config=JSON))
        await self.install(config=StreamConfig())
        self.assertEqual((await self.status()).facts.content_type, "text/plain")

    async def test_a_json_stream_is_installed_with_its_messages(self) -> None:
        await self.create(STAGED, StreamConfig("application/json", HOUR), b'[1,{"a":2}]')
        status = await self.install(config=JSON)
        self.assertTrue(status.facts.json)
        self.assertEqual(await self.content(), b'1,{"a":2},')

    async def test_an_installed_stream_without_lifetime_does_not_expire(self) -> None:
        await self.stage(b"x")
        await self.install()
        self.later(3600)
        self.assertEqual(await self.sweep(), 0)
        self.later(10**8)
        self.assertEqual((await self.sweep(), await self.content()), (0, b"x"))

    async def test_installed_streams_expire_by_their_restored_lifetime(self) -> None:
        lifetimes: dict[str, tuple[dict[str, Any], float]] = {
            "short": ({"lifetime": Lifetime(ttl=60)}, 60.0),
            "used": ({"lifetime": Lifetime(ttl=60), "used_at": T0 - 30}, 30.0),
            "ahead": ({"lifetime": Lifetime(ttl=60), "used_at": T0 + 30}, 60.0),
            "same": ({"lifetime": HOUR}, 3600.0),
            "long": ({"lifetime": Lifetime(ttl=7200)}, 7200.0),
            "until": ({"lifetime": Lifetime(expires_at=T0 + 50)}, 50.0),
            "late": ({"lifetime": Lifetime(expires_at=T0 + 5000)}, 5000.0),
        }
        for name, (more, _) in lifetimes.items():
            await self.stage(b"x")
            await self.install(name, **more)
        left = dict(sorted(lifetimes.items()))
        for seconds in sorted({seconds for _, seconds in lifetimes.values()}):
            self.later(T0 + seconds - 0.5 - self.now)
            self.assertEqual(await self.names(), list(left))
            self.assertEqual(await self.sweep(), 0)
            self.later(0.5)
            over = [name for name, (_, its) in left.items() if its == seconds]
            for name in over:
                del left[name]
            self.assertEqual((await self.names(), await self.sweep()), (list(left), len(over)))
        self.assertEqual(self.storage.figures().streams, 0)

    async def test_the_lifetime_of_a_staged_stream_by_the_wall_clock_is_replaced(self) -> None:
        for name, lifetime in (("a", Lifetime(ttl=60)), ("b", FOREVER), ("c", Lifetime(expires_at=T0 + 7000))):
            await self.stage(b"x", config=StreamConfig("text/plain", Lifetime(expires_at=T0 + 100)))
            await self.install(name, lifetime=lifetime)
        self.later(60)
        self.assertEqual((await self.sweep(), await self.names()), (1, ["b", "c"]))
        self.later(40)
        self.assertEqual((await self.sweep(), await self.names()), (0, ["b", "c"]))
        self.later(7000)
        self.assertEqual((await self.sweep(), await self.names()), (1, ["b"]))

    async def test_a_restored_ttl_is_renewed(self) -> None:
        await self.stage(b"x")
        await self.install(lifetime=Lifetime(ttl=60), used_at=T0 - 20)
        self.assertEqual((await self.recorded()).used_at, T0 - 20)
        self.later(39)
        await self.read(renew=True)
        self.later(59)
        self.assertEqual((await self.sweep(), await self.names()), (0, ["a"]))
        self.later(1)
        self.assertEqual((await self.sweep(), await self.names()), (1, []))

    async def test_an_installed_stream_whose_time_is_over_has_expired(self) -> None:
        await self.stage(b"x")
        await self.install(lifetime=Lifetime(expires_at=T0 - 1))
        await self.assert_absent()

    async def test_forks_are_staged_from_staged_and_from_installed_sources(self) -> None:
        await self.stage(b"hello", staged="__ds/1")
        source = Offset((await self.status("__ds/1")).facts.incarnation, 0)
        staged = StreamConfig(lifetime=HOUR, fork=Fork("__ds/1", source, 4))
        await self.create("__ds/2", staged, b"B")
        config = StreamConfig(fork=Fork("a", Offset(7, 4)))
        await self.install("b", staged="__ds/2", config=config, incarnation=7)
        self.assertEqual((await self.recorded("b")).source, "__ds/1")
        await self.install("a", staged="__ds/1", incarnation=7)
        record = await self.recorded("b")
        self.assertEqual((record.source, record.base, record.tail, record.config), ("a", 4, 5, config))
        await self.assert_reads("b", [b"hell", b"B"])
        await self.create("__ds/3", StreamConfig(lifetime=HOUR, fork=Fork("b")), b"C")
        self.assertEqual((await self.install("c", staged="__ds/3")).facts.incarnation, 7)
        await self.assert_reads("c", [b"hell", b"B", b"C"])
        self.assertEqual((await self.recorded("a")).forks, 1)
        await self.delete("a")
        await self.delete("b")
        await self.assert_reads("c", [b"hell", b"B", b"C"])
        await self.delete("c")
        self.assertEqual(self.storage.figures().streams, 0)

    async def test_a_source_is_installed_deleted_and_kept_for_its_forks(self) -> None:
        await self.stage(b"hello")
        await self.fork("b", STAGED, body=b"B")
        await self.create("__ds/2", StreamConfig(lifetime=HOUR, fork=Fork(STAGED)), b"C")
        status = await self.install("a", lifetime=Lifetime(ttl=60), closed=True, created_at=T0 - 9, deleted=True)
        self.assertEqual((status.facts.name, status.tail, status.closed, status.created_at), ("a", 5, True, T0 - 9))
        await self.refused(StreamGone, self.status("a"))
        await self.refused(StreamGone, self.delete("a"))
        await self.refused(PathBlocked, self.create("a"))
        await self.assert_absent(STAGED)
        self.assertEqual(await self.names(), ["b"])
        record = await settled(self.storage.record("a", self.now, True))
        self.assertEqual((record.deleted, record.forks, record.tail, record.closed), (True, 2, 5, True))
        await self.install("c", staged="__ds/2")
        self.later(1000)
        await self.sweep()
        await self.assert_reads("b", [b"hello", b"B"])
        await self.assert_reads("c", [b"hello", b"C"])
        self.assertEqual((await self.recorded("c")).source, "a")
        await self.delete("b")
        await self.refused(PathBlocked, self.create("a"))
        await self.delete("c")
        self.assertEqual(self.storage.figures().streams, 0)
        await self.create("a", body=b"free")
        self.assertEqual(await self.content(), b"free")

    async def test_nothing_is_left_of_a_stream_that_is_installed_deleted_without_forks(self) -> None:
        await self.create("s", body=b"source")
        await self.fork("b", "s", body=b"B")
        await self.delete("s")
        await self.create(STAGED, StreamConfig(lifetime=HOUR, fork=Fork("b")), b"C")
        await self.delete("b")
        self.assertEqual(self.storage.figures().streams, 3)
        writers = {"w": WriterState(3, 5, T0)}
        self.assertEqual((await self.install("a", writers=writers, deleted=True)).tail, 8)
        for name in ("a", "b", "s", STAGED):
            await self.assert_absent(name)
        figures = self.storage.figures()
        self.assertEqual((figures.streams, figures.bytes, figures.metadata_bytes), (0, 0, 0))

    async def test_a_stream_that_is_installed_deleted_may_replace_another(self) -> None:
        await self.create("a", body=b"old")
        await self.stage(b"new")
        await self.fork("b", STAGED, body=b"B")
        await self.refused(StreamExists, self.install("a", deleted=True))
        self.assertEqual(await self.content(), b"old")
        await self.install("a", True, deleted=True)
        await self.refused(StreamGone, self.status("a"))
        await self.assert_reads("b", [b"new", b"B"])
        for replace in (False, True):
            await self.stage(b"newer")
            await self.refused(PathBlocked, self.install("a", replace, deleted=True))
            await self.delete(STAGED)

    async def test_streams_that_lose_their_last_fork_with_a_deleted_installation_are_removed(self) -> None:
        await self.stage(b"new")
        await self.fork("a", STAGED, body=b"!")
        await self.install("a", True, deleted=True)
        self.assertEqual(self.storage.figures().streams, 0)
        await self.create("s", body=b"source")
        await self.fork("a", "s", body=b"A")
        await self.create(STAGED, StreamConfig(lifetime=HOUR, fork=Fork("s")), b"B")
        await self.delete("s")
        await self.install("a", True, deleted=True)
        figures = self.storage.figures()
        self.assertEqual((figures.streams, figures.bytes, figures.metadata_bytes), (0, 0, 0))

    async def test_a_stream_that_is_installed_deleted_is_announced_and_never_found(self) -> None:
        await self.stage(b"new")
        await self.fork("b", STAGED)
        listener = self.listen()
        await self.install("a", deleted=True)
        looks: list[StreamStatus | StreamsError] = []

        def gone(look: StreamStatus | StreamsError) -> bool:
            looks.append(look)
            return isinstance(look, StreamGone)

        self.assertTrue(await listener.sees("a", gone))
        self.assertFalse(any(isinstance(look, StreamStatus) for look in looks))
        self.assertNotIn(STAGED, listener.heard)

    async def test_the_limits_count_the_staged_stream_besides_the_one_that_it_replaces(self) -> None:
        await self.take(total_bytes=10, streams=2)
        await self.create("a", body=b"xxxxxx")
        await self.stage(b"yyyy")
        await self.refused(InsufficientStorage, self.create("b"))
        await self.refused(StorageFull, self.append(STAGED, b"y"))
        await self.install(replace=True)
        figures = self.storage.figures()
        self.assertEqual((figures.streams, figures.bytes, figures.written_bytes), (1, 4, 10))
        await self.append(data=b"zzzzzz")
        await self.create("b")

    async def test_restored_metadata_is_limited_and_counted(self) -> None:
        await self.take(metadata_bytes=600, writers=5)
        await self.create("a")
        await self.stage(b"x")
        writers = {f"writer-{number}": WriterState(0, 0, T0 + number) for number in range(5)}
        await self.refused(InsufficientStorage, self.install(replace=True, writers=writers))
        del writers["writer-0"], writers["writer-1"], writers["writer-2"]
        await self.refused(InsufficientStorage, self.install(replace=True, writers=writers, sequence=b"1" * 60))
        await self.install(replace=True, writers=writers, sequence=b"12")
        self.assertEqual(self.storage.figures().metadata_bytes, 11 + 2 * (256 + 8) + 2)
        await self.delete()
        self.assertEqual(self.storage.figures().metadata_bytes, 0)

    async def test_the_writers_seen_last_are_restored_if_there_are_more_than_the_limit(self) -> None:
        await self.take(writers=2)
        await self.stage(b"x")
        writers = {name: WriterState(1, 1, T0 - age) for name, age in (("u", 1), ("v", 3), ("w", 2))}
        await self.install(writers=writers)
        self.assertEqual(list((await self.recorded()).writers), ["w", "u"])
        await self.append(data=b"y", writer=Writer("x", 0, 0))
        self.assertEqual(list((await self.recorded()).writers), ["u", "x"])

    async def test_an_installation_is_announced_under_the_new_name(self) -> None:
        await self.create(body=b"old")
        await self.stage(b"new stream")
        listener = self.listen()
        status = await self.install(replace=True)

        def installed(look: StreamStatus | StreamsError) -> bool:
            return isinstance(look, StreamStatus) and look.facts == status.facts and look.tail == 10

        self.assertTrue(await listener.sees("a", installed))
        self.assertNotIn(STAGED, listener.heard)

    async def test_appends_and_an_installation_at_the_same_time_take_effect_in_order(self) -> None:
        await self.create(body=b"old")
        await self.stage(b"1")
        append = Append("text/plain", b"2")
        restoration = StreamRestoration(TEXT, FOREVER)
        storage, now = self.storage, self.now
        outcomes: list[Any] = await self.together([
            lambda: storage.append("a", append, now),
            lambda: storage.append(STAGED, append, now),
            lambda: storage.install(STAGED, "a", restoration, True, now),
            lambda: storage.append("a", append, now),
            lambda: storage.install(STAGED, "b", restoration, True, now),
        ])  # fmt: skip
        self.assertEqual([outcomes[0].tail, outcomes[1].tail], [4, 2])
        self.assertIsInstance(outcomes[2], StreamStatus)
        self.assertEqual(outcomes[2].tail, 2)
        # The second append to the name may come before the installation or after it.
        content = await self.content()
        self.assertIn((outcomes[3].tail, content), [(5, b"12"), (3, b"122")])
        self.assertIsInstance(outcomes[4], StreamNotFound)
        self.assertEqual(await self.names(), ["a"])
