"""Contract: the wall clock, for storages that use the caller's clocks."""

from __future__ import annotations

from ...model import (
    Lifetime,
    StreamConfig,
    StreamRestoration,
    Writer,
)
from ..values import T0, TEXT, settled
from .base import Contract


class WallClockContract(Contract):
    """Tests of :meth:`.IStorage.set_wall_offset`: TTLs use the steady clock, dates and Stream-Expires-At the other."""

    async def _expiring(self, name: str = "a", ttl: int | None = 60, expires_at: float | None = None) -> None:
        await self.create(name, StreamConfig("text/plain", Lifetime(ttl, expires_at)), b"hello")

    async def test_a_ttl_is_not_affected_when_the_wall_clock_is_set(self) -> None:
        await self._expiring("a", 60)
        self.storage.set_wall_offset(3600)
        await self._expiring("b", 60)
        for offset in (3600, 0, -3600):
            self.storage.set_wall_offset(offset)
            self.later(19)
            self.assertEqual(await self.sweep(), 0)
        self.later(3)
        await self.assert_absent("a")
        self.assertEqual(await self.sweep(), 1)
        await self.assert_absent("b")

    async def test_expires_at_follows_the_wall_clock_when_that_is_set(self) -> None:
        await self._expiring("a", None, T0 + 60)
        await self._expiring("b", None, T0 + 60)
        self.storage.set_wall_offset(-3600)
        self.later(100)
        self.assertEqual((await self.sweep(), await self.content("a")), (0, b"hello"))
        self.storage.set_wall_offset(0)
        await self.assert_absent("a")
        self.assertEqual(await self.sweep(), 1)

    async def test_times_of_streams_are_the_wall_clocks(self) -> None:
        self.storage.set_wall_offset(3600)
        await self.create(body=b"hello")
        self.storage.set_wall_offset(-3600)
        await self.append(data=b"more")
        status = await self.status()
        self.assertEqual((status.created_at, status.updated_at), (T0 + 3600, T0 - 3600))

    async def test_a_stream_recreated_after_the_wall_clock_was_set_back_has_a_greater_incarnation(self) -> None:
        before = (await self.create()).facts
        await self.delete()
        self.storage.set_wall_offset(-3600)
        after = (await self.create()).facts
        self.assertGreater((after.incarnation, after.id), (before.incarnation, before.id))

    async def test_the_times_of_a_record_are_of_the_wall_clock(self) -> None:
        self.storage.set_wall_offset(1000.0)
        await self.create(config=StreamConfig("text/plain", Lifetime(ttl=60)))
        self.later(1)
        await self.append(data=b"x", writer=Writer("w", 0, 0))
        self.later(1)
        await self.read(renew=True)
        record = await settled(self.storage.record("a", self.now))
        times = (record.created_at, record.updated_at, record.used_at, record.writers["w"].seen)
        self.assertEqual(times, (T0 + 1000, T0 + 1001, T0 + 1002, T0 + 1001))

    async def test_a_restored_ttl_is_renewed_and_counts_by_the_steady_clock(self) -> None:
        self.storage.set_wall_offset(500.0)
        await self.create("__ds/staged", StreamConfig("text/plain", Lifetime(ttl=3600)), b"x")
        restoration = StreamRestoration(TEXT, Lifetime(ttl=60), used_at=T0 + 500 - 20)
        await settled(self.storage.install("__ds/staged", "a", restoration, False, self.now))
        self.assertEqual((await settled(self.storage.record("a", self.now))).used_at, T0 + 480)
        self.later(39)
        await self.read(renew=True)
        self.later(59)
        self.assertEqual((await self.sweep(), await self.names()), (0, ["a"]))
        self.later(1)
        self.assertEqual((await self.sweep(), await self.names()), (1, []))
