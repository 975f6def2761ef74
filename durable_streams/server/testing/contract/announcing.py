"""What others hear of a commit."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import (
    StreamGone,
    StreamNotFound,
)
from ...model import (
    Lifetime,
    StreamConfig,
    StreamStatus,
    Writer,
)
from ..values import T0
from .base import Contract, Ear


class Announcing(Contract):
    """Every commit is announced to one listener, after it can be seen."""

    async def assert_seen(self, ear: Ear, name: str, what: Callable[[StreamStatus], bool]) -> None:
        """Expect an announcement at which a stream was like this."""
        seen = await ear.sees(name, lambda look: isinstance(look, StreamStatus) and what(look))
        self.assertTrue(seen, f"heard of {ear.heard}")

    async def assert_seen_off(self, ear: Ear, name: str) -> None:
        """Expect an announcement at which a stream was not there any more."""
        seen = await ear.sees(name, lambda look: isinstance(look, (StreamNotFound, StreamGone)))
        self.assertTrue(seen, f"heard of {ear.heard}")

    async def test_a_creation_is_announced(self) -> None:
        ear = self.listen()
        await self.create(body=b"hello")
        await self.assert_seen(ear, "a", lambda status: status.tail == 5)

    async def test_an_append_is_announced(self) -> None:
        await self.create()
        ear = self.listen()
        for tail in (1, 2, 3):
            await self.append(data=b"x")
            await self.assert_seen(ear, "a", lambda status, tail=tail: status.tail == tail)  # type: ignore[misc]

    async def test_a_close_is_announced(self) -> None:
        for name, data in (("a", b""), ("b", b"last")):
            await self.create(name)
            ear = self.listen()
            await self.append(name, data, close=True)
            await self.assert_seen(ear, name, lambda status: status.closed)

    async def test_a_writers_append_is_announced(self) -> None:
        await self.create()
        ear = self.listen()
        await self.append(data=b"x", writer=Writer("w", 0, 0))
        await self.assert_seen(ear, "a", lambda status: status.tail == 1)

    async def test_a_deletion_is_announced(self) -> None:
        await self.create()
        ear = self.listen()
        await self.delete()
        await self.assert_seen_off(ear, "a")

    async def test_the_deletion_of_a_source_is_announced(self) -> None:
        await self.create("a")
        await self.fork("b", "a")
        ear = self.listen()
        await self.delete("a")
        await self.assert_seen_off(ear, "a")

    async def test_a_fork_is_announced_by_its_own_name(self) -> None:
        await self.create("a", body=b"hello")
        ear = self.listen()
        await self.fork("b", "a")
        await self.assert_seen(ear, "b", lambda status: status.tail == 5)
        await self.append("b", b"x")
        await self.assert_seen(ear, "b", lambda status: status.tail == 6)

    async def test_expiry_is_announced_when_it_is_swept(self) -> None:
        for name in ("a", "b"):
            await self.create(name, StreamConfig("text/plain", Lifetime(ttl=60)))
        ear = self.listen()
        self.later(60)
        await self.sweep()
        await self.assert_seen_off(ear, "a")
        self.assertIn("b", ear.heard)

    async def test_expiry_is_announced_when_it_is_found(self) -> None:
        await self.create(config=StreamConfig("text/plain", Lifetime(expires_at=T0 + 60)))
        ear = self.listen()
        self.later(60)
        await self.refused(StreamNotFound, self.status())
        await self.sweep()
        await self.assert_seen_off(ear, "a")

    async def test_a_stream_in_the_place_of_an_expired_one_is_announced(self) -> None:
        await self.create(config=StreamConfig("text/plain", Lifetime(ttl=60)))
        ear = self.listen()
        self.later(60)
        await self.create(body=b"hello")
        await self.assert_seen(ear, "a", lambda status: status.tail == 5)

    async def test_only_the_last_listener_is_told(self) -> None:
        first = self.listen()
        second = self.listen()
        await self.create()
        await self.assert_seen(second, "a", lambda status: status.tail == 0)
        self.assertEqual(first.heard, [])
