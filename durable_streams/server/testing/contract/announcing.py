"""Contract: announcements of commits."""

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
from .base import Contract, RecordingListener


class AnnouncementContract(Contract):
    """Tests that each commit is announced to the listener, after the change is visible."""

    async def assert_seen(self, listener: RecordingListener, name: str, what: Callable[[StreamStatus], bool]) -> None:
        """Assert that an announcement came when the stream's status satisfied a condition."""
        seen = await listener.sees(name, lambda look: isinstance(look, StreamStatus) and what(look))
        self.assertTrue(seen, f"heard of {listener.heard}")

    async def assert_seen_absent(self, listener: RecordingListener, name: str) -> None:
        """Assert that an announcement came when the stream did not exist any more."""
        seen = await listener.sees(name, lambda look: isinstance(look, (StreamNotFound, StreamGone)))
        self.assertTrue(seen, f"heard of {listener.heard}")

    async def test_a_creation_is_announced(self) -> None:
        listener = self.listen()
        await self.create(body=b"hello")
        await self.assert_seen(listener, "a", lambda status: status.tail == 5)

    async def test_an_append_is_announced(self) -> None:
        await self.create()
        listener = self.listen()
        for tail in (1, 2, 3):
            await self.append(data=b"x")
            await self.assert_seen(listener, "a", lambda status, tail=tail: status.tail == tail)  # type: ignore[misc]

    async def test_a_close_is_announced(self) -> None:
        for name, data in (("a", b""), ("b", b"last")):
            await self.create(name)
            listener = self.listen()
            await self.append(name, data, close=True)
            await self.assert_seen(listener, name, lambda status: status.closed)

    async def test_a_writers_append_is_announced(self) -> None:
        await self.create()
        listener = self.listen()
        await self.append(data=b"x", writer=Writer("w", 0, 0))
        await self.assert_seen(listener, "a", lambda status: status.tail == 1)

    async def test_a_deletion_is_announced(self) -> None:
        await self.create()
        listener = self.listen()
        await self.delete()
        await self.assert_seen_absent(listener, "a")

    async def test_the_deletion_of_a_source_is_announced(self) -> None:
        await self.create("a")
        await self.fork("b", "a")
        listener = self.listen()
        await self.delete("a")
        await self.assert_seen_absent(listener, "a")

    async def test_a_fork_is_announced_by_its_own_name(self) -> None:
        await self.create("a", body=b"hello")
        listener = self.listen()
        await self.fork("b", "a")
        await self.assert_seen(listener, "b", lambda status: status.tail == 5)
        await self.append("b", b"x")
        await self.assert_seen(listener, "b", lambda status: status.tail == 6)

    async def test_an_expiry_is_announced_when_the_stream_is_swept(self) -> None:
        for name in ("a", "b"):
            await self.create(name, StreamConfig("text/plain", Lifetime(ttl=60)))
        listener = self.listen()
        self.later(60)
        await self.sweep()
        await self.assert_seen_absent(listener, "a")
        self.assertIn("b", listener.heard)

    async def test_an_expiry_is_announced_when_an_operation_finds_it(self) -> None:
        await self.create(config=StreamConfig("text/plain", Lifetime(expires_at=T0 + 60)))
        listener = self.listen()
        self.later(60)
        await self.refused(StreamNotFound, self.status())
        await self.sweep()
        await self.assert_seen_absent(listener, "a")

    async def test_a_stream_created_under_an_expired_name_is_announced(self) -> None:
        await self.create(config=StreamConfig("text/plain", Lifetime(ttl=60)))
        listener = self.listen()
        self.later(60)
        await self.create(body=b"hello")
        await self.assert_seen(listener, "a", lambda status: status.tail == 5)

    async def test_only_the_last_registered_listener_is_notified(self) -> None:
        first = self.listen()
        second = self.listen()
        await self.create()
        await self.assert_seen(second, "a", lambda status: status.tail == 0)
        self.assertEqual(first.heard, [])
