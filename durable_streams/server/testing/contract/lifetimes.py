"""Contract: expiry of streams."""

from __future__ import annotations

from ...errors import (
    ContentTypeMismatch,
    OffsetGone,
    SequenceConflict,
    StreamFull,
    StreamNotFound,
    WriterFenced,
)
from ...model import (
    NOW,
    START,
    Created,
    Fork,
    Lifetime,
    Offset,
    StreamConfig,
    Writer,
)
from ..values import ALL, JSON, T0, settled
from .base import Contract


class LifetimeContract(Contract):
    """Tests of Stream-TTL and Stream-Expires-At (PROTOCOL section 5.1)."""

    async def create_for(self, name: str = "a", ttl: int | None = 60, expires_at: float | None = None) -> Created:
        return await self.create(name, StreamConfig("text/plain", Lifetime(ttl, expires_at)), b"hello")

    async def assert_ends_in(self, seconds: float, name: str = "a") -> None:
        """Assert that a stream expires after so many seconds, and not before."""
        self.later(seconds - 0.5)
        self.assertEqual((await self.status(name)).facts.name, name)
        self.later(0.5)
        await self.assert_absent(name)

    async def test_the_status_has_the_lifetime(self) -> None:
        await self.create_for("a", 60)
        await self.create_for("b", None, T0 + 60)
        lifetimes = [status.lifetime for status in await self.statuses()]
        self.assertEqual(lifetimes, [Lifetime(ttl=60), Lifetime(expires_at=T0 + 60)])

    async def test_a_stream_without_a_lifetime_does_not_expire(self) -> None:
        await self.create(body=b"hello")
        self.later(100 * 365 * 24 * 3600)
        self.assertEqual((await self.sweep(), await self.content()), (0, b"hello"))

    async def test_a_stream_expires_after_its_ttl(self) -> None:
        await self.create_for("a", 60)
        await self.assert_ends_in(60)

    async def test_a_stream_with_a_ttl_of_0_expires_at_once(self) -> None:
        created = await self.create_for("a", 0)
        self.assertTrue(created.new)
        await self.assert_absent()
        self.assertTrue((await self.create_for("a", 0)).new)

    async def test_the_longest_ttl_is_accepted(self) -> None:
        await self.create_for("a", 2**53 - 1)
        self.later(10**9)
        self.assertEqual((await self.status()).lifetime, Lifetime(ttl=2**53 - 1))

    async def test_a_stream_expires_at_expires_at(self) -> None:
        await self.create_for("a", None, T0 + 60.25)
        await self.assert_ends_in(60.25)

    async def test_expires_at_may_be_in_the_past(self) -> None:
        self.assertTrue((await self.create_for("a", None, T0 - 1)).new)
        await self.assert_absent()

    async def test_a_read_renews_a_ttl(self) -> None:
        for offset in (START, NOW):
            await self.create_for("a", 60)
            self.later(59)
            await self.read(offset=offset, renew=True)
            await self.assert_ends_in(60)

    async def test_a_read_renews_a_ttl_by_default(self) -> None:
        await self.create_for("a", 60)
        self.later(59)
        await settled(self.storage.read("a", START, ALL, self.now))
        await self.assert_ends_in(60)

    async def test_a_read_without_renewal_does_not_renew_a_ttl(self) -> None:
        facts = (await self.create_for("a", 60)).facts
        self.later(59)
        await self.read(renew=False)
        await self.range(facts, 0, 5)
        await self.assert_ends_in(1)

    async def test_an_append_renews_a_ttl(self) -> None:
        await self.create_for("a", 60)
        self.later(59)
        await self.append(data=b"x")
        await self.assert_ends_in(60)

    async def test_a_close_renews_a_ttl(self) -> None:
        await self.create_for("a", 60)
        for _ in range(2):
            self.later(59)
            await self.append(close=True)
        await self.assert_ends_in(60)

    async def test_a_writers_retry_renews_a_ttl(self) -> None:
        await self.create_for("a", 60)
        for _ in range(2):
            self.later(59)
            await self.append(data=b"x", writer=Writer("w", 0, 0))
        await self.assert_ends_in(60)

    async def test_a_refused_append_does_not_renew_a_ttl(self) -> None:
        await self.take(stream_bytes=10)
        await self.create_for("a", 60)
        await self.append(data=b"x", sequence=b"5", writer=Writer("w", 1, 0))
        self.later(59)
        await self.refused(StreamFull, self.append(data=b"x" * 10))
        await self.refused(ContentTypeMismatch, self.append(data=b"1,", media_type="application/json"))
        await self.refused(SequenceConflict, self.append(data=b"x", sequence=b"5"))
        await self.refused(WriterFenced, self.append(data=b"x", writer=Writer("w", 0, 0)))
        await self.assert_ends_in(1)

    async def test_status_does_not_renew_a_ttl(self) -> None:
        await self.create_for("a", 60)
        self.later(59)
        await self.status()
        await self.statuses()
        await self.assert_ends_in(1)

    async def test_creating_an_existing_stream_does_not_renew_its_ttl(self) -> None:
        await self.create_for("a", 60)
        self.later(59)
        self.assertFalse((await self.create_for("a", 60)).new)
        await self.assert_ends_in(1)

    async def test_renew_renews_a_ttl(self) -> None:
        await self.create_for("a", 60)
        self.later(59)
        await settled(self.storage.renew("a", self.now))
        await self.assert_ends_in(60)

    async def test_renewing_a_missing_stream_does_nothing(self) -> None:
        await self.create_for("a", 60)
        self.later(60)
        await settled(self.storage.renew("a", self.now))
        await settled(self.storage.renew("missing", self.now))
        await self.assert_absent("a")
        await self.assert_absent("missing")

    async def test_a_deleted_stream_is_not_renewed(self) -> None:
        await self.create_for("a", 60)
        await self.fork("b", "a")
        await self.delete("a")
        await settled(self.storage.renew("a", self.now))
        await self.assert_hidden("a")
        self.later(60)
        await self.sweep()
        await self.assert_absent("a")

    async def test_no_operation_moves_expires_at(self) -> None:
        await self.create_for("a", None, T0 + 60)
        self.later(59)
        await self.append(data=b"x")
        await self.read(renew=True)
        await settled(self.storage.renew("a", self.now))
        await self.assert_ends_in(1)

    async def test_the_name_of_an_expired_stream_can_be_used_again(self) -> None:
        first = (await self.create_for("a", 60)).facts
        self.later(60)
        second = await self.create(config=JSON)
        self.assertEqual((second.new, second.tail), (True, 0))
        self.assertGreater(second.facts.incarnation, first.incarnation)
        await self.refused(OffsetGone, self.read(offset=Offset(first.incarnation, 0)))
        await self.refused(StreamNotFound, self.range(first, 0, 5))

    async def test_an_expired_stream_cannot_be_forked(self) -> None:
        await self.create_for("a", 60)
        self.later(60)
        error = await self.refused(StreamNotFound, self.fork("b", "a"))
        self.assertEqual(error.name, "a")

    async def test_expired_streams_are_swept_a_few_at_a_time(self) -> None:
        for number in range(7):
            await self.create_for(f"short-{number}", 60)
        await self.create_for("long", 61)
        await self.create("for ever")
        self.assertEqual(await self.sweep(), 0)
        self.later(60)
        self.assertEqual(await self.names(), ["for ever", "long"])
        self.assertEqual(await self.sweep(max_count=3), 7)
        self.assertEqual(await self.names(), ["for ever", "long"])

    async def test_a_renewed_stream_is_not_swept(self) -> None:
        await self.create_for("a", 60)
        self.later(59)
        await self.read(renew=True)
        self.later(59)
        self.assertEqual(await self.sweep(), 0)
        self.later(1)
        self.assertEqual(await self.sweep(), 1)
        await self.assert_absent()

    async def test_a_recreated_stream_is_not_swept_at_its_predecessors_deadline(self) -> None:
        await self.create_for("a", 60)
        await self.delete()
        await self.create(body=b"new")
        self.later(60)
        self.assertEqual((await self.sweep(), await self.content()), (0, b"new"))

    async def test_swept_streams_do_not_count_towards_the_limits(self) -> None:
        await self.take(total_bytes=10, streams=2)
        await self.create_for("a", 60)
        await self.create_for("b", 60)
        self.later(60)
        await self.sweep()
        await self.create("c", body=b"x" * 10)
        self.assertTrue((await self.create("d")).new)

    async def test_an_expired_source_stays_for_its_forks(self) -> None:
        for sweeping in (False, True):
            source, fork = f"source-{sweeping}", f"fork-{sweeping}"
            await self.create_for(source, None, self.now + 60)
            await self.create(fork, StreamConfig(None, Lifetime(ttl=1000), fork=Fork(source)), b" world")
            self.later(60)
            if sweeping:
                await self.sweep()
            await self.assert_hidden(source)
            self.assertEqual(await self.content(fork), b"hello world")
            await self.delete(fork)
            await self.sweep()
            await self.assert_absent(source)

    async def test_an_expired_fork_does_not_keep_its_deleted_source(self) -> None:
        await self.create("a", body=b"hello")
        await self.create("b", StreamConfig(None, Lifetime(ttl=60), fork=Fork("a")))
        await self.delete("a")
        await self.assert_hidden("a")
        self.later(60)
        await self.sweep()
        await self.assert_absent("a")
        await self.assert_absent("b")

    async def test_a_source_and_its_fork_expire_together(self) -> None:
        await self.create_for("a", None, T0 + 60)
        await self.fork("b", "a")
        await self.fork("c", "b")
        self.later(60)
        await self.sweep()
        for name in ("a", "b", "c"):
            await self.assert_absent(name)
            self.assertTrue((await self.create(name)).new)
